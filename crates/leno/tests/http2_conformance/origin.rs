//! The application behind the proxies: HTTP/1.1, as plain as can be, with answers by path.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// How long a connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The answer of `/long`: more than the windows that a client begins with, less than a test is slow for.
pub(crate) const LONG_BYTES: usize = 300_000;
/// The answer of `/endless` as far as anybody reads it.
const ENDLESS_BYTES: usize = 1 << 40;

/// Starts to answer, on any port or a given one.
pub(crate) fn start(port: u16) -> SocketAddr {
    listen(TcpListener::bind(("127.0.0.1", port)).unwrap())
}

/// The same with the smallest buffers that the kernel has: what is not read soon stays with whoever sends it.
pub(crate) fn start_narrow() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Connections inherit it.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    listen(listener)
}

fn listen(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A thread for each; they end with the test.
            let serving = thread::Builder::new().stack_size(128 << 10);
            serving.spawn(move || while_it_lasts(stream)).ok();
        }
    });
    address
}

fn while_it_lasts(mut stream: TcpStream) {
    stream.set_read_timeout(Some(IDLE_MAX)).ok();
    stream.set_write_timeout(Some(IDLE_MAX)).ok();
    stream.set_nodelay(true).ok();
    let mut read = Vec::new();
    while exchange(&mut stream, &mut read).is_some() {}
}

/// One request and its answer; none when the connection is over.
fn exchange(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    let end = fill_until(stream, read, 0, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    read.drain(..end);
    let (method, rest) = head.split_once(' ')?;
    let path = rest.split(' ').next()?;
    if path == "/hold" {
        // Never answered, its body never read: until the other end gives up.
        thread::sleep(Duration::from_millis(200));
        stream.set_read_timeout(Some(Duration::from_secs(600))).ok()?;
        stream.peek(&mut [0]).ok()?;
        while stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
            thread::sleep(Duration::from_millis(50));
        }
        return None;
    }
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    if let Some(length) = field("content-length:") {
        let length: usize = length.parse().ok()?;
        fill(stream, read, length)?;
        read.drain(..length);
    } else if field("transfer-encoding:").is_some() {
        unchunk(stream, read)?;
    }
    let bytes = match path {
        "/long" => LONG_BYTES,
        "/endless" => ENDLESS_BYTES,
        _ => 11,
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").ok()?;
    if method == "HEAD" {
        return Some(());
    }
    let piece = [b'x'; 16_384];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).ok()?;
        left -= now;
    }
    Some(())
}

/// Reads past a chunked body and its trailers.
fn unchunk(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    loop {
        let end = fill_until(stream, read, 0, b"\r\n")?;
        let line = String::from_utf8_lossy(&read[..end - 2]).into_owned();
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            let trailers = fill_until(stream, read, end - 2, b"\r\n\r\n")?;
            read.drain(..trailers);
            return Some(());
        }
        fill(stream, read, end + size + 2)?;
        read.drain(..end + size + 2);
    }
}

fn fill(stream: &mut TcpStream, read: &mut Vec<u8>, bytes: usize) -> Option<()> {
    let mut buffer = [0; 16_384];
    while read.len() < bytes {
        let got = stream.read(&mut buffer).ok().filter(|got| *got > 0)?;
        read.extend_from_slice(&buffer[..got]);
    }
    Some(())
}

fn fill_until(stream: &mut TcpStream, read: &mut Vec<u8>, from: usize, wanted: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = read[from..].windows(wanted.len()).position(|window| window == wanted) {
            return Some(from + at + wanted.len());
        }
        fill(stream, read, read.len() + 1)?;
    }
}
