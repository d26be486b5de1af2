//! Parts of rules, with everything that can be in them.

use leno_core::grpc::Status;
use leno_core::time::UnixTime;

use super::*;

/// One of each kind.
pub(super) fn every_field_match() -> Vec<spec::FieldMatch> {
    let value = [
        spec::TextMatch::Present,
        spec::TextMatch::Exact("".into()),
        spec::TextMatch::Prefix("a".into()),
        spec::TextMatch::Suffix("b".into()),
        spec::TextMatch::Contains("c".into()),
        spec::TextMatch::Regex(spec::Pattern::whole("d+").unwrap()),
    ];
    let fields = value.into_iter().enumerate();
    fields
        .map(|(at, value)| spec::FieldMatch {
            name: format!("F{at}").into(),
            value,
            any_case: at % 2 == 0,
            not: at % 3 == 0,
        })
        .collect()
}

pub(super) fn format(text: &str) -> spec::Format {
    spec::Format::parse(text, spec::Scope::Field, &[]).unwrap()
}

pub(super) fn full_change() -> spec::Change {
    let pattern = spec::Pattern::anywhere("/(a)").unwrap();
    let with = spec::Replacement::parse(r"/\1", &pattern).unwrap();
    spec::Change {
        priority: Some(leno_core::admission::Class::Low),
        path: Some(spec::PathChange::Regex(pattern, with)),
        host: Some("h:80".into()),
        request: spec::FieldChanges {
            remove: vec!["x-a".into()],
            set: vec![("x-b".into(), format("{path}"))],
            add: vec![("x-c".into(), format("{{c}}"))],
        },
        response: spec::FieldChanges { remove: vec!["server".into()], ..spec::FieldChanges::default() },
        mirrors: vec![
            spec::Mirror { service: service("shop/new"), version: Some(label("v2")), share_ppm: 5_000 },
            spec::Mirror { service: service("log"), version: None, share_ppm: spec::Mirror::ALL_PPM },
        ],
        fault: Some(Arc::new(full_fault())),
        cors: Some(Arc::new(full_cors())),
        rates: vec![],
    }
}

fn full_fault() -> spec::Fault {
    let (second, ppm) = (Duration::from_secs(1), 5_000);
    spec::Fault {
        delay: Some(spec::Share { what: second, ppm }),
        abort: Some(spec::Share { what: spec::Abort::Grpc(Status::UNAVAILABLE), ppm }),
        reset: Some(spec::Share { what: (), ppm }),
        slow: Some(spec::Share { what: 1024, ppm }),
        most_ppm: Some(10_000),
        until: Some(UnixTime(1_800_000_000)),
        stop: Some(spec::Stop { failed_percent: 5, requests_min: 50, window: second }),
    }
}

fn full_cors() -> spec::Cors {
    spec::Cors {
        origins: vec![
            spec::TextMatch::Exact("https://a.example".into()),
            spec::TextMatch::Regex(spec::Pattern::whole("https://[a-z]+[.]example").unwrap()),
        ],
        methods: vec!["GET".into(), "PUT".into()],
        headers: spec::Allowed::These(vec!["x-a".into()]),
        expose: vec!["x-b".into()],
        max_age: Some(Duration::from_secs(60)),
        credentials: true,
        unmatched: spec::Unmatched::Forward,
    }
}

pub(super) fn full_redirect() -> spec::Answer {
    let whole = spec::Format::parse("/x/{id}", spec::Scope::Path, &["id"]).unwrap();
    spec::Answer::Redirect(spec::Redirect {
        scheme: Some(spec::Scheme::Https),
        host: Some("other.example".into()),
        port: Some(8443),
        path: Some(spec::PathChange::Whole(whole)),
        status: 308,
    })
}

pub(super) fn full_direct() -> spec::Answer {
    let headers = vec![("retry-after".into(), format("60"))];
    spec::Answer::Direct(spec::Direct { status: 503, headers, body: "later".into() })
}

pub(super) fn answering(name: &str, answer: spec::Answer) -> spec::RuleSpec {
    let template = spec::Template::parse("/y/{id}").unwrap();
    spec::RuleSpec {
        name: name.into(),
        when: spec::MatchSpec {
            path: Some(spec::PathMatch::Template(template)),
            ..spec::MatchSpec::default()
        },
        then: spec::ActionSpec::Answer(Arc::new(answer)),
        timeout: None,
        tries: None,
        change: None,
    }
}
