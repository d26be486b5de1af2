//! Active checks of the application beside a sidecar: asks, and lets `leno_core::health` decide what the answers mean.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::health::{Checks, Health, Outcome};
use leno_core::spec::{HealthSpec, Probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::dial::Dialer;
use crate::h2;

/// Checks the application at `app` until nobody listens to the result. While `spec` is `None` it is not yet known what
/// to ask, and nothing is asked. A change of `spec` leads to a check at once; what is known stays.
pub fn check(
    app: SocketAddr,
    dialer: Dialer,
    spec: watch::Receiver<Option<Arc<HealthSpec>>>,
) -> watch::Receiver<Health> {
    let (told, result) = watch::channel(Health::Unknown);
    tokio::spawn(run(app, dialer, spec, told));
    result
}

/// So much of an HTTP answer is read, to let the application finish it; the status is all that counts.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// An answer whose status line is longer is no HTTP (RFC 9112 §3 recommends 8,000 for a whole request line).
const STATUS_LINE_BYTES_MAX: usize = 1024;

async fn run(
    app: SocketAddr,
    dialer: Dialer,
    mut spec: watch::Receiver<Option<Arc<HealthSpec>>>,
    told: watch::Sender<Health>,
) {
    let mut checks: Option<Checks> = None;
    loop {
        let current = spec.borrow_and_update().clone();
        let wake = match current {
            None => None,
            Some(spec) => {
                let checks = checks.get_or_insert_with(|| Checks::new(&spec));
                checks.reconfigure(&spec);
                let started = Instant::now();
                checks.handle(probe(app, &dialer, &spec).await);
                // The reason may have changed without the state: whoever looks should see the present one.
                told.send_if_modified(|known| {
                    let changed = known != checks.state();
                    known.clone_from(checks.state());
                    changed
                });
                Some(started + checks.interval())
            }
        };
        let pause = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            changed = spec.changed() => if changed.is_err() { return },
            () = told.closed() => return,
        }
    }
}

async fn probe(app: SocketAddr, dialer: &Dialer, spec: &HealthSpec) -> Outcome {
    let asked = async {
        let stream = match dialer.connect(app).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
            Err(error) => return Outcome::Bad(format!("connecting failed: {error}")),
        };
        match &spec.probe {
            Probe::Tcp => Outcome::Good,
            Probe::Http(path) => match get(stream, app, path, spec.timeout / 2).await {
                Ok(200..=399) => Outcome::Good,
                Ok(status) => Outcome::Bad(format!("status {status} for {path}")),
                Err(why) => Outcome::Bad(format!("{why} for {path}")),
            },
            Probe::Http2(path) => match h2::probe::get(stream, app, path).await {
                Ok(200..=399) => Outcome::Good,
                Ok(status) => Outcome::Bad(format!("status {status} for {path}")),
                Err(why) => Outcome::Bad(format!("{why} for {path}")),
            },
            Probe::Grpc(service) => match h2::probe::check(stream, app, service).await {
                Ok(()) => Outcome::Good,
                Err(why) if service.is_empty() => Outcome::Bad(format!("{why} for the server")),
                Err(why) => Outcome::Bad(format!("{why} for {service}")),
            },
        }
    };
    match timeout(spec.timeout, asked).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Bad(format!("no answer within {:?}", spec.timeout)),
    }
}

/// The status of a GET. After it the rest of the answer is read for at most `linger`, so that an application does not
/// see its answers to checks broken off.
async fn get(mut stream: TcpStream, app: SocketAddr, path: &str, linger: Duration) -> Result<u16, String> {
    // The path is declared by an operator and stands in a request line: nothing in it may end that line.
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("not a path that can be asked".into());
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {app}\r\nUser-Agent: leno-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("the request failed ({error})"))?;
    let mut answer = Vec::with_capacity(STATUS_LINE_BYTES_MAX);
    let mut piece = [0; 1024];
    let status = loop {
        let read = stream.read(&mut piece).await.map_err(|error| format!("the answer failed ({error})"))?;
        if read == 0 {
            return Err("the connection ended before an answer".into());
        }
        answer.extend_from_slice(&piece[..read]);
        if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
            break status_of(&answer[..end]).ok_or("the answer is not HTTP")?;
        }
        if answer.len() > STATUS_LINE_BYTES_MAX {
            return Err("the answer is not HTTP".into());
        }
    };
    let rest = async {
        let mut left = ANSWER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut piece).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    let _unfinished = timeout(linger, rest).await;
    Ok(status)
}

/// `HTTP/1.1 200 OK` (RFC 9112 §4).
fn status_of(line: &[u8]) -> Option<u16> {
    let code = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    (100..=599).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests;
