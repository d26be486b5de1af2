//! What a policy has tried again, what not, and what the log says of it.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::common::free_port;
use crate::origin::{Fault, Origin};
use crate::{Way, status};

const RETRY_503: &str = "retry: {on: [503, reset], backoff: 1ms}";

fn answer(status: u16) -> Fault {
    Fault::Answer(status, String::new())
}

#[test]
fn an_answer_that_is_tried_again_is_never_seen() {
    Way::each(RETRY_503, |way| {
        way.origin.fail(&[answer(503), answer(503)]);
        let got = way.ask("GET", "/twice", "", "");
        assert_eq!(status(&got), 200, "{}: {got}", way.name);
        assert!(got.ends_with("hello"), "{got}");
        let places: Vec<usize> = way.origin.take_seen().iter().map(|seen| seen.place).collect();
        assert_eq!(places.len(), 3);
        assert_ne!(places[0], places[1], "{}: another endpoint is preferred", way.name);
        let line = way.logged("/twice");
        assert_eq!(line["status"], 200);
        let attempts = line["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 3, "{line}");
        for attempt in &attempts[..2] {
            assert_eq!((&attempt["failed"], &attempt["status"]), (&"answer_retried".into(), &503.into()));
            assert_eq!(attempt["retry"], "yes");
        }
        // The last answer goes to the client as it is, and another status too.
        way.origin.fail(&[answer(503), answer(503), Fault::Answer(503, "x-last: yes\r\n".into())]);
        let got = way.ask("GET", "/thrice", "", "");
        assert!(status(&got) == 503 && got.contains("x-last: yes") && !got.contains("leno-reason"), "{got}");
        let line = way.logged("/thrice");
        assert_eq!(line["attempts"][2]["retry"], "attempts", "{line}");
        assert_eq!(line["reason"], "");
        way.origin.fail(&[answer(500)]);
        assert_eq!(status(&way.ask("GET", "/other", "", "")), 500);
        assert_eq!(way.origin.effects("/other"), 1);
    });
}

#[test]
fn a_body_is_kept_up_to_its_bound_and_sent_again_whole() {
    let settings = "retry: {on: 503, methods: any, backoff: 0, body_max: 8KiB}";
    Way::each(settings, |way| {
        let body: String = (0..8_192).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        way.origin.fail(&[answer(503), answer(503)]);
        assert_eq!(status(&way.ask("POST", "/fits", "", &body)), 200, "{}", way.name);
        let seen = way.origin.take_seen();
        assert_eq!(seen.len(), 3);
        assert!(
            seen.iter().all(|seen| seen.body == body.as_bytes()),
            "{}: each attempt has it whole",
            way.name
        );
        // One byte more is sent once, and the log says why.
        way.origin.fail(&[answer(503)]);
        assert_eq!(status(&way.ask("POST", "/larger", "", &(body.clone() + "!"))), 503);
        let line = way.logged("/larger");
        assert_eq!(line["attempts"][0]["retry"], "body_gone", "{line}");
        // Also when nobody knows beforehand how long it will be.
        for (path, bytes, expected) in [("/chunks-fit", 5_000, 200), ("/chunks-larger", 9_000, 503)] {
            way.origin.fail(&[answer(503)]);
            let mut stream = way.connect();
            let head = "host: server\r\nconnection: close\r\ntransfer-encoding: chunked";
            write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
            for piece in
                body.as_bytes().iter().cycle().take(bytes).copied().collect::<Vec<u8>>().chunks(1_000)
            {
                write!(stream, "{:x}\r\n", piece.len()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
            let mut got = String::new();
            stream.read_to_string(&mut got).unwrap();
            assert_eq!(status(&got), expected, "{}: {path}: {got}", way.name);
        }
    });
}

#[test]
fn only_requests_that_may_have_two_effects_are_repeated() {
    Way::each(RETRY_503, |way| {
        way.origin.fail(&[answer(503)]);
        assert_eq!(status(&way.ask("POST", "/post", "", "x")), 503);
        assert_eq!(way.origin.effects("/post"), 1);
        assert_eq!(way.logged("/post")["attempts"][0]["retry"], "not_idempotent");
        // Who sends a key says that two of them are one.
        way.origin.fail(&[answer(503)]);
        assert_eq!(status(&way.ask("POST", "/keyed", "idempotency-key: 7\r\n", "x")), 200, "{}", way.name);
        assert_eq!(way.origin.effects("/keyed"), 2);
    });
}

#[test]
fn a_service_is_left_alone_for_as_long_as_it_asks() {
    Way::each("retry: {on: 503, backoff: 0, retry_after_max: 1s}", |way| {
        way.origin.fail(&[Fault::Answer(503, "retry-after: 1\r\n".into())]);
        let began = Instant::now();
        assert_eq!(status(&way.ask("GET", "/one", "", "")), 200);
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        way.origin.fail(&[Fault::Answer(503, "retry-after: 2\r\n".into())]);
        let began = Instant::now();
        assert_eq!(status(&way.ask("GET", "/two", "", "")), 503);
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(way.logged("/two")["attempts"][0]["retry"], "asked_to_wait");
    });
}

#[test]
fn the_budget_is_what_is_configured() {
    let settings = "retry: {on: 503, backoff: 0, attempts: 2}\nretry_budget: {percent: 10, per_second: 0}";
    let way = Way::single(settings);
    way.origin.fail(&vec![answer(503); 1_000]);
    let mut retried = 0;
    for at in 0..100 {
        let path = format!("/{at}");
        assert_eq!(status(&way.ask("GET", &path, "", "")), 503);
        retried += way.origin.effects(&path) - 1;
    }
    // Ten were saved up, as many as a hundred requests give.
    assert!((18..=20).contains(&retried), "{retried} of 100 were tried again");
    let line = way.logged("/99");
    assert!(
        ["budget", "attempts"].contains(&line["attempts"][0]["retry"].as_str().unwrap_or("attempts")),
        "{line}"
    );
    let denied =
        (0..100).filter(|at| way.logged(&format!("/{at}"))["attempts"][0]["retry"] == "budget").count();
    assert_eq!(denied as u32, 100 - retried);
}

/// A request with a body whose first instance refuses connections is sent to another one: by one proxy always, by a pair
/// where the body was kept.
#[test]
fn what_had_no_effect_is_tried_again_with_its_body() {
    let origin = Origin::start(1);
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let apps = [nobody, origin.addresses[0]];
    let way = Way::pair_to("retry: {backoff: 0}", origin, &apps, 0);
    for at in 0..6 {
        let path = format!("/{at}");
        assert_eq!(status(&way.ask("POST", &path, "", "a body")), 200, "{path}");
        assert_eq!(way.origin.effects(&path), 1);
    }
}
