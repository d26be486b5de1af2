//! What is configured about attempts.

use alloc::sync::Arc;

use super::*;
use crate::head::{Field, FieldId, Fields, RequestHead, ResponseHead, Span};
use crate::spec::{AnswerHeader, RetryMethods, RetryOn, RetrySpec, StatusRange, TriesSpec};

const MILLIS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A scene whose one request follows `tries`.
fn scene(endpoints: usize, idempotent: bool, timeout: Option<Duration>, tries: TriesSpec) -> Scene {
    let mut scene = Scene::new(endpoints, idempotent, timeout);
    scene.exchange.follow(&Arc::new(Tries::from(&tries)), 7);
    scene
}

fn retry(spec: RetrySpec) -> TriesSpec {
    TriesSpec { retry: Some(spec), ..TriesSpec::default() }
}

fn on(statuses: &[(u16, u16)]) -> RetrySpec {
    let statuses = statuses.iter().map(|(first, last)| StatusRange { first: *first, last: *last }).collect();
    RetrySpec { on: RetryOn { reset: true, statuses, ..RetryOn::default() }, ..RetrySpec::default() }
}

/// A response head with these fields.
pub(super) fn answer<T>(
    status: u16,
    fields: &[(&str, &str)],
    look: impl FnOnce(&ResponseHead<'_>) -> T,
) -> T {
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    let mut put = |text: &str| {
        let start = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        Span::new(start, bytes.len())
    };
    for (name, value) in fields {
        list.push(Field { name: put(name), value: put(value), id: FieldId::Other });
    }
    look(&ResponseHead { status, reason: b"", fields: Fields::new(&bytes, &list) })
}

impl Scene {
    /// An answer comes; true when another attempt is made instead of it.
    fn answered(&mut self, status: u16, fields: &[(&str, &str)]) -> bool {
        let now = self.now;
        let again = answer(status, fields, |head| self.exchange.wants_another(head, now));
        let input = if again { Input::Withheld { status } } else { Input::Response { status } };
        self.exchange.handle(input, now);
        again
    }

    /// Picks whatever is left, as the shell does for a policy, after the pause if there is one.
    pub(super) fn pick_again(&mut self) -> Option<Action> {
        let mut action = self.exchange.poll_action();
        if let Some(Action::Pause { .. }) = action {
            let (at, _) = self.exchange.poll_timeout().unwrap();
            self.now = at;
            self.exchange.handle(Input::Timeout, at);
            action = self.exchange.poll_action();
        }
        let Some(Action::Pick { choice, .. }) = action else { return action };
        let tried = self.exchange.planned_tried().unwrap_or(&[]).to_vec();
        let mut pick =
            |avoid: &[u64]| self.backends.pick(&self.snapshot, choice, avoid, self.now, &mut self.rng);
        let picked = pick(&tried).or_else(|_| pick(&[]));
        self.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked))
    }

    /// Gets as far as an answer can come.
    fn sent_again(&mut self) {
        assert_eq!(self.pick_again(), Some(Action::Dial));
        assert_eq!(self.handle(Input::Connected { reused: true }), Some(Action::Send));
    }

    fn no_retry(&self) -> Option<NoRetry> {
        self.exchange.record().no_retry
    }

    fn last(&self) -> &Attempt {
        self.exchange.record().attempts().next_back().unwrap()
    }
}

/// The seed's setting: 10 s in all, three attempts of 1 s.
#[test]
fn three_attempts_of_a_second_within_ten() {
    let tries = TriesSpec { try_timeout: Some(SECOND), ..retry(RetrySpec::default()) };
    let mut scene = scene(3, true, Some(SECOND * 10), tries);
    for attempt in 1..=3 {
        scene.sent_again();
        let (at, reason) = scene.exchange.poll_timeout().unwrap();
        assert_eq!(reason, Reason::TryTimeout);
        assert_eq!(at, scene.now.after(SECOND));
        assert_eq!(scene.exchange.attempt_deadline(), Some(at));
        scene.now = at;
        scene.exchange.handle(Input::Timeout, at);
        assert_eq!(scene.exchange.record().attempts_made(), attempt);
    }
    assert_eq!(scene.exchange.poll_action(), Some(Action::Reply(Reason::TryTimeout)));
    assert!(scene.now < Instant::ZERO.after(SECOND * 4), "{:?}", scene.now);
    assert_eq!(scene.no_retry(), Some(NoRetry::Attempts));
    let mut tried = scene.tried();
    tried.sort_unstable();
    assert_eq!(tried, ["product-0", "product-1", "product-2"], "each attempt goes elsewhere");
    assert_eq!(scene.in_flight(), 0);
}

