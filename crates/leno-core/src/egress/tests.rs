use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::*;
use crate::name::Label;
use crate::rng::Rng;
use crate::spec::Cidr;
use crate::spec::EgressSource;

fn service(text: &str) -> ServiceId {
    ServiceId::parse(text).unwrap()
}

fn rule(name: &str, allow: bool) -> EgressRule {
    EgressRule { name: name.into(), from: vec![], hosts: vec![], cidrs: vec![], ports: vec![], allow }
}

fn hosts(names: &[&str]) -> Vec<HostMatch> {
    let host = |name: &&str| match name.strip_prefix('*') {
        Some(suffix) => HostMatch::Suffix(suffix.into()),
        None => HostMatch::Exact((*name).into()),
    };
    names.iter().map(host).collect()
}

fn cidrs(ranges: &[&str]) -> Vec<Cidr> {
    ranges.iter().map(|range| Cidr::parse(range).unwrap()).collect()
}

fn spec(mode: EgressMode, rules: Vec<EgressRule>) -> EgressSpec {
    EgressSpec { mode, rules, via: None }
}

fn to(authority: &str) -> Destination {
    Destination::of_authority(authority.as_bytes(), 80).unwrap()
}

/// What is decided for cart, in a word: `allow`, `allow RULE`, `deny`, `deny RULE` or `address`.
fn verdict(spec: &EgressSpec, destination: &Destination) -> String {
    word(&decide(spec, &service("cart"), destination, false))
}

fn word(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Allowed { rule: Some(rule), .. } => format!("allow {rule}"),
        Verdict::Allowed { rule: None, .. } => "allow".into(),
        Verdict::Denied(Denied::Rule(rule)) => format!("deny {rule}"),
        Verdict::Denied(Denied::NotDeclared) => "deny".into(),
        Verdict::AddressNeeded => "address".into(),
    }
}

#[test]
fn the_mode_decides_what_no_rule_is_about() {
    assert_eq!(verdict(&EgressSpec::default(), &to("example.com")), "allow");
    let closed = spec(EgressMode::RegistryOnly, vec![]);
    assert_eq!(verdict(&closed, &to("example.com")), "deny");
    let declared = decide(&closed, &service("cart"), &to("example.com"), true);
    assert_eq!(declared, Verdict::Allowed { rule: None, by_name: true });
    let denied = spec(EgressMode::RegistryOnly, vec![rule("none", false)]);
    assert_eq!(word(&decide(&denied, &service("cart"), &to("example.com"), true)), "deny none");
}

#[test]
fn the_first_rule_that_is_about_it_decides() {
    let rules = vec![
        EgressRule { hosts: hosts(&["api.example.com"]), ports: vec![443], ..rule("api", true) },
        EgressRule { hosts: hosts(&["*.example.com"]), ..rule("others", false) },
        EgressRule { from: vec![EgressSource::Service(service("cart"))], ..rule("cart", true) },
        EgressRule { from: vec![EgressSource::Namespace(Label::parse("ops").unwrap())], ..rule("ops", true) },
    ];
    let spec = spec(EgressMode::RegistryOnly, rules);
    for (authority, expected) in [
        ("api.example.com:443", "allow api"),
        ("api.example.com:444", "deny others"),
        ("deep.api.example.com:443", "deny others"),
        ("example.com", "allow cart"),
        ("notexample.com", "allow cart"),
        ("10.0.0.1", "allow cart"),
    ] {
        assert_eq!(verdict(&spec, &to(authority)), expected, "{authority}");
    }
    let from = |source: &str| word(&decide(&spec, &service(source), &to("elsewhere.org"), false));
    assert_eq!(from("ops/backup"), "allow ops");
    assert_eq!(from("user"), "deny");
    assert_eq!(from("other/cart"), "deny");
}

