//! The fault matrix: the application is cut off at every byte of the request and of its answer, and keeps a ledger. What is
//! not idempotent takes effect at most once; what is, or provably had no effect, is answered all the same.

use std::net::SocketAddr;
use std::thread;

use crate::common::free_port;
use crate::origin::{ANSWER, Fault, Origin};
use crate::{Way, status};

/// Enough for every case of the matrix: budgets have tests of their own.
const BUDGET: &str = "retry_budget: {percent: 100, per_second: 100000}";
const PLAIN: &str = BUDGET;
const KEEPS_BODIES: &str = "retry: {backoff: 0}\nretry_budget: {percent: 100, per_second: 100000}";
const BODY: &str = "pay 5 to 7";

#[test]
fn an_application_may_die_at_any_byte() {
    type Make = fn(&str) -> Way;
    let ways: [(Make, &str, bool); 4] = [
        (Way::single, PLAIN, false),
        (Way::single, KEEPS_BODIES, true),
        (Way::pair, PLAIN, false),
        (Way::pair, KEEPS_BODIES, true),
    ];
    thread::scope(|scope| {
        for (make, settings, keeps) in ways {
            scope.spawn(move || {
                let way = make(settings);
                matrix(&way, keeps);
                way.origin.close_gently();
                matrix(&way, keeps);
            });
        }
    });
}

fn matrix(way: &Way, keeps: bool) {
    for (method, body, idempotent) in [("GET", "", true), ("PUT", BODY, true), ("POST", BODY, false)] {
        // How the proxy writes the request says how many bytes there are to die at.
        assert_eq!(status(&way.ask(method, &format!("/{method}/0000"), "", body)), 200);
        let whole = way.origin.take_seen().pop().unwrap().head.len();
        assert!(whole > 80, "{whole}");
        let head = ANSWER.len() - "hello".len();
        let requests = (0..whole).map(Fault::Request);
        let responses = (0..ANSWER.len()).map(Fault::Response);
        for (at, fault) in requests.chain(responses).enumerate() {
            let path = format!("/{method}/{at:03}{}", if way.origin.is_gentle() { "c" } else { "r" });
            let case = format!("{}, keeps {keeps}: {method} {fault:?}", way.name);
            way.origin.fail(std::slice::from_ref(&fault));
            let got = way.ask(method, &path, "", body);
            assert_eq!(way.origin.unmet(), 0, "{case}");
            let effects = way.origin.effects(&path);
            let done = matches!(fault, Fault::Response(_));
            let begun = matches!(fault, Fault::Response(bytes) if bytes >= head);
            let again = idempotent && !begun && (body.is_empty() || keeps);
            // A body that was not kept is gone when it was read before anybody knew; a head that never left is not.
            let may = idempotent && !begun;
            match status(&got) {
                200 if begun => {
                    assert!(!got.ends_with("hello"), "{case}: {got}");
                    assert_eq!(effects, 1, "{case}: nothing is sent again once the answer has begun");
                }
                200 => {
                    assert!(may, "{case}: {got}");
                    assert!(got.ends_with("hello"), "{case}: {got}");
                    assert_eq!(effects, 1 + u32::from(done), "{case}");
                }
                status => {
                    assert!(!again, "{case}: {got}");
                    assert!(
                        begun || status == 502 && got.contains("leno-reason: upstream_closed"),
                        "{case}: {got}"
                    );
                    assert_eq!(effects, u32::from(done), "{case}");
                }
            }
            assert!(idempotent || effects <= 1, "{case}: {effects} effects");
        }
    }
}

/// Where there is a proof that nothing was seen, every method is sent again: a refused connection, in front of one proxy or
/// behind the other one. A body that a peer has taken is needed again, so there it has to have been kept.
#[test]
fn a_proof_lets_every_method_be_tried_again() {
    let nobody: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    for settings in [PLAIN, KEEPS_BODIES] {
        let way = Way::single_to(settings, Origin::start(1), &[nobody]);
        let origin = Origin::start(1);
        let apps = [nobody, origin.addresses[0]];
        let pair = Way::pair_to(settings, origin, &apps, 0);
        for way in [way, pair] {
            for (method, body) in [("GET", ""), ("POST", ""), ("POST", BODY), ("PATCH", BODY)] {
                for at in 0..8 {
                    let path = format!("/{method}{}/{at}", body.len());
                    let got = way.ask(method, &path, "", body);
                    let effects = way.origin.effects(&path);
                    let lost = way.name == "a pair" && settings == PLAIN && !body.is_empty();
                    match status(&got) {
                        200 => assert_eq!(effects, 1, "{}: {path}", way.name),
                        503 if lost => assert_eq!(effects, 0, "{path}"),
                        other => panic!("{}: {path}: {other}: {got}", way.name),
                    }
                }
            }
        }
    }
}
