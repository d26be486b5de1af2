use super::*;

mod admission;
mod outside;
mod rates;
mod rules;

use outside::{full_egress, full_external};
use rules::{answering, every_field_match, full_change, full_direct, full_redirect};

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn service(text: &str) -> ServiceId {
    ServiceId::parse(text).unwrap()
}

fn full_service() -> spec::ServiceSpec {
    spec::ServiceSpec {
        id: service("shop/product"),
        protocol: spec::Protocol::Http1,
        balance: spec::Balance::RoundRobin,
        care: Some(Arc::new(full_care())),
        rules: vec![
            spec::RuleSpec {
                name: "canary".into(),
                when: spec::MatchSpec {
                    hosts: vec![
                        spec::HostMatch::Exact("a.example".into()),
                        spec::HostMatch::Suffix(".example.com".into()),
                    ],
                    path: Some(spec::PathMatch::Prefix("/products".into())),
                    methods: vec!["GET".into(), "HEAD".into()],
                    path_any_case: true,
                    headers: vec![
                        spec::FieldMatch::exact("x-user", None),
                        spec::FieldMatch::exact("x-beta", Some("")),
                    ],
                    queries: every_field_match(),
                    grpc: Some(spec::GrpcMatch { service: Some("a.B".into()), method: None }),
                    sources: vec![
                        spec::EgressSource::Service(service("shop/cart")).into(),
                        spec::EgressSource::Namespace(label("ops")).into(),
                        spec::SourceMatch { who: None, labels: labels() },
                    ],
                    link: Some(Arc::new(spec::LinkMatch {
                        ports: vec![80, 8080],
                        clients: vec![spec::Cidr::parse("10.0.0.0/8").unwrap()],
                        server_names: vec![spec::HostMatch::Suffix(".example".into())],
                    })),
                    also: vec![spec::MatchSpec { methods: vec!["GET".into()], ..spec::MatchSpec::default() }],
                },
                then: spec::ActionSpec::Split(vec![
                    spec::TargetSpec {
                        service: service("product"),
                        version: Some(label("v1")),
                        labels: labels(),
                        weight: 90,
                    },
                    spec::TargetSpec {
                        service: service("product"),
                        version: None,
                        labels: spec::Labels::NONE,
                        weight: 0,
                    },
                ]),
                timeout: Some(Duration::from_millis(1500)),
                change: Some(Arc::new(full_change())),
                tries: Some(Arc::new(spec::TriesSpec {
                    retry: Some(spec::RetrySpec {
                        methods: spec::RetryMethods::These(vec!["GET".into(), "POST".into()]),
                        on: spec::RetryOn {
                            statuses: vec![spec::StatusRange { first: 503, last: 503 }],
                            ..spec::RetryOn::default()
                        },
                        ..spec::RetrySpec::default()
                    }),
                    hedge: Some(spec::HedgeSpec {
                        after: spec::HedgeAfter::Time(Duration::from_nanos(5)),
                        percent: 0,
                    }),
                    ..spec::TriesSpec::default()
                })),
            },
            spec::RuleSpec {
                name: "rest".into(),
                when: spec::MatchSpec {
                    path: Some(spec::PathMatch::Exact("/".into())),
                    ..spec::MatchSpec::default()
                },
                then: spec::ActionSpec::Service(service("other/cart")),
                timeout: None,
                change: Some(Arc::new(spec::Change {
                    path: Some(spec::PathChange::Prefix("/b".into())),
                    ..spec::Change::default()
                })),
                tries: None,
            },
            answering("away", full_redirect()),
            answering("here", full_direct()),
        ],
        calls: vec![service("cart"), service("other/user")],
        health: Some(spec::HealthSpec {
            probe: spec::Probe::Http("/healthz".into()),
            interval: Duration::from_secs(1),
            timeout: Duration::from_nanos(1),
            healthy_after: 1,
            unhealthy_after: 2,
        }),
        timeout: Some(Duration::from_secs(15)),
        tries: Some(Arc::new(spec::TriesSpec {
            try_timeout: Some(Duration::from_secs(1)),
            connect_timeout: Some(Duration::ZERO),
            idle_timeout: Some(Duration::from_nanos(7)),
            retry: Some(spec::RetrySpec {
                attempts: 10,
                methods: spec::RetryMethods::Any,
                on: spec::RetryOn {
                    reset: true,
                    grpc: 1 << 14,
                    headers: vec![
                        spec::AnswerHeader { name: "x-a".into(), value: None },
                        spec::AnswerHeader { name: "x-b".into(), value: Some("1".into()) },
                    ],
                    ..spec::RetryOn::default()
                },
                ..spec::RetrySpec::default()
            }),
            hedge: Some(spec::HedgeSpec { after: spec::HedgeAfter::Quantile(95), percent: 5 }),
            budget: Some(spec::BudgetSpec { percent: 50, per_second: 0 }),
        })),
        external: Some(Arc::new(full_external())),
        send_proxy: Some(Version::V2),
        headless: true,
        srv_port: 5432,
    }
}

