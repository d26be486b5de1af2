use std::vec;

use super::*;

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, ServiceId::parse(name).unwrap())
}

const A: SubscriberId = SubscriberId(1);
const B: SubscriberId = SubscriberId(2);

#[test]
fn only_a_real_change_touches_anybody() {
    let mut index = Index::new(7);
    let cart = key(Kind::Service, "cart");
    index.subscribe(A, cart.clone());
    let mut touched = BTreeSet::new();
    assert!(index.apply(cart.clone(), Version(1), "one", &mut touched));
    assert_eq!(touched.iter().copied().collect::<Vec<_>>(), vec![A]);
    assert_eq!(index.generation(), 8);
    assert_eq!(index.take_dirty(A).len(), 1);

    touched.clear();
    assert!(!index.apply(cart.clone(), Version(1), "one", &mut touched));
    assert!(touched.is_empty() && index.take_dirty(A).is_empty());
    assert_eq!(index.generation(), 8);

    assert!(index.delete(&cart, &mut touched));
    assert!(!index.delete(&cart, &mut touched));
    assert_eq!((index.generation(), index.take_dirty(A).len()), (9, 1));
}

#[test]
fn a_change_wakes_only_those_who_subscribed() {
    let mut index = Index::new(0);
    index.subscribe(A, key(Kind::Service, "cart"));
    index.subscribe(B, key(Kind::Endpoints, "cart"));
    let mut touched = BTreeSet::new();
    index.apply(key(Kind::Endpoints, "cart"), Version(1), (), &mut touched);
    index.apply(key(Kind::Endpoints, "user"), Version(1), (), &mut touched);
    assert_eq!(touched.iter().copied().collect::<Vec<_>>(), vec![B]);
    index.unsubscribe(B, &key(Kind::Endpoints, "cart"));
    assert!(index.take_dirty(B).is_empty());
    index.leave(A);
    touched.clear();
    index.apply(key(Kind::Service, "cart"), Version(1), (), &mut touched);
    assert!(touched.is_empty());
    assert!(index.interested.is_empty(), "nothing is kept for subscribers that left");
}

#[test]
fn a_reset_computes_removals_and_leaves_other_kinds_alone() {
    let mut index = Index::new(0);
    let mut touched = BTreeSet::new();
    let id = |name: &str| ServiceId::parse(name).unwrap();
    for (kind, name) in [(Kind::Service, "a"), (Kind::Service, "b"), (Kind::Endpoints, "a")] {
        index.apply(key(kind, name), Version(1), (), &mut touched);
    }
    let all = [(id("b"), Version(1), ()), (id("c"), Version(1), ())];
    assert_eq!(index.reset(Kind::Service, all, &mut touched), 2);
    assert!(index.get(&key(Kind::Service, "a")).is_none());
    assert!(index.get(&key(Kind::Service, "c")).is_some());
    assert!(index.get(&key(Kind::Endpoints, "a")).is_some());
    assert_eq!(index.generation(), 5);
}

#[test]
fn a_version_is_read_back_and_nothing_else_is() {
    let version = Version(0x0123_4567_89ab_cdef);
    assert_eq!(Version::parse(&std::format!("{version}")), Some(version));
    for text in ["", "1", "+0000000000000000000000000000001", "zz"] {
        assert_eq!(Version::parse(text), None);
    }
}
