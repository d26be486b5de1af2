use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::*;
use crate::edit::Edits;
use crate::head::{Field, FieldId, Fields, Span};
use crate::name::Label;
use crate::rng::Rng;
use crate::spec::{MatchSpec, RateKey};

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn spec(requests: u32, per: Duration, burst: u32) -> RateSpec {
    RateSpec {
        name: "all".into(),
        when: MatchSpec::default(),
        requests,
        per,
        burst,
        by: vec![],
        scope: RateScope::Instance,
        dry_run: false,
    }
}

fn rate(spec: RateSpec) -> Rate {
    let name = spec.name.clone();
    RateBook::new(5, false).rate(&id("cart"), &name, &Arc::new(spec), 1)
}

/// A request with one header.
struct Sent {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl Sent {
    fn with(name: &str, value: &str) -> Self {
        let bytes = [name.as_bytes(), value.as_bytes()].concat();
        let field = Field {
            id: FieldId::of(name.as_bytes()),
            name: Span::new(0, name.len()),
            value: Span::new(name.len(), bytes.len()),
        };
        Self { bytes, fields: vec![field] }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: b"GET",
            authority: b"cart",
            path: b"/",
            fields: Fields::new(&self.bytes, &self.fields),
        }
    }
}

fn from(caller: &str) -> Sender<'_> {
    Sender { caller, client: IpAddr::from([10, 0, 0, 1]) }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn passes(rates: &[Rate], sender: &Sender<'_>, now: Instant) -> bool {
    let sent = Sent::with("x-user", "a");
    Charge::of(rates, &sent.head(), sender, now, &mut Edits::new()).refused_by().is_none()
}

#[test]
fn a_bucket_lets_a_burst_through_and_then_one_request_for_each_interval() {
    let rates = [rate(spec(10, Duration::from_secs(1), 3))];
    let ask = |millis| passes(&rates, &from("shop"), at(millis));
    assert_eq!([0, 0, 0, 0].map(ask), [true, true, true, false]);
    assert_eq!([99, 100, 100, 199, 200].map(ask), [false, true, false, false, true]);
    // It never has more than its burst.
    assert_eq!([9000, 9000, 9000, 9000].map(ask), [true, true, true, false]);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!((count(&rates[0].tally.allowed), count(&rates[0].tally.refused)), (8, 5));
}

/// In every window of time there pass at most the burst and what comes in meanwhile; and of somebody who asks all the time,
/// not less either.
#[test]
fn what_passes_is_exact_in_every_window() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let requests = 1 + rng.below(500) as u32;
        let burst = 1 + rng.below(50) as u32;
        let per = Duration::from_millis(100 + rng.below(5000));
        let rates = [rate(spec(requests, per, burst))];
        let mut now = 0;
        let mut passed: Vec<u64> = Vec::new();
        let eager = seed % 2 == 0;
        for _ in 0..3000 {
            now += rng.below(if eager { 200_000 } else { 40_000_000 });
            if passes(&rates, &from("shop"), Instant::from_nanos(now)) {
                passed.push(now);
            }
        }
        let interval = per.as_nanos() as f64 / f64::from(requests);
        // No window has more than the burst and what comes in: a bucket of that size never runs dry.
        let (mut bucket, mut last) = (f64::from(burst), 0);
        for at in &passed {
            bucket = f64::from(burst).min(bucket + (at - last) as f64 / interval) - 1.0;
            last = *at;
            assert!(bucket >= -1e-6, "seed {seed}: one too many at {at}");
        }
        if eager && interval > 200_000.0 {
            // Asked at least every 200 µs: each interval that passes lets one through.
            let due = (now as f64 / (interval + 1.0 + 200_000.0)).floor();
            assert!(passed.len() as f64 >= due, "seed {seed}: {} of {due}", passed.len());
        }
    }
}

#[test]
fn workers_share_what_there_is() {
    let rates = [rate(spec(1, Duration::from_secs(3600), 10_000))];
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if passes(&rates, &from("shop"), at(1)) {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 10_000);
}

