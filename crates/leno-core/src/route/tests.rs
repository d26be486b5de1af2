use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::spec::{FieldMatch, GrpcMatch, HostMatch, LinkMatch, PathMatch, Pattern, Template, TextMatch};

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
    let mut when =
        MatchSpec { headers: vec![FieldMatch::exact("x-beta", Some("1"))], ..MatchSpec::default() };
    assert!(holds(&when, &with));
    assert!(!holds(&when, &without));
    when.methods = vec!["POST".into()];
    assert!(!holds(&when, &with));
    when.methods.push("GET".into());
    assert!(holds(&when, &with));
}

#[test]
fn other_paths_are_what_they_say() {
    let start = |text: &str| PathMatch::Start(text.into());
    let regex = |text| PathMatch::Regex(Pattern::whole(text).unwrap());
    let template = |text| PathMatch::Template(Template::parse(text).unwrap());
    let cases = [
        (start("/a"), false, "/ab?c", true),
        (start("/a"), false, "/A", false),
        (start("/a"), true, "/Ab", true),
        (start("/abc"), false, "/ab", false),
        (regex("/v[12]/.*"), false, "/v1/users?x=/v3/", true),
        (regex("/v[12]"), false, "/v1/users", false),
        (template("/users/{id}"), false, "/users/7?x", true),
        (template("/users/{id}"), true, "/USERS/7", true),
        (PathMatch::Exact("/Users".into()), true, "/users", true),
        (PathMatch::Prefix("/Users".into()), true, "/users/7", true),
        (PathMatch::Prefix("/Users".into()), true, "/usersearch", false),
    ];
    for (path, path_any_case, target, expected) in cases {
        let when = MatchSpec { path: Some(path), path_any_case, ..MatchSpec::default() };
        assert_eq!(holds(&when, &head("GET", "h", target, Fields::default())), expected, "{when:?} {target}");
    }
}

#[test]
fn values_are_compared_in_every_way() {
    let text = |text: &str| -> alloc::sync::Arc<str> { text.into() };
    let cases = [
        (TextMatch::Present, [true, true, false]),
        (TextMatch::Exact(text("Beta-7")), [true, false, false]),
        (TextMatch::Prefix(text("Beta")), [true, false, false]),
        (TextMatch::Suffix(text("-7")), [true, true, false]),
        (TextMatch::Contains(text("eta")), [true, true, false]),
        (TextMatch::Regex(Pattern::whole("[Bb]eta-[0-9]").unwrap()), [true, true, false]),
    ];
    for (value, expected) in cases {
        for (given, expected) in [Some("Beta-7"), Some("beta-7"), None].into_iter().zip(expected) {
            let field = FieldMatch { name: "v".into(), value: value.clone(), any_case: false, not: false };
            let folded = FieldMatch { any_case: true, ..field.clone() };
            let not = FieldMatch { not: true, ..field.clone() };
            let path = given.map_or("/".into(), |value| alloc::format!("/?a=1&v={value}&v=other"));
            let asked = |field| {
                let when = MatchSpec { queries: vec![field], ..MatchSpec::default() };
                holds(&when, &head("GET", "h", &path, Fields::default()))
            };
            assert_eq!(asked(field), expected, "{value:?} {given:?}");
            assert_eq!(asked(not), !expected, "not {value:?} {given:?}");
            assert_eq!(asked(folded), given.is_some(), "{value:?} {given:?} in any case");
        }
    }
}

#[test]
fn a_query_is_compared_as_it_is_meant() {
    let asked = |name: &str, value: &str, path: &str| {
        let queries = vec![FieldMatch::exact(name, Some(value))];
        holds(&MatchSpec { queries, ..MatchSpec::default() }, &head("GET", "h", path, Fields::default()))
    };
    assert!(asked("a b", "c&d", "/?x&a+b=c%26d"));
    assert!(asked("a", "", "/?a"));
    assert!(asked("a", "%zz", "/?a=%zz"));
    assert!(asked("a", "1", "/?&a=1"));
    assert!(!asked("a", "1", "/a=1"));
    assert!(!asked("", "", "/?"));
    assert!(!asked("a", "1", "/?a=2&a=1"));
}

