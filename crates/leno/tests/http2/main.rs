//! HTTP/2 and gRPC through real proxies on loopback: through one gateway, and through a pair of sidecars with mutual TLS
//! between them, to applications that speak HTTP/2 or HTTP/1.1.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod floods;
mod grpc;
#[path = "../hop/origin.rs"]
mod http1;
mod origin;
mod sockets;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, block_on, get};
use common::{Running, free_port, leno};
use http::{HeaderMap, HeaderValue, Request};
use origin::Origin;

/// For anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// More than all buffers between an application and a client hold.
pub(crate) const HUGE_BYTES: u64 = 1 << 40;

/// Proxies between a client and an application.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    pub(crate) proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Way {
    /// One proxy, plain on both sides.
    pub(crate) fn single(protocol: &str, application: SocketAddr) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n    protocol: {protocol}\n    endpoints: [\"{application}\"]\n",
        );
        std::fs::write(&file, text).unwrap();
        let (proxy, admin) = proxy(&file, "gateway", None);
        let address = ([127, 0, 0, 1], port).into();
        Self { name: "one hop", address, admin, proxies: vec![proxy], _folder: folder }
    }

    /// A client's and a server's sidecar with mutual TLS between them.
    pub(crate) fn pair(protocol: &str, application: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [out, mesh, own, app] = [free_port(), free_port(), free_port(), free_port()];
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
             \x20 server:\n    protocol: {protocol}\n    health: none\n    instances:\n\
             \x20     - {{name: server, address: \"{application}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
        );
        std::fs::write(&file, text).unwrap();
        let identity = folder.path().join("identity");
        let (server, _) = proxy(&file, "server", Some(&identity));
        let (client, admin) = proxy(&file, "client", Some(&identity));
        let address = ([127, 0, 0, 1], out).into();
        Self { name: "a pair", address, admin, proxies: vec![server, client], _folder: folder }
    }

    /// Runs a test through each way to an application of HTTP/2.
    pub(crate) fn each(protocol: &str, test: impl AsyncFn(&Way, &Origin)) {
        let origin = Origin::start();
        for way in [Self::single(protocol, origin.address), Self::pair(protocol, origin.address)] {
            block_on(test(&way, &origin));
        }
    }

    /// Sends raw bytes of HTTP/1 and reads until the proxy closes.
    pub(crate) fn talk(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The metrics of the proxy that clients speak to.
    pub(crate) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of the first sample that contains all of `parts`.
    pub(crate) fn metric(&self, parts: &[&str]) -> u64 {
        let metrics = self.metrics();
        let line = metrics.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

fn proxy(file: &Path, role: &str, identity: Option<&Path>) -> (Running, SocketAddr) {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    if let Some(identity) = identity {
        command.arg("--identity").arg(identity);
    }
    let running = Running::start(command.stderr(Stdio::inherit()));
    let ready = running.event("ready", SOON);
    let admin = ready["admin"].as_str().unwrap_or_else(|| panic!("no admin address in {ready}"));
    (running, admin.trim_start_matches("http://").parse().unwrap())
}

#[test]
fn requests_cross_whole_with_bodies_and_trailers() {
    Way::each("http2", async |way, origin| {
        let client = Client::connect(way.address).await;
        let hello = client.get("/hello").await;
        assert_eq!((hello.head.status.as_u16(), hello.text()), (200, "hello"), "{}", way.name);
        assert_eq!(hello.field("x-origin"), "h2");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let body = Bytes::from(vec![3; 300_000]);
        let request = Request::post("http://server/echo")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let echo = client.ask(request, Some(body.clone()), Some(trailers)).await.unwrap();
        assert_eq!(echo.body, body, "{}", way.name);
        assert_eq!(echo.trailer("x-sum"), "7");
        let seen = origin.last();
        assert_eq!(seen.headers.get("cookie").unwrap(), "a=1; b=2");
        assert_eq!(seen.headers.get("te").unwrap(), "trailers");
        assert_eq!(seen.uri.authority().unwrap(), "server");
        assert!(seen.headers.get("x-request-id").is_some());
        assert!(seen.headers.get("host").is_none());
    });
}

#[test]
fn what_has_no_body_and_what_comes_before_the_answer() {
    Way::each("http2", async |way, _| {
        let client = Client::connect(way.address).await;
        for status in [204, 304, 404] {
            let answer = client.get(&format!("/status?{status}")).await;
            assert_eq!((answer.head.status.as_u16(), answer.body.len()), (status, 0), "{}", way.name);
        }
        let head = Request::head("http://server/head").body(()).unwrap();
        let answer = client.ask(head, None, None).await.unwrap();
        assert_eq!(answer.field("content-length"), "5", "{}", way.name);
        let mut sender = client.send.clone().ready().await.unwrap();
        let (mut response, _) = sender.send_request(get("/hints"), true).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(
            (hints.status().as_u16(), hints.headers().get("link").unwrap().as_bytes()),
            (103, &b"</a>"[..])
        );
        assert_eq!(client::whole(response.await.unwrap()).await.unwrap().text(), "after hints");
    });
}

#[test]
fn http1_clients_reach_applications_of_http2() {
    Way::each("http2", async |way, origin| {
        let answer = way.talk(
            "POST /echo HTTP/1.1\r\nHost: server\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{}: {answer}", way.name);
        assert!(answer.contains("5\r\nhello\r\n"), "{answer}");
        assert!(answer.to_lowercase().ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        assert!(origin.last().headers.get("x-hop").is_none());
        let hinted = way.talk("GET /hints HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
        assert!(hinted.starts_with("HTTP/1.1 103"), "{hinted}");
        assert!(hinted.contains("after hints"), "{hinted}");
        let none = way.talk("GET /status?204 HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
        assert!(
            none.starts_with("HTTP/1.1 204") && !none.to_lowercase().contains("content-length"),
            "{none}"
        );
        let sized = way.talk("GET /big?10 HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
        assert!(sized.to_lowercase().contains("content-length: 10\r\n"), "{sized}");
    });
}

#[test]
fn http2_clients_reach_applications_of_http1() {
    let origin = http1::Origin::start();
    for way in [Way::single("http", origin.address), Way::pair("http", origin.address)] {
        block_on(async {
            let client = Client::connect(way.address).await;
            for path in ["/plain", "/chunked"] {
                let answer = client.get(path).await;
                assert_eq!(answer.head.status, 200, "{}", way.name);
                assert!(!answer.body.is_empty());
                for field in ["connection", "transfer-encoding", "keep-alive"] {
                    assert_eq!(answer.field(field), "", "{}: {path}", way.name);
                }
            }
            let request = Request::get("http://server/plain").header("cookie", "a=1").header("cookie", "b=2");
            client.ask(request.body(()).unwrap(), None, None).await.unwrap();
            let seen = origin.seen().pop().unwrap().to_lowercase();
            assert!(seen.contains("\r\nhost: server\r\n"), "{}: {seen}", way.name);
            assert!(seen.contains("\r\ncookie: a=1; b=2\r\n"), "{seen}");
            assert!(!seen.contains("\r\nconnection: close"), "{seen}");
        });
    }
}

#[test]
fn an_application_that_has_not_said_what_it_speaks_is_spoken_to_as_it_answers() {
    Way::each("auto", async |way, origin| {
        let client = Client::connect(way.address).await;
        assert_eq!(client.get("/hello").await.text(), "hello", "{}", way.name);
        assert_eq!(origin.last().version, http::Version::HTTP_2);
    });
    let origin = http1::Origin::start();
    for way in [Way::single("auto", origin.address), Way::pair("auto", origin.address)] {
        block_on(async {
            let client = Client::connect(way.address).await;
            for _ in 0..3 {
                assert_eq!(client.get("/plain").await.text(), "hello", "{}", way.name);
            }
        });
    }
}

#[test]
fn a_stream_that_is_not_read_holds_up_no_other() {
    Way::each("http2", async |way, _| {
        let client = Client::connect(way.address).await;
        // Nobody reads this one; the window of the whole connection is larger than that of a stream.
        let mut sender = client.send.clone().ready().await.unwrap();
        let stuck = sender.send_request(get("/big?20000"), true).unwrap().0.await.unwrap();
        for _ in 0..20 {
            assert_eq!(client.get("/hello").await.text(), "hello", "{}", way.name);
        }
        let big = client.get("/big?3000000").await;
        assert_eq!(big.body.len(), 3_000_000);
        assert!(big.body.iter().all(|byte| *byte == 7));
        let body = Bytes::from(vec![1; 3_000_000]);
        let request = Request::post("http://server/count").body(()).unwrap();
        assert_eq!(client.ask(request, Some(body), None).await.unwrap().text(), "3000000");
        assert_eq!(client::whole(stuck).await.unwrap().body.len(), 20_000);
    });
}

#[test]
fn streams_of_one_connection_are_served_beside_each_other() {
    Way::each("http2", async |way, _| {
        let client = Client::connect(way.address).await;
        let began = std::time::Instant::now();
        let asked: Vec<_> = (0..60)
            .map(|_| {
                let send = client.send.clone();
                tokio::spawn(async move {
                    let mut send = send.ready().await.unwrap();
                    let answer = send.send_request(get("/slow"), true).unwrap().0.await.unwrap();
                    client::whole(answer).await.unwrap().text().to_owned()
                })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), "slow", "{}", way.name);
        }
        assert!(began.elapsed() < Duration::from_secs(9), "one after the other would take 18 s");
    });
}

#[test]
fn more_streams_than_a_server_allows_go_over_more_connections() {
    let origin = Origin::start();
    let way = Way::single("http2", origin.address);
    block_on(async {
        let clients = [Client::connect(way.address).await, Client::connect(way.address).await];
        let asked: Vec<_> = (0..180)
            .map(|at: usize| {
                let send = clients[at % 2].send.clone();
                tokio::spawn(async move {
                    let mut send = send.ready().await.unwrap();
                    let answer = send.send_request(get("/slow"), true).unwrap().0.await.unwrap();
                    client::whole(answer).await.unwrap().text().to_owned()
                })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap(), "slow");
        }
    });
    assert!(origin.seen.lock().unwrap().connections >= 2, "the application allows 100 on each");
}

#[test]
fn what_was_not_seen_is_tried_again_and_what_is_cut_is_seen_as_cut() {
    Way::each("http2", async |way, origin| {
        let client = Client::connect(way.address).await;
        let answer = client.get("/refuse").await;
        assert_eq!(
            (answer.head.status.as_u16(), answer.field("leno-reason")),
            (503, "overload"),
            "{}",
            way.name
        );
        let cut = client.ask(get("/cut"), None, None).await.unwrap_err();
        assert_eq!(cut.reason(), Some(h2::Reason::INTERNAL_ERROR), "{}", way.name);
        assert_eq!(client.get("/hello").await.text(), "hello");
        // The server says that it goes, answers what it has, and later requests find another connection.
        for _ in 0..5 {
            assert_eq!(client.get("/leave").await.text(), "hello", "{}", way.name);
            assert_eq!(client.get("/hello").await.text(), "hello", "{}", way.name);
        }
        assert!(origin.seen.lock().unwrap().connections >= 4);
    });
}

#[test]
fn a_drain_under_load_loses_no_stream() {
    for pair in [false, true] {
        let origin = Origin::start();
        let mut way =
            if pair { Way::pair("http2", origin.address) } else { Way::single("http2", origin.address) };
        let address = way.address;
        block_on(async move {
            let client = Client::connect(address).await;
            client.get("/hello").await;
            let mut asked = Vec::new();
            for at in 0..200 {
                let mut send = match client.send.clone().ready().await {
                    Ok(send) => send,
                    Err(_) => break,
                };
                if at == 50 {
                    way.proxies.last().unwrap().signal(rustix::process::Signal::TERM);
                }
                // After GOAWAY a request is not sent; before, it must be answered.
                let Ok((answer, _)) =
                    send.send_request(get(if at % 3 == 0 { "/slow" } else { "/hello" }), true)
                else {
                    break;
                };
                asked.push(tokio::spawn(async move {
                    client::whole(answer.await?).await.map(|it| it.head.status)
                }));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let all = asked.len();
            assert!(all >= 50, "{all}");
            for (at, answer) in asked.into_iter().enumerate() {
                match answer.await.unwrap() {
                    Ok(status) => assert_eq!(status, 200),
                    // A stream above the last one that GOAWAY names was not lost: the client knows that nobody saw it.
                    Err(error) => assert!(error.is_go_away() && at > 50, "{at} of {all}: {error:?}"),
                }
            }
            way.proxies.last_mut().unwrap().wait(SOON);
        });
    }
}

#[test]
fn mistakes_are_answered_or_reset() {
    let origin = Origin::start();
    let way = Way::single("http2", origin.address);
    block_on(async {
        let client = Client::connect(way.address).await;
        let ask =
            async |request: http::request::Builder| client.ask(request.body(()).unwrap(), None, None).await;
        let differs = Request::get("http://server/").header("host", "other");
        assert_eq!(ask(differs).await.unwrap_err().reason(), Some(h2::Reason::PROTOCOL_ERROR));
        let expects = Request::post("http://server/").header("expect", "tea");
        assert_eq!(ask(expects).await.unwrap().head.status, 417);
        let mut many = Request::get("http://server/");
        for at in 0..120 {
            many = many.header(format!("x-{at}"), "1");
        }
        let answer = ask(many).await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.field("leno-reason")), (431, "too_many_fields"));
        assert_eq!(client.get("/hello").await.text(), "hello");
    });
    assert_eq!(way.metric(&["leno_requests_refused_total", "host_differs"]), 1);
}

#[test]
fn curl_speaks_http2_with_prior_knowledge() {
    let Ok(version) = Command::new("curl").arg("--version").output() else {
        println!("skipped: curl is not installed");
        return;
    };
    if !String::from_utf8_lossy(&version.stdout).contains("HTTP2") {
        println!("skipped: this curl does not speak HTTP/2");
        return;
    }
    Way::each("http2", async |way, _| {
        let url = format!("http://{}/hello", way.address);
        let curl = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"])
            .args(["-m", "10", &url])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&curl.stdout), "hello 2 200", "{}", way.name);
    });
}