#[test]
fn each_key_has_a_bucket_of_its_own() {
    let by = vec![RateKey::Caller, RateKey::Header("x-user".into())];
    let rates = [rate(RateSpec { by, ..spec(1, Duration::from_secs(1), 2) })];
    let ask = |caller, user, millis| {
        let sent = Sent::with("x-user", user);
        let charge = Charge::of(&rates, &sent.head(), &from(caller), at(millis), &mut Edits::new());
        charge.refused_by().is_none()
    };
    for (caller, user) in [("shop", "a"), ("shop", "b"), ("admin", "a"), ("shop", "")] {
        assert_eq!([0, 0, 0].map(|_| ask(caller, user, 0)), [true, true, false], "{caller} {user}");
    }
    assert!(ask("shop", "a", 1000) && !ask("shop", "a", 1000));
}

#[test]
fn keys_of_several_workers_are_counted_once() {
    let by = vec![RateKey::Header("x-user".into())];
    let rates = [rate(RateSpec { by, ..spec(1, Duration::from_secs(3600), 3) })];
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for user in 0..2_000 {
                    let sent = Sent::with("x-user", &user.to_string());
                    for _ in 0..3 {
                        let told = &mut Edits::new();
                        let charge = Charge::of(&rates, &sent.head(), &from("shop"), at(1), told);
                        passed.fetch_add(u64::from(charge.refused_by().is_none()), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // On a machine that has put a worker to sleep at the wrong moment some are counted together.
    let strangers = rates[0].tally.strangers.load(Ordering::Relaxed);
    let passed = passed.into_inner();
    assert!(passed == 6_000 || strangers > 0 && passed <= 6_003, "{passed} passed, {strangers} strangers");
}

#[test]
fn of_several_limits_the_first_that_refuses_is_named_and_the_others_have_counted_nothing() {
    let wide = rate(RateSpec { name: "wide".into(), ..spec(1, Duration::from_secs(10), 3) });
    let narrow = rate(RateSpec { name: "narrow".into(), ..spec(1, Duration::from_secs(1), 1) });
    let dry = rate(RateSpec { name: "dry".into(), dry_run: true, ..spec(1, Duration::from_secs(10), 1) });
    let rates = [wide.clone(), dry, narrow];
    let sent = Sent::with("x-user", "a");
    let ask = |millis| {
        let mut told = Edits::new();
        let charge = Charge::of(&rates, &sent.head(), &from("shop"), at(millis), &mut told);
        let field = |name: &[u8]| {
            let mut found = told.added().filter(|(added, _)| *added == name);
            found.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let dry: Vec<String> = charge.dry_runs().map(String::from).collect();
        (
            charge.refused_by().map(String::from),
            dry,
            field(b"ratelimit-policy").unwrap(),
            field(b"ratelimit").unwrap(),
            field(b"retry-after"),
        )
    };
    let policy = "\"wide\";q=1;w=10, \"narrow\";q=1;w=1".to_string();
    let left = |text: &str| text.to_string();
    assert_eq!(ask(0), (None, vec![], policy.clone(), left("\"wide\";r=2;t=10, \"narrow\";r=0;t=1"), None));
    assert_eq!(
        ask(100),
        (
            Some("cart/narrow".into()),
            vec!["cart/dry".into()],
            policy.clone(),
            left("\"wide\";r=1;t=20, \"narrow\";r=0;t=1"),
            Some("1".into())
        )
    );
    // Neither of those that were refused was counted by the wide one.
    assert_eq!(ask(1000).0, None);
    assert_eq!(ask(2000).0, None);
    let (refused, _, policy, left, wait) = ask(3000);
    assert_eq!(refused.as_deref(), Some("cart/wide"));
    assert_eq!((policy.as_str(), left.as_str()), ("\"wide\";q=1;w=10", "\"wide\";r=0;t=27"));
    assert_eq!(wait.as_deref(), Some("7"));
    assert_eq!(wide.tally.allowed.load(Ordering::Relaxed), 3);
}

#[test]
fn only_callers_that_are_meant_are_counted() {
    let sources = vec![
        EgressSource::Service(id("shop")).into(),
        EgressSource::Namespace(Label::parse("batch").unwrap()).into(),
    ];
    let when = MatchSpec { sources, ..MatchSpec::default() };
    let rates = [rate(RateSpec { when, ..spec(1, Duration::from_secs(60), 1) })];
    let ask = |caller| passes(&rates, &from(caller), at(0));
    assert_eq!(
        ["shop", "other", "other", "batch/a", "batch/b", "batches/a"].map(ask),
        [true, true, true, false, false, true]
    );
    let everybody = EgressSource::Namespace(Label::parse("default").unwrap());
    let source = Source::new(&everybody);
    assert!(source.covers("shop") && !source.covers("batch/a") && !source.covers(""));
}

#[test]
fn what_was_counted_outlives_a_change_that_does_not_concern_it() {
    let mut book = RateBook::new(1, false);
    let mut make = |spec: RateSpec| {
        book.begin();
        let rate = book.rate(&id("cart"), &"all".into(), &Arc::new(spec), 1);
        book.end();
        [rate]
    };
    let first = make(spec(1, Duration::from_secs(60), 2));
    assert!(passes(&first, &from("shop"), at(0)) && passes(&first, &from("shop"), at(0)));
    let dry = make(RateSpec { dry_run: true, ..spec(1, Duration::from_secs(60), 2) });
    assert!(passes(&dry, &from("shop"), at(0)));
    assert_eq!(dry[0].tally.would_refuse.load(Ordering::Relaxed), 1);
    let again = make(spec(1, Duration::from_secs(60), 2));
    assert!(!passes(&again, &from("shop"), at(1)));
    let other = make(spec(1, Duration::from_secs(60), 3));
    assert!(passes(&other, &from("shop"), at(1)), "another limit counts anew");
    assert_eq!(other[0].tally.allowed.load(Ordering::Relaxed), 3, "for people it is the same");
}

#[test]
fn a_share_that_moves_makes_no_request_out_of_nothing() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let scope = RateScope::Mesh;
        let by = if seed % 60 == 0 { vec![RateKey::Header("x-user".into())] } else { vec![] };
        let rates = [rate(RateSpec { scope, by, ..spec(100, Duration::from_secs(1), 50) })];
        let (mut now, mut passed, mut came_in) = (0, 0, 50.0);
        for _ in 0..2000 {
            let step = rng.below(20_000_000);
            now += step;
            came_in += step as f64 / 1e9 * 100.0 * f64::from(rates[0].share()) / f64::from(WHOLE);
            if rng.one_in(5) {
                rates[0].set_share(1 + rng.below(u64::from(WHOLE)) as u32, Instant::from_nanos(now));
            }
            passed += u32::from(passes(&rates, &from("shop"), Instant::from_nanos(now)));
            assert!(f64::from(passed) <= came_in + 1.0 + 1e-6, "seed {seed}: {passed} of {came_in}");
        }
        assert!(f64::from(passed) > came_in / 4.0, "seed {seed}: {passed} of {came_in}");
    }
}

/// A key that is new here has not saved up what comes in with a share that has just grown.
#[test]
fn a_new_key_has_what_the_share_was_and_not_what_it_is() {
    let (scope, by) = (RateScope::Mesh, vec![RateKey::Header("x-user".into())]);
    let rates = [rate(RateSpec { scope, by, ..spec(1000, Duration::from_secs(3600), 1000) })];
    rates[0].set_share(WHOLE / 100, at(0));
    let sent = Sent::with("x-user", "another");
    Charge::of(&rates, &sent.head(), &from("shop"), at(1), &mut Edits::new());
    let later = 4_000_000;
    rates[0].set_share(WHOLE / 100 * 99, at(later));
    let passed = (0..100).filter(|_| passes(&rates, &from("shop"), at(later))).count();
    assert!((9..=11).contains(&passed), "{passed}: a hundredth of a thousand");
}

/// Who has next to nothing of a limit for a moment is not sent away for years.
#[test]
fn a_share_of_nothing_is_a_short_wait() {
    let rates = [rate(RateSpec { scope: RateScope::Mesh, ..spec(100, Duration::from_secs(1), 100) })];
    rates[0].set_share(0, at(0));
    let sent = Sent::with("x-user", "a");
    let (mut told, mut waits) = (Edits::new(), vec![]);
    for _ in 0..300 {
        waits.extend(Charge::of(&rates, &sent.head(), &from("shop"), at(1), &mut told).wait);
    }
    assert!(!waits.is_empty() && waits.iter().all(|wait| *wait <= Duration::from_secs(2)), "{waits:?}");
}
