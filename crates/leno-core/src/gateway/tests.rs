use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::name::ServiceId;

fn host(text: &str) -> HostMatch {
    match text.strip_prefix('*') {
        Some(suffix) => HostMatch::Suffix(suffix.into()),
        None => HostMatch::Exact(text.into()),
    }
}

fn hosts(texts: &[&str]) -> Vec<HostMatch> {
    texts.iter().map(|text| host(text)).collect()
}

fn head<'a>(method: &'a str, authority: &'a str, path: &'a str) -> RequestHead<'a> {
    let (method, authority, path) = (method.as_bytes(), authority.as_bytes(), path.as_bytes());
    RequestHead { method, authority, path, fields: Fields::default() }
}

#[test]
fn a_listener_serves_its_hosts_and_no_others() {
    let listener = HttpSpec { hosts: hosts(&["shop.example", "*.shop.example"]), ..HttpSpec::default() };
    for (authority, served) in [
        ("shop.example", true),
        ("SHOP.example:8080", true),
        ("shop.example.", true),
        ("a.shop.example", true),
        ("a.b.shop.example", true),
        ("shopping.example", false),
        ("xshop.example", false),
        (".shop.example", false),
        ("example", false),
        ("", false),
    ] {
        let then = turn_away(&listener, None, &head("GET", authority, "/"));
        assert_eq!(then, (!served).then_some(Then::NoRoute), "{authority}");
    }
    assert_eq!(turn_away(&HttpSpec::default(), None, &head("GET", "", "/")), None);
}

#[test]
fn a_connection_is_for_the_hosts_of_its_certificate() {
    let shown = Shown {
        server_name: Some("a.example".into()),
        names: hosts(&["a.example", "b.example", "*.c.example"]).into(),
        client: None,
    };
    let any = HttpSpec::default();
    for (authority, served) in [
        ("a.example", true),
        ("A.EXAMPLE:443", true),
        ("b.example", true),
        ("x.c.example", true),
        ("x.y.c.example", false),
        ("c.example", false),
        ("d.example", false),
        ("", false),
    ] {
        let then = turn_away(&any, Some(&shown), &head("GET", authority, "/"));
        assert_eq!(then, (!served).then_some(Then::Misdirected), "{authority}");
    }
    // Who asked for no name gets what the rules say.
    let nameless = Shown { server_name: None, ..shown.clone() };
    assert_eq!(turn_away(&any, Some(&nameless), &head("GET", "d.example", "/")), None);
    // The default certificate may not have the name that was asked for.
    let other = Shown { server_name: Some("z.example".into()), ..shown };
    assert_eq!(turn_away(&any, Some(&other), &head("GET", "z.example", "/")), None);
}

#[test]
fn what_has_to_come_over_https_is_sent_there() {
    let listener = HttpSpec { redirect: Some(443), hosts: hosts(&["shop.example"]), ..HttpSpec::default() };
    let then = |method, authority| turn_away(&listener, None, &head(method, authority, "/a?b=c"));
    assert_eq!(then("GET", "shop.example"), Some(Then::Redirect(301)));
    assert_eq!(then("HEAD", "shop.example"), Some(Then::Redirect(301)));
    assert_eq!(then("POST", "shop.example"), Some(Then::Redirect(308)));
    assert_eq!(then("GET", "evil.example"), Some(Then::NoRoute));
    let url = |authority, path, port| {
        https_url(&head("GET", authority, path), port)
            .map(|url| core::str::from_utf8(&url).unwrap().to_string())
    };
    assert_eq!(url("shop.example:80", "/a?b=c", 443).unwrap(), "https://shop.example/a?b=c");
    assert_eq!(url("shop.example", "/", 8443).unwrap(), "https://shop.example:8443/");
    assert_eq!(url("[::1]:80", "/", 8443).unwrap(), "https://[::1]:8443/");
    assert_eq!(url("shop.example", "*", 443).unwrap(), "https://shop.example/");
    assert_eq!(url("", "/", 443), None);
    assert_eq!(url("evil.example/@shop.example", "/", 443), None);
}

#[test]
fn certificates_are_chosen_by_name() {
    let certificates: Vec<Arc<[HostMatch]>> =
        [&["*.example", "example"][..], &["a.example"], &["b.a.example", "*.a.example"], &["*.a.example"]]
            .map(|names| hosts(names).into())
            .into();
    for (name, chosen) in [
        ("example", Some(0)),
        ("x.example", Some(0)),
        ("a.example", Some(1)),
        ("b.a.example", Some(2)),
        ("c.a.example", Some(2)),
        ("d.c.a.example", None),
        ("other", None),
    ] {
        assert_eq!(certificate_for(&certificates, name), chosen, "{name}");
    }
}

