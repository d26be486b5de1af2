//! The failing application in HTTP/2, frame by frame: what a server says last, and up to which byte, is what proves or does
//! not prove that it saw nothing of a request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to the next request, once. What breaks off ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// So many bytes of the connection are read from its very beginning.
    Start(usize),
    /// So many bytes of the request are read.
    Request(usize),
    /// It is done, and so many bytes of the answer are sent.
    Response(usize),
    /// It is not done: so many bytes of a RST_STREAM with this code are sent. A whole one leaves the connection as it is.
    Reset(u32, usize),
    /// It is not done: so many bytes of a GOAWAY are sent, which counts the request among those not looked at or, if `seen`,
    /// among those that may have been.
    Leave { seen: bool, bytes: usize },
}

/// RFC 9113, section 7.
pub(crate) const REFUSED_STREAM: u32 = 7;
/// Bytes of the two frames that say that a request is not answered.
pub(crate) const RESET_BYTES: usize = 13;
pub(crate) const LEAVE_BYTES: usize = 17;

#[derive(Debug, Default)]
struct Ledger {
    fault: Option<Fault>,
    gently: bool,
    fresh: bool,
    leaves_after: Option<u32>,
    effects: u32,
    first: usize,
    whole: usize,
}

/// Several addresses of one application.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) addresses: Vec<SocketAddr>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Origin {
    pub(crate) fn start(places: usize) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
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
        let addresses = (0..places).map(listen).collect();
        Self { addresses, ledger }
    }

    /// What happens to the next request; `None`: it is answered.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        self.ledger.lock().unwrap().fault = fault;
    }

    /// Connections are closed from now on, not reset.
    pub(crate) fn close_gently(&self) {
        self.ledger.lock().unwrap().gently = true;
    }

    /// Connections take one request each from now on, and say so with its answer.
    pub(crate) fn one_request_each(&self) {
        self.ledger.lock().unwrap().fresh = true;
    }

    /// Each connection answers so many requests from now on, says that it looks at no further one, and does not.
    pub(crate) fn leave_after(&self, requests: u32) {
        self.ledger.lock().unwrap().leaves_after = Some(requests);
    }

    /// Whether somebody has met the fault.
    pub(crate) fn is_met(&self) -> bool {
        self.ledger.lock().unwrap().fault.is_none()
    }

    /// Requests done since somebody last asked.
    pub(crate) fn take_effects(&self) -> u32 {
        std::mem::take(&mut self.ledger.lock().unwrap().effects)
    }

    /// Bytes up to the end of the client's SETTINGS, and of the last whole request.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let ledger = self.ledger.lock().unwrap();
        (ledger.first, ledger.whole)
    }
}

/// Types and flags of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `200` and its fields as literals (RFC 7541), and a body.
pub(crate) fn answer(stream: u32) -> Vec<u8> {
    let block = b"\x88\x00\x0econtent-length\x015\x00\x08x-origin\x03yes";
    [frame(HEADERS, END_HEADERS, stream, block), frame(DATA, END_STREAM, stream, b"hello")].concat()
}

/// The part of an answer without which there is none.
pub(crate) fn answer_head_bytes() -> usize {
    answer(1).len() - HEAD_BYTES - "hello".len()
}

/// Bytes that are read one after the other until there may be no more.
struct Input {
    stream: TcpStream,
    left: usize,
    taken: usize,
}

impl Input {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut read = vec![0; bytes.min(self.left)];
        self.stream.read_exact(&mut read).ok()?;
        self.left -= read.len();
        self.taken += read.len();
        (read.len() == bytes).then_some(read)
    }

    /// Type, flags and stream of the next frame; its payload is read over.
    fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.take(HEAD_BYTES)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, self.take(length)?))
    }

    /// The type of the next frame, which may not be counted yet.
    fn next_kind(&self) -> Option<u8> {
        let mut head = [0; 4];
        loop {
            match self.stream.peek(&mut head) {
                Ok(4) => return Some(head[3]),
                Ok(1..) => thread::sleep(Duration::from_micros(100)),
                Ok(0) | Err(_) => return None,
            }
        }
    }
}