fn full_care() -> spec::Care {
    let outliers = spec::Outliers {
        errors: None,
        gateway_errors: Some(7),
        local_failures: Some(8),
        success_rate: false,
        failure_percent: None,
        latency: Some(3),
        requests_min: 9,
        window: Duration::from_secs(20),
        ejection: Duration::from_millis(1500),
        ejection_max: Duration::from_secs(60),
        ejected_percent: 30,
        panic_percent: 0,
        probation: 1,
    };
    let limits = spec::Limits {
        requests: Some(1),
        endpoint_requests: Some(2),
        connections: Some(3),
        pending: Some(0),
        pending_timeout: Some(Duration::from_millis(250)),
        retries: Some(0),
    };
    let ewma = spec::Ewma { decay: Duration::from_secs(3), default_rtt: Some(Duration::from_millis(30)) };
    let cookie =
        spec::CookieSpec { name: "leno".into(), path: "/app".into(), ttl: Some(Duration::from_secs(3600)) };
    let keys = vec![
        spec::KeySpec::Header("x-user".into()),
        spec::KeySpec::Query("user[id]".into()),
        spec::KeySpec::Source,
        spec::KeySpec::Cookie(spec::CookieSpec { ttl: None, ..cookie.clone() }),
        spec::KeySpec::Cookie(cookie),
    ];
    let affinity = Some(Arc::new(spec::Affinity { keys, bound_percent: Some(125) }));
    let slow_start = Some(spec::SlowStart { duration: Duration::from_secs(30), from_percent: 20 });
    spec::Care {
        outliers: Some(outliers),
        limits,
        choices: 3,
        ewma,
        affinity,
        slow_start,
        backup: Some(service("other/spare")),
        locality: Some(Arc::new(spec::Locality { endpoints_min: 2, ..spec::Locality::new() })),
        rates: rates::full(true),
        concurrency: Some(spec::Concurrency {
            limit: spec::ConcurrencyLimit::Auto { min: 5, max: 50 },
            queue: Duration::from_millis(30),
        }),
    }
}

