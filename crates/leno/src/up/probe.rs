//! What is asked of the running parts: the registry's instances, a proxy's `/ready`, its request counter.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use leno_wire::api::InstanceView;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::client::Api;
use crate::failure::root_cause;

use super::plan::reachable;
use super::supervise::MemberId;

/// What was found out.
#[derive(Debug)]
pub(super) enum Found {
    /// A join token was made, or why not.
    Token {
        /// For whom.
        member: MemberId,
        /// For which launch of it.
        launch: u32,
        /// The token, or a sentence.
        token: Result<String, String>,
    },
    /// A proxy's admin server: `None` when it says that the proxy is ready, else what it says instead.
    Admin {
        /// Whose.
        member: MemberId,
        /// Which launch of it.
        launch: u32,
        /// Why it is not ready.
        not_ready: Option<String>,
    },
    /// The registry's instances, or why they are not known.
    Instances(Result<Vec<InstanceView>, String>),
    /// How many requests each instance has served since its sidecar started; by place in the plan.
    Served(Vec<Option<u64>>),
}

/// Asks admin servers.
#[derive(Clone)]
pub(super) struct Admin {
    http: Client<HttpConnector, Empty<Bytes>>,
}

impl Admin {
    /// With no connection yet.
    pub(super) fn new() -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build(HttpConnector::new()) }
    }

    /// Asks `/ready` until the answer is good, telling each answer that is new.
    pub(super) async fn until_ready(
        self,
        address: SocketAddr,
        member: MemberId,
        launch: u32,
        found: mpsc::Sender<Found>,
    ) {
        let mut told = None;
        loop {
            let not_ready = match self.get(address, "/ready").await {
                Ok((status, _)) if status.is_success() => None,
                Ok((status, text)) => Some(format!("it answers {status} {}", text.trim())),
                Err(error) => Some(error),
            };
            let done = not_ready.is_none();
            if told.as_ref() != Some(&not_ready) {
                told = Some(not_ready.clone());
                if found.send(Found::Admin { member, launch, not_ready }).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
            sleep(START_PACE).await;
        }
    }

    /// Asks `/metrics` of each for ever.
    pub(super) async fn count(self, addresses: Vec<SocketAddr>, found: mpsc::Sender<Found>) {
        loop {
            let mut served = Vec::new();
            for address in &addresses {
                let answer = self.get(*address, "/metrics").await;
                served.push(answer.ok().map(|(_, text)| inbound_requests(&text)));
            }
            if found.send(Found::Served(served)).await.is_err() {
                return;
            }
            sleep(COUNT_PACE).await;
        }
    }

    async fn get(&self, address: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
        let uri = format!("http://{}{path}", reachable(address));
        let uri: http::Uri = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
        let asking = async {
            let response =
                self.http.get(uri.clone()).await.map_err(|error| format!("{uri}: {}", root_cause(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| format!("{uri}: {error}"))?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer = tokio::time::timeout(ANSWER_MAX, asking).await;
        answer.unwrap_or_else(|_| Err(format!("{uri} does not answer")))
    }
}

/// Asks the registry for its instances for ever: quickly while the mesh starts, then seldom.
pub(super) async fn watch_instances(api: Api, started: watch::Receiver<bool>, found: mpsc::Sender<Found>) {
    loop {
        let answer = api.get("/v1/instances").await.map_err(|error| error.to_string());
        if found.send(Found::Instances(answer)).await.is_err() {
            return;
        }
        let pace = if *started.borrow() { RUN_PACE } else { START_PACE };
        sleep(pace).await;
    }
}

/// The sum of a sidecar's counter of requests that came from the mesh.
fn inbound_requests(metrics: &str) -> u64 {
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(REQUESTS).is_some_and(|rest| rest.starts_with('{'))
            && line.contains("direction=\"inbound\"")
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// A proxy's counter of requests.
const REQUESTS: &str = "leno_requests_total";
/// Between two questions while the mesh starts: what a start loses at most by asking instead of being told.
const START_PACE: Duration = Duration::from_millis(40);
/// Between two looks at the registry of a running mesh.
const RUN_PACE: Duration = Duration::from_secs(1);
/// Between two looks at the counters; what requests per second are averaged over.
pub(super) const COUNT_PACE: Duration = Duration::from_secs(1);
/// For one answer from this machine.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_from_the_mesh_are_summed() {
        let metrics = "# TYPE leno_requests_total counter\n\
            leno_requests_total{direction=\"inbound\",status=\"200\"} 40\n\
            leno_requests_total{direction=\"inbound\",status=\"404\"} 2\n\
            leno_requests_total{direction=\"outbound\",status=\"200\"} 7\n\
            leno_requests_total_other{direction=\"inbound\"} 7\n";
        assert_eq!(inbound_requests(metrics), 42);
        assert_eq!(inbound_requests(""), 0);
    }
}