#[test]
fn an_answer_is_judged_by_the_policy() {
    let grpc = |codes: &[u8]| RetryOn {
        grpc: codes.iter().fold(0, |bits, code| bits | 1 << code),
        ..RetryOn::default()
    };
    let header = |value: Option<&str>| RetryOn {
        headers: vec![AnswerHeader { name: "x-again".into(), value: value.map(Into::into) }],
        ..RetryOn::default()
    };
    type Row<'a> = (RetryOn, bool, u16, &'a [(&'a str, &'a str)], bool);
    let rows: &[Row<'_>] = &[
        (on(&[(500, 599)]).on, false, 500, &[], true),
        (on(&[(500, 599)]).on, false, 599, &[], true),
        (on(&[(500, 599)]).on, false, 499, &[], false),
        (on(&[(502, 504)]).on, false, 500, &[], false),
        (on(&[(409, 409), (503, 503)]).on, false, 409, &[], true),
        (on(&[]).on, false, 503, &[], false),
        (grpc(&[14]), true, 200, &[("grpc-status", "14")], true),
        (grpc(&[14]), true, 200, &[("grpc-status", "13")], false),
        (grpc(&[8, 14]), true, 200, &[("grpc-status", "8")], true),
        (grpc(&[14]), true, 200, &[], false),
        // An answer that is no answer of gRPC comes to one.
        (grpc(&[14]), true, 503, &[], true),
        (grpc(&[14]), false, 200, &[("grpc-status", "14")], false),
        (header(None), false, 200, &[("X-Again", "maybe")], true),
        (header(Some("yes")), false, 200, &[("x-again", "yes")], true),
        (header(Some("yes")), false, 200, &[("x-again", "no")], false),
        (header(None), false, 503, &[], false),
    ];
    for (row, (on, call, status, fields, again)) in rows.iter().enumerate() {
        let spec = RetrySpec { on: on.clone(), ..RetrySpec::default() };
        let mut scene = scene(2, true, None, retry(spec));
        if *call {
            scene.exchange.begin_call();
        }
        scene.sent_again();
        assert_eq!(scene.answered(*status, fields), *again, "row {row}");
        let relayed = scene.exchange.poll_action() == Some(Action::Relay);
        assert_eq!(relayed, !again, "row {row}");
        assert_eq!(scene.last().failed, again.then_some(Reason::AnswerRetried), "row {row}");
    }
}

