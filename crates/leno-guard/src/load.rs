//! Load and upstream: a process of its own, told on its standard input what to do, so that nothing of it is counted.
//!
//! | command | what it does |
//! |---|---|
//! | `open ENTRY N` | opens N connections, beside those that stand |
//! | `sequence T BYTES` | T times: each connection in turn sends a request and reads its answer |
//! | `together T BYTES` | T times: all connections send, the upstream answers when it has all, all read |
//! | `waves T BYTES N` | as `together`, but only N connections at a time |
//! | `race T BYTES` | each connection makes T requests, one after the other, not waiting for others |
//! | `open-grpc ENTRY N`, `open-bulk ENTRY N` | the same for gRPC calls, and for bytes without a protocol |
//! | `calls T S` | T times: each connection makes S unary calls at a time, and all are awaited |
//! | `bulk MIB` | each connection in turn receives so much |
//! | `close` | closes all connections |
//! | `hang-up` | the upstreams close all theirs |
//!
//! It answers each with `done REQUESTS` (of bulk: MiB) or with `failed WHY`. Its first line names its upstreams: those that
//! speak HTTP/1.1, then the one for gRPC and the one for bulk.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Upstreams that speak HTTP/1.1, each with an address. A worker keeps a limited number of idle connections to each.
const UPSTREAMS: usize = 5;
mod bulk;
mod grpc;

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(300);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// No head here is longer.
const HEAD_BYTES_MAX: usize = 4096;

/// The load process, as the one that measures sees it.
pub(crate) struct Load {
    child: Child,
    orders: ChildStdin,
    lines: mpsc::Receiver<String>,
    pub(crate) upstreams: Vec<SocketAddr>,
    /// The upstreams for gRPC and for bulk.
    pub(crate) grpc: Vec<SocketAddr>,
    pub(crate) bulk: Vec<SocketAddr>,
}

