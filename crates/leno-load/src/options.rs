//! What is asked of a run.

use std::net::SocketAddrV4;
use std::time::Duration;

/// One run.
pub(crate) struct Options {
    /// Where requests go.
    pub(crate) to: SocketAddrV4,
    /// Busy connections.
    pub(crate) connections: usize,
    /// Connections that ask once and then stay open in silence.
    pub(crate) idle: usize,
    /// Requests per second, sent when they are due (open loop). Without it each connection asks again as soon as it
    /// is answered (closed loop).
    pub(crate) rate: Option<u32>,
    /// What is measured.
    pub(crate) seconds: Duration,
    /// The same load before, not recorded.
    pub(crate) warm: Duration,
    /// The warm-up goes on until so many requests are answered, so that each of many endpoints has had its first.
    pub(crate) warm_requests: usize,
    /// A new connection for each request.
    pub(crate) close: bool,
    /// The whole of each request, in the order of sending; then the first again.
    pub(crate) requests: Vec<Vec<u8>>,
    /// The body of every answer.
    pub(crate) body: Vec<u8>,
}

impl Options {
    /// Reads the command line.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut to = None;
        let (mut connections, mut idle, mut spread, mut upload, mut warm_requests) = (1, 0, 1, 0, 0);
        let (mut rate, mut seconds, mut warm) = (None, Duration::from_secs(1), Duration::ZERO);
        let (mut close, mut path, mut body) = (false, "/".to_owned(), Vec::new());
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            if name == "--close" {
                close = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("`{name}` needs a value"))?;
            let wrong = || format!("{name}: `{value}` makes no sense");
            let count =
                |most: usize| value.parse::<usize>().ok().filter(|count| *count <= most).ok_or_else(wrong);
            let time = || value.parse().map(Duration::from_millis).map_err(|_| wrong());
            match name.as_str() {
                "--to" => to = Some(value.parse().map_err(|_| wrong())?),
                "--connections" => connections = count(CONNECTIONS_MAX)?.max(1),
                "--idle" => idle = count(CONNECTIONS_MAX)?,
                "--rate" => rate = Some(value.parse().ok().filter(|rate| *rate > 0).ok_or_else(wrong)?),
                "--milliseconds" => seconds = time()?,
                "--warm-milliseconds" => warm = time()?,
                "--warm-requests" => warm_requests = count(WARM_REQUESTS_MAX)?,
                "--path" => path.clone_from(value),
                "--spread" => spread = count(SPREAD_MAX)?.max(1),
                "--upload" => upload = count(UPLOAD_BYTES_MAX)?,
                "--body" => body = std::fs::read(value).map_err(|error| format!("{value}: {error}"))?,
                other => return Err(format!("no option is called `{other}`")),
            }
        }
        if close && rate.is_some() {
            return Err("--close knows no --rate".into());
        }
        let to = to.ok_or("--to is missing")?;
        let requests = requests(to, &path, spread, upload, close);
        Ok(Self { to, connections, idle, rate, seconds, warm, warm_requests, close, requests, body })
    }
}

/// `{}` in the path becomes each number below `spread`, with leading zeros. Neighbours in time are far apart in
/// number, so that no proxy profits from rules that happen to be next to each other.
fn requests(to: SocketAddrV4, path: &str, spread: usize, upload: usize, close: bool) -> Vec<Vec<u8>> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    (0..spread)
        .map(|turn| {
            // The stride is prime and no divisor of any spread that is used, so every number has its turn.
            let number = (turn * STRIDE) % spread;
            let path = path.replace("{}", &format!("{number:05}"));
            if upload == 0 {
                format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n{connection}\r\n").into_bytes()
            } else {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: {to}\r\n{connection}Content-Length: {upload}\r\n\r\n"
                );
                let body = (0..=u8::MAX).cycle().take(upload);
                head.into_bytes().into_iter().chain(body).collect()
            }
        })
        .collect()
}

/// Descriptors are the limit well before this.
const CONNECTIONS_MAX: usize = 60_000;
/// Some seconds of load.
const WARM_REQUESTS_MAX: usize = 1_000_000;
/// Five digits.
const SPREAD_MAX: usize = 100_000;
/// Each request is kept whole.
const UPLOAD_BYTES_MAX: usize = 16 << 20;
/// See [`requests`].
const STRIDE: usize = 7_919;

#[cfg(test)]
mod tests {
    use super::requests;

    #[test]
    fn every_number_has_its_turn() {
        let to = "127.0.0.1:1".parse().unwrap();
        for spread in [1, 10, 1_000, 10_000] {
            let mut all = requests(to, "/r/{}/x", spread, 0, false);
            all.sort();
            all.dedup();
            assert_eq!(all.len(), spread);
        }
    }

    #[test]
    fn an_upload_carries_its_body() {
        let to = "127.0.0.1:1".parse().unwrap();
        let all = requests(to, "/upload", 1, 300, true);
        let text = String::from_utf8_lossy(&all[0]);
        assert!(text.starts_with("POST /upload HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n"));
        assert!(text.contains("Content-Length: 300\r\n\r\n"));
        assert!(all[0].ends_with(&[42, 43]), "the 300th byte is 299 % 256");
    }
}
