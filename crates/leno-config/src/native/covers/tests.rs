use leno_core::head::{Field, FieldId, Fields, RequestHead, Span as Bytes};
use leno_core::name::{Label, ServiceId};
use leno_core::rng::Rng;
use leno_core::route::{Subject, matches};

use leno_core::spec::{LinkMatch, Pattern, Template};

use super::*;

/// Against the rule that really decides: where one match covers another, it takes every request of a crowd that
/// the other takes.
#[test]
fn what_covers_takes_every_request() {
    let mut rng = Rng::new(7);
    let specs: Vec<MatchSpec> = (0..150).map(|_| spec(&mut rng)).collect();
    let requests: Vec<Request> = (0..600).map(|_| Request::any(&mut rng)).collect();
    let taken = |spec: &MatchSpec| -> Vec<bool> { requests.iter().map(|request| request.is(spec)).collect() };
    let taken: Vec<Vec<bool>> = specs.iter().map(taken).collect();
    let (mut covered, mut narrower) = (0, 0);
    for (a, taken_by_a) in specs.iter().zip(&taken) {
        for (b, taken_by_b) in specs.iter().zip(&taken) {
            let within = taken_by_a.iter().zip(taken_by_b).all(|(a, b)| *a || !*b);
            narrower += usize::from(within && taken_by_b.contains(&true));
            if covers(a, b) {
                covered += 1;
                assert!(within, "{a:?} does not cover {b:?}");
            }
        }
    }
    assert!(covered > 500 && narrower >= covered / 2, "the crowd says nothing: {covered} {narrower}");
}

const HOSTS: &[&str] = &["a.example.com", "b.example.com", "x.b.example.com", "example.com"];
const PATHS: &[&str] = &["/", "/a", "/a/b", "/ab", "/a/b/c", "/b", "/A", "/A/B"];
const METHODS: &[&str] = &["GET", "POST"];
const HEADERS: &[(&str, &str)] = &[("x-a", "1"), ("x-a", "2"), ("x-b", "1")];

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

fn spec(rng: &mut Rng) -> MatchSpec {
    let mut spec = MatchSpec::default();
    for _ in 0..rng.below(3) {
        let suffix = HostMatch::Suffix(one(rng, &[".example.com", ".b.example.com"]).into());
        spec.hosts.push(if rng.one_in(2) { suffix } else { HostMatch::Exact(one(rng, HOSTS).into()) });
    }
    let path = one(rng, PATHS).into();
    spec.path = match rng.below(7) {
        0 | 1 => None,
        2 => Some(PathMatch::Exact(path)),
        3 => Some(PathMatch::Prefix(path)),
        4 => Some(PathMatch::Start(path)),
        5 => Some(PathMatch::Regex(Pattern::whole(one(rng, PATTERNS)).unwrap())),
        _ => Some(PathMatch::Template(Template::parse(one(rng, TEMPLATES)).unwrap())),
    };
    spec.path_any_case = rng.one_in(4);
    if rng.one_in(3) {
        spec.methods.push(one(rng, METHODS).into());
    }
    if rng.one_in(3) {
        let (name, value) = one(rng, HEADERS);
        spec.headers.push(field(rng, name, value));
    }
    if rng.one_in(5) {
        let value = one(rng, &["1", "2"]);
        spec.queries.push(field(rng, "q", value));
    }
    if rng.one_in(5) {
        let sources = [
            EgressSource::Service(service("cart")),
            EgressSource::Namespace(Label::parse("default").unwrap()),
        ];
        spec.sources.push(sources[rng.below(2) as usize].clone().into());
    }
    if rng.one_in(5) {
        let ports = (0..=rng.below(2)).map(|_| one(rng, &[80, 81])).collect();
        spec.link = Some(LinkMatch { ports, ..LinkMatch::default() }.into());
    }
    if rng.one_in(4) {
        spec.also = vec![MatchSpec { also: vec![], ..self::spec(rng) }];
    }
    spec
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn field(rng: &mut Rng, name: &str, value: &str) -> FieldMatch {
    let text = value.into();
    let value = match rng.below(7) {
        0 => TextMatch::Present,
        1 => TextMatch::Prefix(text),
        2 => TextMatch::Suffix(text),
        3 => TextMatch::Contains(text),
        4 => TextMatch::Regex(Pattern::whole("[12]").unwrap()),
        _ => TextMatch::Exact(text),
    };
    FieldMatch { name: name.into(), value, any_case: rng.one_in(4), not: rng.one_in(4) }
}

const PATTERNS: &[&str] = &["/a.*", "/a|/b", "/[ab]"];
const TEMPLATES: &[&str] = &["/a/{x}", "/a/**", "/{x}", "/a/b", "/*/b/c"];

/// A request; its header, if it has one, lies in `buffer` as name and value.
struct Request {
    host: &'static str,
    path: String,
    source: &'static str,
    method: &'static str,
    buffer: String,
    field: Option<Field>,
}

impl Request {
    fn any(rng: &mut Rng) -> Self {
        let (name, value) = one(rng, HEADERS);
        let field = Field {
            name: Bytes::new(0, name.len()),
            value: Bytes::new(name.len(), name.len() + value.len()),
            id: FieldId::Other,
        };
        Self {
            host: one(rng, HOSTS),
            path: format!("{}{}", one(rng, PATHS), one(rng, &["", "", "?q=1", "?q=2&q=1", "?q"])),
            source: one(rng, &["cart", "user", "ops/cart"]),
            method: one(rng, METHODS),
            buffer: format!("{name}{value}"),
            field: rng.one_in(2).then_some(field),
        }
    }

    fn is(&self, spec: &MatchSpec) -> bool {
        let head = RequestHead {
            method: self.method.as_bytes(),
            authority: self.host.as_bytes(),
            path: self.path.as_bytes(),
            fields: Fields::new(self.buffer.as_bytes(), self.field.as_slice()),
        };
        let own = service(self.source);
        spec.covers_source(Some(&own), &leno_core::spec::Labels::NONE) && matches(spec, &Subject::new(&head))
    }
}