#[test]
fn what_is_unset_of_the_care_is_the_default_and_off_is_off() {
    let parse = |care: proto::care::Care| spec::Care::try_from(care);
    assert_eq!(parse(proto::care::Care::default()), Ok(spec::Care::default()));
    let outliers = |outliers| proto::care::Care { outliers: Some(outliers), ..proto::care::Care::default() };
    let none = spec::Care { outliers: None, ..spec::Care::default() };
    let bad = proto::care::Limits { requests: Some(0), ..proto::care::Limits::default() };
    let bad = proto::care::Care { limits: Some(bad), ..proto::care::Care::default() };
    assert_eq!(parse(bad).unwrap_err().field, "limits.requests");
    let keyed = |key, bound_percent| {
        parse(proto::care::Care { keys: vec![key], bound_percent, ..proto::care::Care::default() })
    };
    let key = proto::care::Key::default;
    let named = |text: &str| Some(text.to_owned());
    for (wrong, bound, field) in [
        (key(), None, "keys[0]"),
        (proto::care::Key { header: named("a"), source: true, ..key() }, None, "keys[0]"),
        (proto::care::Key { header: named("a b"), ..key() }, None, "keys[0].header"),
        (proto::care::Key { cookie: named("a;b"), ..key() }, None, "keys[0].cookie"),
        (proto::care::Key { cookie: named("a"), path: named("/;x"), ..key() }, None, "keys[0].path"),
        (proto::care::Key { source: true, ttl_ms: Some(1), ..key() }, None, "keys[0]"),
        (proto::care::Key { source: true, ..key() }, Some(99), "bound_percent"),
    ] {
        assert_eq!(keyed(wrong, bound).unwrap_err().field, field);
    }
    let message = proto::care::Outliers::default;
    assert_eq!(parse(outliers(message())), Ok(spec::Care::default()));
    assert_eq!(parse(outliers(proto::care::Outliers { off: true, ..message() })), Ok(none.clone()));
    let bad = proto::care::Outliers { ejected_percent: Some(101), ..message() };
    assert_eq!(parse(outliers(bad)).unwrap_err().field, "outliers.ejected_percent");
    let bad = proto::care::Outliers { window_ms: Some(0), ..message() };
    assert_eq!(parse(outliers(bad)).unwrap_err().field, "outliers.window_ms");
    assert_eq!(parse(proto::care::Care::from(&none)), Ok(none));
}

fn labels() -> spec::Labels {
    spec::Labels::parse([("track", "canary"), ("example.com/disk", "")]).unwrap()
}

fn tags() -> spec::Tags {
    spec::Tags { zone: spec::Zone::parse("eu-west/a/1").ok(), labels: labels() }
}

fn full_gateway() -> spec::GatewaySpec {
    let hosts =
        || vec![spec::HostMatch::Exact("a.example".into()), spec::HostMatch::Suffix(".b.example".into())];
    let tls = |clients| spec::TerminationSpec {
        certificates: vec![spec::CertificateFiles { cert: "/a.pem".into(), key: "/a.key".into() }],
        clients,
        min_version: spec::TlsVersion::V13,
    };
    let clients = spec::ClientCertificates { authorities: "/ca.pem".into(), required: true, forward: true };
    let http = spec::HttpSpec {
        hosts: hosts(),
        tls: Some(tls(Some(clients))),
        redirect: Some(8443),
        forwarded_hops: 2,
    };
    let serves = [
        spec::Serve::Http(http),
        spec::Serve::Http(spec::HttpSpec::default()),
        spec::Serve::Passthrough(vec![spec::SniRoute { names: hosts(), to: service("shop/product") }]),
        spec::Serve::Tcp { to: service("db"), tls: None },
        spec::Serve::Tcp { to: service("db"), tls: Some(tls(None)) },
    ];
    let proxies = [None, Some(vec!["10.0.0.0/8", "::1/128"]), Some(vec![])];
    let listener = |(number, serve): (usize, spec::Serve)| {
        let trusted = proxies[number % 3].clone();
        Arc::new(spec::ListenerSpec {
            name: format!("l{number}").into(),
            listen: "[::]:443".parse().unwrap(),
            serve,
            proxy_protocol: trusted
                .map(|it| it.into_iter().map(|it| spec::Cidr::parse(it).unwrap()).collect()),
        })
    };
    spec::GatewaySpec {
        id: service("public"),
        listeners: serves.into_iter().enumerate().map(listener).collect(),
        rules: full_service().rules,
        zone: tags().zone,
    }
}

#[test]
fn a_gateway_without_listeners_is_refused() {
    let none = spec::GatewaySpec { listeners: vec![], ..full_gateway() };
    let error = Known::parse(Kind::Gateway, &Known::Gateway(none).encode()).unwrap_err();
    assert_eq!((&*error.field, &*error.problem), ("listeners", "are missing"));
    let mut twice = full_gateway();
    twice.listeners.push(twice.listeners[0].clone());
    let error = Known::parse(Kind::Gateway, &Known::Gateway(twice).encode()).unwrap_err();
    assert_eq!(error.field, "listeners", "{error}");
}

