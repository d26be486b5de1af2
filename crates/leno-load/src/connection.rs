//! One connection and the request on it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::answer::Answer;

/// A connection; when busy, with the one request that is under way on it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// When the request under way was due or sent, in ns since the run's start; `None`: free.
    pub(crate) since: Option<u64>,
    /// Which request, and how much of it is sent.
    request: usize,
    sent: usize,
    answer: Answer,
}

/// How far a request got.
#[derive(PartialEq, Eq)]
pub(crate) enum Progress {
    /// More has to come.
    Waiting,
    /// The answer is complete.
    Answered,
    /// The peer closed after a complete answer.
    Closed,
}

impl Connection {
    /// Connects and has one answer, blocking: what keeps a connection does not measure how it began.
    pub(crate) fn open(to: SocketAddrV4, request: &[u8], body: &[u8]) -> Result<Self, String> {
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)
            .map_err(|error| format!("connect to {to}: {error}"))?;
        let setup = |result: std::io::Result<()>| result.map_err(|error| error.to_string());
        setup(stream.set_nodelay(true))?;
        setup(stream.set_read_timeout(Some(PATIENCE)))?;
        setup(stream.write_all(request))?;
        let mut answer = Answer::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let got = stream.read(&mut buffer).map_err(|error| format!("first answer: {error}"))?;
            if got == 0 {
                return Err("closed within the first answer".into());
            }
            if answer.take(&buffer[..got], body)? {
                break;
            }
        }
        setup(stream.set_nonblocking(true))?;
        Ok(Self { stream, since: None, request: 0, sent: 0, answer })
    }

    /// Begins to connect.
    pub(crate) fn dial(to: SocketAddrV4) -> Result<Self, String> {
        Ok(Self { stream: dial(to)?, since: None, request: 0, sent: 0, answer: Answer::new() })
    }

    /// Sends as much of a request as goes.
    #[inline]
    pub(crate) fn send(&mut self, which: usize, requests: &[Vec<u8>], since: u64) -> Result<(), String> {
        self.request = which;
        self.sent = 0;
        self.since = Some(since);
        self.send_rest(requests)
    }

    /// Goes on when the socket takes more.
    #[inline]
    pub(crate) fn send_rest(&mut self, requests: &[Vec<u8>]) -> Result<(), String> {
        let request = &requests[self.request];
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        Ok(())
    }

    /// Reads all that is there. After `Answered` the socket may hold its end already.
    #[inline]
    pub(crate) fn receive(&mut self, buffer: &mut [u8], body: &[u8]) -> Result<Progress, String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.since.is_none() => return Ok(Progress::Closed),
                Ok(0) => return Err("closed within an answer".into()),
                Ok(_) if self.since.is_none() => return Err("an answer that nobody asked for".into()),
                Ok(count) => {
                    if self.answer.take(&buffer[..count], body)? {
                        return Ok(Progress::Answered);
                    }
                    // With edges, only a read that did not fill the buffer says that the socket is empty.
                    if count < buffer.len() {
                        return Ok(Progress::Waiting);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
        }
    }
}

/// Begins to connect a socket that does not block.
pub(crate) fn dial(to: SocketAddrV4) -> Result<TcpStream, String> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|error| format!("socket: {error}"))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(format!("connect to {to}: {error}")),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// How long a first answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
