use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::*;
use crate::head::{Field, FieldId, Fields, RequestHead, Span};
use crate::rng::Rng;
use crate::route::{Then, matches};
use crate::spec::{Pattern, Template};

/// A request head that owns its bytes.
struct Request {
    method: &'static str,
    authority: String,
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl Request {
    fn to(authority: &str, path: &str) -> Self {
        Self { method: "GET", authority: authority.into(), path: path.into(), headers: vec![] }
    }

    fn with_head<T>(&self, then: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let (mut buf, mut fields) = (Vec::new(), Vec::new());
        for (name, value) in &self.headers {
            let start = buf.len();
            buf.extend_from_slice(name.as_bytes());
            buf.extend_from_slice(value.as_bytes());
            let middle = start + name.len();
            fields.push(Field {
                name: Span::new(start, middle),
                value: Span::new(middle, buf.len()),
                id: FieldId::Other,
            });
        }
        then(&RequestHead {
            method: self.method.as_bytes(),
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
            fields: Fields::new(&buf, &fields),
        })
    }
}

fn rules(when: impl IntoIterator<Item = MatchSpec>) -> Vec<Rule> {
    let rule = |when| Rule::new("rule".into(), when, Then::NoRoute);
    when.into_iter().map(rule).collect()
}

fn path(path: PathMatch) -> MatchSpec {
    MatchSpec { path: Some(path), ..MatchSpec::default() }
}

fn exact(text: &str) -> MatchSpec {
    path(PathMatch::Exact(text.into()))
}

fn prefix(text: &str) -> MatchSpec {
    path(PathMatch::Prefix(text.into()))
}

fn host(when: MatchSpec, host: &str) -> MatchSpec {
    let host = match host.strip_prefix('*') {
        Some(suffix) => HostMatch::Suffix(suffix.into()),
        None => HostMatch::Exact(host.into()),
    };
    MatchSpec { hosts: when.hosts.iter().cloned().chain([host]).collect(), ..when }
}

fn header(when: MatchSpec, name: &str, value: Option<&str>) -> MatchSpec {
    let header = FieldMatch::exact(name, value);
    MatchSpec { headers: when.headers.iter().cloned().chain([header]).collect(), ..when }
}

fn query(when: MatchSpec, name: &str, value: &str) -> MatchSpec {
    let query = FieldMatch::exact(name, Some(value));
    MatchSpec { queries: when.queries.iter().cloned().chain([query]).collect(), ..when }
}

fn start(text: &str) -> MatchSpec {
    path(PathMatch::Start(text.into()))
}

fn template(text: &str) -> MatchSpec {
    path(PathMatch::Template(Template::parse(text).unwrap()))
}

fn regex(text: &str) -> MatchSpec {
    path(PathMatch::Regex(Pattern::whole(text).unwrap()))
}

fn any_case(when: MatchSpec) -> MatchSpec {
    MatchSpec { path_any_case: true, ..when }
}

fn call(service: Option<&str>, method: Option<&str>) -> MatchSpec {
    let grpc = GrpcMatch { service: service.map(Into::into), method: method.map(Into::into) };
    MatchSpec { grpc: Some(grpc), ..MatchSpec::default() }
}

fn method(when: MatchSpec, method: &str) -> MatchSpec {
    MatchSpec { methods: vec![method.into()], ..when }
}

/// What a walk over the whole list finds: the meaning of a list.
fn walked(rules: &[Rule], head: &RequestHead<'_>) -> Option<usize> {
    let subject = Subject::new(head);
    rules.iter().position(|rule| matches(&rule.when, &subject))
}

/// What the index finds, and how many rules it looked at.
fn found(index: &RuleIndex, rules: &[Rule], head: &RequestHead<'_>) -> (Option<usize>, usize) {
    let mut looks = 0;
    let subject = Subject::new(head);
    let first = index.first(&subject, |rule| {
        looks += 1;
        matches(&rules[rule].when, &subject)
    });
    (first, looks)
}

/// `when` in a list that is long enough for an index: after as many rules as are walked, of which none matches anything.
fn in_a_long_list(when: MatchSpec) -> Vec<Rule> {
    let others = (0..=WALK_MAX).map(|at| host(exact(&format!("/none/{at}")), "nowhere.invalid"));
    rules(others.chain([when]))
}

#[test]
fn every_kind_of_pattern_is_found_by_what_it_covers() {
    let cases = [
        (prefix("/"), vec!["h /", "h /a", "h //", "h ", "h /?q"], vec!["h *", "h a"]),
        (prefix(""), vec!["h /", "h /a", "h "], vec!["h *"]),
        (
            prefix("/a"),
            vec!["h /a", "h /a/", "h /a/b", "h /a?x=/", "h /a//"],
            vec!["h /ab", "h /", "h /A", "h "],
        ),
        (prefix("/a//"), vec!["h /a", "h /a/b"], vec!["h /ab", "h //"]),
        (prefix("/a//b"), vec!["h /a//b", "h /a//b/c"], vec!["h /a/b", "h /a//bc"]),
        (prefix("*"), vec!["h *", "h */a"], vec!["h /", "h "]),
        (prefix("//"), vec!["h /", "h //", "h /a"], vec!["h *"]),
        (exact("/a"), vec!["h /a", "h /a?b=/c"], vec!["h /a/", "h /ab", "h /A", "h "]),
        (exact("/a/"), vec!["h /a/"], vec!["h /a", "h /a//"]),
        (exact("*"), vec!["h *"], vec!["h /", "h "]),
        (exact(""), vec!["h ", "h ?a"], vec!["h /"]),
        (
            host(MatchSpec::default(), "a.b"),
            vec!["a.b /", "A.B:80 /", "a.b:443 "],
            vec!["b /", "x.a.b /", "a.b. /", " /"],
        ),
        (host(MatchSpec::default(), "[::1]"), vec!["[::1] /", "[::1]:80 /"], vec!["[::2] /"]),
        (host(MatchSpec::default(), ""), vec![" /", ":80 /"], vec!["a /"]),
        (
            host(MatchSpec::default(), "*.a.b"),
            vec!["x.a.b /", "X.y.A.B:1 /", "..a.b /"],
            vec!["a.b /", ".a.b /", "xa.b /", "x.a.b. /"],
        ),
        // No dictionary has these, but whatever is in a list means what the walk says.
        (host(MatchSpec::default(), "*."), vec!["a. /", ".. /"], vec![". /", "a /"]),
        (host(MatchSpec::default(), "*b"), vec!["ab /", "a.b /"], vec!["b /", "bc /"]),
        (host(MatchSpec::default(), "*"), vec!["a /", "a.b /"], vec![" /"]),
        (host(host(MatchSpec::default(), "a"), "*b"), vec!["a /", "ab /"], vec!["b /", "c /"]),
        (host(prefix("/a"), "a"), vec!["a /a/b"], vec!["a /b", "b /a"]),
        (start("/a"), vec!["h /a", "h /ab", "h /a/b?c"], vec!["h /", "h /A", "h /ba"]),
        (start(""), vec!["h /", "h *"], vec![]),
        (start("*"), vec!["h *", "h *a"], vec!["h /"]),
        (any_case(start("/Ab")), vec!["h /aB", "h /abc"], vec!["h /a"]),
        (any_case(exact("/Ab")), vec!["h /aB", "h /AB?x"], vec!["h /abc", "h /a"]),
        (any_case(prefix("/Ab/")), vec!["h /aB", "h /AB/c"], vec!["h /abc"]),
        (any_case(template("/Ab/{x}")), vec!["h /aB/c"], vec!["h /ab", "h /ab/c/d"]),
        (template("/a/{x}"), vec!["h /a/b", "h /a/b?x"], vec!["h /a", "h /a/", "h /A/b", "h /b/a"]),
        (template("/a/**"), vec!["h /a", "h /a/", "h /a/b/c"], vec!["h /ab", "h /"]),
        (template("/a//**"), vec!["h /a/", "h /a//b"], vec!["h /a", "h /a/b"]),
        (template("/{x}/b"), vec!["h /a/b"], vec!["h /a", "h //b"]),
        (template("/**"), vec!["h /", "h /a"], vec!["h *", "h "]),
        (template("/a/b/"), vec!["h /a/b/"], vec!["h /a/b"]),
        (regex("/a|/b/.*"), vec!["h /a", "h /b/c?d"], vec!["h /ab", "h /b"]),
        (query(MatchSpec::default(), "a", "1"), vec!["h /?a=1", "h /b?c&a=%31"], vec!["h /", "h /?a=2&a=1"]),
    ];
    for (when, covered, others) in cases {
        let rules = in_a_long_list(when);
        let index = RuleIndex::build(&rules).unwrap();
        for (request, expected) in covered.iter().map(|r| (r, true)).chain(others.iter().map(|r| (r, false)))
        {
            let (authority, path) = request.split_once(' ').unwrap();
            let (found, walked) = Request::to(authority, path)
                .with_head(|head| (found(&index, &rules, head).0, walked(&rules, head)));
            let when = &rules.last().unwrap().when;
            assert_eq!(walked.is_some(), expected, "the walk: {when:?} on {request:?}");
            assert_eq!(found, walked, "the index: {when:?} on {request:?}");
        }
    }
}

#[test]
fn a_tunnels_authority_is_a_host_and_its_path_is_empty() {
    let rules = in_a_long_list(host(MatchSpec::default(), "db.example"));
    let index = RuleIndex::build(&rules).unwrap();
    let tunnel = Request { method: "CONNECT", ..Request::to("DB.example:5432", "") };
    assert_eq!(tunnel.with_head(|head| found(&index, &rules, head).0), Some(rules.len() - 1));
}

#[test]
fn short_lists_have_no_index() {
    assert!(RuleIndex::build(&in_a_long_list(prefix("/"))[..WALK_MAX]).is_none());
    assert!(RuleIndex::build(&in_a_long_list(prefix("/"))[..=WALK_MAX]).is_some());
}

/// One of `choices`.
fn one<'a>(rng: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[rng.below(choices.len() as u64) as usize]
}