fn endpoint(name: &str, transport: spec::Transport) -> spec::EndpointSpec {
    spec::EndpointSpec {
        name: name.into(),
        address: "[::1]:8080".parse().unwrap(),
        transport,
        version: Some(label("v2")),
        weight: 7,
        healthy: false,
        tags: tags(),
    }
}

#[test]
fn what_is_encoded_is_decoded_the_same() {
    let identity = SpiffeId::parse("spiffe://shop.mesh/ns/default/sa/product").unwrap();
    let all = [
        Known::Service(full_service()),
        Known::Endpoints(
            service("product"),
            vec![endpoint("a", spec::Transport::Plain), endpoint("b", spec::Transport::Mesh(identity))],
        ),
        Known::Endpoints(service("product"), vec![]),
        Known::Egress(full_egress()),
        Known::Egress(spec::EgressSpec::default()),
        Known::Service(spec::ServiceSpec {
            external: Some(Arc::new(spec::ExternalSpec {
                names: vec![],
                tls: Some(Arc::new(spec::TlsSpec {
                    roots: Some(spec::Roots::Mesh),
                    identity: Some(spec::ClientIdentity::Mesh),
                    ..spec::TlsSpec::default()
                })),
            })),
            ..full_service()
        }),
        Known::Gateway(full_gateway()),
    ];
    for known in all {
        let resource = xds::Resource {
            name: full_name(&known.id()),
            version: String::new(),
            resource: Some(xds::Any {
                type_url: crate::proto::type_url(known.kind()).to_owned(),
                value: known.encode(),
            }),
        };
        let bytes = resource.encode_to_vec();
        assert_eq!(Known::decode(&xds::Resource::decode(&*bytes).unwrap()), Ok(known));
    }
}

/// Each wrong field is named with its path.
fn hedge(service: &mut proto::resource::Service) -> &mut proto::tries::Hedge {
    service.tries.as_mut().unwrap().hedge.as_mut().unwrap()
}

