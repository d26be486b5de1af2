//! One raw HTTP/2 connection as a client: sends what it is told and says what came of it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::frame::{self, ACK, END_HEADERS, Frame, PREFACE, code, kind, setting};
use crate::hpack;
use crate::secure::Line;

/// For everything that a case waits for together. An endpoint that has nothing to wait for itself answers at once.
pub(crate) const CASE_MAX: Duration = Duration::from_secs(6);
/// What was seen last, for a failure's line.
const SEEN_MAX: usize = 6;

/// What a case found: nothing to say, a remark on a permitted but unusual answer, or a deviation.
pub(crate) type Outcome = Result<Option<&'static str>, String>;

/// The connection was ended as it must be, but nothing said why: GOAWAY is a SHOULD (RFC 9113, section 5.4.1).
pub(crate) const UNEXPLAINED: &str = "closed without GOAWAY";
/// Permitted at any time (section 5.4.2), and hard on the other streams.
pub(crate) const WIDER: &str = "a connection error where a stream error would do";

/// The connection was ended as it must be, for a reason that the specification has another code for.
pub(crate) const OTHER_CODE: &str = "ended with another code";

/// What the other end did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Frame(Frame),
    /// FIN or RST.
    Closed,
    /// Nothing until the time was over.
    Silence,
}

/// A connection.
pub(crate) struct Peer {
    stream: Line,
    read: Vec<u8>,
    end: Instant,
    seen: VecDeque<String>,
    /// What the other end has set.
    settings: Vec<(u16, u32)>,
}

impl Peer {
    pub(crate) fn connect(to: SocketAddr) -> std::io::Result<Self> {
        Self::connect_with(to, None)
    }

