//! A connection that was accepted: what is spoken on it, and who serves it.
//!
//! Where configuration says that it is HTTP, or that nobody is to look into it, there is nothing to find out. Everywhere else the
//! client's first bytes tell; while they are awaited the upstream is dialed, since in some protocols it is the server that speaks
//! first. What was found out is remembered for the port, so that a server is disturbed only once by a connection on which nothing
//! will be said. There is no time-out in the path of anybody who speaks as everybody before.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use leno_core::client_hello;
use leno_core::detect::{Detected, LINE_BYTES_MAX, Verdict, detect};
use leno_core::route::Expected;
use leno_core::time::Duration;
use tokio::net::TcpStream;

use crate::alarm::Alarm;
use crate::buffer::ReadBuffer;
use crate::caller::{Caller, Remote};
use crate::config::CaptureMode;
use crate::h1;
use crate::h2;
use crate::io::Stream;
use crate::listen::Guard;
use crate::opaque::{self, Spoken};
use crate::telemetry::{Direction, bump};
use crate::worker::Worker;

/// On a port where HTTP was spoken before, a client may be silent for so long until the server is asked after all: it may be
/// another program by now. Only the first connection after such a change ever waits for it.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A client's connection before its first request.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The connection.
    pub(crate) stream: Rc<Stream>,
    /// What was read of it already.
    pub(crate) first: Vec<u8>,
    /// The other end.
    pub(crate) remote: Remote,
    /// Where it entered.
    pub(crate) caller: Caller,
    /// Its place in the gauges.
    pub(crate) guard: Guard,
}

/// Serves a connection that was just accepted.
pub(crate) fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, caller: Caller, guard: Guard) {
    let stream = Rc::new(Stream::Plain(stream));
    let arrival = Arrival { stream, first: Vec::new(), remote: Remote::new(peer), caller, guard };
    match worker.snapshot().expected(arrival.caller.entry()) {
        Expected::Http => h1::server::serve(worker, arrival),
        Expected::Opaque => worker.spawn(move |worker| opaque::serve(worker, arrival)),
        Expected::Anything => worker.spawn(move |worker| find_out(worker, arrival)),
    }
}

/// Serves a connection that was intercepted, by where the workload wanted to go.
pub(crate) fn captured(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, guard: Guard) {
    match original_destination(&stream) {
        Some(destination) if stream.local_addr().is_ok_and(|own| own != destination) => {
            let service = worker.snapshot().service_at(destination.ip()).cloned();
            serve(worker, stream, peer, Caller::Captured { service, destination }, guard);
        }
        // Whoever connects here without having been intercepted would be sent to us again, and again.
        _ => bump(&mut worker.telemetry().malformed, "not_captured"),
    }
}

/// Serves a connection from outside the mesh to the application beside us that was intercepted.
pub(crate) fn captured_inbound(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    mode: CaptureMode,
    guard: Guard,
) {
    let destination = match mode {
        CaptureMode::Redirect => original_destination(&stream),
        CaptureMode::Tproxy => stream.local_addr().ok(),
    };
    match (destination, worker.app_port) {
        (Some(destination), Some(port)) if destination.port() == port => {
            let source: Arc<str> = OUTSIDE.into();
            let pair = worker.telemetry().pair(Direction::Inbound, &source, &worker.own_name);
            serve(worker, stream, peer, Caller::Inbound { source, pair }, guard);
        }
        // Another port than the application's, or somebody who was not intercepted.
        _ => bump(&mut worker.telemetry().malformed, "not_captured"),
    }
}

/// The `source` of what comes from somebody who is no peer.
const OUTSIDE: &str = "outside";

/// Where an intercepted connection was going: the kernel's connection tracking remembers it.
fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original =
        if stream.local_addr().ok()?.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok()?.as_socket()
}