#[test]
fn a_wrong_field_is_named() {
    let good = || wire::Service::from(&full_service());
    type Case = (&'static str, fn(&mut wire::Service));
    let cases: &[Case] = &[
        ("name", |s| s.name = "A/b".into()),
        ("protocol", |s| s.protocol = 0),
        ("protocol", |s| s.protocol = 99),
        ("balance", |s| s.balance = 9),
        ("rules[0].name", |s| s.rules[0].name.clear()),
        ("rules", |s| s.rules[0].name = "rest".into()),
        ("rules[0].then", |s| s.rules[0].then = None),
        ("rules[1].service", |s| s.rules[1].then = Some(wire::Action::Service("x/y/z".into()))),
        ("rules[0].split", |s| s.rules[0].then = Some(wire::Action::Split(wire::Split::default()))),
        ("rules[0].tries.retry.statuses[0]", |s| {
            let retry = s.rules[0].tries.as_mut().unwrap().retry.as_mut().unwrap();
            retry.statuses[0].last = 600;
        }),
        ("rules[0].when.hosts[1]", |s| s.rules[0].when.as_mut().unwrap().hosts[1] = "Example.com".into()),
        ("rules[0].when.path", |s| {
            s.rules[0].when.as_mut().unwrap().path = Some(wire::Path::Exact("x".into()));
        }),
        ("rules[0].when.methods[0]", |s| s.rules[0].when.as_mut().unwrap().methods[0] = "G T".into()),
        ("rules[0].when.headers[0].name", |s| {
            s.rules[0].when.as_mut().unwrap().headers[0].name = "X-User".into();
        }),
        ("rules[0].when.path", |s| {
            s.rules[0].when.as_mut().unwrap().path = Some(wire::Path::Regex("/(".into()));
        }),
        ("rules[0].when.path", |s| {
            s.rules[0].when.as_mut().unwrap().path = Some(wire::Path::Template("/a{b}".into()));
        }),
        ("rules[0].when.queries[0].name", |s| s.rules[0].when.as_mut().unwrap().queries[0].name.clear()),
        ("rules[0].when.queries[5].value", |s| {
            let queries = &mut s.rules[0].when.as_mut().unwrap().queries;
            queries[5].value = Some(wire::Text::Regex("[".into()));
        }),
        ("rules[0].when.grpc.service", |s| {
            s.rules[0].when.as_mut().unwrap().grpc.as_mut().unwrap().service = Some("a/b".into());
        }),
        ("rules[0].when.ports[0]", |s| s.rules[0].when.as_mut().unwrap().ports[0] = 0),
        ("rules[0].when.clients[0]", |s| {
            s.rules[0].when.as_mut().unwrap().clients[0] = "10.0.0.1/8".into();
        }),
        ("rules[0].when.also[0].also", |s| {
            let also = &mut s.rules[0].when.as_mut().unwrap().also[0].also;
            also.push(wire::Match::default());
        }),
        ("rules[0].when.sources[1]", |s| s.rules[0].when.as_mut().unwrap().sources[1] = "A/*".into()),
        ("rules[0].change.host", |s| s.rules[0].change.as_mut().unwrap().host = Some("a b".into())),
        ("rules[0].change.request.set[0].name", |s| {
            let request = s.rules[0].change.as_mut().unwrap().request.as_mut().unwrap();
            request.set[0].name = "Transfer-Encoding".into();
        }),
        ("rules[0].change.request.add[0].value", |s| {
            let request = s.rules[0].change.as_mut().unwrap().request.as_mut().unwrap();
            request.add[0].value = "a\r\nb: c".into();
        }),
        ("rules[0].change.response.remove[0].name", |s| {
            s.rules[0].change.as_mut().unwrap().response.as_mut().unwrap().remove[0] = "host".into();
        }),
        ("rules[0].change.mirrors[1].share_ppm", |s| {
            s.rules[0].change.as_mut().unwrap().mirrors[1].share_ppm = 0;
        }),
        ("rules[0].change.fault.delay.ms", |s| {
            let fault = s.rules[0].change.as_mut().unwrap().fault.as_mut().unwrap();
            fault.delay.as_mut().unwrap().ms = 600_001;
        }),
        ("rules[0].change.fault.abort", |s| {
            let fault = s.rules[0].change.as_mut().unwrap().fault.as_mut().unwrap();
            fault.abort.as_mut().unwrap().status = Some(500);
        }),
        ("rules[0].change.fault.reset.share_ppm", |s| {
            s.rules[0].change.as_mut().unwrap().fault.as_mut().unwrap().reset_ppm = Some(0);
        }),
        ("rules[0].change.fault", |s| {
            s.rules[0].change.as_mut().unwrap().fault = Some(proto::fault::Fault::default());
        }),
        ("rules[0].change.cors.origins[1].regex", |s| {
            let cors = s.rules[0].change.as_mut().unwrap().cors.as_mut().unwrap();
            cors.origins[1].form = Some(proto::cors::OriginForm::Regex("(".into()));
        }),
        ("rules[0].change.cors.credentials", |s| {
            let cors = s.rules[0].change.as_mut().unwrap().cors.as_mut().unwrap();
            cors.origins[0].form = Some(proto::cors::OriginForm::Any(true));
        }),
        ("rules[1].change.path", |s| {
            let whole = proto::change::PathChange::Whole("/{id}".into());
            s.rules[1].change.as_mut().unwrap().path = Some(whole);
        }),
        ("rules[2].redirect.status", |s| {
            let Some(wire::Action::Redirect(redirect)) = &mut s.rules[2].then else { panic!() };
            redirect.status = 305;
        }),
        ("rules[2].redirect.host", |s| {
            let Some(wire::Action::Redirect(redirect)) = &mut s.rules[2].then else { panic!() };
            redirect.host = Some("a:1".into());
        }),
        ("rules[3].answer.body", |s| {
            let Some(wire::Action::Answer(answer)) = &mut s.rules[3].then else { panic!() };
            answer.body = "x".repeat(spec::ANSWER_BODY_BYTES_MAX + 1);
        }),
        ("rules[3].answer.status", |s| {
            let Some(wire::Action::Answer(answer)) = &mut s.rules[3].then else { panic!() };
            answer.status = 100;
        }),
        ("calls[1]", |s| s.calls[1] = String::new()),
        ("health.interval", |s| s.health.as_mut().unwrap().interval_nanos = 0),
        ("health.unhealthy_after", |s| s.health.as_mut().unwrap().unhealthy_after = 0),
        ("health.http_path", |s| s.health.as_mut().unwrap().http_path = Some("healthz".into())),
        ("tries.retry.attempts", |s| s.tries.as_mut().unwrap().retry.as_mut().unwrap().attempts = 0),
        ("tries.retry.attempts", |s| s.tries.as_mut().unwrap().retry.as_mut().unwrap().attempts = 11),
        ("tries.retry.headers[0].name", |s| {
            s.tries.as_mut().unwrap().retry.as_mut().unwrap().headers[0].name = "X-A".into();
        }),
        ("tries.retry.body_bytes_max", |s| {
            s.tries.as_mut().unwrap().retry.as_mut().unwrap().body_bytes_max = 1 << 30;
        }),
        ("tries.budget.percent", |s| s.tries.as_mut().unwrap().budget.as_mut().unwrap().percent = 101),
        ("tries.hedge.percent", |s| hedge(s).percent = 101),
        ("tries.hedge.after", |s| hedge(s).after_quantile = 0),
        ("tries.hedge.after", |s| hedge(s).after_nanos = 7),
        ("tries.hedge.after_quantile", |s| hedge(s).after_quantile = 49),
        ("tries.hedge.after_quantile", |s| hedge(s).after_quantile = 100),
        ("srv_port", |s| s.srv_port = Some(65_536)),
    ];
    for (field, spoil) in cases {
        let mut message = good();
        spoil(&mut message);
        let error = spec::ServiceSpec::try_from(message).unwrap_err();
        assert_eq!(error.field, *field, "{error}");
        assert!(*field == "name" || error.resource == "shop/product", "{error}");
    }
}

#[test]
fn endpoints_are_sorted_and_unique() {
    let endpoint = |name: &str| wire::Endpoint {
        name: name.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        ..wire::Endpoint::default()
    };
    let message =
        wire::Endpoints { name: "default/a".to_owned(), endpoints: vec![endpoint("b"), endpoint("a")] };
    let (_, sorted): (ServiceId, Vec<spec::EndpointSpec>) = message.clone().try_into().unwrap();
    assert_eq!(sorted.iter().map(|e| &*e.name).collect::<Vec<_>>(), ["a", "b"]);
    let twice = wire::Endpoints { endpoints: vec![endpoint("b"), endpoint("b")], ..message };
    let error = <(ServiceId, Vec<spec::EndpointSpec>)>::try_from(twice).unwrap_err();
    assert_eq!(error.to_string(), "default/a: endpoints: two are named \"b\"");
}

#[test]
fn the_name_inside_is_the_name_outside() {
    let resource = xds::Resource {
        name: "default/cart".to_owned(),
        version: String::new(),
        resource: Some(xds::Any {
            type_url: crate::proto::SERVICE_TYPE_URL.to_owned(),
            value: Known::Service(full_service()).encode(),
        }),
    };
    let error = Known::decode(&resource).unwrap_err();
    assert_eq!(error.to_string(), "default/cart: name: the content is named \"shop/product\"");
}

/// Whatever bytes come, decoding ends in a value or an error.
#[test]
fn garbled_bytes_are_refused_or_parsed_never_a_panic() {
    let mut rng = leno_core::rng::Rng::new(7);
    let good = Known::Service(full_service()).encode();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        for kind in Kind::ALL {
            let _ = Known::parse(kind, &bytes);
        }
    }
}
