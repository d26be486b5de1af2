//! What stands before every handler: deadline, `Host`, bearer token.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leno_core::time::Duration;

use super::{Api, Failure};

/// Bounds how long a request may take, its body included.
pub(super) async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request was not complete and answered within {ANSWER_WITHIN:?}");
            Failure::new(StatusCode::REQUEST_TIMEOUT, "deadline", message).into_response()
        }
    }
}

/// Refuses what a browser sends after a DNS answer that points a foreign name at this machine: on a loopback listener
/// only local names are served.
pub(super) async fn host(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if api.loopback && !host.is_some_and(is_local) {
        let message = "this API serves only requests for localhost, 127.0.0.1 or [::1]";
        return Failure::new(StatusCode::FORBIDDEN, "host_not_allowed", message).into_response();
    }
    next.run(request).await
}

/// Refuses a change without the token.
pub(super) async fn token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let given =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_once_space());
    let right = given.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case(b"bearer") && verify_slices_are_equal(token, api.token.as_bytes()).is_ok()
    });
    if right {
        return next.run(request).await;
    }
    let failure = if given.is_none() {
        Failure::new(StatusCode::UNAUTHORIZED, "token_missing", "a change needs the API token")
    } else {
        Failure::new(StatusCode::UNAUTHORIZED, "token_wrong", "this is not the API token")
    };
    let failure = failure
        .hint("send \"Authorization: Bearer TOKEN\"; the token is in the state directory, file api-token");
    ([(header::WWW_AUTHENTICATE, "Bearer")], failure).into_response()
}

/// Whether `host` (with or without a port) names this machine to itself.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Splits `SCHEME REST`.
trait SplitOnceSpace {
    /// Before and after the first blank.
    fn split_once_space(&self) -> Option<(&[u8], &[u8])>;
}

impl SplitOnceSpace for [u8] {
    fn split_once_space(&self) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|byte| *byte == b' ')?;
        Some((&self[..at], &self[at + 1..]))
    }
}

/// For one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_are_local() {
        for host in ["localhost", "LOCALHOST:15014", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "example.com", "localhost.example.com", "10.0.0.1", "[::2]:80", "[", "127.0.0.1.nip.io"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
