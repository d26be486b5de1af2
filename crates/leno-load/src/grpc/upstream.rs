//! The service: answers each call with its own message and `grpc-status` 0. A call that is not what the client sends is
//! reset, which the client takes for an error.

use std::collections::VecDeque;
use std::net::TcpStream;

use super::{CONTENT_TYPE, MESSAGE_BYTES, Name, PATH, check, remembered};
use crate::h2::{self, Fields, Progress, Sending, Side, Wire};
use crate::listen::{Peer, Served};

/// One connection.
pub(crate) struct Serving {
    wire: Wire,
    calls: Calls,
}

struct Calls {
    open: Vec<Call>,
    /// Answers that wait for the connection to take more.
    waiting: VecDeque<Call>,
    first: bool,
}

/// A call whose message is not whole yet, or waits to be answered.
struct Call {
    stream: u32,
    message: [u8; MESSAGE_BYTES],
    got: usize,
    /// What is wrong with it.
    wrong: Option<String>,
}

impl Peer for Serving {
    fn new(stream: TcpStream) -> Self {
        let calls = Calls { open: Vec::new(), waiting: VecDeque::new(), first: true };
        Self { wire: Wire::server(stream), calls }
    }

    fn stream(&self) -> &TcpStream {
        &self.wire.stream
    }

    fn serve(&mut self, readable: bool, buffer: &mut [u8]) -> Result<Served, String> {
        if readable && self.wire.receive(buffer, &mut self.calls)? == Progress::Closed {
            return Ok(Served::Over);
        }
        self.wire.flush()?;
        Ok(Served::Open)
    }
}

impl Calls {
    fn ended(&mut self, at: usize, out: &mut Sending) {
        let mut call = self.open.swap_remove(at);
        if let Err(wrong) = check(&call.message[..call.got]) {
            call.wrong.get_or_insert(wrong);
        }
        if out.spend(MESSAGE_BYTES) {
            self.answer(&call, out);
        } else {
            self.waiting.push_back(call);
        }
    }

    fn answer(&mut self, call: &Call, out: &mut Sending) {
        if let Some(wrong) = &call.wrong {
            eprintln!("leno-load: a wrong call: {wrong}");
            out.frame(h2::RST_STREAM, 0, call.stream, &INTERNAL_ERROR.to_be_bytes());
        } else if std::mem::take(&mut self.first) {
            let (mut head, mut trailers) = (vec![0x88], Vec::new());
            remembered(Name::Known(31), CONTENT_TYPE, &mut head);
            remembered(Name::New(b"grpc-status"), b"0", &mut trailers);
            out.frame(h2::HEADERS, h2::END_HEADERS, call.stream, &head);
            out.frame(h2::DATA, 0, call.stream, &call.message);
            out.frame(h2::HEADERS, END, call.stream, &trailers);
        } else {
            out.frame(h2::HEADERS, h2::END_HEADERS, call.stream, HEAD);
            out.frame(h2::DATA, 0, call.stream, &call.message);
            out.frame(h2::HEADERS, END, call.stream, TRAILERS);
        }
    }
}

impl Side for Calls {
    #[inline]
    fn head(&mut self, out: &mut Sending, stream: u32, fields: &Fields, end: bool) -> Result<(), String> {
        if let Some(at) = self.open.iter().position(|call| call.stream == stream) {
            // Trailers: nothing in them matters.
            self.ended(at, out);
            return Ok(());
        }
        let expected: [(&[u8], &[u8]); 4] =
            [(b":method", b"POST"), (b":path", PATH), (b"content-type", CONTENT_TYPE), (b"te", b"trailers")];
        let wrong = expected.iter().find(|(name, value)| fields.get(name) != Some(value));
        let wrong = wrong.map(|(name, _)| {
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
            format!("{} is {}", text(Some(name)), text(fields.get(name)))
        });
        self.open.push(Call { stream, message: [0; MESSAGE_BYTES], got: 0, wrong });
        if end {
            self.ended(self.open.len() - 1, out);
        }
        Ok(())
    }

    #[inline]
    fn data(&mut self, out: &mut Sending, stream: u32, bytes: &[u8], end: bool) -> Result<(), String> {
        // One that was reset may still have had a piece on its way.
        let Some(at) = self.open.iter().position(|call| call.stream == stream) else { return Ok(()) };
        let call = &mut self.open[at];
        match call.message.get_mut(call.got..call.got + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                call.got += bytes.len();
            }
            None => call.wrong = Some("a message that is too long".into()),
        }
        if end {
            self.ended(at, out);
        }
        Ok(())
    }

    fn reset(&mut self, stream: u32, _: u32) -> Result<(), String> {
        self.open.retain(|call| call.stream != stream);
        self.waiting.retain(|call| call.stream != stream);
        Ok(())
    }

    fn credit(&mut self, out: &mut Sending) -> Result<(), String> {
        while let Some(call) = self.waiting.pop_front() {
            if !out.spend(MESSAGE_BYTES) {
                self.waiting.push_front(call);
                break;
            }
            self.answer(&call, out);
        }
        Ok(())
    }
}

const END: u8 = h2::END_HEADERS | h2::END_STREAM;
const INTERNAL_ERROR: u32 = 2;
/// 200 and the content type, remembered before the status.
const HEAD: &[u8] = &[0x88, 0xbf];
/// The status, the youngest of what is remembered.
const TRAILERS: &[u8] = &[0xbe];
