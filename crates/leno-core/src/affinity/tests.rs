use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, Span};
use crate::time::Duration;

/// A head's fields over one buffer.
fn fields(lines: &[(&str, &str)]) -> (alloc::vec::Vec<u8>, alloc::vec::Vec<Field>) {
    let (mut bytes, mut index) = (vec![], vec![]);
    for (name, value) in lines {
        let start = bytes.len();
        bytes.extend(name.as_bytes());
        let middle = bytes.len();
        bytes.extend(value.as_bytes());
        let (name, value) = (Span::new(start, middle), Span::new(middle, bytes.len()));
        index.push(Field { name, value, id: FieldId::Other });
    }
    (bytes, index)
}

fn found(keys: &[KeySpec], path: &str, lines: &[(&str, &str)]) -> (Option<u64>, Option<Box<NewCookie>>) {
    let (bytes, index) = fields(lines);
    let fields = Fields::new(&bytes, &index);
    let head = RequestHead { method: b"GET", authority: b"shop", path: path.as_bytes(), fields };
    let affinity = Affinity { keys: keys.to_vec(), bound_percent: None };
    let mut made = None;
    let source = "192.0.2.7".parse().unwrap();
    let key = key(&affinity, &head, source, &mut made, &mut Rng::new(1));
    (key, made)
}

fn cookie_spec(ttl: Option<Duration>) -> KeySpec {
    KeySpec::Cookie(CookieSpec { name: "leno".into(), path: "/app".into(), ttl })
}

#[test]
fn the_first_key_that_is_there_counts() {
    let header = KeySpec::Header("x-user".into());
    let query = KeySpec::Query("user".into());
    let of = |text: &str| Some(hash_of(text.as_bytes()));
    for (keys, path, lines, expected) in [
        (vec![header.clone()], "/", vec![("X-User", "ann")], of("ann")),
        (vec![header.clone()], "/", vec![("x-users", "ann")], None),
        (vec![query.clone()], "/a?x=1&user=bob&user=c", vec![], of("bob")),
        (vec![query.clone()], "/user=bob?users=x", vec![], None),
        (vec![query.clone()], "/?user=", vec![], of("")),
        (vec![header.clone(), query.clone()], "/?user=bob", vec![], of("bob")),
        (vec![query, header], "/?user=bob", vec![("x-user", "ann")], of("bob")),
        (vec![cookie_spec(None)], "/", vec![("cookie", "a=b; leno=ann; leno=x")], of("ann")),
        (vec![cookie_spec(None)], "/", vec![("cookie", "a=b"), ("Cookie", "leno=ann")], of("ann")),
    ] {
        let (key, made) = found(&keys, path, &lines);
        assert_eq!(key, expected, "{keys:?} {path} {lines:?}");
        assert!(made.is_none());
    }
    let (source, _) = found(&[KeySpec::Source], "/", &[]);
    assert_eq!(source, Some(hash_of(&[192, 0, 2, 7])));
}

#[test]
fn a_client_without_the_cookie_gets_one_that_leads_where_it_went() {
    for (ttl, end) in [(None, ""), (Some(Duration::from_secs(3600)), "; Max-Age=3600")] {
        for lines in [vec![], vec![("cookie", "lenox=1; leno=; xleno=2")]] {
            let (key, made) = found(&[cookie_spec(ttl)], "/", &lines);
            let made = made.unwrap();
            let mut written = vec![];
            made.edits.added().for_each(|(name, value)| {
                assert_eq!(name, b"set-cookie");
                written.extend_from_slice(value);
            });
            let text = core::str::from_utf8(&written).unwrap();
            let (value, rest) = text.strip_prefix("leno=").unwrap().split_once(';').unwrap();
            assert_eq!(rest, alloc::format!(" Path=/app; HttpOnly{end}"));
            assert_eq!(value.len(), 16);
            let line = alloc::format!("leno={value}");
            let (again, none) = found(&[cookie_spec(ttl)], "/", &[("cookie", &line)]);
            assert_eq!(again, key);
            assert!(none.is_none());
        }
    }
}
