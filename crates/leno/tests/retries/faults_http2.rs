//! The fault matrix where the application speaks HTTP/2, which can say that it has not looked at a request: then every method
//! is sent again. Up to the last byte of that word there is no proof, and a request that is not idempotent fails.

use std::thread;

use crate::origin::Origin as Nothing;
use crate::origin_http2::{
    Fault, LEAVE_BYTES, Origin, REFUSED_STREAM, RESET_BYTES, answer, answer_head_bytes,
};
use crate::{Way, ask, status};

const BUDGET: &str = "retry_budget: {percent: 100, per_second: 100000}";
const BODY: &str = "pay 5 to 7";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Single,
    Pair,
}

fn way(kind: Kind, origin: &Origin, retry: &str) -> Way {
    let settings = format!("protocol: http2\n{retry}{BUDGET}");
    match kind {
        Kind::Single => Way::single_to(&settings, Nothing::start(0), &origin.addresses),
        Kind::Pair => Way::pair_to(&settings, Nothing::start(0), &origin.addresses, 0),
    }
}

#[test]
fn an_application_in_http2_may_die_at_any_byte() {
    thread::scope(|scope| {
        for kind in [Kind::Single, Kind::Pair] {
            for keeps in [false, true] {
                for fresh in [false, true] {
                    scope.spawn(move || {
                        let origin = Origin::start(2);
                        if fresh {
                            origin.one_request_each();
                        }
                        let retry = if keeps { "retry: {backoff: 0}\n" } else { "" };
                        let way = way(kind, &origin, retry);
                        matrix(&way, &origin, keeps, fresh);
                        origin.close_gently();
                        matrix(&way, &origin, keeps, fresh);
                    });
                }
            }
        }
    });
}

fn matrix(way: &Way, origin: &Origin, keeps: bool, fresh: bool) {
    for (method, body, idempotent) in
        [("GET", "", true), ("PUT", BODY, true), ("POST", "", false), ("POST", BODY, false)]
    {
        // How the proxy writes the request says how many bytes there are to die at.
        for _ in 0..2 {
            assert_eq!(status(&way.ask(method, "/pay", "", body)), 200);
        }
        assert_eq!(origin.take_effects(), 2);
        let (first, whole) = origin.lengths();
        assert!(first > 33 && whole > 20, "{first} {whole}");
        let starts = (0..if fresh { first } else { 0 }).map(Fault::Start);
        let requests = (0..whole).map(Fault::Request);
        let responses = (0..answer(1).len()).map(Fault::Response);
        let refusals = (0..=RESET_BYTES).map(|bytes| Fault::Reset(REFUSED_STREAM, bytes));
        // NO_ERROR, INTERNAL_ERROR and CANCEL say nothing about what was seen.
        let resets = [0, 2, 8].map(|code| Fault::Reset(code, RESET_BYTES));
        let leaves = (0..=LEAVE_BYTES).map(|bytes| Fault::Leave { seen: false, bytes });
        let seen = Fault::Leave { seen: true, bytes: LEAVE_BYTES };
        let faults = starts.chain(requests).chain(responses).chain(refusals).chain(resets).chain(leaves);
        for fault in faults.chain([seen]) {
            let case =
                format!("{}, keeps {keeps}, fresh {fresh}: {method} of {} {fault:?}", way.name, body.len());
            origin.fail(Some(fault));
            let got = way.ask(method, "/pay", "", body);
            assert!(origin.is_met(), "{case}");
            let effects = origin.take_effects();
            let proof = match fault {
                Fault::Start(_) => true,
                Fault::Reset(code, bytes) => code == REFUSED_STREAM && bytes == RESET_BYTES,
                // The number of the last stream is the whole proof; what follows it says why the server goes.
                Fault::Leave { seen, bytes } => !seen && bytes >= LEAVE_BYTES - 4,
                Fault::Request(_) | Fault::Response(_) => false,
            };
            let done = u32::from(matches!(fault, Fault::Response(_)));
            let begun = matches!(fault, Fault::Response(bytes) if bytes >= answer_head_bytes());
            // What a peer has taken of a body is needed again; in front of one proxy nothing is taken before a connection stands.
            let in_hand =
                body.is_empty() || keeps || matches!(fault, Fault::Start(_)) && way.name == "one hop";
            let again = (idempotent || proof) && !begun && in_hand;
            let may = (idempotent || proof) && !begun;
            match status(&got) {
                200 if begun => {
                    assert!(!got.ends_with("hello"), "{case}: {got}");
                    assert_eq!(effects, 1, "{case}: nothing is sent again once the answer has begun");
                }
                200 => {
                    // A request whose head was shorter than it was the last time is simply answered.
                    let whole = matches!(fault, Fault::Request(bytes) if bytes + 3 > whole);
                    assert!(may || whole, "{case}: {got}");
                    assert!(got.ends_with("hello"), "{case}: {got}");
                    assert_eq!(effects, 1 + done, "{case}");
                }
                status => {
                    assert!(!again, "{case}: {got}");
                    assert!(begun || matches!(status, 502 | 503), "{case}: {got}");
                    assert!(proof || begun || got.contains("leno-reason: upstream_closed"), "{case}: {got}");
                    assert_eq!(effects, done, "{case}");
                }
            }
            assert!(idempotent || effects <= 1, "{case}: {effects} effects");
        }
    }
}

/// A server that leaves again and again, with requests on their way that it then never looks at, costs nobody anything,
/// whatever the method.
#[test]
fn servers_that_leave_under_load_cost_nobody_anything() {
    const CLIENTS: u32 = 8;
    const REQUESTS: u32 = 25;
    for kind in [Kind::Single, Kind::Pair] {
        let origin = Origin::start(2);
        origin.leave_after(3);
        let way = way(kind, &origin, "retry: {attempts: 10, backoff: 5ms}\n");
        let (address, name) = (way.address, way.name);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(move || {
                    for _ in 0..REQUESTS {
                        let got = ask(address, "POST", "/pay", "", BODY);
                        assert!(status(&got) == 200 && got.ends_with("hello"), "{name}: {got}");
                    }
                });
            }
        });
        // Each was answered, so each had an effect; none had two.
        assert_eq!(origin.take_effects(), CLIENTS * REQUESTS, "{}", way.name);
    }
}
