//! A resolver that answers as its questions' names ask for: well, wrongly, late, not at all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// It runs until the test's process ends.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// `udp NAME` or `tcp NAME`, in the order of arrival.
    questions: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// Where questions about `loop…` go.
    back: Mutex<Option<SocketAddr>>,
}

/// What every name that is there resolves to.
pub(crate) const ADDRESS: [u8; 4] = [192, 0, 2, 77];

impl Resolver {
    pub(crate) fn start() -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                let (query, udp, seen) = (buffer[..length].to_vec(), udp.clone(), shared.clone());
                // One thread each: some answer late.
                std::thread::spawn(move || {
                    for answer in seen.answers(&query, "udp") {
                        udp.send_to(&answer, client).ok();
                    }
                });
            }
        });
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let seen = shared.clone();
                std::thread::spawn(move || seen.stream(stream));
            }
        });
        Self { address, seen }
    }

    /// How often it was asked about a name.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.seen.questions.lock().unwrap().iter().filter(|seen| *seen == what).count()
    }

    /// Everything it was asked.
    pub(crate) fn questions(&self) -> Vec<String> {
        self.seen.questions.lock().unwrap().clone()
    }

    /// The most questions that it was answering at a time.
    pub(crate) fn most_under_way(&self) -> usize {
        self.seen.most_under_way.load(Ordering::SeqCst)
    }

    /// Sends questions about `loop…` there.
    pub(crate) fn lead_back_to(&self, address: SocketAddr) {
        *self.seen.back.lock().unwrap() = Some(address);
    }
}

impl Seen {
    fn stream(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).ok()?;
            for answer in self.answers(&query, "tcp") {
                stream.write_all(&(answer.len() as u16).to_be_bytes()).ok()?;
                stream.write_all(&answer).ok()?;
            }
        }
    }

    fn answers(&self, query: &[u8], way: &str) -> Vec<Vec<u8>> {
        let Some((name, end)) = question(query) else { return Vec::new() };
        self.questions.lock().unwrap().push(format!("{way} {name}"));
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        let answers = self.made(&name, &query[..end], query, way);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answers
    }

    fn made(&self, name: &str, asked: &[u8], query: &[u8], way: &str) -> Vec<Vec<u8>> {
        let kind = u16::from_be_bytes([asked[asked.len() - 4], asked[asked.len() - 3]]);
        let good = |life: u32, count: u16| {
            let count = if kind == 1 { count } else { 0 };
            answer(asked, 0, count, life, false)
        };
        let first = name.split(['-', '.']).next().unwrap_or_default();
        match first {
            "silent" => Vec::new(),
            "slow" => {
                std::thread::sleep(Duration::from_millis(300));
                vec![good(60, 1)]
            }
            "none" => vec![nothing(asked)],
            "brief" => vec![good(1, 1)],
            "refused" => vec![answer(asked, 5, 0, 0, false)],
            "big" if way == "udp" => vec![answer(asked, 0, 0, 0, true)],
            "big" => vec![good(60, 120)],
            "medium" => vec![good(60, 50)],
            "spoof" => {
                let mut wrong_id = good(60, 1);
                wrong_id[0] ^= 0x55;
                let mut wrong_name = good(60, 1);
                wrong_name[13] ^= 1;
                let mut wrong_address = good(60, 1);
                *wrong_address.last_mut().unwrap() = 66;
                wrong_address[1] ^= 0x55;
                vec![wrong_id, wrong_name, wrong_address, good(60, 1)]
            }
            "guess" if way == "udp" => {
                let mut wrong = good(60, 1);
                wrong[0] ^= 0x55;
                vec![wrong; 40]
            }
            "old" if query[11] > 0 => vec![answer(asked, 1, 0, 0, false)],
            "loop" => self.round(query).into_iter().collect(),
            _ => vec![good(60, 1)],
        }
    }

    fn round(&self, query: &[u8]) -> Option<Vec<u8>> {
        let back = (*self.back.lock().unwrap())?;
        let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        socket.send_to(query, back).ok()?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }
}

/// The name asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name.trim_end_matches('.').to_owned(), at + 4));
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?));
        name.push('.');
        at += length;
    }
}

fn answer(asked: &[u8], rcode: u8, count: u16, life: u32, truncated: bool) -> Vec<u8> {
    let mut out = asked.to_vec();
    out[2] = 0x81 | u8::from(truncated) << 1;
    out[3] = 0x80 | rcode;
    out[6..12].copy_from_slice(&[(count >> 8) as u8, count as u8, 0, 0, 0, 0]);
    for _ in 0..count {
        out.extend([0xc0, 12, 0, 1, 0, 1]);
        out.extend(life.to_be_bytes());
        out.extend([0, 4]);
        out.extend(ADDRESS);
    }
    out
}

/// There is no such name; that holds for a minute.
fn nothing(asked: &[u8]) -> Vec<u8> {
    let mut out = answer(asked, 3, 0, 0, false);
    out[9] = 1;
    out.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
    for number in [1_u32, 60, 60, 60, 60] {
        out.extend(number.to_be_bytes());
    }
    out
}