#[test]
fn why_there_is_no_other_attempt_is_recorded() {
    let fails = || on(&[(503, 503)]);
    type Change = fn(&mut Scene);
    let nothing: Change = |_| {};
    let taken: Change = |scene| {
        scene.handle(Input::BodyTaken);
    };
    type Row<'a> = (RetrySpec, bool, Option<Duration>, &'a [(&'a str, &'a str)], Change, NoRetry);
    let rows: [Row<'_>; 8] = [
        (RetrySpec { attempts: 1, ..fails() }, true, None, &[], nothing, NoRetry::Attempts),
        (fails(), false, None, &[], nothing, NoRetry::NotIdempotent),
        (fails(), true, None, &[], taken, NoRetry::BodyGone),
        (fails(), true, Some(MILLIS / 2), &[], nothing, NoRetry::Deadline),
        (fails(), true, Some(SECOND), &[("retry-after", "1")], nothing, NoRetry::Deadline),
        (fails(), true, None, &[("retry-after", "6")], nothing, NoRetry::AskedToWait),
        (fails(), true, None, &[("leno-retried", "1")], nothing, NoRetry::Deeper),
        (
            RetrySpec { attempts: 2, ..fails() },
            true,
            None,
            &[],
            |scene| {
                assert!(scene.answered(503, &[]));
                scene.sent_again();
            },
            NoRetry::Attempts,
        ),
    ];
    for (spec, idempotent, timeout, fields, change, why) in rows {
        let mut scene = scene(2, idempotent, timeout, retry(spec));
        scene.sent_again();
        change(&mut scene);
        assert!(!scene.answered(503, fields), "{why:?}");
        assert_eq!(
            scene.exchange.poll_action(),
            Some(Action::Relay),
            "{why:?}: the answer goes to the client"
        );
        assert_eq!((scene.last().status, scene.no_retry()), (503, Some(why)));
    }
    // The budget is asked by the shell.
    let mut scene = scene(2, true, None, retry(fails()));
    scene.sent_again();
    assert!(answer(503, &[], |head| scene.exchange.wants_another(head, scene.now)));
    scene.exchange.denied(503);
    assert_eq!(scene.handle(Input::Response { status: 503 }), Some(Action::Relay));
    assert_eq!(scene.no_retry(), Some(NoRetry::Budget));
    // A failure without an answer: told with its own reason.
    let mut scene = super::policy::scene(2, true, None, retry(fails()));
    scene.sent_again();
    scene.exchange.handle(early(AppSaw::Maybe), scene.now);
    let action = scene.exchange.poll_action();
    assert!(matches!(action, Some(Action::Pause { budget: Some(_) })), "{action:?}");
    assert_eq!(scene.handle(Input::OverBudget), Some(Action::Reply(Reason::UpstreamClosed)));
    assert_eq!(scene.no_retry(), Some(NoRetry::Budget));
    // And once the answer has begun.
    let mut scene = super::policy::scene(2, true, None, retry(fails()));
    scene.sent_again();
    assert!(!scene.answered(200, &[]));
    assert_eq!(scene.exchange.poll_action(), Some(Action::Relay));
    assert_eq!(scene.handle(early(AppSaw::Maybe)), Some(Action::Cut(Reason::ResponseCut)));
    assert_eq!(scene.no_retry(), Some(NoRetry::ResponseBegun));
}

