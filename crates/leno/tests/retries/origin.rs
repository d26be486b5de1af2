//! An application that fails as it is told to, and keeps a ledger of what it did.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to the next request, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: it is answered.
    #[default]
    None,
    /// So many bytes of it are read, then the connection is reset.
    Request(usize),
    /// It is done, so many bytes of the answer are sent, then the connection is reset.
    Response(usize),
    /// It is done and answered with this head and an empty body.
    Answer(u16, String),
    /// It is done, and the answer comes after this long.
    Late(Duration),
}

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Which of the origin's addresses it came to.
    pub(crate) place: usize,
}

#[derive(Debug, Default)]
struct Ledger {
    faults: Vec<Fault>,
    /// Connections are closed where they else are reset.
    gently: bool,
    /// How often each path was done.
    effects: BTreeMap<String, u32>,
    seen: Vec<Seen>,
}

/// Several addresses of one application.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) addresses: Vec<SocketAddr>,
    ledger: Arc<Mutex<Ledger>>,
}

pub(crate) const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-origin: yes\r\n\r\nhello";

impl Origin {
    pub(crate) fn start(places: usize) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let listen = |place: usize| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let ledger = ledger.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let ledger = ledger.clone();
                    thread::spawn(move || serve(stream.unwrap(), place, &ledger));
                }
            });
            address
        };
        let addresses = (0..places).map(listen).collect();
        Self { addresses, ledger }
    }

    /// What happens to the next requests, in order.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.ledger.lock().unwrap().faults = faults.iter().rev().cloned().collect();
    }

    /// Connections are closed from now on, not reset.
    pub(crate) fn close_gently(&self) {
        self.ledger.lock().unwrap().gently = true;
    }

    pub(crate) fn is_gentle(&self) -> bool {
        self.ledger.lock().unwrap().gently
    }

    /// Faults that nobody has met.
    pub(crate) fn unmet(&self) -> usize {
        self.ledger.lock().unwrap().faults.len()
    }

    /// How often `path` was done.
    pub(crate) fn effects(&self, path: &str) -> u32 {
        self.ledger.lock().unwrap().effects.get(path).copied().unwrap_or_default()
    }

    /// Every request that arrived whole, since somebody last asked.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.ledger.lock().unwrap().seen)
    }
}

fn serve(mut stream: TcpStream, place: usize, ledger: &Mutex<Ledger>) {
    stream.set_nodelay(true).ok();
    loop {
        // Whoever sends the next byte meets the next fault.
        match stream.peek(&mut [0]) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let (fault, gently) = {
            let mut ledger = ledger.lock().unwrap();
            (ledger.faults.pop().unwrap_or_default(), ledger.gently)
        };
        let limit = if let Fault::Request(bytes) = fault { bytes } else { usize::MAX };
        let Some(seen) = read_request(&mut stream, limit) else {
            return end(&stream, gently);
        };
        let path = seen.head.split(' ').nth(1).unwrap_or_default().to_owned();
        {
            let mut ledger = ledger.lock().unwrap();
            *ledger.effects.entry(path).or_default() += 1;
            ledger.seen.push(Seen { place, ..seen });
        }
        let sent = match fault {
            Fault::None | Fault::Request(_) => stream.write_all(ANSWER.as_bytes()),
            Fault::Response(bytes) => {
                stream.write_all(&ANSWER.as_bytes()[..bytes]).ok();
                if bytes > 0 {
                    // What was written has to leave before the reset overtakes it.
                    thread::sleep(Duration::from_millis(1));
                }
                return end(&stream, gently);
            }
            Fault::Answer(status, fields) => {
                write!(stream, "HTTP/1.1 {status} So\r\ncontent-length: 0\r\n{fields}\r\n")
            }
            Fault::Late(wait) => {
                thread::sleep(wait);
                stream.write_all(ANSWER.as_bytes())
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one request, but no more than `limit` bytes; `None` when it is not whole.
fn read_request(stream: &mut TcpStream, limit: usize) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    let mut next = |bytes: &mut Vec<u8>| {
        if bytes.len() >= limit {
            return false;
        }
        match stream.read(&mut byte) {
            Ok(1) => {
                bytes.push(byte[0]);
                true
            }
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    };
    while !bytes.ends_with(b"\r\n\r\n") {
        if !next(&mut bytes) {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let mut body = Vec::new();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length: usize = rest.split("\r\n").next()?.trim().parse().ok()?;
        let whole = bytes.len() + length;
        while bytes.len() < whole {
            if !next(&mut bytes) {
                return None;
            }
        }
        body = bytes[whole - length..].to_vec();
    } else if head.contains("transfer-encoding: chunked") {
        let start = bytes.len();
        while !bytes[start..].ends_with(b"0\r\n\r\n") {
            if !next(&mut bytes) {
                return None;
            }
        }
        body = bytes[start..].to_vec();
    }
    Some(Seen { head: String::from_utf8_lossy(&bytes).into_owned(), body, place: 0 })
}

fn end(stream: &TcpStream, gently: bool) {
    if gently {
        return;
    }
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}
