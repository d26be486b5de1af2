use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::spec::HeaderMatch;

fn head<'a>(method: &'a str, authority: &'a str, path: &'a str, fields: Fields<'a>) -> RequestHead<'a> {
    RequestHead { method: method.as_bytes(), authority: authority.as_bytes(), path: path.as_bytes(), fields }
}

fn holds(when: &MatchSpec, head: &RequestHead<'_>) -> bool {
    matches(when, &Subject::new(head))
}

fn on_path(path: PathMatch) -> MatchSpec {
    MatchSpec { path: Some(path), ..MatchSpec::default() }
}

#[test]
fn a_prefix_covers_whole_segments_only() {
    let cases = [
        ("/a", "/a", true),
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a", "/a?x=/", true),
        ("/a", "/ab", false),
        ("/a/", "/a", true),
        ("/a/", "/a/b", true),
        ("/a/", "/b", false),
        ("/", "/anything", true),
        ("/", "/", true),
        ("/a", "/", false),
    ];
    for (prefix, path, expected) in cases {
        let found =
            holds(&on_path(PathMatch::Prefix(prefix.into())), &head("GET", "h", path, Fields::default()));
        assert_eq!(found, expected, "prefix {prefix} on {path}");
    }
}

#[test]
fn an_exact_path_ignores_the_query() {
    let when = on_path(PathMatch::Exact("/a".into()));
    assert!(holds(&when, &head("GET", "h", "/a?b=c", Fields::default())));
    assert!(!holds(&when, &head("GET", "h", "/a/", Fields::default())));
}

#[test]
fn hosts_match_without_case_and_port() {
    let cases = [
        (HostMatch::Exact("shop.example".into()), "SHOP.example:8080", true),
        (HostMatch::Exact("shop.example".into()), "a.shop.example", false),
        (HostMatch::Suffix(".example".into()), "shop.Example", true),
        (HostMatch::Suffix(".example".into()), ".example", false),
        (HostMatch::Exact("[::1]".into()), "[::1]:80", true),
    ];
    for (host, authority, expected) in cases {
        let when = MatchSpec { hosts: vec![host.clone()], ..MatchSpec::default() };
        assert_eq!(
            holds(&when, &head("GET", authority, "/", Fields::default())),
            expected,
            "{host:?} {authority}"
        );
    }
}

#[test]
fn headers_and_methods_must_all_hold() {
    let buf = b"X-Beta1";
    let fields = [Field { name: Span::new(0, 6), value: Span::new(6, 7), id: FieldId::Other }];
    let with = head("GET", "h", "/", Fields::new(buf, &fields));
    let without = head("GET", "h", "/", Fields::default());
    let mut when = MatchSpec {
        headers: vec![HeaderMatch { name: "x-beta".into(), value: Some("1".into()) }],
        ..MatchSpec::default()
    };
    assert!(holds(&when, &with));
    assert!(!holds(&when, &without));
    when.methods = vec!["POST".into()];
    assert!(!holds(&when, &with));
    when.methods.push("GET".into());
    assert!(holds(&when, &with));
}

fn list(name: &str, rules: Vec<Rule>, otherwise: Then) -> RuleList {
    RuleList {
        name: name.into(),
        rules: rules.into(),
        otherwise,
        timeout: None,
        tries: None,
        expected: Expected::Anything,
    }
}

fn rule(name: &str, path: &str, then: Then) -> Rule {
    Rule {
        name: name.into(),
        when: on_path(PathMatch::Prefix(path.into())),
        then,
        timeout: None,
        tries: None,
    }
}

#[test]
fn the_first_match_wins_and_is_named() {
    let lists = [
        list(
            "gateway",
            vec![
                rule("a", "/a", Then::List(ListId(1))),
                rule("a-again", "/a", Then::NoSuchService),
                rule("b", "/b", Then::NoSuchService),
            ],
            Then::NoRoute,
        ),
        list("a", vec![], Then::Split(SplitId(0))),
    ];
    let decide = |path| decide(&lists, ListId(0), &head("GET", "h", path, Fields::default()));
    let a = decide("/a/1");
    assert_eq!((a.list, a.rule, a.then), (ListId(1), None, Then::Split(SplitId(0))));
    let b = decide("/b");
    assert_eq!((b.list, b.rule, b.then), (ListId(0), Some(2), Then::NoSuchService));
    assert_eq!(decide("/c").then, Then::NoRoute);
}

#[test]
fn a_delegation_loop_ends() {
    let lists = [list("loop", vec![], Then::List(ListId(0)))];
    let decision = decide(&lists, ListId(0), &head("GET", "h", "/", Fields::default()));
    assert_eq!(decision.then, Then::NoRoute);
}

#[test]
fn the_callers_rule_decides_the_timeout() {
    let second = Duration::from_secs(1);
    let mut gateway = rule("a", "/", Then::List(ListId(1)));
    gateway.timeout = Some(second);
    let mut service = list("a", vec![], Then::Split(SplitId(0)));
    service.timeout = Some(second * 9);
    let lists = [list("gateway", vec![gateway], Then::NoRoute), service];
    let head = head("GET", "h", "/", Fields::default());
    assert_eq!(decide(&lists, ListId(0), &head).timeout, Some(second));
    assert_eq!(decide(&lists, ListId(1), &head).timeout, Some(second * 9));
}
