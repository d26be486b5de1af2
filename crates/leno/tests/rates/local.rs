//! Limits that each proxy keeps for itself, over its workers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, block_on, call, get};
use crate::common::until;
use crate::{App, Mesh, SOON, ask, counted, flood};

const ROUTES: &str = "- {path: /, to: server}";

#[test]
fn each_caller_gets_exactly_what_the_limit_says_over_two_workers() {
    let app = App::start();
    let settings = "rate_limits:\n  - {name: each, requests: 25, per: 1h, by: caller, path: /each}\n  \
                    - {name: batch, requests: 4, per: 1h, from: jobs/*}";
    let mesh = Mesh::start(&["shop", "admin", "jobs/night"], settings, ROUTES, app.address);
    for (at, caller) in mesh.callers.iter().take(2).enumerate() {
        let (passed, refused) = flood(*caller, "GET /each HTTP/1.1", 80);
        assert_eq!(passed, 25, "{refused}");
        assert_eq!(app.got("/each"), 25 * (at as u32 + 1), "the application got what passed");
        assert!(refused.starts_with("http/1.1 429"), "{refused}");
        for field in [
            "leno-reason: rate_limited",
            "ratelimit-policy: \"each\";q=25;w=3600",
            "ratelimit: \"each\";r=0;t=3600",
            "retry-after: 14",
            "leno: rate_limited: more requests than a rate limit lets through: server/each",
        ] {
            assert!(refused.contains(field), "no {field} in {refused}");
        }
    }
    // Other requests are not counted; those of a namespace by a limit of their own, whatever they ask for.
    assert_eq!(flood(mesh.callers[0], "GET /free HTTP/1.1", 40).0, 40);
    let (passed, refused) = flood(mesh.callers[2], "GET /free HTTP/1.1", 16);
    assert!(passed == 4 && refused.contains("server/batch"), "{passed} {refused}");
    counted(mesh.admin[0], "leno_rate_limited_total{limit=\"server/each\"} 110");
    counted(mesh.admin[0], "leno_rate_limit_allowed_total{limit=\"server/each\"} 50");
    until("the refusals are in the log", SOON, || {
        let refused = |line: &&Value| line["rate_limit"] == "server/each" && line["source"] == "admin";
        mesh.log("server").iter().filter(refused).count() == 55
    });
    let log = mesh.log("server");
    let line = log.iter().find(|line| line["rate_limit"] == "server/each").unwrap();
    let word = |key: &str| line[key].as_str().unwrap_or_default();
    assert_eq!((word("reason"), word("culprit")), ("rate_limited", "downstream"), "{line}");
    assert_eq!((line["status"].as_u64(), word("rule")), (Some(429), ""));
    // The caller's sidecar has relayed an answer, and tried nothing again.
    let line = mesh.log("shop").into_iter().find(|line| line["status"] == 429).unwrap();
    assert!(line["reason"] == "" && line["attempts"].as_array().unwrap().len() == 1, "{line}");
}

#[test]
fn what_is_refused_is_tried_again_only_by_a_policy_and_not_before_it_may() {
    let app = App::start();
    let settings = "rate_limits:\n  - {requests: 1, per: 1s}\nretry: {on: 429, attempts: 3, backoff: 0}";
    let mesh = Mesh::start(&["shop"], settings, ROUTES, app.address);
    let began = Instant::now();
    for _ in 0..2 {
        let answer = ask(mesh.callers[0], "GET /waits HTTP/1.1");
        assert!(answer.starts_with("http/1.1 200") && answer.contains("ratelimit: "), "{answer}");
    }
    assert!(began.elapsed().as_millis() >= 900, "it was asked again too early: {:?}", began.elapsed());
    assert_eq!(app.got("/waits"), 2);
    until("the wait is in the log", SOON, || {
        mesh.log("shop").iter().any(|line| line["attempts"][0]["status"] == 429)
    });
    // In front of the application there was one try too many, not a storm.
    counted(mesh.admin[0], "leno_rate_limited_total{limit=\"server/limit-1\"} 1");
}