impl Load {
    pub(crate) fn start() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(own)
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the load does not start: {error}"))?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the load has no pipes".into());
        };
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut load =
            Self { child, orders, lines, upstreams: Vec::new(), grpc: Vec::new(), bulk: Vec::new() };
        let first = load.line()?;
        load.upstreams = first.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        load.bulk = load.upstreams.pop().into_iter().collect();
        load.grpc = load.upstreams.pop().into_iter().collect();
        Ok(load)
    }

    /// Gives a command and waits for its end. Returns the number of requests that were answered.
    pub(crate) fn order(&mut self, command: &str) -> Result<u64, String> {
        writeln!(self.orders, "{command}").map_err(|error| format!("the load has ended: {error}"))?;
        let line = self.line()?;
        let done = line.strip_prefix("done ").and_then(|number| number.parse().ok());
        done.ok_or_else(|| format!("{command}: {line}"))
    }

    fn line(&self) -> Result<String, String> {
        self.lines.recv_timeout(COMMAND).map_err(|error| format!("the load does not answer: {error}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The load process itself, until its standard input ends.
pub(crate) fn run() -> Result<(), String> {
    raise_limit();
    let orders = Arc::new(Orders { hold: AtomicUsize::new(1), hang_up: Notify::new() });
    let addresses = start_upstreams(orders.clone())?;
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    println!("{}", addresses.join(" "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut clients = Clients::default();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = LocalSet::new().block_on(&runtime, obey(&words, &mut clients, &orders));
        match done {
            Ok(requests) => println!("done {requests}"),
            Err(why) => println!("failed {why}"),
        }
    }
    Ok(())
}

/// What is connected to the proxy.
#[derive(Default)]
struct Clients {
    http1: Vec<Client>,
    grpc: Vec<grpc::Caller>,
    bulk: Vec<TcpStream>,
}

async fn obey(words: &[&str], all: &mut Clients, upstream: &Orders) -> Result<u64, String> {
    let clients = &mut all.http1;
    let entry = || -> Result<SocketAddr, String> {
        Ok(words.get(1).and_then(|word| word.parse().ok()).ok_or("the entry is missing")?)
    };
    let number = |at: usize| -> Result<usize, String> {
        let word = words.get(at).ok_or("a number is missing")?;
        word.parse().map_err(|_| format!("`{word}` is no number"))
    };
    upstream.hold.store(1, Relaxed);
    match words.first().copied() {
        Some("open") => {
            let entry = entry()?;
            for _ in 0..number(2)? {
                let stream = TcpStream::connect(entry).await.map_err(|error| format!("connect: {error}"))?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                clients.push(Client { stream, buffer: Vec::new() });
            }
            Ok(0)
        }
        Some("open-grpc") => {
            for _ in 0..number(2)? {
                all.grpc.push(grpc::Caller::open(entry()?).await?);
            }
            Ok(0)
        }
        Some("calls") => {
            let (turns, at_a_time) = (number(1)?, number(2)?);
            for _ in 0..turns {
                for caller in &all.grpc {
                    caller.calls(at_a_time).await?;
                }
            }
            Ok((turns * at_a_time * all.grpc.len()) as u64)
        }
        Some("open-bulk") => {
            for _ in 0..number(2)? {
                let stream =
                    TcpStream::connect(entry()?).await.map_err(|error| format!("connect: {error}"))?;
                all.bulk.push(stream);
            }
            Ok(0)
        }
        Some("bulk") => {
            let mebibytes = number(1)? as u64;
            for stream in &mut all.bulk {
                bulk::download(stream, mebibytes << 20).await?;
            }
            Ok(mebibytes * all.bulk.len() as u64)
        }
        Some("close") => {
            clients.clear();
            Ok(0)
        }
        Some("sequence") => {
            let (turns, bytes) = (number(1)?, number(2)?);
            for _ in 0..turns {
                for client in &mut *clients {
                    client.send(bytes).await?;
                    client.receive(bytes).await?;
                }
            }
            Ok((turns * clients.len()) as u64)
        }
        Some(shape @ ("together" | "waves")) => {
            let (turns, bytes) = (number(1)?, number(2)?);
            let size = if shape == "waves" { number(3)? } else { clients.len() };
            for _ in 0..turns {
                for wave in clients.chunks_mut(size.max(1)) {
                    upstream.hold.store(wave.len(), Relaxed);
                    for client in &mut *wave {
                        client.send(bytes).await?;
                    }
                    for client in wave {
                        client.receive(bytes).await?;
                    }
                }
            }
            Ok((turns * clients.len()) as u64)
        }
        Some("hang-up") => {
            upstream.hang_up.notify_waiters();
            Ok(0)
        }
        Some("race") => {
            let (turns, bytes) = (number(1)?, number(2)?);
            let racing = std::mem::take(clients).into_iter().map(|mut client| {
                tokio::task::spawn_local(async move {
                    for _ in 0..turns {
                        client.send(bytes).await?;
                        client.receive(bytes).await?;
                    }
                    Ok::<_, String>(client)
                })
            });
            let racing: Vec<_> = racing.collect();
            for task in racing {
                clients.push(task.await.map_err(|error| error.to_string())??);
            }
            Ok((turns * clients.len()) as u64)
        }
        _ => Err("no such command".into()),
    }
}

/// A connection to the proxy under measurement.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: usize) -> Result<(), String> {
        let head = format!(
            "GET /{bytes} HTTP/1.1\r\nHost: app\r\nUser-Agent: leno-guard\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.map_err(|error| format!("request: {error}"))
    }

    async fn receive(&mut self, bytes: usize) -> Result<(), String> {
        tokio::time::timeout(ANSWER, self.answer(bytes)).await.map_err(|_| "no answer in time")?
    }

    async fn answer(&mut self, bytes: usize) -> Result<(), String> {
        self.buffer.clear();
        let head = read_head(&mut self.stream, &mut self.buffer)
            .await
            .map_err(|error| format!("answer: {error}"))?;
        let head = head.ok_or("closed instead of an answer")?;
        let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or(&[])).into_owned();
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if !text.starts_with("HTTP/1.1 200 ") || length != Some(bytes) {
            return Err(format!("a wrong answer: {text}"));
        }
        let have = self.buffer.len() - head;
        self.buffer.resize(head + bytes, 0);
        let rest = self.buffer.get_mut(head + have..).ok_or("more than the answer")?;
        self.stream.read_exact(rest).await.map_err(|error| format!("body: {error}"))?;
        let good = self.buffer.get(head..).is_some_and(|body| body.iter().all(|byte| *byte == b'x'));
        if good { Ok(()) } else { Err("another body than the upstream's".into()) }
    }
}

/// Reads until the end of a head; returns its length, or `None` when the other end closed before it.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(std::io::Error::other("a head without an end"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// What the upstreams do besides answering.
struct Orders {
    /// So many requests are collected before any is answered.
    hold: AtomicUsize,
    /// Every connection is closed.
    hang_up: Notify,
}

/// Lets this process have as many descriptors as it may; returns how many those are.
pub(crate) fn raise_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A failure leaves what there was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Starts the upstreams in a thread.
fn start_upstreams(orders: Arc<Orders>) -> Result<Vec<SocketAddr>, String> {
    let mut sockets = Vec::new();
    for _ in 0..UPSTREAMS + 2 {
        let socket =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        sockets.push(socket);
    }
    let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        LocalSet::new().block_on(&runtime, async move {
            let held = Rc::new(Held { orders, waiting: Cell::new(0), release: Notify::new() });
            let bodies = Rc::new(RefCell::new(Vec::new()));
            for (number, socket) in sockets.into_iter().enumerate() {
                let Ok(listener) = TcpListener::from_std(socket) else { return };
                let (held, bodies) = (held.clone(), bodies.clone());
                tokio::task::spawn_local(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let _ = stream.set_nodelay(true);
                        let (held, bodies) = (held.clone(), bodies.clone());
                        tokio::task::spawn_local(async move {
                            let orders = held.orders.clone();
                            let serve = async {
                                match number.checked_sub(UPSTREAMS) {
                                    None => answer(stream, held, bodies).await,
                                    Some(0) => grpc::serve(stream, held).await,
                                    Some(_) => bulk::serve(stream).await,
                                }
                            };
                            tokio::select! {
                                () = serve => {}
                                () = orders.hang_up.notified() => {}
                            }
                        });
                    }
                });
            }
            std::future::pending::<()>().await;
        });
    });
    Ok(addresses)
}

