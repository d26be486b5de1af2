use super::*;

/// Those of a machine, with nothing excluded.
fn machine() -> Rules {
    Rules {
        outbound: Some(15011),
        dns: None,
        inbound: None,
        own: Own::Loopback,
        mark: Some(0x1e40),
        exclude_uids: BTreeSet::new(),
        exclude_ports: BTreeSet::new(),
        exclude_cidrs: Vec::new(),
        ipv6: true,
    }
}

fn inbound(mode: CaptureMode) -> Inbound {
    Inbound { to: 15006, ports: Some([8080, 8443].into()), exclude_ports: BTreeSet::new(), mode }
}

const REPLACED: &str = "add table inet leno\ndelete table inet leno\n";

#[test]
fn what_leaves_a_machine_goes_to_the_proxy() {
    let script = format!(
        "{REPLACED}table inet leno {{
\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta mark 0x1e40 return
\t\toifname \"lo\" return
\t\tmeta l4proto tcp redirect to :15011
\t}}
}}
"
    );
    assert_eq!(machine().script(), script);
}

#[test]
fn everything_that_can_be_excluded_comes_first() {
    let rules = Rules {
        dns: Some(Dns {
            to: 15053,
            servers: Some(["127.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()].into()),
        }),
        inbound: Some(Inbound {
            ports: None,
            exclude_ports: [22, 15008].into(),
            ..inbound(CaptureMode::Redirect)
        }),
        exclude_uids: [0, 1337].into(),
        exclude_ports: [25].into(),
        exclude_cidrs: ["10.0.0.0/8", "192.0.2.1", "fd00::/8"].map(|text| Cidr::parse(text).unwrap()).into(),
        ..machine()
    };
    let script = format!(
        "{REPLACED}table inet leno {{
\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta mark 0x1e40 return
\t\tmeta skuid {{ 0, 1337 }} return
\t\tip daddr 127.0.0.53 udp dport 53 redirect to :15053
\t\tip daddr 127.0.0.53 tcp dport 53 redirect to :15053
\t\tip6 daddr fd00::53 udp dport 53 redirect to :15053
\t\tip6 daddr fd00::53 tcp dport 53 redirect to :15053
\t\toifname \"lo\" return
\t\ttcp dport {{ 25 }} return
\t\tip daddr 10.0.0.0/8 return
\t\tip daddr 192.0.2.1/32 return
\t\tip6 daddr fd00::/8 return
\t\tmeta l4proto tcp redirect to :15011
\t}}
\tchain prerouting {{
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport {{ 22, 15008 }} return
\t\tmeta l4proto tcp redirect to :15006
\t}}
}}
"
    );
    assert_eq!(rules.script(), script);
    // The same without IPv6.
    let script = script
        .replace("inet", "ip")
        .lines()
        .filter(|line| !line.contains("ip6"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    assert_eq!(Rules { ipv6: false, ..rules }.script(), script);
}

#[test]
fn tproxy_marks_what_it_diverts() {
    let rules = Rules { outbound: None, inbound: Some(inbound(CaptureMode::Tproxy)), ..machine() };
    let script = format!(
        "{REPLACED}table inet leno {{
\tchain prerouting {{
\t\ttype filter hook prerouting priority -150; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport {{ 8080, 8443 }} socket transparent 1 meta mark set 0x1e41 accept
\t\ttcp dport {{ 8080, 8443 }} tproxy to :15006 meta mark set 0x1e41 accept
\t}}
}}
"
    );
    assert_eq!(rules.script(), script);
}

#[test]
fn a_namespace_of_one_application_leads_nowhere_else() {
    let script = format!(
        "{REPLACED}table inet leno {{
\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
\t\tudp dport 53 redirect to :15053
\t\ttcp dport 53 redirect to :15053
\t\tip daddr {{ 127.0.0.0/8, 192.0.0.8 }} return
\t\tip6 daddr {{ ::1, fd00:1e00::8 }} return
\t\tmeta l4proto tcp redirect to :15011
\t\tmeta l4proto udp redirect to :9
\t}}
\tchain refuse {{
\t\ttype filter hook output priority 0; policy accept;
\t\tip daddr {{ 127.0.0.0/8, 192.0.0.8 }} accept
\t\tip6 daddr {{ ::1, fd00:1e00::8 }} accept
\t\tmeta l4proto != {{ tcp, udp }} reject
\t}}
}}
"
    );
    assert_eq!(Rules::of_one_application(15011, Some(15053), true).script(), script);
}
