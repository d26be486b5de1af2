//! Requests that routes break on purpose, and what web pages of other origins are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::client::{Client, block_on, call};
use crate::origin::Origin;
use crate::{App, Mesh, SOON, exchange, get};

const GATEWAY: &str = r#"
    {path: /delay, fault: {delay: 300ms}, to: server}
    {path: /abort, fault: {delay: 1ms, abort: 503}, mirror: server, to: server}
    {path: /reset, fault: {reset: true}, to: server}
    {path: /slow, fault: {slow: 20}, to: server}
    {path: /late, timeout: 200ms, fault: {delay: 1m, abort: 500}, to: server}
    {path: /over, fault: {abort: 500, until: 2026-01-01T00:00:00Z}, to: server}
    {path: /some, fault: {abort: 500, percent: 50, percent_max: 10}, to: server}
    {path: /stop, fault: {reset: true, percent: 0.01, stop: {failures: 10, requests: 20, window: 1m}}, to: server}
    {path: /, to: server}
"#;

const SERVICE: &str = r#"
    {path: /caller, from: client, fault: {abort: 418}, to: server}
"#;

/// True when a request gets no answer but a reset.
fn is_reset(at: SocketAddr, path: &str) -> bool {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn metrics(mesh: &Mesh) -> String {
    get(mesh.admin, "/metrics", "")
}

#[test]
fn requests_are_broken_as_routes_say() {
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, GATEWAY, SERVICE);
    let asked = || app.heads.lock().unwrap().len();

    let started = Instant::now();
    assert!(get(mesh.gateway, "/delay", "").ends_with("hello"));
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!((mesh.logged("/delay")["fault"].clone(), asked()), (json!("delay"), 1));

    let answer = get(mesh.gateway, "/abort", "");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nleno-reason: fault\r\n") && answer.contains("on purpose"), "{answer}");
    assert_eq!(mesh.logged("/abort")["fault"], "delay+abort");

    assert!(is_reset(mesh.gateway, "/reset"));
    let logged = mesh.logged("/reset");
    assert_eq!((&logged["fault"], &logged["reason"]), (&json!("reset"), &json!("fault")), "{logged}");

    let started = Instant::now();
    let answer = get(mesh.gateway, "/late", "");
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("request_timeout"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(10), "the delay ends with the time limit");
    assert_eq!(asked(), 1, "nothing of that was sent, and nothing copied");

    let started = Instant::now();
    assert!(get(mesh.gateway, "/slow", "").ends_with("hello"));
    assert!(started.elapsed() >= Duration::from_millis(250), "five bytes at twenty a second");
    assert!(get(mesh.gateway, "/over", "").ends_with("hello"), "its time is over");

    // The service's own route is about one caller.
    assert!(get(mesh.local, "/caller", "").starts_with("HTTP/1.1 418 "));
    assert!(get(mesh.gateway, "/caller", "").ends_with("hello"));

    let found = metrics(&mesh);
    for (rule, kind) in [("/delay", "delay"), ("/abort", "abort"), ("/reset", "reset"), ("/slow", "slow")] {
        let line = format!("leno_faults_total{{list=\"gateway\",rule=\"{rule}\",kind=\"{kind}\"}} 1\n");
        assert!(found.contains(&line), "{line}: {found}");
    }
    assert!(found.contains("leno_rule_answers_total{list=\"gateway\",rule=\"/abort\",kind=\"fault\"} 1\n"));
}

#[test]
fn an_experiment_keeps_to_its_budget_and_stops_when_the_service_fails() {
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, GATEWAY, "");
    let broken = (0..300).filter(|_| get(mesh.gateway, "/some", "").starts_with("HTTP/1.1 500 ")).count();
    assert!((20..=40).contains(&broken), "{broken} of 300, at most a tenth and ten");

    let failing = App::start(false);
    let mesh = Mesh::start("auto", failing.address, GATEWAY, "");
    for _ in 0..25 {
        get(mesh.gateway, "/stop", "");
    }
    let found = metrics(&mesh);
    let line = "leno_faults_total{list=\"gateway\",rule=\"/stop\",kind=\"stopped\"} 1\n";
    assert!(found.contains(line), "{found}");
}

#[test]
fn calls_and_streams_of_http2_are_broken_too() {
    const ROUTES: &str = r#"
        {path: /s/Abort, fault: {abort: {grpc: resource-exhausted}}, to: server}
        {path: /s/Reset, fault: {reset: true}, to: server}
        {path: /, to: server}
    "#;
    let origin = Origin::start();
    let mesh = Mesh::start("grpc", origin.address, ROUTES, "");
    block_on(async {
        let client = Client::connect(mesh.gateway).await;
        let request = || Some(Bytes::from_static(b"\0\0\0\0\0"));
        let answer = client.ask(call("/s/Abort").body(()).unwrap(), request(), None).await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, "8"));
        assert!(client.ask(call("/s/Reset").body(()).unwrap(), request(), None).await.is_err(), "reset");
        let answer = client.ask(call("/s/Other").body(()).unwrap(), request(), None).await;
        assert!(answer.is_ok(), "the connection lives on");
    });
    assert_eq!(mesh.logged("/s/Abort")["grpc_status"], "RESOURCE_EXHAUSTED");
}

#[test]
fn pages_of_other_origins_are_told_what_they_may() {
    const ROUTES: &str = r#"
        {path: /any, cors: "*", to: server}
        {path: /api, cors: {origins: ["https://*.shop.example"], methods: [GET, PUT], headers: x-a, max_age: 10m, credentials: true}, to: server}
        {path: /asked, cors: {origins: "https://a.example", unmatched: forward}, to: server}
    "#;
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, ROUTES, "");
    let ask = |path: &str, origin: &str| {
        let head = format!("OPTIONS {path} HTTP/1.1\r\nHost: shop.example:80\r\nConnection: close\r\n");
        let more = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
        exchange(mesh.gateway, &(head + &more))
    };
    let answer = ask("/api/1", "https://www.shop.example");
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    for line in [
        "vary: Origin",
        "access-control-allow-origin: https://www.shop.example",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: GET, PUT",
        "access-control-allow-headers: x-a",
        "access-control-max-age: 600",
    ] {
        assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
    }
    let answer = ask("/api/1", "https://shop.example.evil");
    assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("access-control"), "{answer}");
    assert_eq!(app.heads.lock().unwrap().len(), 0, "the application was not asked");
    assert!(ask("/asked", "https://b.example").ends_with("hello"), "here it is");

    let answer = get(mesh.gateway, "/any", "Origin: null\r\n");
    assert!(
        answer.ends_with("hello") && answer.contains("\r\naccess-control-allow-origin: *\r\n"),
        "{answer}"
    );
    let answer = get(mesh.gateway, "/api/2", "");
    assert!(answer.contains("\r\nvary: Origin\r\n") && !answer.contains("access-control"), "{answer}");
    let found = metrics(&mesh);
    let line = "leno_rule_answers_total{list=\"gateway\",rule=\"/api\",kind=\"preflight\"} 2\n";
    assert!(found.contains(line), "{found}");
}
