//! A server with a habit.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it does with a connection.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// Says this first, then repeats what it hears.
    Greet(&'static [u8]),
    /// Repeats what it hears.
    Echo,
    /// Repeats everything once it has heard the end.
    AnswerAtEnd,
    /// Resets the connection after so many bytes.
    ResetAfter(usize),
    /// Answers one request of HTTP.
    Http,
    /// Does not listen at all.
    Gone,
}

/// How a connection ended, as the server saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    End,
    Reset,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ends: Mutex<Receiver<Seen>>,
}

impl Server {
    pub(crate) fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, ends) = channel();
        if !matches!(act, Act::Gone) {
            let counted = connections.clone();
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let tell = tell.clone();
                    std::thread::spawn(move || serve(stream, act, &tell));
                }
            });
        }
        Self { address, connections, ends: Mutex::new(ends) }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How the next connection to end did so.
    pub(crate) fn ended(&self, within: Duration) -> Seen {
        self.ends.lock().unwrap().recv_timeout(within).unwrap()
    }
}

fn serve(mut stream: TcpStream, act: Act, tell: &Sender<Seen>) {
    if let Act::Greet(words) = act {
        stream.write_all(words).ok();
    }
    let mut heard = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Seen::End,
            Ok(bytes) => match act {
                Act::AnswerAtEnd => heard.extend_from_slice(&buffer[..bytes]),
                Act::ResetAfter(after) => {
                    heard.extend_from_slice(&buffer[..bytes]);
                    if heard.len() >= after {
                        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
                        return;
                    }
                }
                Act::Http => {
                    heard.extend_from_slice(&buffer[..bytes]);
                    if heard.ends_with(b"\r\n\r\n") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok();
                        heard.clear();
                    }
                }
                Act::Echo | Act::Greet(_) => {
                    if stream.write_all(&buffer[..bytes]).is_err() {
                        break Seen::Reset;
                    }
                }
                Act::Gone => {}
            },
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Seen::Reset,
            Err(_) => break Seen::End,
        }
    };
    if matches!(act, Act::AnswerAtEnd) {
        stream.write_all(&heard).ok();
    }
    stream.shutdown(Shutdown::Write).ok();
    tell.send(end).ok();
}
