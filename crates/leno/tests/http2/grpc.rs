//! Calls of gRPC: statuses from heads and trailers, deadlines, answers made by the proxy.

use std::time::Duration;

use bytes::Bytes;

use crate::client::{Client, block_on, call};
use crate::common::{free_port, until};
use crate::origin::Origin;
use crate::{SOON, Way};

#[test]
fn statuses_come_from_trailers_and_heads() {
    Way::each("grpc", async |way, origin| {
        let client = Client::connect(way.address).await;
        let message = || Some(Bytes::from_static(b"\0\0\0\0\x02hi"));
        for _ in 0..3 {
            let answer = client.ask(call("/s/unary").body(()).unwrap(), message(), None).await.unwrap();
            assert_eq!((answer.trailer("grpc-status"), &answer.body[5..]), ("0", &b"ok"[..]), "{}", way.name);
        }
        let failed = client.ask(call("/s/fails").body(()).unwrap(), message(), None).await.unwrap();
        assert_eq!(failed.field("grpc-status"), "5");
        assert_eq!(origin.last().headers.get("te").unwrap(), "trailers");
        until("calls are counted by status", SOON, || {
            way.metric(&["leno_grpc_requests_total", "grpc_status=\"OK\""]) == 3
                && way.metric(&["leno_grpc_requests_total", "grpc_status=\"NOT_FOUND\""]) == 1
        });
    });
}

#[test]
fn a_deadline_goes_on_as_what_is_left_and_ends_the_call() {
    Way::each("grpc", async |way, origin| {
        let client = Client::connect(way.address).await;
        let began = std::time::Instant::now();
        let request = call("/s/hangs").header("grpc-timeout", "300m").body(()).unwrap();
        let answer = client.ask(request, Some(Bytes::from_static(b"\0\0\0\0\0")), None).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!((answer.field("grpc-status"), answer.field("leno-reason")), ("4", "request_timeout"));
        assert!(began.elapsed() >= Duration::from_millis(280), "{:?}", began.elapsed());
        let told = origin.last().headers.get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
        let (digits, unit) = told.split_at(told.len() - 1);
        let nanos = digits.parse::<u64>().unwrap() * if unit == "u" { 1000 } else { 1 };
        assert!(nanos < 300_000_000 && nanos > 200_000_000, "{}: {told}", way.name);
    });
}

#[test]
fn answers_made_here_are_statuses_of_grpc() {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    for way in [Way::single("grpc", nobody), Way::pair("grpc", nobody)] {
        block_on(async {
            let client = Client::connect(way.address).await;
            let request = call("/s/m").body(()).unwrap();
            let answer = client.ask(request, Some(Bytes::from_static(b"\0\0\0\0\0")), None).await.unwrap();
            assert_eq!(answer.head.status, 200, "{}", way.name);
            assert_eq!(answer.field("content-type"), "application/grpc");
            assert_eq!((answer.field("grpc-status"), answer.field("leno-reason")), ("14", "connect_failed"));
            assert!(answer.field("grpc-message").contains("leno: connect_failed"), "{answer:?}");
        });
        assert_eq!(way.metric(&["leno_grpc_requests_total", "grpc_status=\"UNAVAILABLE\""]), 1);
    }
}

