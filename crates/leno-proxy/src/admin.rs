//! The admin address: what a scraper, a supervisor and a curious person ask a proxy. Served by the main thread; the
//! workers are asked for their numbers and never wait for anybody.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use leno_core::snapshot::Snapshot;
use leno_core::spec::Transport;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::access_log::json_string;
use crate::door::Door;
use crate::telemetry::{Telemetry, family, line};
use crate::worker::{EndpointView, Order};

/// Connections to the admin address at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker may take to hand out its numbers.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the admin address shows.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) workers: Vec<mpsc::Sender<Order>>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    /// True while requests are welcome.
    pub(crate) ready: watch::Receiver<bool>,
    /// The proxy's own name.
    pub(crate) name: Arc<str>,
    /// Where it takes intercepted connections, as JSON.
    pub(crate) capture: Arc<str>,
    /// The gate before the application beside.
    pub(crate) door: Arc<Door>,
    /// The resolver's counters, where there is one.
    pub(crate) dns: Option<Arc<crate::dns::Counters>>,
    /// What is known of the control plane, as JSON; `null` without one.
    pub(crate) control: Option<crate::agent::StatusReceiver>,
}

/// Serves the admin address until the process ends.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin address could not accept a connection");
                tokio::time::sleep(HEAD_TIMEOUT / 50).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            // A client that breaks its connection is its own concern.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "the admin address only answers GET\n".into());
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" if *self.ready.borrow() => text(StatusCode::OK, "ready\n".into()),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
            "/metrics" => self.metrics().await,
            "/config" => json(self.config()),
            "/backends" => json(self.backends().await),
            _ => text(
                StatusCode::NOT_FOUND,
                "not here; there are /metrics /ready /live /config /backends\n".into(),
            ),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let mut sum = Telemetry::default();
        for telemetry in self.ask(Order::Scrape).await {
            sum.add(&telemetry);
        }
        if let Some(dns) = &self.dns {
            dns.add_limits(&mut sum.limits);
        }
        let mut out = sum.render();
        self.door.render(&mut out);
        if let Some(dns) = &self.dns {
            dns.render(&mut out);
        }
        crate::rates::render(self.snapshot.borrow().rates(), &mut out);
        family(&mut out, "leno_snapshot_generation", "gauge", "Generation of the configuration in use.");
        line(&mut out, "leno_snapshot_generation", "", self.snapshot.borrow().generation);
        family(&mut out, "leno_build_info", "gauge", "Always 1; the version is a label.");
        line(&mut out, "leno_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
        let mut response = text(StatusCode::OK, out);
        let format = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, format);
        response
    }

    async fn backends(&self) -> String {
        let mut out = String::from("[");
        for views in self.ask(Order::Backends).await {
            for EndpointView { backend, endpoint, in_flight, cooling, ejected } in views {
                out.push_str(if out.len() > 1 { ",\n{\"backend\":" } else { "{\"backend\":" });
                json_string(&mut out, backend.as_bytes());
                out.push_str(",\"endpoint\":");
                json_string(&mut out, endpoint.as_bytes());
                // Writing to a String cannot fail.
                let _ =
                    write!(out, ",\"in_flight\":{in_flight},\"cooling\":{cooling},\"ejected\":{ejected}}}");
            }
        }
        out.push_str("]\n");
        out
    }

    /// The snapshot held, as JSON.
    fn config(&self) -> String {
        let snapshot = self.snapshot.borrow().clone();
        let mut out = String::from("{\"name\":");
        json_string(&mut out, self.name.as_bytes());
        let (ready, capture) = (*self.ready.borrow(), &self.capture);
        let _ =
            write!(out, ",\"ready\":{ready},\"capture\":{capture},\"generation\":{}", snapshot.generation);
        out.push_str(",\"control\":");
        match &self.control {
            Some(status) => status.write_json(&mut out),
            None => out.push_str("null"),
        }
        out.push_str(",\"concurrency\":");
        self.door.write_json(&mut out);
        out.push_str(",\"lists\":[");
        for (at, list) in snapshot.lists.iter().enumerate() {
            out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
            json_string(&mut out, list.name.as_bytes());
            out.push_str(",\"rules\":[");
            for (at, rule) in list.rules.iter().enumerate() {
                out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
                json_string(&mut out, rule.name.as_bytes());
                out.push_str(",\"when\":");
                json_string(&mut out, format!("{:?}", rule.when).as_bytes());
                out.push_str(",\"then\":");
                json_string(&mut out, describe(&snapshot, rule.then).as_bytes());
                out.push('}');
            }
            out.push_str("],\"otherwise\":");
            json_string(&mut out, describe(&snapshot, list.otherwise).as_bytes());
            out.push('}');
        }
        out.push_str("],\"backends\":[");
        for (at, backend) in snapshot.backends.iter().enumerate() {
            out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
            json_string(&mut out, backend.name.as_bytes());
            let _ = write!(out, ",\"balance\":\"{:?}\",\"endpoints\":[", backend.balance);
            for (at, endpoint) in backend.endpoints.iter().enumerate() {
                out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
                json_string(&mut out, endpoint.name.as_bytes());
                let identity = match &endpoint.transport {
                    Transport::Mesh(id) => id.to_uri(),
                    Transport::Plain => "plain".to_owned(),
                    Transport::Tls(tls) => format!("tls to {}", tls.expects()),
                };
                let version = endpoint.version.as_ref().map_or("", |version| version.as_str());
                let _ = write!(
                    out,
                    ",\"address\":\"{}\",\"transport\":\"{identity}\",\"version\":\"{version}\",\"weight\":{},\"healthy\":{}",
                    endpoint.address, endpoint.weight, endpoint.healthy
                );
                if let Some(zone) = &endpoint.tags.zone {
                    let _ = write!(out, ",\"zone\":\"{zone}\"");
                }
                // Neither keys nor values have characters that JSON escapes.
                for (at, (key, value)) in endpoint.tags.labels.iter().enumerate() {
                    let open = if at > 0 { "," } else { ",\"labels\":{" };
                    let _ = write!(out, "{open}\"{key}\":\"{value}\"");
                }
                out.push_str(if endpoint.tags.labels.is_empty() { "}" } else { "}}" });
            }
            out.push_str("]}");
        }
        out.push(']');
        crate::rates::write_json(snapshot.rates(), &mut out);
        out.push_str("}\n");
        out
    }

    async fn ask<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (answer, answered) = oneshot::channel();
            if worker.try_send(order(answer)).is_ok()
                && let Ok(Ok(answer)) = tokio::time::timeout(SCRAPE_TIMEOUT, answered).await
            {
                answers.push(answer);
            }
        }
        answers
    }
}

fn describe(snapshot: &Snapshot, then: leno_core::route::Then) -> String {
    use leno_core::route::Then;
    match then {
        Then::Split(split) => {
            let targets = snapshot.splits.get(split.0 as usize).map_or(&[][..], |split| &split.targets);
            let shares = targets.iter().map(|(backend, weight)| {
                let name = snapshot.backend(*backend).map_or("?", |backend| &backend.name);
                format!("{name}={weight}")
            });
            shares.collect::<Vec<_>>().join(" ")
        }
        Then::Admit(split) => {
            format!("{}, a limited number at a time", describe(snapshot, Then::Split(split)))
        }
        Then::List(list) => format!("rules of {}", snapshot.list_name(list)),
        Then::Direct(address) => address.to_string(),
        Then::NoRoute => "no_route".into(),
        Then::NoSuchService => "no_such_service".into(),
        Then::Unsupported => "unsupported".into(),
        Then::Refused(reason) => reason.word().into(),
        Then::Misdirected => "misdirected".into(),
        Then::Redirect(_) => "https_only".into(),
        Then::Answer(status) => format!("answer {status}"),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let format = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    let format = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}
