//! The JSON API on its own listener: plain HTTP, on loopback unless told otherwise. Reads are open to whoever reaches
//! it; every change needs the bearer token.
//!
//! Everything follows from one table, [`routes::ROUTES`]: the router, what needs the token, and the OpenAPI document.

mod guard;
mod handlers;
mod metrics;
mod openapi;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use leno_core::time::{Duration, Instant};
use leno_wire::api::ApiError;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::mesh::Mesh;
use crate::registry::Refusal;
use crate::stop::Stopping;

/// What handlers need.
#[derive(Debug)]
pub(crate) struct Api {
    /// The control plane's state.
    pub(crate) mesh: Arc<Mesh>,
    /// What a change must bring along.
    pub(crate) token: String,
    /// When the process started.
    pub(crate) started: Instant,
    /// Whether the listener is on loopback, where only local names make sense in `Host`.
    pub(crate) loopback: bool,
    /// The OpenAPI document.
    openapi: serde_json::Value,
}

/// An answer that is not 2xx.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The status.
    status: StatusCode,
    /// The body.
    error: ApiError,
}

impl Api {
    /// The handlers' state.
    pub(crate) fn new(mesh: Arc<Mesh>, token: String, loopback: bool) -> Arc<Self> {
        let started = mesh.clock.now();
        Arc::new(Self { mesh, token, started, loopback, openapi: openapi::document() })
    }

    /// Every route with its guards.
    fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new();
        for route in routes::ROUTES {
            let mut method = (route.mount)();
            if route.changes {
                method = method.layer(from_fn_with_state(self.clone(), guard::token));
            }
            router = router.route(route.path, method);
        }
        router
            .fallback(|| async {
                Failure::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing here").hint(SEE)
            })
            .method_not_allowed_fallback(|| async {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                Failure::new(status, "method_not_allowed", "this path does not know this method").hint(SEE)
            })
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn(guard::deadline))
            .layer(from_fn_with_state(self.clone(), guard::host))
            .with_state(self.clone())
    }

    /// Accepts connections until the process is to end.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, stopping: Stopping) {
        let router = self.router();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    // Closed at once: a reader of status tries again.
                    Ok((_, _)) if connections.len() >= CONNECTIONS_MAX => {}
                    Ok((tcp, _)) => {
                        connections.spawn(connection(tcp, router.clone(), stopping.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an API connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = stopping.heard() => break,
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// One connection.
async fn connection(tcp: TcpStream, router: Router, stopping: Stopping) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(tcp), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "API connection broke");
                }
                return;
            }
            () = stopping.heard(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

impl Failure {
    /// A failure with a reason for programs and a message for people.
    pub(crate) fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let error = ApiError { reason: reason.to_owned(), message: message.into(), hint: None };
        Self { status, error }
    }

    /// The same with what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// What was asked for could not be written.
    pub(crate) fn not_kept() -> Self {
        let message = "the control plane cannot write to its store";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_kept", message).hint("see its log for the reason")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NoSuchService(_)
            | Refusal::NoSuchGateway(_)
            | Refusal::NoSuchInstance(_)
            | Refusal::NoSuchToken(_) => StatusCode::NOT_FOUND,
            Refusal::TooMany { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::DeclaredInFile(_)
            | Refusal::IsGateway(_)
            | Refusal::NameTaken { .. }
            | Refusal::HasSidecar(_)
            | Refusal::TakenOver
            | Refusal::LeaseEnded => StatusCode::CONFLICT,
        };
        let failure = Self::new(status, refusal.reason(), refusal.to_string());
        match refusal.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, axum::Json(self.error)).into_response()
    }
}

/// Where to look.
const SEE: &str = "see GET /v1/openapi.json";
/// Largest body of a request: a service with thousands of rules.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a request's head.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// For the head of a request, and between two requests.
const HEADER_WITHIN: Duration = Duration::from_secs(30);
/// Most connections at a time; people and scripts, not load.
const CONNECTIONS_MAX: usize = 256;
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For requests under way at shutdown.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