/// Finds out what is spoken and has it served.
async fn find_out(worker: Rc<Worker>, mut arrival: Arrival) {
    let port = arrival.caller.port();
    let known = port.as_ref().and_then(|port| worker.verdicts.borrow().get(port));
    // Rules about names want to know which host a TLS client asks for.
    let names = matches!(arrival.caller, Caller::Captured { service: None, .. })
        && worker.snapshot().egress.looks_at_hosts();
    if known == Some(Verdict::Opaque) && !names {
        return opaque::serve(worker, arrival).await;
    }
    let patience = (known == Some(Verdict::Http)).then_some(SECOND_LOOK);
    let Ok(mut detected) = first_words(&worker, &mut arrival, patience).await else { return };
    if detected == Detected::NeedMore {
        detected = match opaque::speculate(&worker, &mut arrival, names).await {
            Spoken::Opaque => return,
            Spoken::Http(version, first) => {
                arrival.first = first;
                version
            }
            Spoken::Unreachable(first) => {
                arrival.first = first;
                match first_words(&worker, &mut arrival, Some(SILENCE_MAX)).await {
                    Ok(detected) => detected,
                    Err(_) => return,
                }
            }
        };
    }
    let verdict = match detected {
        Detected::Http1 | Detected::Http2 => Verdict::Http,
        Detected::Tls | Detected::Opaque | Detected::NeedMore => Verdict::Opaque,
    };
    if let Some(port) = &port
        && detected != Detected::NeedMore
    {
        worker.verdicts.borrow_mut().learn(port, verdict);
    }
    match verdict {
        Verdict::Http => h1::server::serve(&worker, arrival),
        Verdict::Opaque if names && detected == Detected::Tls => {
            match wanted_host(&worker, &mut arrival).await {
                Some(host) => {
                    let authority = match &arrival.caller {
                        Caller::Captured { destination, .. } => format!("{host}:{}", destination.port()),
                        _ => host,
                    };
                    opaque::serve_for(worker, arrival, authority).await;
                }
                None => opaque::serve(worker, arrival).await,
            }
        }
        Verdict::Opaque => opaque::serve(worker, arrival).await,
    }
}

/// The host that a TLS client asks for (SNI), once all of its first message is there; what is none, or does not come in time,
/// asks for none.
async fn wanted_host(worker: &Rc<Worker>, arrival: &mut Arrival) -> Option<String> {
    let mut hello = client_hello::Reader::default();
    let mut buffer = ReadBuffer::beginning_with(worker.stock.clone(), std::mem::take(&mut arrival.first));
    let mut alarm = Alarm::new(worker.clock);
    let deadline = worker.now().after(HELLO_TIMEOUT);
    let mut looked_at = 0;
    let found = loop {
        let new = buffer.filled().get(looked_at..).unwrap_or(&[]);
        looked_at += new.len();
        match hello.take(new) {
            Ok(Some(hello)) => break hello.server_name,
            Ok(None) => {}
            // It means to be TLS and cannot be read: what it asks for is the name of no host, and is refused as such.
            Err(_) => break Some("?".to_owned()),
        }
        let read = std::future::poll_fn(|cx| {
            loop {
                ready!(arrival.stream.poll_read_ready(cx))?;
                match buffer.try_read(&arrival.stream, client_hello::STREAM_BYTES_MAX) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        });
        let more = tokio::select! {
            biased;
            read = read => read.is_ok_and(|bytes| bytes > 0),
            () = alarm.until(deadline) => false,
        };
        if !more {
            break None;
        }
    };
    arrival.first = buffer.take_all();
    found
}

/// How long the first message of a TLS client may take, from when it has begun.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of a service that cannot be reached may be silent for so long before it is told by a reset.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What the client has said, once that means anything or `patience` is over; without any, what it has said by now.
async fn first_words(
    worker: &Rc<Worker>,
    arrival: &mut Arrival,
    patience: Option<Duration>,
) -> io::Result<Detected> {
    let mut buffer = ReadBuffer::beginning_with(worker.stock.clone(), std::mem::take(&mut arrival.first));
    let mut alarm = Alarm::new(worker.clock);
    let deadline = patience.map(|patience| worker.now().after(patience));
    let stream = arrival.stream.clone();
    let detected = loop {
        let detected = detect(buffer.filled());
        if detected != Detected::NeedMore {
            break detected;
        }
        let mut read = std::future::poll_fn(|cx| {
            loop {
                ready!(stream.poll_read_ready(cx))?;
                match buffer.try_read(&stream, LINE_BYTES_MAX) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        });
        let read: Option<io::Result<usize>> = match deadline {
            Some(deadline) => tokio::select! {
                biased;
                read = &mut read => Some(read),
                () = alarm.until(deadline) => None,
            },
            None => {
                std::future::poll_fn(|cx| {
                    let read = std::pin::Pin::new(&mut read).poll(cx);
                    Poll::Ready(match read {
                        Poll::Ready(read) => Some(read),
                        Poll::Pending => None,
                    })
                })
                .await
            }
        };
        match read {
            Some(Ok(0)) if buffer.is_empty() && patience.is_some() => {
                // It came, said nothing and left: a check whether somebody listens.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Whoever ends before a word is whole does not speak HTTP.
            Some(Ok(0)) => break Detected::Opaque,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => break Detected::NeedMore,
        }
    };
    arrival.first = buffer.take_all();
    Ok(detected)
}

/// Serves a connection of HTTP/2.
pub(crate) fn serve_http2(worker: &Rc<Worker>, arrival: Arrival) {
    h2::server::serve(worker, arrival);
}