fn serve(stream: TcpStream, ledger: &Mutex<Ledger>) {
    stream.set_nodelay(true).ok();
    let mut input = Input { stream, left: usize::MAX, taken: 0 };
    let gently = converse(&mut input, ledger);
    if !gently.unwrap_or(true) {
        socket2::SockRef::from(&input.stream).set_linger(Some(Duration::ZERO)).ok();
    }
}

/// Serves a connection until it ends; whether it ends gently.
fn converse(input: &mut Input, ledger: &Mutex<Ledger>) -> Option<bool> {
    // Whoever sends the first byte meets the fault.
    input.stream.peek(&mut [0]).ok().filter(|bytes| *bytes > 0)?;
    {
        let mut ledger = ledger.lock().unwrap();
        if let Some(Fault::Start(bytes)) = ledger.fault {
            ledger.fault = None;
            input.left = bytes;
        }
    }
    let gently = || Some(ledger.lock().unwrap().gently);
    // The client waits for our SETTINGS: until they are sent nothing of a request can have come.
    if input.take(PREFACE_BYTES).and_then(|_| input.frame()).is_none() {
        return gently();
    }
    ledger.lock().unwrap().first = input.taken;
    input.stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    let (mut answered, mut left_at, mut open, mut fault) = (0, None, Vec::new(), None);
    loop {
        if open.is_empty() && left_at.is_none() && input.next_kind()? == HEADERS {
            fault = ledger.lock().unwrap().fault.take();
            if let Some(Fault::Request(bytes)) = fault {
                input.left = bytes;
            }
            input.taken = 0;
        }
        let Some((kind, flags, stream, payload)) = input.frame() else { return gently() };
        match kind {
            SETTINGS if flags & ACK == 0 => input.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).ok()?,
            PING if flags & ACK == 0 => input.stream.write_all(&frame(PING, ACK, 0, &payload)).ok()?,
            // Of what came after the last one it was said that nobody looks at it.
            HEADERS if left_at.is_none_or(|last| stream <= last) => open.push(stream),
            _ => {}
        }
        let ends = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        let Some(at) = open.iter().position(|it| *it == stream).filter(|_| ends) else { continue };
        open.swap_remove(at);
        let leave = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
        let (last_words, bytes) = match fault {
            None | Some(Fault::Start(_)) => {
                let mut words = answer(stream);
                let mut ledger = ledger.lock().unwrap();
                (ledger.effects, ledger.whole, answered) = (ledger.effects + 1, input.taken, answered + 1);
                let leaves = ledger.leaves_after.is_some_and(|after| answered >= after);
                if left_at.is_none() && (ledger.fresh || leaves) {
                    let last = open.iter().copied().fold(stream, u32::max);
                    words.extend(leave(last));
                    left_at = Some(last);
                }
                drop(ledger);
                input.stream.write_all(&words).ok()?;
                if left_at.is_some() {
                    input.stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
                }
                continue;
            }
            // The request was shorter than that.
            Some(Fault::Request(_)) => {
                ledger.lock().unwrap().effects += 1;
                input.stream.write_all(&answer(stream)).ok()?;
                input.left = usize::MAX;
                continue;
            }
            Some(Fault::Response(bytes)) => {
                ledger.lock().unwrap().effects += 1;
                (answer(stream), bytes)
            }
            Some(Fault::Reset(code, bytes)) => (frame(RST_STREAM, 0, stream, &code.to_be_bytes()), bytes),
            Some(Fault::Leave { seen, bytes }) => {
                (leave(if seen { stream } else { stream.saturating_sub(2) }), bytes)
            }
        };
        input.stream.write_all(&last_words[..bytes]).ok();
        if matches!(fault, Some(Fault::Reset(_, RESET_BYTES))) {
            continue;
        }
        if bytes > 0 {
            // What was written has to leave before the reset overtakes it.
            thread::sleep(Duration::from_millis(1));
        }
        return gently();
    }
}
