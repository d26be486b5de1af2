//! What the shop's services answer: JSON that shows which instance and version served it at every hop.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The instance that answers.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// The service it is an instance of.
    pub(super) service: &'static str,
    /// Its name.
    pub(super) instance: String,
    /// Its version.
    pub(super) version: String,
}

impl Server {
    /// The `served_by` of an answer for which `called` answered too.
    pub(super) fn served_by(&self, called: Vec<Value>) -> Value {
        let mut value =
            json!({ "service": self.service, "instance": self.instance, "version": self.version });
        if let (false, Some(fields)) = (called.is_empty(), value.as_object_mut()) {
            fields.insert("called".to_owned(), Value::Array(called));
        }
        value
    }

    /// A good answer.
    pub(super) fn ok(&self, status: StatusCode, body: Value, called: Vec<Value>) -> Response {
        let mut body = body;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("served_by".to_owned(), self.served_by(called));
        }
        write(status, &body)
    }

    /// A bad one.
    pub(super) fn refuse(&self, problem: Problem) -> Response {
        let body = json!({ "error": problem.message, "served_by": self.served_by(Vec::new()) });
        write(problem.status, &body)
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub(super) struct Problem {
    /// Whose fault it is.
    status: StatusCode,
    /// One sentence.
    message: String,
}

impl Problem {
    /// There is no such thing.
    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: what.into() }
    }

    /// The request makes no sense.
    pub(super) fn bad_request(what: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: what.into() }
    }

    /// A service that had to be asked gave no usable answer.
    pub(super) fn bad_gateway(what: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, message: what.into() }
    }
}

/// A number in a path.
pub(super) fn id(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("`{text}` is not the number of anything")))
}

/// `GET /healthz`: this process is able to answer.
pub(super) async fn healthz(server: axum::extract::State<Arc<Server>>) -> Response {
    server.ok(StatusCode::OK, json!({ "status": "ok" }), Vec::new())
}

fn write(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
