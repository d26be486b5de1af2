//! HTTP/2 as RFC 9113 and RFC 7541 have it, section by section, and floods of it, against the real proxies on loopback:
//! a gateway, and a pair of sidecars (the client's outbound port, the mesh, the server's inbound side). The frames are
//! made here: no library refuses to send what is wrong. Deviations are explained in docs/conformance.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod deviations;
mod floods;
mod frame;
mod hpack;
mod origin;
mod origin_http2;
mod peer;
mod secure;
mod servers;
mod target;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cases::Case;
use peer::{OTHER_CODE, Outcome, Peer, UNEXPLAINED, WIDER};
use rustls::ClientConfig;
use target::Target;

/// Cases at a time: most of their time they wait.
const AT_ONCE: usize = 8;

/// Runs every case against an address, in the order of the table.
fn run(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Vec<(Case, Outcome)> {
    let cases = cases::all();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = match Peer::connect_with(to, tls) {
                        Ok(mut peer) => case.run(&mut peer),
                        Err(error) => Err(format!("no connection: {error}")),
                    };
                    outcomes.lock().unwrap().push((case.name(), outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    let outcome = |case: Case| {
        let at = outcomes.iter().position(|(name, _)| *name == case.name()).unwrap();
        let (_, outcome) = outcomes.swap_remove(at);
        (case, outcome)
    };
    cases.into_iter().map(outcome).collect()
}

/// Prints remarks and deviations and a last line with numbers; the deviations by name.
fn report(to: &str, outcomes: &[(Case, Outcome)]) -> Vec<(String, String)> {
    let mut deviations = Vec::new();
    let mut remarks = BTreeMap::from([WIDER, UNEXPLAINED, OTHER_CODE].map(|remark| (remark, 0)));
    for (case, outcome) in outcomes {
        match outcome {
            Ok(None) => {}
            Ok(Some(remark)) => {
                *remarks.entry(remark).or_insert(0) += 1;
                println!("remark    {}: {remark}", case.name());
            }
            Err(what) => {
                println!("deviation {}: {what}", case.name());
                deviations.push((case.name(), what.clone()));
            }
        }
    }
    let exact = outcomes.len() - deviations.len() - remarks.values().sum::<usize>();
    let remarks: Vec<String> = remarks.iter().map(|(remark, count)| format!("{count} {remark}")).collect();
    let all = outcomes.len();
    println!("{to}: of {all} cases {exact} exact, {}, {} otherwise", remarks.join(", "), deviations.len());
    deviations
}

/// Every deviation and every remark is known, and every known one is still there.
fn conforms(target: &Target) {
    let outcomes = run(target.address, target.tls.as_ref());
    let mut found = report(target.name, &outcomes);
    // A peer may be wider than it needs to be; here that is a decision, and written down.
    let remarked =
        outcomes.iter().filter_map(|(case, outcome)| Some((case.name(), (*outcome).clone().ok()??)));
    found.extend(remarked.map(|(name, remark)| (name, remark.to_owned())));
    deviations::are_explained(target.name, deviations::AS_A_SERVER, &found);
    assert!(target.lives(), "{} has not survived", target.name);
}

#[test]
fn names_of_cases_are_their_own() {
    let mut names: Vec<String> = cases::all().iter().map(Case::name).collect();
    names.sort();
    let doubled: Vec<&String> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let known = deviations::known(deviations::AS_A_SERVER);
    let unknown: Vec<_> = known.into_iter().filter(|known| !names.iter().any(|name| name == known)).collect();
    assert!(unknown.is_empty(), "explained, but no case: {unknown:?}");
}

#[test]
fn a_gateway_conforms() {
    conforms(&Target::gateway());
}

#[test]
fn sidecars_conform() {
    conforms(&Target::sidecars());
}

#[test]
fn a_gateway_with_tls_conforms() {
    conforms(&Target::gateway_with_tls());
}

/// A sidecar's inbound side alone, as a peer reaches it that is no Leno.
#[test]
fn an_inbound_sidecar_conforms() {
    conforms(&Target::inbound());
}

#[test]
fn a_gateway_before_an_application_of_http2_conforms() {
    conforms(&Target::gateway_before("http2", origin_http2::start()));
}

#[test]
fn sidecars_before_an_application_of_http2_conform() {
    conforms(&Target::sidecars_before("http2", origin_http2::start()));
}

#[test]
#[ignore = "needs a peer that is started by hand: docs/conformance.md"]
fn a_peer_is_measured() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    origin::start(variable("LENO_CONFORMANCE_ORIGIN").parse().unwrap());
    let peer = variable("LENO_CONFORMANCE_PEER");
    report(&peer, &run(peer.parse().unwrap(), None));
}