#[test]
fn connections_are_passed_on_by_name() {
    let route =
        |names: &[&str], to: &str| SniRoute { names: hosts(names), to: ServiceId::parse(to).unwrap() };
    let routes = vec![route(&["a.example"], "a"), route(&["*.example"], "rest")];
    let to = |name| passed_on(&routes, name).map(|route| route.to.to_string());
    assert_eq!(to("a.example").as_deref(), Some("a"));
    assert_eq!(to("b.example").as_deref(), Some("rest"));
    assert_eq!(to("example"), None);
}

/// The forwarding headers that the service sees.
fn forwarded(hops: u8, tls: bool, came: &[(&str, &str)]) -> Vec<String> {
    let (mut buf, mut fields) = (Vec::new(), Vec::new());
    for (name, value) in came {
        let mut keep = |text: &str| {
            let start = buf.len();
            buf.extend_from_slice(text.as_bytes());
            Span::new(start, buf.len())
        };
        fields.push(Field { id: FieldId::Other, name: keep(name), value: keep(value) });
    }
    let fields = Fields::new(&buf, &fields);
    let head = RequestHead { fields, ..head("GET", "x", "/") };
    let listener = HttpSpec { forwarded_hops: hops, ..HttpSpec::default() };
    let shown = Shown { client: tls.then(|| "Hash=1".into()), ..Shown::default() };
    let mut edits = Edits::new();
    forwarding(&listener, tls.then_some(&shown), &head, b"192.0.2.9", &mut edits);
    let text = |bytes| core::str::from_utf8(bytes).unwrap().to_string();
    edits.applied(fields).map(|(name, value)| alloc::format!("{}: {}", text(name), text(value))).collect()
}

#[test]
fn only_trusted_proxies_are_believed() {
    let proto = "x-forwarded-proto: http";
    let cases: &[(u8, &[&str], &str)] = &[
        (0, &[], "192.0.2.9"),
        (0, &["192.0.2.1"], "192.0.2.9"),
        (0, &["192.0.2.1, 192.0.2.2", "192.0.2.3"], "192.0.2.9"),
        (1, &[], "192.0.2.9"),
        (1, &["192.0.2.1"], "192.0.2.1, 192.0.2.9"),
        (1, &["forged, 192.0.2.1"], "192.0.2.1, 192.0.2.9"),
        (1, &["forged", "192.0.2.1"], "192.0.2.1, 192.0.2.9"),
        (2, &["forged, 192.0.2.1", "192.0.2.2"], "192.0.2.1, 192.0.2.2, 192.0.2.9"),
        (2, &["192.0.2.2"], "192.0.2.2, 192.0.2.9"),
        (2, &[",, ,"], "192.0.2.9"),
        (255, &["a,b ,c"], "a, b, c, 192.0.2.9"),
    ];
    for (hops, came, chain) in cases {
        let came: Vec<_> = came.iter().map(|value| ("X-Forwarded-For", *value)).collect();
        let expected = [alloc::format!("x-forwarded-for: {chain}"), proto.into()];
        assert_eq!(forwarded(*hops, false, &came), expected, "{hops} hops, {came:?}");
    }
}

#[test]
fn claims_of_clients_do_not_pass() {
    let came = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "a"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=a"),
        ("X-Real-IP", "1.2.3.4"),
        ("X-Forwarded-Client-Cert", "Hash=forged"),
        ("x-other", "stays"),
    ];
    assert_eq!(
        forwarded(0, false, &came),
        ["x-other: stays", "x-forwarded-for: 192.0.2.9", "x-forwarded-proto: http"]
    );
    let trusting = forwarded(1, false, &came);
    assert!(trusting.contains(&"x-forwarded-proto: https".into()), "{trusting:?}");
    assert!(trusting.contains(&"X-Forwarded-Host: a".into()), "{trusting:?}");
    // Nobody but this listener can say whom it has verified.
    assert!(!trusting.iter().any(|line| line.contains("forged")), "{trusting:?}");
    let over_tls = forwarded(0, true, &came);
    assert!(over_tls.contains(&"x-forwarded-proto: https".into()), "{over_tls:?}");
    assert!(over_tls.contains(&"x-forwarded-client-cert: Hash=1".into()), "{over_tls:?}");
    assert_eq!(forwarded(1, false, &[("X-Forwarded-Proto", "ftp")])[1], "x-forwarded-proto: http");
}
