//! The command line's side of the control plane's JSON API: where it is, and how it is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use leno_core::name::ServiceId;
use leno_wire::api::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Failure, root_cause};
use crate::up::run_file::RunFile;

/// Where the API is, as typed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ApiArgs {
    /// The control plane's API [default: the mesh that `leno up` runs here, else http://127.0.0.1:15014].
    #[arg(long, env = "LENO_API_URL", value_name = "URL")]
    api: Option<String>,
    /// The state directory of a running `leno up` or `leno control`.
    #[arg(long, env = "LENO_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Asks the JSON API.
#[derive(Clone)]
pub(crate) struct Api {
    /// `http://IP:PORT`.
    base: String,
    /// Needed for every write.
    token: Option<String>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl ApiArgs {
    /// The `leno up` that is meant, unless an API was named or nothing runs.
    pub(crate) fn running(&self) -> Result<Option<RunFile>, Failure> {
        match &self.state {
            Some(state) => Ok(RunFile::read(state)),
            None if self.api.is_some() => Ok(None),
            None => RunFile::find(),
        }
    }

    /// Finds the API. What was typed wins, then what runs here, then the default port.
    pub(crate) fn resolve(&self) -> Result<Api, Failure> {
        let running = self.running()?;
        let base = match (&self.api, &running) {
            (Some(api), _) => base_url(api)?,
            (None, Some(running)) => running.api.clone(),
            (None, None) => DEFAULT_API.to_owned(),
        };
        let token = std::env::var("LENO_API_TOKEN").ok().filter(|token| !token.is_empty());
        let token = token.or_else(|| read_token(running.as_ref()?.token_file.as_path()));
        let token = token.or_else(|| read_token(&self.state.as_ref()?.join("api-token")));
        Ok(Api::new(base, token))
    }
}

impl Api {
    /// The API at `base`, such as `http://127.0.0.1:15014`.
    pub(crate) fn new(base: String, token: Option<String>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        Self { base, token, http: Client::builder(TokioExecutor::new()).build(tcp) }
    }

    /// `GET path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// `GET /v1/{what}`: a list.
    pub(crate) async fn list(&self, what: &str) -> Result<Vec<Value>, Failure> {
        self.get(&format!("/v1/{what}")).await
    }

    /// `POST path` with `body`.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::failed(format!("cannot write the request as JSON: {error}")))?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// `DELETE path`.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask::<Value>(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let url = format!("{}{path}", self.base);
        match tokio::time::timeout(ANSWER_MAX, self.exchange(method, &url, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::failed(format!("{url} did not answer within {ANSWER_MAX:?}"))),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Failure::invalid(format!("{url}: {error}")))?;
        let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Failure::failed(format!("{url}: {error}")))?.to_bytes();
        if !status.is_success() {
            return Err(refusal(url, status, &body));
        }
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text)
            .map_err(|error| Failure::failed(format!("{url} answered what this leno does not know: {error}")))
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let cause = root_cause(error);
        Failure::failed(format!(
            "no control plane answers at {}: {cause}; is `leno up` running? `--api URL` names another",
            self.base
        ))
    }
}

/// Runs a command that asks the API.
pub(crate) fn block_on<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(asking)
}

/// An answer as the type that this binary knows; `-o json` shows the answer itself, with what a newer control
/// plane may have added.
pub(crate) fn known<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::failed(format!("the control plane answered what this leno does not know: {error}"))
    })
}

/// Those of a list whose `field` is `name`; all of it without a name. `default/NAME` and `NAME` are the same. A name
/// that nothing has is a mistake worth saying.
pub(crate) fn only(list: Vec<Value>, field: &str, name: Option<&str>) -> Result<Vec<Value>, Failure> {
    let Some(name) = name else { return Ok(list) };
    let wanted = ServiceId::parse(name)
        .map_err(|error| Failure::invalid(format!("`{name}` is not a name: {error}")))?;
    let wanted = wanted.to_string();
    let found: Vec<Value> =
        list.into_iter().filter(|value| value.get(field).and_then(Value::as_str) == Some(&wanted)).collect();
    if found.is_empty() { Err(Failure::failed(format!("there is nothing of `{name}`"))) } else { Ok(found) }
}

/// `http://HOST:PORT` from `HOST:PORT` or a URL.
fn base_url(typed: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::invalid(format!("--api {typed}: {why}, such as http://127.0.0.1:15014"));
    let text = if typed.contains("://") { typed.to_owned() } else { format!("http://{typed}") };
    let uri: http::Uri = text.parse().map_err(|_| wrong("not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("the API speaks plain http"));
    }
    match uri.authority() {
        Some(authority) if uri.path().len() <= 1 => Ok(format!("http://{authority}")),
        _ => Err(wrong("an address without a path is expected")),
    }
}

fn refusal(url: &str, status: http::StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(ApiError { message, hint: Some(hint), .. }) => Failure::failed(format!("{message}; {hint}")),
        Ok(ApiError { message, hint: None, .. }) => Failure::failed(message),
        Err(_) => Failure::failed(format!("{url} answered {status}")),
    }
}

/// The API token kept in a file, if it can be read.
pub(crate) fn read_token(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Where `leno control` puts its API unless told otherwise.
const DEFAULT_API: &str = "http://127.0.0.1:15014";
/// To connect: the API is on this machine or near it.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// For a whole answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The largest answer that is read: some 100,000 instances.
const BODY_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_url_name_the_same_api() {
        for typed in ["127.0.0.1:15014", "http://127.0.0.1:15014", "http://127.0.0.1:15014/"] {
            assert_eq!(base_url(typed).unwrap(), "http://127.0.0.1:15014");
        }
    }

    #[test]
    fn what_is_no_api_is_refused() {
        for typed in ["https://127.0.0.1:1", "http://", "http://a/v1", "a b"] {
            assert!(matches!(base_url(typed), Err(Failure::Invalid(_))), "{typed}");
        }
    }
}