    /// The same over TLS, where there is a configuration for it.
    pub(crate) fn connect_with(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, CASE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CASE_MAX))?;
        Ok(Self::over(match tls {
            Some(config) => Line::secure(stream, config)?,
            None => Line::Plain(stream),
        }))
    }

    /// The other end of a connection: a server's.
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        Self::over(Line::Plain(stream))
    }

    fn over(stream: Line) -> Self {
        stream.socket().set_nodelay(true).unwrap();
        stream.socket().set_write_timeout(Some(CASE_MAX)).unwrap();
        let (seen, settings) = (VecDeque::new(), Vec::new());
        Self { stream, read: Vec::new(), end: Instant::now() + CASE_MAX, seen, settings }
    }

    /// Reads a client's preface; false when it sends something else.
    pub(crate) fn past_preface(&mut self) -> bool {
        let mut preface = vec![0; PREFACE.len()];
        self.stream.socket().set_read_timeout(Some(CASE_MAX)).unwrap();
        self.stream.read_exact(&mut preface).is_ok() && preface == PREFACE
    }

    /// More time than [`CASE_MAX`] from the start.
    pub(crate) fn within(&mut self, limit: Duration) {
        self.end = Instant::now() + limit;
    }

    /// Sends; whether the other end still took it is seen by what it answers.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Exchanges prefaces and acknowledges settings, both ways.
    pub(crate) fn shake_hands(&mut self) -> Result<(), String> {
        self.shake_hands_with(&[])
    }

    /// The same with settings of our own.
    pub(crate) fn shake_hands_with(&mut self, settings: &[(u16, u32)]) -> Result<(), String> {
        self.send(&[PREFACE, &frame::settings(settings)].concat());
        let (mut theirs, mut ours) = (false, false);
        while !(theirs && ours) {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind::SETTINGS && frame.has(ACK) => ours = true,
                Event::Frame(frame) if frame.kind == kind::SETTINGS => {
                    let values = frame.payload.chunks_exact(6).map(|six| {
                        let value = u32::from_be_bytes([six[2], six[3], six[4], six[5]]);
                        (u16::from_be_bytes([six[0], six[1]]), value)
                    });
                    self.settings.extend(values);
                    self.send(&frame::frame(kind::SETTINGS, ACK, 0, &[]));
                    theirs = true;
                }
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => return Err(self.unexpected("settings and their ACK")),
            }
        }
        Ok(())
    }

    /// What the other end has set, if it has.
    pub(crate) fn setting(&self, name: u16) -> Option<u32> {
        self.settings.iter().rev().find(|(set, _)| *set == name).map(|(_, value)| *value)
    }

    /// The window that the other end gives each stream at first.
    pub(crate) fn window_first(&self) -> usize {
        self.setting(setting::INITIAL_WINDOW_SIZE).map_or(frame::WINDOW, |bytes| bytes as usize)
    }

    /// The largest frame that the other end takes.
    pub(crate) fn frame_max(&self) -> usize {
        self.setting(setting::MAX_FRAME_SIZE).map_or(frame::FRAME_BYTES, |bytes| bytes as usize)
    }

    /// The next thing that the other end does.
    pub(crate) fn next(&mut self) -> Event {
        let event = self.receive();
        let words = match &event {
            Event::Frame(frame) => frame.words(),
            Event::Closed => "closed".to_owned(),
            Event::Silence => "silence".to_owned(),
        };
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(words);
        event
    }

    fn receive(&mut self) -> Event {
        let mut buffer = [0; 16_384];
        loop {
            if let Some(frame) = Frame::take(&mut self.read) {
                return Event::Frame(frame);
            }
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Silence;
            }
            self.stream.socket().set_read_timeout(Some(left)).ok();
            match self.stream.read(&mut buffer) {
                Ok(0) => return Event::Closed,
                Ok(bytes) => self.read.extend_from_slice(&buffer[..bytes]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Event::Silence,
                    ErrorKind::Interrupted => {}
                    _ => return Event::Closed,
                },
            }
        }
    }

    /// What comes within `quiet`, which may be shorter than what is left of the case's time.
    pub(crate) fn next_within(&mut self, quiet: Duration) -> Event {
        let end = self.end;
        self.end = end.min(Instant::now() + quiet);
        let event = self.next();
        self.end = end;
        event
    }

    /// The next frame of a type; what comes before it is read past.
    pub(crate) fn next_of(&mut self, kind: u8) -> Result<Frame, String> {
        loop {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind => return Ok(frame),
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => {
                    return Err(self.unexpected(&format!("a frame of type {kind:#x}")));
                }
            }
        }
    }

    /// GOAWAY with one of these codes, then the end of the connection.
    pub(crate) fn connection_error(&mut self, codes: &[u32]) -> Outcome {
        let mut told = None;
        loop {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind::GOAWAY => {
                    told.get_or_insert(codes.contains(&frame.code()));
                }
                Event::Frame(_) => {}
                Event::Closed => {
                    return Ok(match told {
                        None => Some(UNEXPLAINED),
                        Some(false) => Some(OTHER_CODE),
                        Some(true) => None,
                    });
                }
                Event::Silence if told.is_some() => return Err(self.unexpected("the end of the connection")),
                Event::Silence => return Err(self.unexpected(&format!("GOAWAY: {}", names(codes)))),
            }
        }
    }

    /// RST_STREAM with one of these codes, and a connection that lives on.
    pub(crate) fn stream_error(&mut self, stream: u32, codes: &[u32]) -> Outcome {
        let wanted = format!("RST_STREAM of {stream}: {}", names(codes));
        loop {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind::RST_STREAM && frame.stream == stream => {
                    if !codes.contains(&frame.code()) {
                        return Err(self.unexpected(&wanted));
                    }
                    return self.pong();
                }
                Event::Frame(frame) if frame.kind == kind::GOAWAY => {
                    let remark = if codes.contains(&frame.code()) { WIDER } else { OTHER_CODE };
                    return loop {
                        match self.next() {
                            Event::Frame(_) => {}
                            Event::Closed => break Ok(Some(remark)),
                            Event::Silence => break Err(self.unexpected(&wanted)),
                        }
                    };
                }
                Event::Frame(_) => {}
                Event::Closed => return Ok(Some(UNEXPLAINED)),
                Event::Silence => return Err(self.unexpected(&wanted)),
            }
        }
    }

    /// An error of the stream, or an answer that says that the request is bad: where HTTP has a word for what is wrong,
    /// a server may say it.
    pub(crate) fn refused(&mut self, stream: u32) -> Outcome {
        let wanted = format!("RST_STREAM of {stream}: PROTOCOL_ERROR, or an answer of 4xx");
        loop {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind::RST_STREAM && frame.code() == code::PROTOCOL => {
                    return self.pong();
                }
                Event::Frame(frame) if frame.kind == kind::HEADERS && frame.stream == stream => {
                    return match hpack::status(frame.block()) {
                        Some(400..=499) => self.pong(),
                        _ => Err(self.unexpected(&wanted)),
                    };
                }
                Event::Closed => return Ok(Some(UNEXPLAINED)),
                Event::Frame(frame) if frame.kind == kind::GOAWAY && frame.code() == code::PROTOCOL => {
                    return Ok(Some(WIDER));
                }
                Event::Frame(frame) if !matches!(frame.kind, kind::GOAWAY | kind::RST_STREAM) => {}
                _ => return Err(self.unexpected(&wanted)),
            }
        }
    }

    /// A whole answer with status 200 on a stream.
    pub(crate) fn answer(&mut self, stream: u32) -> Outcome {
        match self.status_of(stream)? {
            200 => Ok(None),
            _ => Err(self.unexpected("200")),
        }
    }

    /// Reads a whole answer; its status.
    pub(crate) fn status_of(&mut self, stream: u32) -> Result<u16, String> {
        let mut status = None;
        loop {
            let wanted = format!("an answer on {stream}");
            match self.next() {
                Event::Frame(frame) if frame.stream == stream => {
                    if frame.kind == kind::HEADERS && status.is_none() {
                        let found = hpack::status(frame.block()).filter(|_| frame.has(END_HEADERS));
                        let Some(found) = found else { return Err(self.unexpected(&wanted)) };
                        status = (found >= 200).then_some(found);
                    } else if frame.kind == kind::RST_STREAM {
                        return Err(self.unexpected(&wanted));
                    }
                    if let (true, Some(status)) = (frame.ends_stream(), status) {
                        return Ok(status);
                    }
                }
                Event::Frame(frame) if frame.kind == kind::GOAWAY && frame.code() != code::NO_ERROR => {
                    return Err(self.unexpected(&wanted));
                }
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => return Err(self.unexpected(&wanted)),
            }
        }
    }

    /// Sends a PING and waits for its answer: the connection lives, and what was sent before is done with.
    pub(crate) fn pong(&mut self) -> Outcome {
        const SAID: &[u8; 8] = b"conforms";
        self.send(&frame::ping(frame::NONE, SAID));
        self.pong_of(SAID)
    }

    /// Waits for the answer to a PING with these eight bytes.
    pub(crate) fn pong_of(&mut self, said: &[u8; 8]) -> Outcome {
        loop {
            match self.next() {
                Event::Frame(frame) if frame.kind == kind::PING => {
                    let good = frame.has(ACK) && frame.payload == said && frame.stream == 0;
                    return if good { Ok(None) } else { Err(self.unexpected("the PING's own bytes back")) };
                }
                Event::Frame(frame) if frame.kind == kind::GOAWAY && frame.code() != code::NO_ERROR => {
                    return Err(self.unexpected("an answered PING"));
                }
                Event::Frame(_) => {}
                Event::Closed | Event::Silence => return Err(self.unexpected("an answered PING")),
            }
        }
    }

    /// PING is answered, or the connection is ended: both is in order after a GOAWAY.
    pub(crate) fn lives_or_ends(&mut self) -> Outcome {
        self.send(&frame::ping(frame::NONE, b"stillon?"));
        loop {
            match self.next() {
                Event::Closed => return Ok(None),
                Event::Frame(frame) if frame.kind == kind::PING && frame.has(ACK) => return Ok(None),
                Event::Frame(_) => {}
                Event::Silence => return Err(self.unexpected("an answered PING or the end")),
            }
        }
    }

    /// A deviation: what should have come, and what came.
    pub(crate) fn unexpected(&self, wanted: &str) -> String {
        let seen: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        format!("expected {wanted}; got {}", seen.join(", "))
    }
}

fn names(codes: &[u32]) -> String {
    codes.iter().map(|code| code::name(*code)).collect::<Vec<_>>().join(" or ")
}