#[test]
fn an_address_is_asked_for_only_when_a_rule_needs_it() {
    let rules = vec![
        EgressRule { hosts: hosts(&["*.bad.example"]), ..rule("bad", false) },
        EgressRule { cidrs: cidrs(&["10.0.0.0/8"]), ..rule("inside", false) },
        EgressRule { hosts: hosts(&["good.example"]), ..rule("good", true) },
    ];
    let spec = spec(EgressMode::RegistryOnly, rules);
    // Denied by its name: no question leaves for it.
    assert_eq!(verdict(&spec, &to("secret.bad.example")), "deny bad");
    // Denied whatever its address is.
    assert_eq!(verdict(&spec, &to("other.example")), "deny");
    let good = to("good.example");
    assert_eq!(verdict(&spec, &good), "address");
    assert_eq!(verdict(&spec, &good.at("10.1.2.3".parse().unwrap())), "deny inside");
    assert_eq!(verdict(&spec, &good.at("192.0.2.1".parse().unwrap())), "allow good");
    assert_eq!(verdict(&spec, &to("10.1.2.3")), "deny inside");
}

#[test]
fn what_leaves_by_its_name_is_told() {
    let rules = vec![EgressRule {
        hosts: hosts(&["good.example"]),
        cidrs: cidrs(&["192.0.2.0/24"]),
        ..rule("good", true)
    }];
    let spec = spec(EgressMode::RegistryOnly, rules);
    let by_name = |destination: &Destination| match decide(&spec, &service("cart"), destination, false) {
        Verdict::Allowed { by_name, .. } => Some(by_name),
        _ => None,
    };
    let captured = |address: &str, said: Option<&[u8]>| {
        Destination::of_address(address.parse::<SocketAddr>().unwrap(), said).unwrap()
    };
    assert_eq!(by_name(&captured("198.51.100.1:443", Some(b"good.example"))), Some(true));
    assert_eq!(by_name(&captured("192.0.2.7:443", None)), Some(false));
    assert_eq!(by_name(&captured("192.0.2.7:443", Some(b"192.0.2.7"))), Some(false));
    assert_eq!(by_name(&captured("198.51.100.1:443", None)), None);
}

