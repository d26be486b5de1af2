use super::*;
use crate::rng::Rng;
use alloc::string::ToString;

fn id(text: &str) -> ServiceId {
    ServiceId::parse(text).unwrap()
}

#[test]
fn the_hash_is_fnv_1a() {
    // The vectors of its authors.
    assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
}

/// If this fails, every application that remembers an address over an update of Leno is sent astray: mend the code.
#[test]
fn addresses_never_change() {
    let mut vips = Vips::new();
    for (name, v4, v6) in ADDRESSES {
        let vip = vips.service(&id(name));
        assert_eq!((vip.v4.unwrap().to_string().as_str(), vip.v6.to_string().as_str()), (v4, v6), "{name}");
    }
    let instance = vips.instance(&id("cart"), &Label::parse("cart-1").unwrap());
    assert_eq!((instance.v4.unwrap().to_string().as_str(), instance.v6.to_string().as_str()), CART_1);
}

const CART_1: (&str, &str) = ("240.240.52.211", "2001:2:0:dcbf:d7b:18f1:d69f:551e");
const ADDRESSES: [(&str, &str, &str); 3] = [
    ("cart", "240.240.62.226", "2001:2:0:78d6:8968:b24a:fa9:b28d"),
    ("team/cart", "240.240.211.1", "2001:2:0:6c7b:aa3b:d9d0:6322:8fa3"),
    ("product", "240.240.180.154", "2001:2:0:bc07:2d72:f614:64b8:e062"),
];

#[test]
fn addresses_are_in_their_ranges_and_nobody_shares_one() {
    let mut vips = Vips::new();
    let mut seen = BTreeSet::new();
    for n in 0..20_000 {
        let vip = vips.service(&id(&alloc::format!("service-{n}")));
        for address in vip.addresses() {
            assert!(is_virtual(address), "{address}");
            assert!(seen.insert(address), "{address} twice");
        }
        let [_, _, c, d] = vip.v4.unwrap().octets();
        assert!(c > 0 && (c, d) != (255, 255), "{vip:?}");
    }
}

#[test]
fn order_matters_only_for_collisions() {
    let names: Vec<ServiceId> = (0..1_000).map(|n| id(&alloc::format!("n{}/s{n}", n % 7))).collect();
    let mut forward = Vips::new();
    let mut backward = Vips::new();
    for name in &names {
        forward.service(name);
    }
    for name in names.iter().rev() {
        backward.service(name);
    }
    let differ = names.iter().filter(|name| forward.service(name).v4 != backward.service(name).v4).count();
    assert!(differ < 40, "{differ} of 1,000 differ");
    for name in &names {
        assert_eq!(forward.service(name).v6, backward.service(name).v6);
    }
}

#[test]
fn random_worlds_keep_every_address_and_share_none() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut vips = Vips::new();
        let mut known: BTreeMap<ServiceId, Vip> = BTreeMap::new();
        for _ in 0..20 {
            vips.begin_round();
            for _ in 0..rng.below(40) {
                let name = id(&alloc::format!("s{}", rng.below(200)));
                let vip = vips.service(&name);
                assert_eq!(*known.entry(name).or_insert(vip), vip, "seed {seed}");
            }
            vips.end_round();
        }
        let distinct: BTreeSet<_> = known.values().map(|vip| vip.v4).collect();
        assert_eq!(distinct.len(), known.len(), "seed {seed}");
    }
}

#[test]
fn a_full_range_leaves_ipv6() {
    let mut vips = Vips::new();
    for number in V4_FIRST..V4_LAST {
        vips.v4.set(number, true);
    }
    let last = vips.named("x/last");
    assert_eq!(last.v4, Some(Ipv4Addr::new(240, 240, 255, 254)));
    let late = vips.named("x/late");
    assert_eq!(late.v4, None);
    assert!(is_virtual(late.v6.into()));
    assert_eq!(late.addresses().count(), 1);
}

#[test]
fn churn_makes_room() {
    let mut vips = Vips::new();
    vips.begin_round();
    for n in 0..REMEMBERED_MAX + 100 {
        vips.named(&alloc::format!("x/{n}"));
    }
    vips.end_round();
    assert_eq!(vips.len(), REMEMBERED_MAX + 100, "what is there is never forgotten");
    vips.begin_round();
    let kept = vips.named("x/17");
    vips.end_round();
    assert_eq!(vips.len(), REMEMBERED_MAX);
    assert_eq!(vips.named("x/17"), kept);
    let used: usize = vips.v4.0.iter().map(|word| word.count_ones() as usize).sum();
    assert_eq!(used, REMEMBERED_MAX);
    assert_eq!(vips.v6.len(), REMEMBERED_MAX);
}

#[test]
fn reverse_names() {
    let of = |text: &str| of_reverse_name(&text.split('.').collect::<Vec<_>>());
    assert_eq!(of("4.3.240.240.in-addr.arpa"), Some("240.240.3.4".parse().unwrap()));
    assert_eq!(of("3.240.240.in-addr.arpa"), None);
    assert_eq!(of("x.3.240.240.in-addr.arpa"), None);
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa";
    assert_eq!(of(v6), Some("2001:2::1".parse().unwrap()));
    assert_eq!(of(&v6.replacen('1', "11", 1)), None);
    let [zone4, zone6] = reverse_zones();
    assert_eq!(zone4, "240.240.in-addr.arpa");
    assert!(v6.ends_with(&zone6), "{zone6}");
}

#[test]
fn other_addresses_are_not_virtual() {
    for address in ["240.241.0.1", "10.0.0.1", "2001:2:1::1", "::1"] {
        assert!(!is_virtual(address.parse().unwrap()), "{address}");
    }
    assert!(is_virtual("::ffff:240.240.9.9".parse().unwrap()));
}
