use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::head::Fields;
use crate::route::{Expected, Rule};
use crate::spec::{Change, FieldMatch, LinkMatch, MatchSpec, PathChange, PathMatch};

fn rule(when: MatchSpec, then: Then) -> Rule {
    Rule::new("r".into(), when, then)
}

fn list(rules: Vec<Rule>) -> RuleList {
    RuleList {
        name: "list".into(),
        rules: rules.into(),
        otherwise: Then::NoRoute,
        timeout: None,
        tries: None,
        expected: Expected::Http,
    }
}

fn prefix(path: &str) -> MatchSpec {
    MatchSpec { path: Some(PathMatch::Prefix(path.into())), ..MatchSpec::default() }
}

fn get(path: &str) -> RequestHead<'_> {
    RequestHead { method: b"GET", authority: b"a.example", path: path.as_bytes(), fields: Fields::default() }
}

#[test]
fn each_list_says_what_matched_and_what_was_asked_in_vain() {
    let strip = Change { path: Some(PathChange::Prefix("/".into())), ..Change::default() };
    let shop = Rule { change: Some(Arc::new(strip)), ..rule(prefix("/shop"), Then::List(ListId(1))) };
    let with = |change: fn(&mut MatchSpec)| {
        let mut when = MatchSpec::default();
        change(&mut when);
        rule(when, Then::NoRoute)
    };
    let gateway = list(vec![
        with(|when| when.methods = vec!["POST".into()]),
        with(|when| when.hosts = vec![crate::spec::HostMatch::Exact("b.example".into())]),
        with(|when| when.headers = vec![FieldMatch::exact("x-beta", Some("1"))]),
        with(|when| when.queries = vec![FieldMatch::exact("v", Some("1"))]),
        with(|when| when.grpc = Some(crate::spec::GrpcMatch::default())),
        with(|when| when.link = Some(Arc::new(LinkMatch { ports: vec![81], ..LinkMatch::default() }))),
        with(|when| when.also = vec![prefix("/other")]),
        shop,
    ]);
    // What the second list sees is what the first has made of the path.
    let service = list(vec![rule(prefix("/shop"), Then::NoRoute), rule(prefix("/cart"), Then::NoRoute)]);
    let passed = trail(&[gateway, service], ListId(0), &get("/shop/cart"), Link::UNKNOWN);
    let [first, second] = passed.as_slice() else { panic!("{passed:?}") };
    let why: Vec<&str> = first.lost.iter().map(|(_, why)| &**why).collect();
    assert_eq!(why, ["method", "host", "header x-beta", "query v", "grpc", "connection", "path"]);
    assert_eq!((first.rule, first.more), (Some(7), 0));
    assert_eq!((second.list, second.rule), (ListId(1), Some(1)));
    assert_eq!(second.lost, [(0, "path".into())]);
}

#[test]
fn of_many_the_last_are_named() {
    let rules = (0..1000).map(|number| rule(prefix(&alloc::format!("/{number}")), Then::NoRoute)).collect();
    let lists = [list(rules)];
    let passed = trail(&lists, ListId(0), &get("/500"), Link::UNKNOWN);
    assert_eq!((passed[0].rule, passed[0].more), (Some(500), 492));
    assert_eq!(passed[0].lost.len(), LOST_MAX);
    let passed = trail(&lists, ListId(0), &get("/none"), Link::UNKNOWN);
    assert_eq!((passed[0].rule, passed[0].lost.last().unwrap().0), (None, 999));
}