fn random_text(rng: &mut Rng, parts: &[&str], parts_max: u64) -> String {
    (0..rng.below(parts_max + 1)).map(|_| one(rng, parts)).collect()
}

/// Long and short parts, so that every way to read the rest of a text is taken.
const PATHS: [&str; 7] = ["/", "/", "/a", "/b", "/ab", "/abcdefgh", "a"];
const HOSTS: [&str; 6] = [".", "a", "b", ".a", ".b", "abcdefghi"];

/// What is between two slashes of a random template.
const PARTS: [&str; 6] = ["/a", "/b", "/{x}", "/*", "/", "/abcdefgh"];

const PATTERNS: [&str; 4] = ["/a.*", "/[ab]+", ".*b", "(?i)/ab?"];

fn random_rule(rng: &mut Rng) -> MatchSpec {
    let mut when = match rng.below(10) {
        0 => MatchSpec::default(),
        1 | 2 => exact(&random_text(rng, &PATHS, 3)),
        3 | 4 => prefix(&random_text(rng, &PATHS, 3)),
        5 => start(&random_text(rng, &PATHS, 3)),
        6 => regex(one(rng, &PATTERNS)),
        7 => call(Some(one(rng, &["a", "b"])).filter(|_| rng.one_in(2)), Some("b").filter(|_| rng.one_in(2))),
        _ => {
            let rest = if rng.one_in(3) { "/**" } else { "" };
            // A name may stand in it once.
            let parts = random_text(rng, &PARTS, 3).replacen("/{x}", "/{y}", 1).replace("{x}", "*");
            template(&format!("/{parts}{rest}"))
        }
    };
    if rng.one_in(10) {
        when = exact("*");
    }
    if rng.one_in(4) {
        when = any_case(when);
    }
    while rng.one_in(4) {
        when = query(when, one(rng, &["a", "b", "c"]), one(rng, &["", "1", "2"]));
    }
    if rng.one_in(2) {
        for _ in 0..=rng.below(2) {
            let star = if rng.one_in(2) { "*" } else { "" };
            when = host(when, &format!("{star}{}", random_text(rng, &HOSTS, 3)));
        }
    }
    if rng.one_in(3) {
        when = method(when, one(rng, &["GET", "POST"]));
    }
    while rng.one_in(2) {
        let value = if rng.one_in(3) { None } else { Some(one(rng, &["", "1", "2"])) };
        when = header(when, one(rng, &["u", "v", "w", "x", "y", "z"]), value);
    }
    for field in when.headers.iter_mut().chain(&mut when.queries) {
        field.not = rng.one_in(6);
        field.any_case = rng.one_in(6);
        let text = one(rng, &["", "1", "2"]).into();
        field.value = match rng.below(12) {
            0 => TextMatch::Prefix(text),
            1 => TextMatch::Suffix(text),
            2 => TextMatch::Contains(text),
            3 => TextMatch::Regex(Pattern::whole("[01]?").unwrap()),
            _ => continue,
        };
    }
    if rng.one_in(4) {
        when.also = (0..=rng.below(2)).map(|_| MatchSpec { also: vec![], ..random_rule(rng) }).collect();
    }
    when
}

