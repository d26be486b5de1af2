use alloc::string::{String, ToString};
use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::spec::{Pattern, TextMatch};
use crate::time::Duration;

const SHOP: &str = "https://shop.example";

fn cors() -> Cors {
    Cors {
        origins: vec![
            TextMatch::Exact(SHOP.into()),
            TextMatch::Regex(Pattern::whole("https://[a-z]+[.]example[.]org").unwrap()),
        ],
        methods: vec!["GET".into(), "PUT".into()],
        headers: Allowed::These(vec!["x-a".into(), "content-type".into()]),
        expose: vec!["x-total".into()],
        max_age: Some(Duration::from_secs(3600)),
        credentials: true,
        unmatched: Unmatched::Refuse,
    }
}

/// The status of the answer that is made here, and what is done to the fields of one that a service gives.
fn shared(cors: &Cors, method: &str, fields: &[(&str, &str)]) -> (Option<u16>, Vec<(String, String)>) {
    let (mut bytes, mut index) = (Vec::new(), Vec::new());
    let mut put = |text: &str| {
        let start = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        Span::new(start, bytes.len())
    };
    for (name, value) in fields {
        index.push(Field { name: put(name), value: put(value), id: FieldId::of(name.as_bytes()) });
    }
    let fields = Fields::new(&bytes, &index);
    let head = RequestHead { method: method.as_bytes(), authority: b"api", path: b"/", fields };
    let mut edits = Edits::default();
    let answer = share(cors, &head, &mut edits);
    let text = |bytes: &[u8]| core::str::from_utf8(bytes).unwrap().to_string();
    let forwards = cors.unmatched == Unmatched::Forward;
    assert!(
        forwards || edits.removes(b"access-control-allow-origin"),
        "the service's own word is taken away"
    );
    (
        answer.map(|answer| answer.status()),
        edits.added().map(|(name, value)| (text(name), text(value))).collect(),
    )
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[test]
fn an_answer_says_who_may_read_it() {
    let origin = |origin| [("Origin", origin)];
    let allowed = |origin| {
        pairs(&[
            ("vary", "Origin"),
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-total"),
        ])
    };
    for good in [SHOP, "https://a.example.org"] {
        assert_eq!(shared(&cors(), "GET", &origin(good)), (None, allowed(good)));
        // Without the question it is a request like any other.
        assert_eq!(shared(&cors(), "OPTIONS", &origin(good)), (None, allowed(good)));
    }
    for bad in ["https://shop.example.evil", "http://shop.example", "null", "https://a.example.org.evil"] {
        assert_eq!(shared(&cors(), "GET", &origin(bad)), (None, pairs(&[("vary", "Origin")])), "{bad}");
    }
    assert_eq!(shared(&cors(), "GET", &[]), (None, pairs(&[("vary", "Origin")])));
}

#[test]
fn a_question_is_answered_here() {
    let asked = |origin| [("origin", origin), ("access-control-request-method", "PUT")];
    let good = pairs(&[
        ("vary", "Origin"),
        ("access-control-allow-origin", SHOP),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-a, content-type"),
        ("access-control-max-age", "3600"),
    ]);
    assert_eq!(shared(&cors(), "OPTIONS", &asked(SHOP)), (Some(204), good));
    let bad = pairs(&[("vary", "Origin")]);
    assert_eq!(shared(&cors(), "OPTIONS", &asked("https://evil.example")), (Some(403), bad.clone()));
    let forward = Cors { unmatched: Unmatched::Forward, ..cors() };
    // The service has the say, and its answers are left alone.
    assert_eq!(shared(&forward, "OPTIONS", &asked("https://evil.example")), (None, vec![]));
    assert_eq!(shared(&forward, "GET", &asked("https://evil.example")[..1]), (None, vec![]));
}

#[test]
fn what_is_for_everybody_says_so() {
    let cors = Cors {
        origins: vec![TextMatch::Present],
        methods: vec![],
        headers: Allowed::Any,
        expose: vec![],
        max_age: None,
        credentials: false,
        unmatched: Unmatched::Refuse,
    };
    let fields = [
        ("origin", "null"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-a,x-b"),
    ];
    let expected = pairs(&[
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "x-a,x-b"),
    ]);
    assert_eq!(shared(&cors, "OPTIONS", &fields), (Some(204), expected));
    let everybody = pairs(&[("access-control-allow-origin", "*")]);
    assert_eq!(shared(&cors, "GET", &fields[..1]), (None, everybody.clone()));
    assert_eq!(shared(&cors, "GET", &[]), (None, everybody), "a cache may give it to a page");
}

#[test]
fn patterns_that_let_anybody_in_are_known() {
    let with = |origin| Cors { origins: vec![origin], ..cors() }.lets_anybody_in();
    let regex = |text| TextMatch::Regex(Pattern::whole(text).unwrap());
    for origin in [
        TextMatch::Present,
        regex(".*"),
        regex("https://.*"),
        TextMatch::Prefix("https://".into()),
        TextMatch::Prefix("https://shop.example".into()),
    ] {
        assert!(with(origin.clone()), "{origin:?}");
    }
    for origin in [
        TextMatch::Exact(SHOP.into()),
        regex("https://[a-z]+[.]shop[.]example"),
        TextMatch::Prefix("http://localhost:".into()),
    ] {
        assert!(!with(origin.clone()), "{origin:?}");
    }
}
