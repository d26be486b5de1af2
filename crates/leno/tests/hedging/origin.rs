//! An application of which one answer of fifty takes long, that keeps a ledger of what it did, and notices who goes away.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What most answers take.
pub(crate) const USUAL: Duration = Duration::from_millis(2);
/// And one of [`SLOW_OF`].
pub(crate) const SLOW: Duration = Duration::from_millis(200);
const SLOW_OF: u64 = 50;

#[derive(Debug)]
pub(crate) struct Ledger {
    /// A generator of its own, so that every run is slow in the same places.
    state: u64,
    pub(crate) effects: BTreeMap<String, usize>,
    pub(crate) bodies: BTreeMap<String, Vec<String>>,
    pub(crate) requests: usize,
    pub(crate) cancelled: usize,
    all_take: Option<Duration>,
}

/// Several addresses of one application.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Mutex<Self>> {
        let (effects, bodies) = (BTreeMap::new(), BTreeMap::new());
        let ledger = Self { state: 7, effects, bodies, requests: 0, cancelled: 0, all_take: None };
        Arc::new(Mutex::new(ledger))
    }

    /// A request arrived whole; how long it takes.
    pub(crate) fn take(&mut self, path: &str, body: &str) -> Duration {
        *self.effects.entry(path.to_owned()).or_default() += 1;
        if !body.is_empty() {
            self.bodies.entry(path.to_owned()).or_default().push(body.to_owned());
        }
        self.requests += 1;
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let slow = (self.state >> 33).is_multiple_of(SLOW_OF);
        self.all_take.unwrap_or(if slow { SLOW } else { USUAL })
    }
}

impl Origin {
    pub(crate) fn start(places: usize) -> Self {
        let ledger = Ledger::new();
        let listen = |_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let ledger = ledger.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let ledger = ledger.clone();
                    thread::spawn(move || serve(stream.unwrap(), &ledger));
                }
            });
            address
        };
        Self { addresses: (0..places).map(listen).collect(), ledger }
    }

    pub(crate) fn requests(&self) -> usize {
        self.ledger.lock().unwrap().requests
    }

    /// Requests whose sender went away before they were answered.
    pub(crate) fn cancelled(&self) -> usize {
        self.ledger.lock().unwrap().cancelled
    }

    pub(crate) fn effects(&self, path: &str) -> usize {
        self.ledger.lock().unwrap().effects.get(path).copied().unwrap_or_default()
    }

    /// How often the path was done that was done most often.
    pub(crate) fn most_effects(&self, prefix: &str) -> usize {
        let ledger = self.ledger.lock().unwrap();
        let effects = ledger.effects.iter().filter(|(path, _)| path.starts_with(prefix));
        effects.map(|(_, effects)| *effects).max().unwrap_or_default()
    }

    /// True when every request came with this body.
    pub(crate) fn bodies_of(&self, prefix: &str, body: &str) -> bool {
        let ledger = self.ledger.lock().unwrap();
        let mut bodies = ledger.bodies.iter().filter(|(path, _)| path.starts_with(prefix));
        bodies
            .all(|(path, bodies)| bodies.iter().all(|it| it == body) && bodies.len() == ledger.effects[path])
    }

    /// Every answer takes so long from now on.
    pub(crate) fn all_take(&self, time: Duration) {
        self.ledger.lock().unwrap().all_take = Some(time);
    }
}

fn serve(mut stream: TcpStream, ledger: &Mutex<Ledger>) {
    stream.set_nodelay(true).ok();
    loop {
        let Some((path, body)) = read_request(&mut stream) else { return };
        let time = ledger.lock().unwrap().take(&path, &body);
        if is_left(&stream, time) {
            ledger.lock().unwrap().cancelled += 1;
            return;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
            return;
        }
    }
}

/// Works for so long; true when the other end goes away meanwhile.
fn is_left(stream: &TcpStream, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            stream.set_read_timeout(None).ok();
            return false;
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        match stream.peek(&mut [0]) {
            Ok(0) => return true,
            Ok(_) => panic!("the next request comes before the answer"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<usize>().unwrap()
            });
            if bytes.len() >= end + 4 + length {
                let path = String::from_utf8_lossy(&bytes[..end]).split(' ').nth(1)?.to_owned();
                return Some((path, String::from_utf8_lossy(&bytes[end + 4..]).into_owned()));
            }
        }
        match stream.read(&mut piece) {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            Ok(0) | Err(_) => return None,
        }
    }
}