fn random_request(rng: &mut Rng) -> Request {
    let mut path = random_text(rng, &PATHS, 4);
    match rng.below(8) {
        0 => path = "*".into(),
        1 => path.push_str("?/a"),
        2 | 3 => {
            path.push_str(&format!("?{}={}&a=1", one(rng, &["a", "b", "c"]), one(rng, &["", "1", "%32"])))
        }
        4 => path.make_ascii_uppercase(),
        _ => {}
    }
    let mut authority = random_text(rng, &HOSTS, 4);
    if rng.one_in(3) {
        authority.make_ascii_uppercase();
    }
    if rng.one_in(3) {
        authority.push_str(":80");
    }
    let names = ["U", "v", "w", "X", "y", "z"];
    let mut headers: Vec<(&'static str, String)> =
        (0..rng.below(8)).map(|_| (one(rng, &names), one(rng, &["", "1", "2"]).into())).collect();
    if rng.one_in(3) {
        headers.push(("Content-Type", "application/grpc".into()));
    }
    Request { method: one(rng, &["GET", "POST"]), authority, path, headers }
}

#[test]
fn the_index_finds_what_the_walk_finds() {
    let mut hits = 0;
    let mut by_number = [0_u32; 8];
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        // Most lists need something of each request, so that a request is not always the first rule's.
        let everywhere = rng.one_in(2);
        let count = WALK_MAX as u64 + 1 + rng.below(80);
        let rules = rules((0..count).map(|_| {
            let rule = random_rule(&mut rng);
            if everywhere { header(host(rule, "a"), "x", Some("1")) } else { rule }
        }));
        let index = RuleIndex::build(&rules).unwrap();
        for _ in 0..20 {
            let request = random_request(&mut rng);
            request.with_head(|head| {
                let (first, _) = found(&index, &rules, head);
                assert_eq!(first, walked(&rules, head), "seed {seed}: {head:?}");
                if let Some(first) = first {
                    hits += 1;
                    by_number[(first / 4).min(7)] += 1;
                }
            });
        }
    }
    assert!(hits > 20_000, "{hits} of 60,000 matched");
    assert!(by_number.iter().all(|count| *count > 100), "by number of the rule: {by_number:?}");
}

