//! A plain client for what is not measured: is somebody there, and what does the upstream say of itself?

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::READY;
use super::process::Process;

/// Waits until somebody who asks gets a right answer, or a process ends, or it takes too long.
pub(super) fn await_answer(
    processes: &mut [Process],
    ask: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Instant::now() + READY;
    loop {
        for process in &mut *processes {
            process.is_alive()?;
        }
        match ask() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(format!("no answer: {error}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The whole answer to one request on a connection of its own.
pub(super) fn get(entry: SocketAddr, path: &str) -> Result<String, String> {
    let text = |error: std::io::Error| format!("{entry}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&entry, ANSWER).map_err(text)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {entry}\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(text)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        Ok(answer)
    } else {
        Err(format!("{entry}{path}: not 200 but `{}`", answer.lines().next().unwrap_or_default()))
    }
}

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What is asked for here is small.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
