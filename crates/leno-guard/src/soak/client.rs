//! Clients that check every byte, and some that leave in the middle of it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use leno_core::rng::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::script::{Bodies, Script};
use super::tally::Tally;
use super::wire::{Head, Input, chunked};

/// How long one answer may take; longer is a hang.
const HANG: Duration = Duration::from_secs(10);
/// Requests that a client sends ahead.
const AHEAD: usize = 4;
/// One in so many requests is given up in the middle.
const ABORT_ONE_IN: u64 = 25;
/// One in so many is sent with others ahead of its answer.
const AHEAD_ONE_IN: u64 = 50;

/// What clients share.
pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) entry: SocketAddr,
    pub(super) stop: &'static AtomicBool,
    pub(super) tally: &'static Tally,
    pub(super) bodies: Rc<Bodies>,
}

/// Makes requests until it is told to stop.
pub(super) async fn run(shared: Rc<Shared>, mut rng: Rng) {
    let mut connection = None;
    while !shared.stop.load(Relaxed) {
        let open = match connection.take() {
            Some(open) => open,
            None => match tokio::time::timeout(HANG, Connection::open(shared.entry)).await {
                Ok(Ok(open)) => open,
                failed => {
                    shared
                        .tally
                        .forbidden("no connection", || format!("{}: {:?}", shared.name, failed.err()));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        connection = if rng.one_in(ABORT_ONE_IN) {
            let script = Script::random(&mut rng);
            // Whether it got as far as it wanted does not matter.
            let _ = tokio::time::timeout(HANG, abort(&shared, open, &script, &mut rng)).await;
            shared.tally.aborted();
            None
        } else if rng.one_in(AHEAD_ONE_IN) {
            ahead(&shared, open, &mut rng).await
        } else {
            one(&shared, open, Script::random(&mut rng)).await
        };
    }
}

/// Waits until requests are answered: the configuration may still be on its way.
pub(super) fn await_answer(name: &'static str, entry: SocketAddr, most: Duration) -> Result<(), String> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let tally: &'static Tally = Box::leak(Box::default());
    let bodies = Rc::new(Bodies::new());
    let shared = Shared { name, entry, stop: &NEVER, tally, bodies };
    let mut rng = Rng::new(0);
    runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + most;
        while tokio::time::Instant::now() < deadline {
            if let Ok(connection) = Connection::open(entry).await {
                one(&shared, connection, Script::small(&mut rng)).await;
            }
            if tally.read().right > 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{name} does not answer: {}", tally.read().lines().join("; ")))
    })
}

struct Connection {
    input: Input<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Connection {
    async fn open(entry: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(entry).await?;
        stream.set_nodelay(true)?;
        let (input, output) = stream.into_split();
        Ok(Self { input: Input::new(input), output })
    }
}

/// One request and its answer; the connection, if it can be used again.
async fn one(shared: &Shared, mut connection: Connection, script: Script) -> Option<Connection> {
    let request = bytes(shared, &script);
    let Connection { input, output } = &mut connection;
    let exchange = async {
        let mut answered = std::pin::pin!(receive(shared, input, &script));
        tokio::select! {
            biased;
            // An answer that comes before the request is out ends the connection.
            seen = &mut answered => (seen, false),
            sent = output.write_all(&request) => (answered.await, sent.is_ok()),
        }
    };
    match tokio::time::timeout(HANG, exchange).await {
        Ok((seen, sent)) => {
            let reusable = matches!(&seen, Seen::Right { closes: false }) && sent;
            judge(shared, &script, seen);
            reusable.then_some(connection)
        }
        Err(_) => {
            shared.tally.forbidden("hang", || describe(shared, &script));
            None
        }
    }
}

/// Several requests at once: their answers must come in their order.
async fn ahead(shared: &Shared, mut connection: Connection, rng: &mut Rng) -> Option<Connection> {
    let scripts: Vec<Script> = (0..AHEAD).map(|_| Script::small(rng)).collect();
    let requests: Vec<u8> = scripts.iter().flat_map(|script| bytes(shared, script)).collect();
    if connection.output.write_all(&requests).await.is_err() {
        let first = scripts.first()?;
        shared.tally.forbidden("cut", || format!("{} while sending ahead", describe(shared, first)));
        return None;
    }
    for script in &scripts {
        match tokio::time::timeout(HANG, receive(shared, &mut connection.input, script)).await {
            Ok(Seen::Right { closes: false }) => shared.tally.right(),
            // The proxy may close after any answer, which leaves the others unanswered.
            Ok(Seen::Right { closes: true }) => {
                shared.tally.right();
                return None;
            }
            Ok(seen) => {
                judge(shared, script, seen);
                return None;
            }
            Err(_) => {
                shared.tally.forbidden("hang", || describe(shared, script));
                return None;
            }
        }
    }
    Some(connection)
}

/// Leaves within the request, or within the answer; with an end or with a reset.
async fn abort(
    shared: &Shared,
    mut connection: Connection,
    script: &Script,
    rng: &mut Rng,
) -> io::Result<()> {
    if rng.one_in(2) {
        let stream: &TcpStream = connection.output.as_ref();
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    }
    let request = bytes(shared, script);
    if rng.one_in(2) {
        let part = rng.below(request.len() as u64 + 1) as usize;
        connection.output.write_all(request.get(..part).unwrap_or(&[])).await?;
        if rng.one_in(2) {
            tokio::time::sleep(Duration::from_millis(rng.below(20))).await;
        }
        return Ok(());
    }
    connection.output.write_all(&request).await?;
    if rng.one_in(2) {
        // The head, and a part of the body with it; the rest is never read.
        connection.input.head().await?;
    }
    Ok(())
}

fn bytes(shared: &Shared, script: &Script) -> Vec<u8> {
    let mut request = script.head().into_bytes();
    let body = shared.bodies.up(script);
    match script.up {
        Some(_) if script.up_chunked => chunked(body, &mut request),
        _ => request.extend_from_slice(body),
    }
    request
}

/// What a client saw.
enum Seen {
    Right {
        closes: bool,
    },
    /// An answer with this status that the proxy made, with its reason.
    Refused(String),
    /// Closed or reset before the answer was whole.
    Cut(String),
    /// Never allowed.
    Wrong(String),
}

async fn receive(shared: &Shared, input: &mut Input<OwnedReadHalf>, script: &Script) -> Seen {
    let head = match input.head().await {
        Ok(Some(head)) => head,
        Ok(None) => return Seen::Cut("before the answer".into()),
        Err(error) => return failed(&error, "in the head"),
    };
    let mut body = Vec::new();
    if let Err(error) = input.body(&head, &mut body).await {
        let part = shared.bodies.down(script).starts_with(&body);
        // What came of it must be the beginning of the right answer.
        return if part || !head.first_line.contains(" 200 ") {
            failed(&error, "in the body")
        } else {
            Seen::Wrong(format!("a part of another body: {}", about(&head)))
        };
    }
    if !head.first_line.starts_with("HTTP/1.1 200 ") {
        return match head.get("leno-reason") {
            Some(reason) => Seen::Refused(format!("{} {reason}", status(&head))),
            None => Seen::Wrong(format!("a status that nobody gave: {}", about(&head))),
        };
    }
    let nonce = head.get("x-nonce").and_then(|nonce| u64::from_str_radix(nonce, 16).ok());
    if nonce != Some(script.nonce) {
        return Seen::Wrong(format!("another request's answer: {}", about(&head)));
    }
    if body != shared.bodies.down(script) {
        return Seen::Wrong(format!("another body, {} bytes: {}", body.len(), about(&head)));
    }
    Seen::Right { closes: head.closes() }
}

fn failed(error: &io::Error, place: &str) -> Seen {
    if error.kind() == io::ErrorKind::InvalidData {
        Seen::Wrong(format!("not HTTP {place}: {error}"))
    } else {
        Seen::Cut(place.to_owned())
    }
}

fn judge(shared: &Shared, script: &Script, seen: Seen) {
    let tally = shared.tally;
    let must = script.mode.must_succeed();
    match seen {
        Seen::Right { .. } => tally.right(),
        Seen::Wrong(what) => {
            tally.forbidden("wrong answer", || format!("{what}: {}", describe(shared, script)))
        }
        Seen::Refused(what) if must => {
            tally.forbidden(&format!("refused, {what}"), || describe(shared, script));
        }
        Seen::Cut(place) if must => {
            tally.forbidden(&format!("cut, {place}"), || describe(shared, script));
        }
        Seen::Refused(what) => tally.allowed(&what),
        Seen::Cut(place) => tally.allowed(&format!("cut {place}")),
    }
}

fn status(head: &Head) -> &str {
    head.first_line.split(' ').nth(1).unwrap_or_default()
}

fn about(head: &Head) -> String {
    format!("`{}` x-nonce {}", head.first_line, head.get("x-nonce").unwrap_or("none"))
}

fn describe(shared: &Shared, script: &Script) -> String {
    format!("{} {script:?}", shared.name)
}