/// Lists of any length in which rules differ as people make them differ, with a request for the rule of a number.
type Shape = (&'static str, fn(usize) -> MatchSpec, fn(usize) -> Request);

const SHAPES: [Shape; 17] = [
    ("exact paths", |n| exact(&format!("/p/{n}")), |n| Request::to("h", &format!("/p/{n}?a=b"))),
    ("prefixes", |n| prefix(&format!("/p-{n}")), |n| Request::to("h", &format!("/p-{n}/a/b"))),
    (
        "prefixes of several depths",
        |n| prefix(&format!("{}/{n}", &"/a/b/c/d"[..n % 5 * 2])),
        |n| Request::to("h", &format!("{}/{n}/x", &"/a/b/c/d"[..n % 5 * 2])),
    ),
    (
        "hosts",
        |n| host(MatchSpec::default(), &format!("h{n}.example")),
        |n| Request::to(&format!("H{n}.example:80"), "/"),
    ),
    (
        "hosts, each with the path /",
        |n| host(prefix("/"), &format!("h{n}.example")),
        |n| Request::to(&format!("h{n}.example"), "/a/b"),
    ),
    (
        "host suffixes",
        |n| host(MatchSpec::default(), &format!("*.h{n}.example")),
        |n| Request::to(&format!("www.h{n}.example"), "/"),
    ),
    (
        "the same hundred paths on a hundred hosts",
        |n| host(prefix(&format!("/p{}", n % 100)), &format!("h{}", n / 100)),
        |n| Request::to(&format!("h{}", n / 100), &format!("/p{}/a", n % 100)),
    ),
    (
        "two methods on each path",
        |n| method(exact(&format!("/p{}", n / 2)), ["GET", "POST"][n % 2]),
        |n| Request { method: ["GET", "POST"][n % 2], ..Request::to("h", &format!("/p{}", n / 2)) },
    ),
    (
        "values of a header",
        |n| header(MatchSpec::default(), "x-tenant", Some(&format!("t{n}"))),
        |n| Request { headers: vec![("X-Tenant", format!("t{n}"))], ..Request::to("h", "/") },
    ),
    (
        "values of two headers on one path",
        |n| {
            let tenant = header(prefix("/"), "x-tenant", Some(&format!("t{}", n / 100)));
            header(tenant, "x-cell", Some(&format!("c{}", n % 100)))
        },
        |n| {
            let headers = vec![("x-tenant", format!("t{}", n / 100)), ("x-cell", format!("c{}", n % 100))];
            Request { headers, ..Request::to("h", "/a") }
        },
    ),
    (
        "beginnings of several lengths",
        |n| start(&format!("/p{}{n}", &"/a/b/c/d"[..n % 8])),
        |n| Request::to("h", &format!("/p{}{n}", &"/a/b/c/d"[..n % 8])),
    ),
    (
        "exact paths in any case",
        |n| any_case(exact(&format!("/Path/{n}"))),
        |n| Request::to("h", &format!("/paTH/{n}")),
    ),
    (
        "templates",
        |n| template(&format!("/p{n}/{{id}}/posts/*")),
        |n| Request::to("h", &format!("/p{n}/7/posts/1")),
    ),
    (
        "calls",
        |n| call(Some(&format!("shop.S{}", n / 2)), [None, Some("Get")][(n + 1) % 2]),
        |n| Request {
            method: "POST",
            headers: vec![("content-type", "application/grpc".into())],
            ..Request::to("h", &format!("/shop.S{}/{}", n / 2, ["Get", "Put"][n % 2]))
        },
    ),
    (
        "values of a parameter",
        |n| query(MatchSpec::default(), "tenant", &format!("t{n}")),
        |n| Request::to("h", &format!("/a?x=1&tenant=t{n}")),
    ),
    ("duplicates", |n| prefix(["/a", "/b"][n % 2]), |n| Request::to("h", ["/a/1", "/b/1"][n % 2])),
    ("a mixture", |n| (SHAPES[[0, 1, 2, 3, 5, 7][n % 6]].1)(n), |n| (SHAPES[[0, 1, 2, 3, 5, 7][n % 6]].2)(n)),
];

/// The most rules that are looked at for a request to some 30 rules of a list, and for one that no rule matches.
fn looks_max(shape: &Shape, count: usize) -> usize {
    let (name, rule, request) = shape;
    let rules = rules((0..count).map(rule));
    let index = RuleIndex::build(&rules).unwrap();
    let requests = (0..count).step_by((count / 30).max(1)).map(request);
    let stranger = Request::to("stranger.example", "/stranger/a/b/c");
    let looks = requests.chain([stranger]).map(|request| {
        request.with_head(|head| {
            let (first, looks) = found(&index, &rules, head);
            assert_eq!(first, walked(&rules, head), "{name}: {head:?}");
            looks
        })
    });
    looks.max().unwrap()
}

#[test]
fn ten_thousand_rules_are_looked_at_as_rarely_as_ten() {
    for shape in &SHAPES {
        for count in [10, 100, 1_000, 10_000] {
            let looks = looks_max(shape, count);
            assert!(looks <= WALK_MAX, "{}: {looks} looks among {count} rules", shape.0);
        }
    }
}

#[test]
fn rules_that_nothing_tells_apart_are_walked_only_by_their_own_requests() {
    let alike = (0..1_000).map(|n| header(exact("/alike"), &format!("x-{n}"), None));
    let rules = rules(alike.chain((0..1_000).map(|n| exact(&format!("/{n}")))));
    let index = RuleIndex::build(&rules).unwrap();
    let looks = |path: &str| Request::to("h", path).with_head(|head| found(&index, &rules, head));
    assert_eq!(looks("/alike"), (None, 1_000));
    assert_eq!(looks("/500"), (Some(1_500), 1));
}

#[test]
fn no_request_can_ask_for_more_keys_than_the_rules_have_kinds_of() {
    let mut all: Vec<MatchSpec> = (0..20).map(|n| prefix(&format!("/{n}"))).collect();
    all.extend((0..20).map(|n| host(MatchSpec::default(), &format!("*.{n}.example"))));
    // Too deep to be noted, and found all the same.
    let deep = "/a".repeat(100);
    all.push(prefix(&deep));
    let rules = rules(all);
    let index = RuleIndex::build(&rules).unwrap();
    let keys = |request: Request| {
        let mut keys = 0;
        request.with_head(|head| {
            for (number, split) in index.splits.iter().enumerate() {
                split.by.keys_of_subject(number as u32, &Subject::new(head), |_| keys += 1);
            }
        });
        keys
    };
    assert_eq!(keys(Request::to("a.1.example", "/1/b")), 2);
    assert!(keys(Request::to(&"a.".repeat(4_000), &"/a".repeat(4_000))) <= 2);
    let found = Request::to("h", &format!("{deep}/b")).with_head(|head| found(&index, &rules, head).0);
    assert_eq!(found, Some(40));
}

#[test]
fn an_index_is_small_and_its_looks_are_short() {
    for (name, rule, _) in &SHAPES {
        let rules = rules((0..10_000).map(rule));
        let index = RuleIndex::build(&rules).unwrap();
        let bytes = index.table.bytes()
            + index.filed.capacity() * size_of::<u32>()
            + index.splits.capacity() * size_of::<Split>();
        assert!(bytes <= 100 * rules.len(), "{name}: {} bytes per rule", bytes / rules.len());
        let longest = index.table.longest_run();
        assert!(longest <= 32, "{name}: a look can pass {longest} slots");
    }
}
