//! What is about the outside, whole and wrong.

use super::*;

pub(super) fn full_external() -> spec::ExternalSpec {
    let named = |name: &str, version| spec::NamedEndpoint {
        name: name.into(),
        host: "api.pay.example".into(),
        port: 443,
        version,
        tags: tags(),
        weight: 3,
    };
    let tls = spec::TlsSpec {
        sni: Some("pay.example".into()),
        roots: Some(spec::Roots::File("/etc/ca.pem".into())),
        pinned: vec![spec::Pinned::Key([7; 32]), spec::Pinned::File("pin.pem".into())],
        names: vec!["pay.example".into(), "192.0.2.1".into()],
        spiffe: Some("spiffe://other.mesh/pay".into()),
        identity: Some(spec::ClientIdentity::Files { cert: "a.pem".into(), key: "a.key".into() }),
        alpn: vec![spec::Alpn::Http11, spec::Alpn::H2],
    };
    spec::ExternalSpec {
        names: vec![named("pay-1", Some(label("v1"))), named("pay-2", None)],
        tls: Some(Arc::new(tls)),
    }
}

pub(super) fn full_egress() -> spec::EgressSpec {
    let rule = spec::EgressRule {
        name: "pay".into(),
        from: vec![
            spec::EgressSource::Service(service("shop/cart")),
            spec::EgressSource::Namespace(label("ops")),
        ],
        hosts: vec![
            spec::HostMatch::Exact("pay.example".into()),
            spec::HostMatch::Suffix(".pay.example".into()),
        ],
        cidrs: vec![spec::Cidr::parse("10.0.0.0/8").unwrap(), spec::Cidr::parse("fd00::/8").unwrap()],
        ports: vec![443, 65535],
        allow: true,
    };
    let deny = spec::EgressRule {
        name: "rest".into(),
        from: vec![],
        hosts: vec![],
        cidrs: vec![],
        ports: vec![],
        allow: false,
    };
    let identity = SpiffeId::parse("spiffe://shop.mesh/ns/default/sa/out").unwrap();
    let via = spec::Via { identity, address: "10.0.0.9:15443".parse().unwrap() };
    spec::EgressSpec { mode: spec::EgressMode::RegistryOnly, rules: vec![rule, deny], via: Some(via) }
}
#[test]
fn a_wrong_field_about_the_outside_is_named() {
    type Service = (&'static str, fn(&mut proto::outside::External));
    let services: &[Service] = &[
        ("external.names[1].host", |e| e.names[1].host = "*.pay.example".into()),
        ("external.names[1].host", |e| e.names[1].host = "10.0.0.1".into()),
        ("external.names[0].port", |e| e.names[0].port = 0),
        ("external.tls.roots", |e| e.tls.as_mut().unwrap().roots = 9),
        ("external.tls.roots_file", |e| e.tls.as_mut().unwrap().roots_file.clear()),
        ("external.tls.identity", |e| e.tls.as_mut().unwrap().identity = 9),
        ("external.tls.key", |e| e.tls.as_mut().unwrap().key.clear()),
        ("external.tls.pinned[0]", |e| e.tls.as_mut().unwrap().pinned[0] = "sha256:00".into()),
        ("external.tls.alpn[0]", |e| e.tls.as_mut().unwrap().alpn[0] = "h3".into()),
    ];
    for (field, spoil) in services {
        let mut message = wire::Service::from(&full_service());
        spoil(message.external.as_mut().unwrap());
        assert_eq!(spec::ServiceSpec::try_from(message).unwrap_err().field, *field);
    }
    type Egress = (&'static str, fn(&mut proto::outside::Egress));
    let egress: &[Egress] = &[
        ("mode", |e| e.mode = 0),
        ("rules[0].from[1]", |e| e.rules[0].from[1] = "Ops/*".into()),
        ("rules[0].hosts[0]", |e| e.rules[0].hosts[0] = "Pay.example".into()),
        ("rules[0].cidrs[0]", |e| e.rules[0].cidrs[0] = "10.1.0.0/8".into()),
        ("rules[0].ports[0]", |e| e.rules[0].ports[0] = 65536),
        ("rules[1].name", |e| e.rules[1].name.clear()),
        ("via.identity", |e| e.via.as_mut().unwrap().identity = "out".into()),
        ("via.address", |e| e.via.as_mut().unwrap().address = "out:1".into()),
    ];
    for (field, spoil) in egress {
        let mut message = proto::outside::Egress::from(&full_egress());
        spoil(&mut message);
        assert_eq!(spec::EgressSpec::try_from(message).unwrap_err().field, *field);
    }
}

#[test]
fn every_way_to_ask_for_health_travels() {
    for probe in [
        spec::Probe::Tcp,
        spec::Probe::Http("/a".into()),
        spec::Probe::Http2("/a".into()),
        spec::Probe::Grpc(String::new()),
        spec::Probe::Grpc("shop.Cart".into()),
    ] {
        let spec = spec::HealthSpec { probe, ..leno_core::health::default_spec() };
        assert_eq!(spec::HealthSpec::try_from(wire::HealthCheck::from(&spec)).unwrap(), spec);
    }
    let both = wire::HealthCheck {
        http_path: Some("/a".into()),
        grpc_service: Some(String::new()),
        ..wire::HealthCheck::from(&leno_core::health::default_spec())
    };
    assert_eq!(spec::HealthSpec::try_from(both).unwrap_err().field, "grpc_service");
}
