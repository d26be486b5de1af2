//! Copies of requests: who gets them sees what was sent, and whatever it does with them changes nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::{App, Running, SOON, common, exchange, get, leno, proxy};

/// A gateway whose routes copy to `mirror`.
fn gateway(
    app: &App,
    mirror: &str,
    route: &str,
) -> (Running, std::net::SocketAddr, std::net::SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "mesh: m\ngateway:\n  listen: 127.0.0.1:{}\n  routes:\n    - {{path: /v1, rewrite: /, request_headers: {{set: {{x-a: one}}}}, \
         mirror: {route}, to: web}}\n    - {{to: web}}\nservices:\n  web:\n    endpoints: [\"{}\"]\n  shadow:\n    endpoints: [\"{mirror}\"]\n",
        common::free_port(),
        app.address,
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let mut command = leno();
    command
        .args(["proxy", "--role", "gateway", "--workers", "1", "--admin", "127.0.0.1:0", "--file"])
        .arg(&file);
    let running = Running::start(&mut command);
    let ready = running.event("ready", SOON);
    let address =
        |text: &serde_json::Value| text.as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    (running, address(&ready["listeners"]["http"]), address(&ready["admin"]), folder)
}

#[test]
fn a_copy_is_what_was_sent_with_its_body() {
    let (app, shadow) = (App::start(true), App::start(true));
    let (_running, at, admin, _folder) = gateway(&app, &shadow.address.to_string(), "shadow");
    assert!(get(at, "/v1/x?y", "").ends_with("hello"));
    let post = "POST /v1/in HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nGET /\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(exchange(at, post).ends_with("hello"));
    get(at, "/plain", "");
    common::until("two copies", SOON, || shadow.heads.lock().unwrap().len() == 2);
    let heads = shadow.heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("GET /x?y HTTP/1.1\r\nHost: shop.example:80\r\n"), "{}", heads[0]);
    for part in ["\r\nx-a: one\r\n", "\r\nleno-mirror: 1\r\n", "\r\nx-request-id: "] {
        assert_eq!(heads[0].matches(part).count(), 1, "{part:?}: {}", heads[0]);
    }
    assert!(heads[1].starts_with("POST /in HTTP/1.1\r\n"), "{}", heads[1]);
    assert!(heads[1].contains("\r\nContent-Length: 8\r\n"), "{}", heads[1]);
    assert!(!app.last().contains("leno-mirror"));
    let metrics = get(admin, "/metrics", "");
    assert!(metrics.contains("destination=\"shadow (mirror)\",status=\"200\""), "{metrics}");
}

#[test]
fn a_mirror_that_is_slow_gone_or_full_changes_nothing() {
    let app = App::start(true);
    // One that takes connections and never says a word, and one that is not there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("127.0.0.1:{}", common::free_port());
    for mirror in [silent.local_addr().unwrap().to_string(), gone] {
        let (_running, at, admin, _folder) = gateway(&app, &mirror, "shadow");
        let before = app.heads.lock().unwrap().len();
        let started = Instant::now();
        for _ in 0..300 {
            let answer = get(at, "/v1/x", "");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert_eq!(app.heads.lock().unwrap().len(), before + 300);
        let long = format!(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(100_000)
        );
        assert!(exchange(at, &long).contains("HTTP/1.1 200 OK\r\n"));
        let metrics = get(admin, "/metrics", "");
        assert!(metrics.contains("leno_limit_hits_total{limit=\"mirror_body\"} 1"), "{metrics}");
        if mirror.ends_with(&silent.local_addr().unwrap().port().to_string()) {
            // 256 hang at the silent one; the others were not made.
            assert!(metrics.contains("leno_limit_hits_total{limit=\"mirrors\"} 44"), "{metrics}");
        }
    }
}

#[test]
fn a_share_is_copied() {
    let (app, shadow) = (App::start(true), App::start(true));
    let share = "{service: shadow, percent: 20}";
    let (_running, at, _admin, _folder) = gateway(&app, &shadow.address.to_string(), share);
    for _ in 0..500 {
        get(at, "/v1/x", "");
    }
    // Five standard deviations.
    std::thread::sleep(Duration::from_millis(300));
    let copies = shadow.heads.lock().unwrap().len();
    assert!((55..=145).contains(&copies), "{copies} of 500");
}

/// A body that is kept to be sent again is copied once, and whole, whatever became of the first attempt.
#[test]
fn a_request_that_is_tried_again_is_copied_once() {
    let shadow = App::start(true);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        for answer in ["503 Busy", "200 OK"] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"all of it") {
                let mut piece = [0; 1024];
                let bytes = stream.read(&mut piece).unwrap();
                assert!(bytes > 0, "{}", String::from_utf8_lossy(&read));
                read.extend_from_slice(&piece[..bytes]);
            }
            bodies.push(read);
            write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        }
        bodies.len()
    });
    let folder = tempfile::tempdir().unwrap();
    let listen = common::free_port();
    let text = format!(
        "mesh: m\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n    \
         - {{to: web, mirror: shadow, retry: {{on: 503, methods: any}}}}\n\
         services:\n  web: {{endpoints: [\"{app}\"]}}\n  shadow: {{endpoints: [\"{}\"]}}\n",
        shadow.address,
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let (_gateway, _) = proxy(&file, "gateway", &folder.path().join("identity"), None);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\nall of it";
    let answer = exchange(([127, 0, 0, 1], listen).into(), request);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    assert_eq!(serving.join().unwrap(), 2, "both attempts had the whole body");
    common::until("a copy", SOON, || !shadow.heads.lock().unwrap().is_empty());
    std::thread::sleep(Duration::from_millis(300));
    let heads = shadow.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].contains("\r\nContent-Length: 9\r\n"), "{}", heads[0]);
}
