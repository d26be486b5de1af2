//! How long things may take, and what becomes of the time over several hops.

use std::time::{Duration, Instant};

use crate::origin::{Fault, Origin};
use crate::{Way, status};

/// The seed's setting: 10 s in all, three attempts of 1 s (here a fifth of each, for the test's sake).
#[test]
fn three_attempts_of_a_second_within_ten() {
    let settings = "timeout: {request: 2s, try: 200ms}\nretry: {attempts: 3, backoff: 1ms}";
    Way::each(settings, |way| {
        let late = Fault::Late(Duration::from_millis(700));
        way.origin.fail(&[late.clone(), late.clone()]);
        let began = Instant::now();
        assert_eq!(status(&way.ask("GET", "/third", "", "")), 200, "{}", way.name);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(1_500), "{took:?}");
        let line = way.logged("/third");
        let failed: Vec<&str> =
            line["attempts"].as_array().unwrap().iter().filter_map(|it| it["failed"].as_str()).collect();
        assert_eq!(failed, ["try_timeout", "try_timeout", ""], "{line}");
        way.origin.fail(&[late.clone(), late.clone(), late.clone()]);
        let got = way.ask("GET", "/none", "", "");
        assert!(status(&got) == 504 && got.contains("leno-reason: try_timeout"), "{got}");
        // What may have had an effect is not repeated.
        way.origin.fail(&[late]);
        let got = way.ask("POST", "/post", "", "x");
        assert!(status(&got) == 504 && got.contains("leno-reason: try_timeout"), "{got}");
        assert_eq!(way.origin.effects("/post"), 1);
        assert_eq!(way.logged("/post")["attempts"][0]["retry"], "not_idempotent");
    });
}

#[test]
fn the_whole_request_has_a_limit_over_all_attempts() {
    let settings = "timeout: {request: 300ms, try: 200ms}\nretry: {attempts: 10, backoff: 0}";
    Way::each(settings, |way| {
        way.origin.fail(&vec![Fault::Late(Duration::from_secs(1)); 5]);
        let began = Instant::now();
        let got = way.ask("GET", "/late", "", "");
        assert!(status(&got) == 504 && got.contains("leno-reason: request_timeout"), "{}: {got}", way.name);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(900), "{took:?}");
        way.origin.fail(&[]);
    });
}

#[test]
fn silence_has_a_limit_of_its_own() {
    Way::each("timeout: {idle: 300ms}", |way| {
        way.origin.fail(&[Fault::Late(Duration::from_secs(2))]);
        let got = way.ask("POST", "/silent", "", "x");
        assert!(status(&got) == 504, "{}: {got}", way.name);
    });
    // As long as that is said, a service may be silent: also its own sidecar knows.
    Way::each("timeout: {idle: 0, request: 0}", |way| {
        way.origin.fail(&[Fault::Late(Duration::from_millis(500))]);
        assert_eq!(status(&way.ask("GET", "/slow", "", "")), 200);
    });
}

/// TCP is there at once, the handshake of TLS never: the other instance gets the request, whatever its method.
#[test]
fn a_connection_has_a_limit_of_its_own() {
    let origin = Origin::start(2);
    let apps = origin.addresses.clone();
    let way = Way::pair_to("timeout: {connect: 300ms}", origin, &apps, 1);
    let mut slow = 0;
    for at in 0..2 {
        let began = Instant::now();
        let path = format!("/{at}");
        assert_eq!(status(&way.ask("POST", &path, "", "x")), 200);
        assert_eq!(way.origin.effects(&path), 1);
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1_500), "{took:?}");
        slow += u32::from(took >= Duration::from_millis(300));
        let line = way.logged(&path);
        let attempts = line["attempts"].as_array().unwrap();
        assert!(attempts.len() == 1 || attempts[0]["failed"] == "connect_timeout", "{line}");
    }
    assert_eq!(slow, 1, "round robin");
}