#[test]
fn streams_go_both_ways_and_end_by_halves() {
    Way::each("grpc", async |way, _| {
        let client = Client::connect(way.address).await;
        let mut sender = client.send.clone().ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(call("/echo").body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(crate::origin::next(&mut body).await.unwrap().unwrap(), "one", "{}", way.name);
        for word in ["two", "three"] {
            stream.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
            assert_eq!(crate::origin::next(&mut body).await.unwrap().unwrap(), word);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        stream.send_trailers(trailers).unwrap();
        assert!(crate::origin::next(&mut body).await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap().get("grpc-status").unwrap(), "0");
    });
}

#[test]
fn a_caller_that_gives_up_is_told_to_the_application() {
    let origin = Origin::start();
    for way in [Way::single("grpc", origin.address), Way::pair("grpc", origin.address)] {
        let before = origin.seen.lock().unwrap().resets;
        block_on(async {
            let client = Client::connect(way.address).await;
            let mut sender = client.send.clone().ready().await.unwrap();
            let (answer, mut stream) =
                sender.send_request(call("/s/hangs").body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
            tokio::time::sleep(Duration::from_millis(200)).await;
        });
        until("the application hears of it", SOON, || origin.seen.lock().unwrap().resets > before);
        until("the call is counted as given up", SOON, || {
            way.metric(&["leno_grpc_requests_total", "grpc_status=\"CANCELLED\""]) == 1
        });
    }
}

#[test]
fn calls_are_tried_again_by_how_they_end() {
    Way::each("grpc\n    retry: {on: unavailable, methods: any, backoff: 0}", async |way, origin| {
        let client = Client::connect(way.address).await;
        let message = || Some(Bytes::from_static(b"\0\0\0\0\x02hi"));
        let name = if way.name == "a pair" { "p" } else { "s" };
        for kind in ["head", "trailers"] {
            // Twice is tried again; a third failure is the client's.
            for (times, status, attempts) in [(2, "0", 3), (3, "14", 3)] {
                let path = format!("/s/again/{kind}?{times}-{name}");
                let answer = client.ask(call(&path).body(()).unwrap(), message(), None).await.unwrap();
                let said = if answer.field("grpc-status").is_empty() {
                    answer.trailer("grpc-status")
                } else {
                    answer.field("grpc-status")
                };
                assert_eq!(said, status, "{}: {path}: {answer:?}", way.name);
                assert_eq!(answer.body.is_empty(), status != "0");
                let seen = origin.seen.lock().unwrap();
                let came =
                    seen.requests.iter().filter(|it| it.uri.path_and_query().unwrap() == &*path).count();
                assert_eq!(came, attempts, "{}: {path}", way.name);
            }
        }
        // A stream whose first word comes from the client is not held up.
        let mut sender = client.send.clone().ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(call("/echo").body(()).unwrap(), false).unwrap();
        let began = std::time::Instant::now();
        let mut body = answer.await.unwrap().into_body();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        stream.send_data(Bytes::from_static(b"one"), true).unwrap();
        assert_eq!(crate::origin::next(&mut body).await.unwrap().unwrap(), "one");
    });
}

#[test]
fn a_routes_limits_are_told_to_the_application_as_a_deadline() {
    Way::each("grpc\n    timeout: {request: 5s, try: 500ms}", async |way, origin| {
        let client = Client::connect(way.address).await;
        let message = || Some(Bytes::from_static(b"\0\0\0\0\x02hi"));
        for given in [None, Some("100m"), Some("9S")] {
            let mut request = call("/s/unary");
            if let Some(given) = given {
                request = request.header("grpc-timeout", given);
            }
            let answer = client.ask(request.body(()).unwrap(), message(), None).await.unwrap();
            assert_eq!(answer.trailer("grpc-status"), "0", "{}", way.name);
            let told = origin.last().headers.get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
            let (digits, unit) = told.split_at(told.len() - 1);
            let nanos = digits.parse::<u64>().unwrap() * if unit == "u" { 1_000 } else { 1 };
            let most = if given == Some("100m") { 100_000_000 } else { 500_000_000 };
            assert!(nanos <= most && nanos > most / 2, "{}: {given:?}: {told}", way.name);
        }
        // What is too late already goes nowhere.
        let before = origin.seen.lock().unwrap().requests.len();
        let request = call("/s/unary").header("grpc-timeout", "0n").body(()).unwrap();
        let answer = client.ask(request, message(), None).await.unwrap();
        assert_eq!((answer.field("grpc-status"), answer.field("leno-reason")), ("4", "out_of_time"));
        assert_eq!(origin.seen.lock().unwrap().requests.len(), before);
    });
}
