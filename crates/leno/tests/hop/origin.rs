//! The application at the end of the way: an HTTP server of raw bytes that answers by the path.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::{HUGE_BYTES, SOON};

/// An HTTP server that answers by the path, and remembers what it was sent.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = remembered.clone();
                thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut read = Vec::new();
    while let Some(end) = fill_until(&mut stream, &mut read, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        seen.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        if path == "/slow" {
            thread::sleep(Duration::from_millis(500));
        }
        if path == "/huge" {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", HUGE_BYTES).as_bytes())
                .unwrap();
            let piece = pattern(64 * 1024);
            // Nobody reads all of it.
            while stream.write_all(&piece).is_ok() {}
            return;
        }
        if path == "/babble" {
            while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {}
            return;
        }
        if path == "/early-cut" {
            // An answer before the body was read, and not all of it.
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut read).ok();
            return;
        }
        if path == "/continue" || path == "/expect" && field("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        if path == "/upgrade" {
            stream
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
                )
                .unwrap();
            stream.write_all(&read).unwrap();
            let mut buffer = [0; 1024];
            loop {
                match stream.read(&mut buffer) {
                    Ok(bytes) if bytes > 0 => stream.write_all(&buffer[..bytes]).unwrap(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    _ => break,
                }
            }
            seen.lock().unwrap().push("the tunnel ended".into());
            stream.write_all(b"bye").ok();
            return;
        }
        let body = if let Some(length) = field("content-length") {
            let length: usize = length.parse().unwrap();
            while read.len() < length {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(bytes) if bytes > 0 => read.extend_from_slice(&buffer[..bytes]),
                    _ => return,
                }
            }
            read.drain(..length).collect()
        } else if field("transfer-encoding").is_some() {
            let Some(end) = fill_until(&mut stream, &mut read, b"0\r\n") else { return };
            let Some(end) = fill_from(&mut stream, &mut read, end - 2, b"\r\n\r\n") else { return };
            let raw: Vec<u8> = read.drain(..end).collect();
            dechunk(&raw)
        } else {
            Vec::new()
        };
        let plain = |body: &[u8]| {
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            answer.extend_from_slice(body);
            answer
        };
        let answer: Vec<u8> = match path.as_str() {
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-sum: 42\r\n\r\n"
                .to_vec(),
            "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end".to_vec(),
            "/204" => b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n".to_vec(),
            "/early" => {
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
            }
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short".to_vec(),
            "/hop" => {
                b"HTTP/1.1 200 OK\r\nConnection: x-secret\r\nx-secret: 1\r\nKeep-Alive: 5\r\nx-kept: 2\r\nContent-Length: 0\r\n\r\n"
                    .to_vec()
            }
            "/garbage" => b"SMTP ready\r\n\r\n".to_vec(),
            "/two-lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
            "/big" => plain(&pattern(3_000_000)),
            _ if head.starts_with("HEAD ") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
            "/echo" | "/continue" | "/expect" => plain(&body),
            _ => plain(b"hello"),
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
        if matches!(path.as_str(), "/close" | "/cut" | "/garbage" | "/two-lengths") {
            return;
        }
    }
}

pub(crate) fn fill_until(stream: &mut TcpStream, read: &mut Vec<u8>, wanted: &[u8]) -> Option<usize> {
    fill_from(stream, read, 0, wanted)
}

/// Reads until `wanted` stands in `read`, looking from `from`; where it ends.
pub(crate) fn fill_from(
    stream: &mut TcpStream,
    read: &mut Vec<u8>,
    from: usize,
    wanted: &[u8],
) -> Option<usize> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = read[from..].windows(wanted.len()).position(|window| window == wanted) {
            return Some(from + at + wanted.len());
        }
        match stream.read(&mut buffer) {
            Ok(bytes) if bytes > 0 => read.extend_from_slice(&buffer[..bytes]),
            _ => return None,
        }
    }
}

pub(crate) fn dechunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = std::str::from_utf8(&raw[..end]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 4 + size..];
    }
}

pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}