#[test]
fn a_gateway_counts_for_its_routes_and_a_dry_run_only_says_so() {
    let app = App::start();
    let routes = "- path: /keyed\n  to: server\n  rewrite: /\n  rate_limits:\n    \
                  - {name: user, requests: 3, per: 1h, by: [client, {header: x-user}]}\n\
                  - path: /dry\n  to: server\n  rate_limits: [{requests: 5, per: 1h, dry_run: true}]\n\
                  - {path: /, to: server}";
    let mesh = Mesh::start(&[], "", routes, app.address);
    for user in ["a", "b", ""] {
        let head = format!("GET /keyed/{user} HTTP/1.1\r\nx-user: {user}");
        assert_eq!(flood(mesh.gateway, &head, 16).0, 3, "{user}");
        assert_eq!(app.got(&format!("/{user}")), 3);
    }
    assert_eq!(flood(mesh.gateway, "GET /dry HTTP/1.1", 16).0, 16);
    counted(mesh.admin[1], "leno_rate_limit_dry_run_total{limit=\"gateway//dry/limit-1\"} 11");
    counted(mesh.admin[1], "leno_rate_limited_total{limit=\"gateway//keyed/user\"} 39");
    until("the log says what would have been refused", SOON, || {
        let dry = |line: &&Value| line["rate_limit_dry_run"][0] == "gateway//dry/limit-1";
        mesh.log("gateway").iter().filter(dry).count() == 11
    });
}

#[test]
fn calls_of_grpc_are_told_in_their_own_terms_and_http2_by_status() {
    block_on(async {
        let app = crate::origin::Origin::start();
        let settings = "protocol: grpc\nrate_limits:\n  - {requests: 2, per: 1h, grpc: s.Calls}\n  \
                        - {name: plain, requests: 2, per: 1h, path: /plain}";
        let mesh = Mesh::start(&["shop"], settings, ROUTES, app.address);
        for address in [mesh.callers[0], mesh.gateway] {
            let client = Client::connect(address).await;
            let mut statuses = Vec::new();
            for _ in 0..3 {
                let request = call("/s.Calls/unary").body(()).unwrap();
                let message = Some(Bytes::from_static(b"\0\0\0\0\x02hi"));
                let answer = client.ask(request, message, None).await.unwrap();
                assert_eq!(answer.head.status, 200);
                statuses
                    .push((answer.field("grpc-status").to_owned(), answer.field("retry-after").to_owned()));
            }
            let refused = ("8".to_owned(), "1800".to_owned());
            // The service's sidecar counts for both of its callers together.
            let expected = if address == mesh.gateway { 0 } else { 2 };
            assert_eq!(statuses.iter().filter(|status| **status == refused).count(), 3 - expected);
            let mut refused = 0;
            for _ in 0..3 {
                refused +=
                    usize::from(client.ask(get("/plain"), None, None).await.unwrap().head.status == 429);
            }
            assert_eq!(refused, 3 - expected);
        }
    });
}

#[test]
fn of_bytes_connections_are_counted() {
    let app = App::start();
    let settings = "protocol: tcp\nrate_limits: [{requests: 3, per: 1h, by: caller}]";
    let mesh = Mesh::start(&["shop", "admin"], settings, ROUTES, app.address);
    for caller in &mesh.callers {
        let mut passed = 0;
        for _ in 0..8 {
            let mut stream = TcpStream::connect(caller).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            // A refusal may be there before the bytes are sent.
            let sent = stream.write_all(b"some bytes").is_ok();
            let mut answer = [0; 64];
            passed += u32::from(sent && matches!(stream.read(&mut answer), Ok(1..)));
        }
        assert_eq!(passed, 3);
    }
    assert_eq!(app.got(""), 6);
    // What was refused was not tried elsewhere.
    counted(mesh.admin[0], "leno_rate_limited_total{limit=\"server/limit-1\"} 10");
}

#[test]
fn for_a_service_outside_whoever_calls_it_counts() {
    let (app, outside) = (App::start(), App::start());
    let routes = "- {path: /api, to: api}\n- {path: /, to: server}";
    let more = format!(
        "  api:\n    endpoints: [\"{}\"]\n    rate_limits: [{{requests: 5, per: 1h}}]\n",
        outside.address
    );
    let mesh = Mesh::start_with(&[], "", routes, app.address, &more);
    assert_eq!(flood(mesh.gateway, "GET /api HTTP/1.1", 16).0, 5);
    assert_eq!(outside.got("/api"), 5);
    assert_eq!(flood(mesh.gateway, "GET /other HTTP/1.1", 16).0, 16);
    counted(mesh.admin[1], "leno_rate_limited_total{limit=\"api/limit-1\"} 11");
}