#[test]
fn calls_are_told_by_their_path_and_type() {
    let buf = b"content-typeapplication/grpc+proto";
    let fields = [Field { name: Span::new(0, 12), value: Span::new(12, buf.len()), id: FieldId::Other }];
    let call = |service: Option<&str>, method: Option<&str>, path, fields| {
        let grpc = GrpcMatch { service: service.map(Into::into), method: method.map(Into::into) };
        let when = MatchSpec { grpc: Some(grpc), ..MatchSpec::default() };
        holds(&when, &head("POST", "h", path, fields))
    };
    let fields = Fields::new(buf, &fields);
    assert!(call(Some("users.v1.Users"), Some("Get"), "/users.v1.Users/Get", fields));
    assert!(call(Some("users.v1.Users"), None, "/users.v1.Users/Get", fields));
    assert!(call(None, Some("Get"), "/users.v1.Users/Get", fields));
    assert!(!call(Some("users.v1"), None, "/users.v1.Users/Get", fields));
    assert!(!call(Some("users.v1.Users"), Some("Put"), "/users.v1.Users/Get", fields));
    assert!(!call(None, None, "/users.v1.Users/Get", Fields::default()), "no call");
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
    Rule::new(name.into(), on_path(PathMatch::Prefix(path.into())), then)
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
    let decide = |path| decide(&lists, ListId(0), &head("GET", "h", path, Fields::default()), Link::UNKNOWN);
    let a = decide("/a/1");
    assert_eq!((a.list, a.rule, a.then), (ListId(1), None, Then::Split(SplitId(0))));
    let b = decide("/b");
    assert_eq!((b.list, b.rule, b.then), (ListId(0), Some(2), Then::NoSuchService));
    assert_eq!(decide("/c").then, Then::NoRoute);
}

#[test]
fn a_delegation_loop_ends() {
    let lists = [list("loop", vec![], Then::List(ListId(0)))];
    let decision = decide(&lists, ListId(0), &head("GET", "h", "/", Fields::default()), Link::UNKNOWN);
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
    assert_eq!(decide(&lists, ListId(0), &head, Link::UNKNOWN).timeout, Some(second));
    assert_eq!(decide(&lists, ListId(1), &head, Link::UNKNOWN).timeout, Some(second * 9));
}

/// What a connection is asked holds for one of bytes, too; a request is not looked at for it.
#[test]
fn connections_are_told_apart_by_what_they_are() {
    let asks = |link: LinkMatch| MatchSpec { link: Some(Arc::new(link)), ..MatchSpec::default() };
    let client = crate::spec::Cidr::parse("10.0.0.0/8").unwrap();
    let split = |number| Then::Split(SplitId(number));
    let rules = vec![
        Rule::new("port".into(), asks(LinkMatch { ports: vec![81, 82], ..LinkMatch::default() }), split(0)),
        Rule::new(
            "client".into(),
            asks(LinkMatch { clients: vec![client], ..LinkMatch::default() }),
            split(1),
        ),
        Rule::new(
            "name".into(),
            asks(LinkMatch {
                server_names: vec![HostMatch::Suffix(".example".into())],
                ..LinkMatch::default()
            }),
            split(2),
        ),
    ];
    let lists = [list("list", rules, Then::NoRoute)];
    let then = |link, authority: &str| decide_connection(&lists, ListId(0), link, authority.as_bytes()).then;
    let port = |port| Link { port: Some(port), ..Link::UNKNOWN };
    let client = |ip: &str| Link { client: ip.parse().ok(), ..Link::UNKNOWN };
    let named = |name| Link { server_name: Some(name), ..Link::UNKNOWN };
    for (link, authority, expected) in [
        (port(82), "a", split(0)),
        (port(83), "a:81", Then::NoRoute),
        // Where the connection says nothing, the one that is asked for counts.
        (Link::UNKNOWN, "a:81", split(0)),
        (Link::UNKNOWN, "a:x", Then::NoRoute),
        (client("10.1.2.3"), "a", split(1)),
        (client("11.1.2.3"), "a", Then::NoRoute),
        (named("a.EXAMPLE"), "a", split(2)),
        (named("example"), "a", Then::NoRoute),
    ] {
        assert_eq!(then(link, authority), expected, "{link:?} {authority}");
    }
}
