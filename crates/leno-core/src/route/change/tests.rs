use alloc::string::String;
use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::route::{Expected, SplitId, decide};
use crate::spec::{Change, Direct, Format, Pattern, Replacement, Scope, Template};

const FACTS: Facts<'static> = Facts {
    client: b"10.0.0.9",
    scheme: Scheme::Http,
    source: "gateway",
    service: "shop/cart",
    request_id: b"id-1",
    link: Link::UNKNOWN,
};

fn get<'a>(authority: &'a str, path: &'a str) -> RequestHead<'a> {
    RequestHead {
        method: b"GET",
        authority: authority.as_bytes(),
        path: path.as_bytes(),
        fields: Fields::default(),
    }
}

fn rule(path: PathMatch, change: Change, then: Then) -> Rule {
    let when = MatchSpec { path: Some(path), ..MatchSpec::default() };
    Rule { change: Some(Arc::new(change)), ..Rule::new("r".into(), when, then) }
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

fn template(text: &str) -> PathMatch {
    PathMatch::Template(Template::parse(text).unwrap())
}

fn whole(text: &str, parts: &[&str]) -> PathChange {
    PathChange::Whole(Format::parse(text, Scope::Path, parts).unwrap())
}

fn regex(pattern: &str, with: &str) -> PathChange {
    let pattern = Pattern::anywhere(pattern).unwrap();
    let with = Replacement::parse(with, &pattern).unwrap();
    PathChange::Regex(pattern, with)
}

fn changed(rules: Vec<Rule>, head: &RequestHead<'_>) -> Result<(Changed, Edits), Unfit> {
    let mut edits = Edits::default();
    let lists = [list(rules)];
    Changed::by(&lists, ListId(0), head, &FACTS, &mut edits).map(|changed| (changed, edits))
}

#[test]
fn paths_are_rewritten_and_keep_their_query() {
    let prefix = |text: &str| PathMatch::Prefix(text.into());
    let start = |text: &str| PathMatch::Start(text.into());
    let to = |text: &str| PathChange::Prefix(text.into());
    let cases = [
        (prefix("/v1"), to("/"), "/v1", "/"),
        (prefix("/v1"), to("/"), "/v1/users?a=/v1", "/users?a=/v1"),
        (prefix("/v1"), to("/v2"), "/v1/users", "/v2/users"),
        (prefix("/v1"), to("/v2/"), "/v1/users", "/v2/users"),
        (prefix("/v1/"), to("/v2"), "/v1/", "/v2/"),
        (prefix("/"), to("/api"), "/users", "/api/users"),
        (start("/v1"), to("/"), "/v1/users", "/users"),
        (start("/v1"), to("/"), "/v1beta", "/beta"),
        (start("/v1/"), to("/v2/"), "/v1/users", "/v2/users"),
        (PathMatch::Exact("/old".into()), to("/new"), "/old?q", "/new?q"),
        (template("/users/{id}/**"), whole("/u/{id}", &["id"]), "/users/7/x?y", "/u/7?y"),
        (template("/a/{rest=**}"), whole("/b/{rest}", &["rest"]), "/a/x/y", "/b/x/y"),
        (prefix("/"), whole("/fixed", &[]), "/any?q=1", "/fixed?q=1"),
        (prefix("/"), regex("/([0-9]+)/(.*)", r"/\2/\1"), "/7/a/b?/8/c", "/a/b/7?/8/c"),
        (prefix("/"), regex("x", ""), "/axbx", "/ab"),
        (prefix("/"), regex("^/x", "y"), "/x/z", "/y/z"),
        (prefix("/"), regex("none", "some"), "/as/it/is", "/as/it/is"),
        (prefix("/"), regex("", "-"), "/a", "/-/-a-"),
    ];
    for (path, change, asked, expected) in cases {
        let change = Change { path: Some(change), ..Change::default() };
        let said = alloc::format!("{path:?} {change:?}");
        let head = get("h", asked);
        let (found, _) = changed(vec![rule(path, change, Then::NoRoute)], &head).unwrap();
        let found = String::from_utf8(found.head(&head).path.into()).unwrap();
        assert_eq!(found, expected, "{said} of {asked}");
    }
}

#[test]
fn a_path_that_becomes_too_long_is_none() {
    let change = Change { path: Some(regex("a", &"b".repeat(1000))), ..Change::default() };
    let long = alloc::format!("/{}", "a".repeat(100));
    let rules = vec![rule(PathMatch::Prefix("/".into()), change, Then::NoRoute)];
    assert_eq!(changed(rules, &get("h", &long)).map(|_| ()), Err(Unfit));
}

#[test]
fn fields_are_changed_with_what_is_known_of_the_request() {
    let format = |text: &str| Format::parse(text, Scope::Field, &["id"]).unwrap();
    let fields = FieldChanges {
        remove: vec!["x-gone".into()],
        set: vec![
            ("x-a".into(), format("{client_address} {host} {method} {path}?{query}")),
            ("x-b".into(), format("{scheme}:{source}>{service}/{route}#{request_id}")),
        ],
        add: vec![("x-a".into(), format("user {id}")), ("x-gone".into(), format("back"))],
    };
    let change = Change { request: fields, ..Change::default() };
    let rules = vec![rule(template("/users/{id}"), change, Then::NoRoute)];
    let buf = b"X-Gone1X-A2x-kept3";
    let field = |start, middle, end| Field {
        name: Span::new(start, middle),
        value: Span::new(middle, end),
        id: FieldId::Other,
    };
    let spans = [field(0, 6, 7), field(7, 10, 11), field(11, 17, 18)];
    let head = RequestHead { fields: Fields::new(buf, &spans), ..get("Shop:8080", "/users/7?x=y") };
    let mut edits = Edits::default();
    // What another hop's edits have added goes too.
    edits.set(b"x-gone", b"added before");
    edits.set(b"x-a", b"added before");
    Changed::by(&[list(rules)], ListId(0), &head, &FACTS, &mut edits).unwrap();
    let found: Vec<(&str, &str)> = edits
        .applied(head.fields)
        .map(|(name, value)| (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("x-kept", "3"),
            ("x-a", "10.0.0.9 Shop GET /users/7?x=y"),
            ("x-b", "http:gateway>shop/cart/r#id-1"),
            ("x-a", "user 7"),
            ("x-gone", "back"),
        ]
    );
}

#[test]
fn the_next_list_sees_what_the_rule_before_has_made() {
    let strip = Change {
        path: Some(PathChange::Prefix("/".into())),
        host: Some("shop.internal".into()),
        ..Change::default()
    };
    let again = Change { path: Some(whole("/twice/{x}", &["x"])), ..Change::default() };
    let lists = [
        list(vec![rule(PathMatch::Prefix("/shop".into()), strip, Then::List(ListId(1)))]),
        list(vec![
            rule(PathMatch::Prefix("/shop".into()), Change::default(), Then::NoSuchService),
            rule(template("/cart/{x}"), again, Then::Split(SplitId(0))),
        ]),
    ];
    let head = get("shop.example", "/shop/cart/7?q");
    let decision = decide(&lists, ListId(0), &head, Link::UNKNOWN);
    assert_eq!((decision.list, decision.rule), (ListId(1), Some(1)));
    assert_eq!(decision.then, Then::Split(SplitId(0)));
    assert!(decision.changed);
    let changed = Changed::by(&lists, ListId(0), &head, &FACTS, &mut Edits::default()).unwrap();
    let sent = changed.head(&head);
    assert_eq!((sent.authority, sent.path), (&b"shop.internal"[..], &b"/twice/7?q"[..]));
    assert_eq!(changed.by, [(ListId(0), 0), (ListId(1), 1)]);
}

#[test]
fn delegation_with_changes_ends() {
    let change = Change { path: Some(whole("/a", &[])), ..Change::default() };
    let lists = [list(vec![rule(PathMatch::Prefix("/".into()), change, Then::List(ListId(0)))])];
    assert_eq!(decide(&lists, ListId(0), &get("h", "/"), Link::UNKNOWN).then, Then::NoRoute);
    let changed = Changed::by(&lists, ListId(0), &get("h", "/"), &FACTS, &mut Edits::default()).unwrap();
    assert_eq!(changed.by.len(), DELEGATION_MAX);
}

fn redirect() -> Redirect {
    Redirect { scheme: None, host: None, port: None, path: None, status: 302 }
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let https = Some(Scheme::Https);
    let host = Some("new.example".into());
    let prefix = Some(PathChange::Prefix("/new".into()));
    let cases = [
        (Redirect { scheme: https, ..redirect() }, "a:8080", "https://a/old/1?q"),
        (Redirect { scheme: https, port: Some(8443), ..redirect() }, "a:8080", "https://a:8443/old/1?q"),
        (Redirect { scheme: https, port: Some(443), ..redirect() }, "a", "https://a/old/1?q"),
        (Redirect { host: host.clone(), ..redirect() }, "a:8080", "http://new.example/old/1?q"),
        (Redirect { host, port: Some(80), ..redirect() }, "a:8080", "http://new.example/old/1?q"),
        (Redirect { path: prefix.clone(), ..redirect() }, "a:8080", "http://a:8080/new/1?q"),
        (Redirect { path: prefix.clone(), ..redirect() }, "[::1]:81", "http://[::1]:81/new/1?q"),
        (Redirect { path: prefix.clone(), ..redirect() }, "a:80", "http://a/new/1?q"),
        (Redirect { path: prefix, ..redirect() }, "", "/new/1?q"),
        (Redirect { path: Some(whole("/fixed", &[])), ..redirect() }, "a", "http://a/fixed?q"),
    ];
    for (redirect, authority, expected) in cases {
        let said = alloc::format!("{redirect:?}");
        let answer = Some(Arc::new(Answer::Redirect(redirect)));
        let old = rule(PathMatch::Prefix("/old".into()), Change::default(), Then::Answer(302));
        let (found, _) = changed(vec![Rule { answer, ..old }], &get(authority, "/old/1?q")).unwrap();
        assert_eq!(str::from_utf8(&found.location).unwrap(), expected, "{said} of {authority}");
    }
}

#[test]
fn an_answer_has_its_headers_and_those_of_the_rule() {
    let format = |text: &str| Format::parse(text, Scope::Field, &[]).unwrap();
    let direct = Direct {
        status: 503,
        headers: vec![("retry-after".into(), format("60")), ("x-path".into(), format("{path}"))],
        body: "later".into(),
    };
    let response = FieldChanges { set: vec![("x-by".into(), format("{route}"))], ..FieldChanges::default() };
    let change = Change { response, ..Change::default() };
    let rule = Rule {
        answer: Some(Arc::new(Answer::Direct(direct))),
        rates: vec![],
        ..rule(PathMatch::Prefix("/".into()), change, Then::Answer(503))
    };
    let lists = [list(vec![rule])];
    let decision = decide(&lists, ListId(0), &get("h", "/a"), Link::UNKNOWN);
    assert_eq!((decision.then, decision.changed), (Then::Answer(503), true));
    let (found, edits) = changed(vec![lists[0].rules[0].clone()], &get("h", "/a")).unwrap();
    assert!(edits.is_empty());
    let added: Vec<(&[u8], &[u8])> = found.response.added().collect();
    assert_eq!(
        added,
        [(&b"x-by"[..], &b"r"[..]), (&b"retry-after"[..], &b"60"[..]), (&b"x-path"[..], &b"/a"[..]),]
    );
    assert!(matches!(found.answer.as_deref(), Some(Answer::Direct(it)) if &*it.body == "later"));
}