#[test]
fn names_of_the_mesh_never_leave_unless_a_rule_names_them() {
    let spec = spec(
        EgressMode::Allow,
        vec![EgressRule { hosts: hosts(&["localhost", "*.mesh"]), ..rule("own", true) }],
    );
    for (host, expected) in [
        ("prodcut", true),
        ("product.default.mesh", true),
        ("PRODUCT.DEFAULT.MESH.", true),
        ("localhost", false),
        ("example.com", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(is_of_mesh(&spec, &to(host)), expected, "{host}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    for authority in [
        "",
        ":80",
        ".",
        "..",
        "a..b",
        ".example.com",
        "example.com..",
        "evil%2eexample",
        "evil.exa\u{e4}mple",
        "\u{ff45}vil.example",
        "evil.example\0",
        "evil example",
        "user@evil.example",
        "evil.example/",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "1.2.3.4.5",
        "256.0.0.1",
        "foo.0x",
        "[::1",
        "::1",
        "[::1]x",
        "[fe80::1%25eth0]",
        "[127.0.0.1]",
        "example.com:0",
        "example.com:65536",
        "example.com:+80",
        "example.com:",
        "example.com:80:80",
    ] {
        assert!(Destination::of_authority(authority.as_bytes(), 80).is_err(), "{authority}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert!(Destination::of_authority(long.as_bytes(), 80).is_err());
    let longer = "abcdefgh.".repeat(28) + "abc";
    assert_eq!(longer.len(), 255);
    assert!(Destination::of_authority(longer.as_bytes(), 80).is_err());
    assert!(Destination::of_authority(b"\xff.example", 80).is_err());
}

#[test]
fn an_address_is_the_same_in_every_form() {
    let ten = to("10.0.0.5");
    for authority in ["[::ffff:10.0.0.5]", "[::FFFF:a00:5]", "[0:0:0:0:0:ffff:a00:5]:80"] {
        assert_eq!(to(authority), ten, "{authority}");
    }
    let mapped: SocketAddr = "[::ffff:10.0.0.5]:80".parse().unwrap();
    assert_eq!(Destination::of_address(mapped, None).unwrap(), ten);
    assert_eq!(ten.to_string(), "10.0.0.5:80");
    assert_eq!(to("[::1]:8080").to_string(), "[::1]:8080");
    assert_eq!(to("Example.COM.").to_string(), "example.com:80");
}

#[test]
fn a_translated_address_is_denied_with_the_one_behind_it() {
    let deny = spec(
        EgressMode::Allow,
        vec![EgressRule { cidrs: cidrs(&["10.0.0.0/8", "127.0.0.0/8"]), ..rule("inside", false) }],
    );
    for authority in
        ["[64:ff9b::10.0.0.5]", "[2002:a00:5::1]", "[::10.0.0.5]", "[::127.0.0.1]", "[::ffff:127.0.0.1]"]
    {
        assert_eq!(verdict(&deny, &to(authority)), "deny inside", "{authority}");
    }
    assert_eq!(verdict(&deny, &to("[2001:db8::10.0.0.5]")), "allow");
    // Allowing an address allows no other one.
    let allow = spec(
        EgressMode::RegistryOnly,
        vec![EgressRule { cidrs: cidrs(&["10.0.0.0/8"]), ..rule("inside", true) }],
    );
    assert_eq!(verdict(&allow, &to("[64:ff9b::10.0.0.5]")), "deny");
    assert_eq!(verdict(&allow, &to("[::ffff:10.0.0.5]")), "allow inside");
}

#[test]
fn a_gateway_never_reaches_itself() {
    for ip in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "0.1.2.3", "::", "::ffff:127.0.0.1", "224.0.0.1"] {
        assert!(is_own_machine(ip.parse().unwrap()), "{ip}");
    }
    assert!(!is_own_machine("10.0.0.1".parse().unwrap()));
    assert!(!is_own_machine("2001:db8::1".parse().unwrap()));
}

/// However a host is spelt: what a client writes is either the denied host, and denied, or no host at all, and refused;
/// or it is another host in its canonical form already, so that it cannot lead to the denied one.
#[test]
fn no_spelling_of_a_host_passes_a_deny() {
    const DENIED: &str = "evil.example";
    let spec = spec(
        EgressMode::Allow,
        vec![EgressRule { hosts: hosts(&[DENIED, "*.evil.example"]), ..rule("no", false) }],
    );
    let mut rng = Rng::new(0x0e9e55);
    let mut denied = 0;
    for _ in 0..20_000 {
        let mut text = DENIED.as_bytes().to_vec();
        for _ in 0..=rng.below(4) {
            mutate(&mut text, &mut rng);
        }
        let Ok(destination) = Destination::of_authority(&text, 80) else { continue };
        let Some(host) = destination.host.clone() else { continue };
        // What a resolver would see: letters in any case are one name, a dot at the end changes nothing.
        let lower = String::from_utf8(crate::head::host_of(&text).to_vec()).unwrap().to_lowercase();
        let plain = lower.strip_suffix('.').unwrap_or(&lower);
        assert_eq!(host.as_str(), plain, "{text:?}");
        let is_denied = plain == DENIED || plain.ends_with(".evil.example");
        assert_eq!(verdict(&spec, &destination) == "deny no", is_denied, "{plain}");
        denied += usize::from(is_denied);
    }
    assert!(denied > 2_000, "the mutations reach the host often enough: {denied}");
}

fn mutate(text: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(text.len().max(1) as u64) as usize;
    match rng.below(8) {
        0 => text.make_ascii_uppercase(),
        1 if !text.is_empty() => text[at] ^= 0x20,
        2 => text.push(b'.'),
        3 => text.extend_from_slice(b":443"),
        4 => text.splice(0..0, *b"www.").for_each(drop),
        5 if !text.is_empty() => {
            let hex = format!("%{:02x}", text[at]);
            text.splice(at..=at, hex.into_bytes()).for_each(drop);
        }
        6 => text.insert(at.min(text.len()), rng.below(256) as u8),
        _ => text.splice(at..at, "\u{ad}".bytes()).for_each(drop),
    }
}

/// The same for addresses: every way to write an address that is taken for one is denied by its range.
#[test]
fn no_spelling_of_an_address_passes_a_deny() {
    let spec =
        spec(EgressMode::Allow, vec![EgressRule { cidrs: cidrs(&["10.0.0.0/8"]), ..rule("no", false) }]);
    let mut rng = Rng::new(7);
    for _ in 0..5_000 {
        let low = rng.next_u64() as u32 & 0x00ff_ffff;
        let v4 = core::net::Ipv4Addr::from_bits(0x0a00_0000 | low);
        let [a, b, c, d] = v4.octets();
        let spellings = [
            format!("{v4}"),
            format!("[::ffff:{v4}]"),
            format!("[::ffff:{:x}:{:x}]", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            format!("[64:ff9b::{v4}]"),
            format!("0{a:o}.{b}.{c}.{d}"),
            format!("0x{a:x}.{b}.{c}.{d}"),
            format!("{}", v4.to_bits()),
            format!("{a}.{}", v4.to_bits() & 0x00ff_ffff),
        ];
        for spelling in spellings {
            match Destination::of_authority(spelling.as_bytes(), 80) {
                Ok(destination) => assert_eq!(verdict(&spec, &destination), "deny no", "{spelling}"),
                Err(NoDestination::Host) => {}
                Err(other) => panic!("{spelling}: {other}"),
            }
        }
    }
}

/// What is decided without an address holds for every address; and an address always decides.
#[test]
fn an_answer_without_an_address_holds_for_every_address() {
    let mut rng = Rng::new(11);
    let names = ["a.example", "b.example", "*.b.example"];
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"];
    let (mut known, mut unknown) = (0, 0);
    for _ in 0..3_000 {
        let mut some = |of: &[&'static str]| -> Vec<&'static str> {
            of.iter().copied().filter(|_| rng.below(3) == 0).collect()
        };
        let mut rules = vec![];
        for n in 0..4 {
            let (hosts, cidrs) = (hosts(&some(&names)), cidrs(&some(&ranges)));
            rules.push(EgressRule { hosts, cidrs, ..rule(&format!("r{n}"), some(&["x"]).is_empty()) });
        }
        let mode = if some(&["x"]).is_empty() { EgressMode::Allow } else { EgressMode::RegistryOnly };
        let spec = spec(mode, rules);
        let declared = !some(&["x"]).is_empty();
        for name in ["a.example", "b.example", "c.b.example", "d.example"] {
            let destination = to(name);
            let before = decide(&spec, &service("cart"), &destination, declared);
            for ip in ["10.0.0.1", "10.1.0.1", "192.0.2.1", "198.51.100.1"] {
                let after = decide(&spec, &service("cart"), &destination.at(ip.parse().unwrap()), declared);
                assert_ne!(after, Verdict::AddressNeeded, "{spec:?} {name} {ip}");
                match &before {
                    Verdict::Allowed { .. } => assert_eq!(before, after, "{spec:?} {name} {ip}"),
                    Verdict::Denied(_) => {
                        assert!(matches!(after, Verdict::Denied(_)), "{spec:?} {name} {ip}");
                    }
                    Verdict::AddressNeeded => {}
                }
            }
            if before == Verdict::AddressNeeded { unknown += 1 } else { known += 1 }
        }
    }
    assert!(known > 1_000 && unknown > 1_000, "{known} {unknown}");
}