/// A wait that an answer asks for is kept to, and the jitter comes on top.
#[test]
fn waits_are_drawn_below_a_cap_that_doubles_and_never_shorter_than_asked() {
    for (call, fields, least) in [
        (false, &[][..], Duration::ZERO),
        (false, &[("retry-after", "2")], SECOND * 2),
        (true, &[("grpc-retry-pushback-ms", "30"), ("grpc-status", "14")], MILLIS * 30),
    ] {
        let mut spec = RetrySpec { attempts: 10, ..on(&[(503, 503)]) };
        spec.on.grpc = 1 << 14;
        let mut scene = scene(20, true, None, retry(spec));
        if call {
            scene.exchange.begin_call();
        }
        let mut longest = Duration::ZERO;
        for attempt in 1..10_u32 {
            scene.sent_again();
            assert!(scene.answered(if call { 200 } else { 503 }, fields));
            let (at, _) = scene.exchange.poll_timeout().unwrap();
            let wait = at.since(scene.now);
            let cap = (MILLIS * 25 * (1 << (attempt - 1))).min(MILLIS * 250);
            assert!((least..=least + cap).contains(&wait), "attempt {attempt}: {wait:?}");
            longest = longest.max(wait - least);
        }
        assert!(longest > MILLIS * 50, "{longest:?}");
        assert_eq!(scene.exchange.record().attempts_made(), 9);
    }
    // gRPC's way to forbid it.
    let mut spec = RetrySpec::default();
    spec.on.grpc = 1 << 14;
    let mut scene = scene(2, true, None, retry(spec));
    scene.exchange.begin_call();
    scene.sent_again();
    assert!(!scene.answered(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")]));
    assert_eq!(scene.no_retry(), Some(NoRetry::AskedToWait));
}

#[test]
fn a_client_that_goes_ends_a_pause() {
    let mut scene = scene(2, true, None, retry(on(&[(503, 503)])));
    scene.sent_again();
    assert!(scene.answered(503, &[]));
    assert!(matches!(scene.exchange.poll_action(), Some(Action::Pause { budget: None })));
    assert_eq!(scene.in_flight(), 0, "nobody waits on a place");
    assert_eq!(scene.handle(Input::DownstreamGone), Some(Action::Finish));
    assert_eq!(scene.exchange.record().status, 499);
}

#[test]
fn what_provably_had_no_effect_is_tried_elsewhere_at_once_whatever_is_asked_for() {
    let spec = RetrySpec { on: RetryOn::default(), ..RetrySpec::default() };
    let mut scene = scene(2, false, None, retry(spec));
    assert_eq!(scene.pick_again(), Some(Action::Dial));
    assert!(is_pick(scene.handle(Input::ConnectFailed(ConnectFailure::Refused))));
    scene.sent_again();
    assert_eq!(scene.tried(), ["product-0", "product-1"]);
    // Then with a wait, and where nobody else is left to one that was tried before.
    scene.exchange.handle(early(AppSaw::Nothing), scene.now);
    scene.sent_again();
    assert_eq!(scene.exchange.record().attempts_made(), 3);
    // What may have had an effect is not, when `reset` is not asked for.
    scene.exchange.handle(early(AppSaw::Maybe), scene.now);
    assert_eq!(scene.no_retry(), Some(NoRetry::NotAsked));
}

#[test]
fn who_may_be_repeated() {
    let rows: [(RetryMethods, &[u8], bool, bool); 7] = [
        (RetryMethods::Idempotent, b"GET", false, true),
        (RetryMethods::Idempotent, b"POST", false, false),
        (RetryMethods::Idempotent, b"POST", true, true),
        (RetryMethods::Any, b"POST", false, true),
        (RetryMethods::These(vec!["POST".into()]), b"POST", false, true),
        (RetryMethods::These(vec!["POST".into()]), b"GET", false, false),
        (RetryMethods::These(vec!["POST".into()]), b"PATCH", true, true),
    ];
    for (methods, method, keyed, repeats) in rows {
        let text = b"idempotency-key:7";
        let key = [Field { name: Span::new(0, 15), value: Span::new(16, 17), id: FieldId::Other }];
        let fields = if keyed { Fields::new(text, &key) } else { Fields::default() };
        let head = RequestHead { method, authority: b"a", path: b"/", fields };
        let tries = Tries::from(&retry(RetrySpec { methods: methods.clone(), ..RetrySpec::default() }));
        assert_eq!(tries.repeats(&head), repeats, "{methods:?} {keyed}");
    }
}

#[test]
fn nothing_unset_and_zero_are_three_things() {
    let times = |spec: &TriesSpec| {
        let mut scene = scene(1, true, None, spec.clone());
        scene.pick_again();
        let dialing = scene.exchange.poll_timeout();
        scene.handle(Input::Connected { reused: false });
        (dialing, scene.exchange.poll_timeout())
    };
    let at = |wait: Duration, reason| Some((Instant::ZERO.after(wait), reason));
    let (connect, idle) =
        (at(CONNECT_TIMEOUT, Reason::ConnectTimeout), at(IDLE_TIMEOUT, Reason::IdleTimeout));
    let unset = TriesSpec::default();
    assert_eq!(times(&unset), (connect, idle));
    let none = TriesSpec {
        connect_timeout: Some(Duration::ZERO),
        idle_timeout: Some(Duration::ZERO),
        try_timeout: Some(Duration::ZERO),
        ..TriesSpec::default()
    };
    assert_eq!(times(&none), (None, None));
    let some = TriesSpec {
        connect_timeout: Some(SECOND * 5),
        idle_timeout: Some(SECOND * 900),
        try_timeout: Some(SECOND * 9),
        ..TriesSpec::default()
    };
    assert_eq!(times(&some), (at(SECOND * 5, Reason::ConnectTimeout), at(SECOND * 9, Reason::TryTimeout)));
    // A rule takes from its service what it does not say itself.
    let rule = TriesSpec { idle_timeout: Some(Duration::ZERO), ..TriesSpec::default() };
    let both = rule.within(Some(&some));
    assert_eq!((both.idle_timeout, both.connect_timeout), (Some(Duration::ZERO), Some(SECOND * 5)));
    // And a whole request's limit of 0 is none.
    let scene = Scene::new(1, true, Some(Duration::ZERO));
    assert_eq!(scene.exchange.deadline(), None);
}

#[test]
fn what_cannot_be_done_in_time_is_refused_at_once() {
    let scene = Scene::new(1, true, None);
    let decision = scene.exchange.record().decision;
    let at = |millis: u32| Instant::ZERO.after(MILLIS * millis);
    let mut exchange = Exchange::new(decision, true, Some(at(5)), at(5));
    assert_eq!(exchange.poll_action(), Some(Action::Reply(Reason::OutOfTime)));
    assert_eq!(exchange.record().attempts_made(), 0);
    // With a connection that stands there is time for something; for a new one there is not.
    for (connecting, left, refused) in
        [(false, MILLIS / 2, false), (true, MILLIS / 2, true), (true, MILLIS * 2, false)]
    {
        let mut scene = Scene::new(2, true, Some(left));
        assert_eq!(scene.pick(), Some(Action::Dial));
        if connecting {
            scene.exchange.handle(Input::Connecting, scene.now);
        }
        let action = scene.exchange.poll_action();
        assert_eq!(action, refused.then_some(Action::Reply(Reason::OutOfTime)));
        assert_eq!(scene.in_flight(), u32::from(!refused));
    }
}

/// However a policy is set: attempts, deadline and record are kept, and nothing is sent again that must not be.
#[test]
fn no_policy_makes_too_many_attempts_or_goes_beyond_the_deadline() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let attempts = 1 + rng.below(10) as u32;
        let idempotent = rng.one_in(2);
        let spec = RetrySpec {
            attempts,
            backoff: MILLIS * rng.below(50) as u32,
            on: RetryOn { reset: rng.one_in(2), ..on(&[(500, 599)]).on },
            ..RetrySpec::default()
        };
        let timeout = rng.one_in(2).then(|| MILLIS * (1 + rng.below(300) as u32));
        let try_timeout = rng.one_in(2).then(|| MILLIS * rng.below(100) as u32);
        let tries = TriesSpec { try_timeout, ..retry(spec) };
        let mut scene = scene(1 + rng.below(4) as usize, idempotent, timeout, tries);
        let (mut effects, mut taken) = (0, None);
        for _ in 0..100 {
            let deadline = scene.exchange.deadline();
            let action = match scene.exchange.action {
                Some(Action::Pick { .. } | Action::Pause { .. }) => scene.pick_again(),
                _ => scene.exchange.poll_action(),
            };
            match action {
                Some(Action::Dial) => {
                    assert!(deadline.is_none_or(|deadline| scene.now < deadline), "seed {seed}");
                    scene.now = scene.now.after(MILLIS);
                    let input = if rng.one_in(4) {
                        Input::ConnectFailed(ConnectFailure::Refused)
                    } else {
                        Input::Connected { reused: false }
                    };
                    scene.exchange.handle(input, scene.now);
                }
                Some(Action::Send) => {
                    let seen = rng.one_in(2);
                    effects += u32::from(seen);
                    assert!(effects <= 1 || idempotent, "seed {seed}: {effects} effects");
                    if rng.one_in(5) {
                        taken.get_or_insert(scene.exchange.record().attempts_made());
                        scene.exchange.handle(Input::BodyTaken, scene.now);
                    }
                    scene.now = scene.now.after(MILLIS * rng.below(40) as u32);
                    match scene.exchange.poll_timeout() {
                        Some((at, _)) if at <= scene.now => scene.exchange.handle(Input::Timeout, scene.now),
                        _ if seen && rng.one_in(2) => {
                            scene.answered(503, &[]);
                        }
                        _ => {
                            let app_saw = if seen { AppSaw::Maybe } else { AppSaw::Nothing };
                            scene.exchange.handle(early(app_saw), scene.now);
                        }
                    }
                }
                Some(Action::Relay) => {
                    scene.exchange.handle(Input::UpstreamEnded(Ending::Complete), scene.now)
                }
                Some(Action::Reply(_) | Action::Cut(_)) => scene.exchange.ended(scene.now),
                Some(Action::Finish) => break,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let record = scene.exchange.record();
        assert!(record.attempts_made() <= attempts as usize, "seed {seed}");
        assert_eq!(record.attempts().count(), record.attempts_made());
        for attempt in record.attempts().rev().skip(1) {
            assert!(attempt.failed.is_some(), "seed {seed}: {attempt:?}");
        }
        let failed = record.attempts().next_back().is_some_and(|last| last.failed.is_some());
        assert_eq!(record.no_retry.is_some(), failed, "seed {seed}: {record:?}");
        assert!(taken.is_none_or(|at| at == record.attempts_made()), "seed {seed}");
        assert_eq!(scene.in_flight(), 0);
    }
}
