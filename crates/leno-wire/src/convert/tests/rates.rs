use super::*;
use crate::api;

/// Limits with everything that one can say; `callers`: whoever sends requests has an identity.
pub(super) fn full(callers: bool) -> Vec<Arc<spec::RateSpec>> {
    let mut by = vec![spec::RateKey::Client, spec::RateKey::Header("x-user".into())];
    let mut when = spec::MatchSpec {
        path: Some(spec::PathMatch::Prefix("/api".into())),
        methods: vec!["POST".into()],
        ..spec::MatchSpec::default()
    };
    if callers {
        by.push(spec::RateKey::Caller);
        when.sources = vec![spec::EgressSource::Service(service("shop/cart")).into()];
    }
    let first = spec::RateSpec {
        name: "per-user".into(),
        when,
        requests: 10,
        per: Duration::from_secs(60),
        burst: 3,
        by,
        scope: spec::RateScope::Instance,
        dry_run: true,
    };
    let second = spec::RateSpec {
        name: "all".into(),
        when: spec::MatchSpec::default(),
        by: vec![],
        dry_run: false,
        scope: spec::RateScope::Mesh,
        ..first.clone()
    };
    vec![Arc::new(first), Arc::new(second)]
}

#[test]
fn limits_of_a_gateways_rule_are_read_back() {
    let mut gateway = full_gateway();
    let change = spec::Change { rates: full(false), ..spec::Change::default() };
    gateway.rules[0].change = Some(Arc::new(change));
    let encoded = Known::Gateway(gateway.clone()).encode();
    assert_eq!(Known::parse(Kind::Gateway, &encoded), Ok(Known::Gateway(gateway.clone())));
    let service = spec::ServiceSpec { rules: gateway.rules.clone(), ..full_service() };
    let error = Known::parse(Kind::Service, &Known::Service(service).encode()).unwrap_err();
    assert_eq!(error.field, "rules[0].change.rate_limits", "{error}");
    // Nobody at a gateway has an identity.
    let change = spec::Change { rates: full(true), ..spec::Change::default() };
    gateway.rules[0].change = Some(Arc::new(change));
    let error = Known::parse(Kind::Gateway, &Known::Gateway(gateway).encode()).unwrap_err();
    assert_eq!(error.field, "rules[0].change.rate_limits[0]", "{error}");
}

#[test]
fn what_is_unset_of_a_limit_is_the_default_and_bad_values_are_refused() {
    type Limit = proto::rate::RateLimit;
    let good = || Limit { name: "a".into(), requests: 5, ..Limit::default() };
    let parse = |limits: Vec<Limit>| {
        let care = proto::care::Care { rate_limits: limits, ..proto::care::Care::default() };
        spec::Care::try_from(care).map(|care| care.rates)
    };
    let default = &parse(vec![good()]).unwrap()[0];
    assert_eq!((default.per, default.burst, default.scope), (spec::RATE_PER, 5, spec::RateScope::Instance));
    let key = proto::rate::RateKey::default;
    for (wrong, field) in [
        (Limit { name: String::new(), ..good() }, "rate_limits[0].name"),
        (Limit { name: "a\"b".into(), ..good() }, "rate_limits[0].name"),
        (Limit { requests: 0, ..good() }, "rate_limits[0].requests"),
        (Limit { requests: 2_000_000, ..good() }, "rate_limits[0].requests"),
        (Limit { burst: Some(0), ..good() }, "rate_limits[0].burst"),
        (Limit { per_ms: Some(99), ..good() }, "rate_limits[0].per_ms"),
        (Limit { per_ms: Some(u64::MAX), ..good() }, "rate_limits[0].per_ms"),
        (Limit { by: vec![key()], ..good() }, "rate_limits[0].by[0]"),
        (
            Limit { by: vec![proto::rate::RateKey { header: Some("a b".into()), ..key() }], ..good() },
            "rate_limits[0].by[0].header",
        ),
        (
            Limit { by: vec![proto::rate::RateKey { client: true, ..key() }; 9], ..good() },
            "rate_limits[0].by",
        ),
    ] {
        assert_eq!(parse(vec![wrong.clone()]).unwrap_err().field, field, "{wrong:?}");
    }
    assert_eq!(parse(vec![good(), good()]).unwrap_err().field, "rate_limits");
    assert_eq!(parse(vec![good(); 33]).unwrap_err().field, "rate_limits");
    let headers = spec::RateSpec { by: vec![spec::RateKey::Header("x".into())], ..(**default).clone() };
    let care = spec::Care { rates: vec![Arc::new(headers)], ..spec::Care::default() };
    let bytes = spec::ServiceSpec {
        protocol: spec::Protocol::Tcp,
        care: Some(Arc::new(care)),
        send_proxy: None,
        ..full_service()
    };
    let error = Known::parse(Kind::Service, &Known::Service(bytes).encode()).unwrap_err();
    assert_eq!(error.field, "care.rate_limits", "{error}");
}

#[test]
fn limits_are_json_too_with_a_match_as_the_api_writes_it() {
    let spec = full_service();
    let json = serde_json::to_value(api::ServiceDeclaration::from(&spec)).unwrap();
    let limit = &json["care"]["rate_limits"][0];
    assert_eq!(limit["when"]["path"]["prefix"], "/api", "{limit}");
    assert_eq!(limit["when"]["from"][0], "shop/cart");
    assert!(json["care"]["rate_limits"][1].get("when").is_none());
    let text =
        r#"{"care": {"rate_limits": [{"name": "a", "requests": 1, "when": {"path": {"exact": "/x"}}}]}}"#;
    let parsed: api::ServiceDeclaration = serde_json::from_str(text).unwrap();
    let parsed = parsed.parse(&service("cart")).unwrap();
    let when = &parsed.care.unwrap().rates[0].when;
    assert_eq!(when.path, Some(spec::PathMatch::Exact("/x".into())));
    let text = r#"{"care": {"rate_limits": [{"name": "a", "requests": 1, "when": {"paht": "/x"}}]}}"#;
    assert!(serde_json::from_str::<api::ServiceDeclaration>(text).is_err());
}
