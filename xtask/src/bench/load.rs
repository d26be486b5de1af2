//! The two clients: one that compares every byte, and wrk, which makes the load.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::Cores;
use crate::shell;

/// Sends `count` requests over one connection and compares each answer. Returns the size of an answer on the wire.
pub(super) fn check(entry: SocketAddr, body: &[u8], count: u32) -> Result<u64, String> {
    let stream = connect(entry)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
    let mut bytes = 0;
    for number in 0..count {
        bytes = exchange(&stream, &mut reader, entry, body)
            .map_err(|error| format!("answer {number} of {count}: {error}"))?;
    }
    Ok(bytes)
}

fn connect(entry: SocketAddr) -> Result<TcpStream, String> {
    let stream =
        TcpStream::connect_timeout(&entry, ANSWER).map_err(|error| format!("connect to {entry}: {error}"))?;
    stream.set_read_timeout(Some(ANSWER)).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn exchange(
    mut stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
    entry: SocketAddr,
    body: &[u8],
) -> Result<u64, String> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {entry}\r\n\r\n").map_err(|error| error.to_string())?;
    let mut head = String::new();
    let mut length = None;
    loop {
        let start = head.len();
        // A head of a mebibyte is no head.
        let got = reader.by_ref().take(1 << 20).read_line(&mut head).map_err(|error| error.to_string())?;
        let line = head[start..].trim_end();
        if got == 0 {
            return Err("closed within the head".into());
        }
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("not 200 but `{}`", head.lines().next().unwrap_or_default()));
    }
    if length != Some(body.len()) {
        return Err(format!("content-length {length:?}, not {}", body.len()));
    }
    let mut got = vec![0; body.len()];
    reader.read_exact(&mut got).map_err(|error| format!("body: {error}"))?;
    if got == body {
        Ok((head.len() + got.len()) as u64)
    } else {
        Err("another body than the upstream's".into())
    }
}

/// What wrk measured. Latencies are of a closed loop: each connection waits for its answer before it asks again, so
/// they say nothing about a fixed rate.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) duration: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Bytes received.
    bytes: u64,
    /// Connects, reads, writes, statuses and timeouts that went wrong.
    errors: u64,
}

impl Load {
    /// Every request was answered, and answers had the size of those that were compared.
    pub(super) fn verify(&self, answer_bytes: u64) -> Result<(), String> {
        if self.errors > 0 {
            return Err(format!("{} of {} requests went wrong", self.errors, self.requests));
        }
        if self.requests == 0 {
            return Err("no request was answered".into());
        }
        // What is under way when wrk stops counts as bytes but not as requests.
        let mean = self.bytes / self.requests;
        let tolerance = answer_bytes / 50 + self.bytes / self.requests / self.requests.max(1) + 1;
        if mean.abs_diff(answer_bytes) > tolerance {
            return Err(format!("answers had {mean} bytes in the mean, not {answer_bytes}"));
        }
        Ok(())
    }
}

/// Keeps `connections` busy for some seconds.
pub(super) fn wrk(
    entry: SocketAddr,
    connections: u32,
    seconds: u64,
    cores: &Cores,
    script: &Path,
) -> Result<Load, String> {
    let wrk = shell::find_program("wrk").ok_or("wrk is not installed")?;
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 16384 2>/dev/null; exec taskset -c \"$0\" \"$@\"", &cores.load.to_string()])
        .arg(wrk)
        .args(["-t1", "--latency", "--timeout", "5s"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .arg("-s")
        .arg(script)
        .arg(format!("http://{entry}/"));
    let text = shell::output(&mut command)?;
    let line =
        text.lines().rev().find(|line| line.starts_with('{')).ok_or_else(|| format!("wrk said {text}"))?;
    let said: Value = serde_json::from_str(line).map_err(|error| format!("wrk said {line}: {error}"))?;
    let number = |name: &str| said[name].as_u64().unwrap_or(0);
    let micros = |name: &str| Duration::from_micros(number(name));
    Ok(Load {
        requests: number("requests"),
        duration: micros("duration_us"),
        p50: micros("p50_us"),
        p99: micros("p99_us"),
        bytes: number("bytes"),
        errors: ["connect", "read", "write", "status", "timeout"].into_iter().map(number).sum(),
    })
}

/// How long one answer may take while answers are compared.
const ANSWER: Duration = Duration::from_secs(5);