/// Requests that are answered only when there are enough of them.
struct Held {
    orders: Arc<Orders>,
    waiting: Cell<usize>,
    release: Notify,
}

impl Held {
    async fn wait(&self) {
        let released = self.release.notified();
        self.waiting.set(self.waiting.get() + 1);
        if self.waiting.get() >= self.orders.hold.load(Relaxed) {
            self.waiting.set(0);
            self.release.notify_waiters();
        } else {
            released.await;
        }
    }
}

/// Answers `GET /BYTES` with so many bytes, until the connection ends.
async fn answer(mut stream: TcpStream, held: Rc<Held>, bodies: Rc<RefCell<Vec<u8>>>) {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let Ok(Some(head)) = read_head(&mut stream, &mut buffer).await else { return };
        let head = String::from_utf8_lossy(buffer.get(..head).unwrap_or(&[])).into_owned();
        let path = head.split_whitespace().nth(1).unwrap_or_default();
        let bytes: usize = path.trim_start_matches('/').parse().unwrap_or(0);
        held.wait().await;
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nServer: guard\r\nDate: Fri, 20 Nov 2026 23:00:00 GMT\r\nContent-Type: text/plain\r\n\
             Content-Length: {bytes}\r\nConnection: keep-alive\r\n\r\n"
        )
        .into_bytes();
        if bodies.borrow().len() < bytes {
            bodies.borrow_mut().resize(bytes, b'x');
        }
        response.extend_from_slice(bodies.borrow().get(..bytes).unwrap_or(&[]));
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}
