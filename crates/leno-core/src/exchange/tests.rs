use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::backend::Backends;
use crate::name::ServiceId;
use crate::rng::Rng;
use crate::route::{Link, ListId};
use crate::snapshot::{Entry, Snapshot};
use crate::spec::{Balance, EndpointSpec, KnownService, Protocol, ServiceSpec, Transport, World};

/// A service with `endpoints` endpoints, and one request for it.
struct Scene {
    snapshot: Snapshot,
    backends: Backends,
    rng: Rng,
    now: Instant,
    exchange: Exchange,
}

impl Scene {
    fn new(endpoints: usize, idempotent: bool, timeout: Option<Duration>) -> Self {
        let id = ServiceId::parse("product").unwrap();
        let endpoints = (0..endpoints).map(|at| EndpointSpec {
            name: alloc::format!("product-{at}").into(),
            address: ([127, 0, 0, 1], 1).into(),
            transport: Transport::Plain,
            version: None,
            weight: 1,
            healthy: true,
            tags: crate::spec::Tags::NONE,
        });
        let spec = ServiceSpec {
            id: id.clone(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            care: None,
            rules: vec![],
            calls: vec![],
            health: None,
            timeout,
            tries: None,
            external: None,
            send_proxy: None,
            headless: false,
            srv_port: 80,
        };
        let mut world = World::default();
        world.services.insert(id, KnownService { spec, endpoints: endpoints.collect() });
        let snapshot = Snapshot::build(&world, None);
        let mut backends = Backends::default();
        backends.adopt(&snapshot);
        let head = crate::head::RequestHead {
            method: b"GET",
            authority: b"product",
            path: b"/",
            fields: crate::head::Fields::default(),
        };
        let decision = snapshot.decide(Entry::Forward, &head);
        let exchange = Exchange::new(decision, idempotent, None, Instant::ZERO);
        Self { snapshot, backends, rng: Rng::new(1), now: Instant::ZERO, exchange }
    }

    /// Answers a Pick; the next action.
    fn pick(&mut self) -> Option<Action> {
        let Some(Action::Pick { choice, .. }) = self.exchange.poll_action() else { panic!("no pick") };
        let (tried, count) = self.exchange.tried();
        let picked = self.backends.pick(&self.snapshot, choice, &tried[..count], self.now, &mut self.rng);
        self.handle(picked.map_or_else(Input::NoEndpoint, Input::Picked))
    }

    fn handle(&mut self, input: Input) -> Option<Action> {
        self.exchange.handle(input, self.now);
        match self.exchange.action {
            Some(Action::Pick { .. }) => self.exchange.action,
            _ => self.exchange.poll_action(),
        }
    }

    fn connect(&mut self) -> Option<Action> {
        assert_eq!(self.pick(), Some(Action::Dial));
        self.handle(Input::Connected { reused: false })
    }

    fn in_flight(&self) -> u32 {
        self.backends.iter().flat_map(|backend| backend.endpoints()).map(|e| e.in_flight()).sum()
    }

    fn tried(&self) -> Vec<&str> {
        self.exchange.record().attempts().map(|attempt| &*attempt.endpoint.spec.name).collect()
    }
}

fn early(app_saw: AppSaw) -> Input {
    Input::UpstreamEnded(Ending::Early { app_saw, reason: Reason::UpstreamClosed })
}

fn is_pick(action: Option<Action>) -> bool {
    matches!(action, Some(Action::Pick { .. }))
}

#[test]
fn a_request_goes_through() {
    let mut scene = Scene::new(1, true, None);
    assert_eq!(scene.connect(), Some(Action::Send));
    assert_eq!(scene.in_flight(), 1);
    assert_eq!(scene.handle(Input::Response { status: 200 }), Some(Action::Relay));
    scene.now = scene.now.after(Duration::from_millis(3));
    assert_eq!(scene.handle(Input::UpstreamEnded(Ending::Complete)), Some(Action::Finish));
    let record = scene.exchange.record();
    assert_eq!((record.status, record.reason, record.took()), (200, None, Duration::from_millis(3)));
    assert_eq!(scene.in_flight(), 0);
    assert_eq!(scene.exchange.poll_timeout(), None);
}

#[test]
fn a_refused_connection_goes_to_another_endpoint_whatever_the_method() {
    let mut scene = Scene::new(3, false, None);
    assert_eq!(scene.pick(), Some(Action::Dial));
    assert!(is_pick(scene.handle(Input::ConnectFailed(ConnectFailure::Refused))));
    assert_eq!(scene.connect(), Some(Action::Send));
    assert_eq!(scene.tried(), ["product-0", "product-1"]);
    assert_eq!(scene.exchange.record().attempts().next().unwrap().failed, Some(Reason::ConnectFailed));
    assert_eq!(scene.in_flight(), 1);
}

#[test]
fn who_is_refused_for_want_of_a_place_is_sent_to_one_other_endpoint_within_the_budget() {
    let shed = || {
        Input::UpstreamEnded(Ending::Early { app_saw: AppSaw::Nothing, reason: Reason::ServiceOverloaded })
    };
    let mut scene = Scene::new(5, false, None);
    assert_eq!(scene.connect(), Some(Action::Send));
    assert!(matches!(scene.handle(shed()), Some(Action::Pick { budget: true, .. })));
    assert_eq!(scene.connect(), Some(Action::Send));
    assert_eq!(scene.handle(shed()), Some(Action::Reply(Reason::ServiceOverloaded)));
    let record = scene.exchange.record();
    assert_eq!((record.attempts_made(), record.no_retry), (2, Some(NoRetry::Attempts)));
    assert_eq!((record.status, scene.exchange.app_saw()), (503, AppSaw::Nothing));
}

/// A request for the application beside a sidecar, of a service that declares a concurrency.
fn entering(deadline: Option<Instant>) -> Exchange {
    let mut decision = Scene::new(1, true, None).exchange.record().decision;
    let Then::Split(split) = decision.then else { panic!("{decision:?}") };
    decision.then = Then::Admit(split);
    Exchange::new(decision, true, deadline, Instant::ZERO)
}

#[test]
fn a_request_enters_before_an_endpoint_is_picked_or_is_refused() {
    let now = Instant::from_nanos(5_000_000);
    let mut exchange = entering(None);
    assert_eq!(exchange.poll_action(), Some(Action::Admit));
    exchange.handle(Input::Admitted, now);
    assert!(is_pick(exchange.poll_action()));

    let mut exchange = entering(None);
    exchange.handle(Input::Shed, now);
    assert_eq!(exchange.poll_action(), Some(Action::Reply(Reason::ServiceOverloaded)));
    assert_eq!((exchange.app_saw(), exchange.record().status), (AppSaw::Nothing, 503));

    // What is too late waits for nobody, and what becomes too late is over.
    assert_eq!(entering(Some(Instant::ZERO)).poll_action(), Some(Action::Reply(Reason::OutOfTime)));
    let mut exchange = entering(Some(now));
    exchange.handle(Input::Timeout, now);
    assert_eq!(exchange.poll_action(), Some(Action::Reply(Reason::RequestTimeout)));
    let mut exchange = entering(None);
    exchange.handle(Input::DownstreamGone, now);
    assert_eq!(exchange.poll_action(), Some(Action::Finish));
    exchange.handle(Input::Admitted, now);
    assert_eq!(exchange.poll_action(), None);
}

#[test]
fn attempts_are_limited() {
    let mut scene = Scene::new(9, true, None);
    for attempt in 1..=ATTEMPTS {
        assert_eq!(scene.pick(), Some(Action::Dial));
        let action = scene.handle(Input::ConnectFailed(ConnectFailure::Refused));
        if attempt == ATTEMPTS {
            assert_eq!(action, Some(Action::Reply(Reason::ConnectFailed)));
        } else {
            assert!(is_pick(action));
        }
    }
    assert_eq!(scene.in_flight(), 0);
    scene.exchange.ended(scene.now);
    assert_eq!(scene.exchange.poll_action(), Some(Action::Finish));
}

#[test]
fn when_no_other_endpoint_is_left_the_client_learns_the_first_reason() {
    let mut scene = Scene::new(1, true, None);
    assert_eq!(scene.pick(), Some(Action::Dial));
    assert!(is_pick(scene.handle(Input::ConnectFailed(ConnectFailure::Tls))));
    assert_eq!(scene.pick(), Some(Action::Reply(Reason::TlsRefused)));
}

#[test]
fn only_what_had_no_effect_or_may_have_two_is_sent_again() {
    let cases = [
        // idempotent, application saw, body taken -> again?
        (true, AppSaw::Nothing, false, true),
        (true, AppSaw::Maybe, false, true),
        (false, AppSaw::Nothing, false, true),
        (false, AppSaw::Maybe, false, false),
        (true, AppSaw::Nothing, true, false),
        (true, AppSaw::Maybe, true, false),
        (false, AppSaw::Nothing, true, false),
    ];
    for case in cases {
        let (idempotent, app_saw, body_taken, again) = case;
        let mut scene = Scene::new(2, idempotent, None);
        assert_eq!(scene.connect(), Some(Action::Send));
        if body_taken {
            assert_eq!(scene.handle(Input::BodyTaken), None);
        }
        let action = scene.handle(early(app_saw));
        if again {
            assert!(is_pick(action), "{case:?}");
        } else {
            assert_eq!(action, Some(Action::Reply(Reason::UpstreamClosed)), "{case:?}");
        }
    }
}

#[test]
fn nothing_is_sent_again_after_the_answer_began() {
    let mut scene = Scene::new(2, true, None);
    scene.connect();
    scene.handle(Input::Response { status: 200 });
    assert_eq!(scene.handle(early(AppSaw::Maybe)), Some(Action::Cut(Reason::ResponseCut)));
    scene.exchange.ended(scene.now);
    assert_eq!(scene.exchange.poll_action(), Some(Action::Finish));
    assert_eq!(scene.exchange.record().reason, Some(Reason::ResponseCut));
    assert_eq!(scene.exchange.record().status, 200);
}

#[test]
fn each_wait_has_its_deadline_and_reason() {
    let mut scene = Scene::new(2, true, Some(Duration::from_secs(3)));
    assert_eq!(scene.pick(), Some(Action::Dial));
    let (at, reason) = scene.exchange.poll_timeout().unwrap();
    assert_eq!((at, reason), (Instant::ZERO.after(CONNECT_TIMEOUT), Reason::ConnectTimeout));
    scene.now = at;
    assert!(is_pick(scene.handle(Input::Timeout)));
    assert_eq!(scene.connect(), Some(Action::Send));
    let (at, reason) = scene.exchange.poll_timeout().unwrap();
    assert_eq!((at, reason), (Instant::ZERO.after(Duration::from_secs(3)), Reason::RequestTimeout));
    scene.now = at;
    assert_eq!(scene.handle(Input::Timeout), Some(Action::Reply(Reason::RequestTimeout)));
    assert_eq!(scene.in_flight(), 0);
}

#[test]
fn without_a_timeout_only_silence_ends_an_exchange() {
    let mut scene = Scene::new(1, true, None);
    scene.connect();
    scene.handle(Input::Response { status: 200 });
    for _ in 0..100 {
        scene.now = scene.now.after(IDLE_TIMEOUT / 2);
        scene.exchange.progress(scene.now);
    }
    let (at, reason) = scene.exchange.poll_timeout().unwrap();
    assert_eq!((at, reason), (scene.now.after(IDLE_TIMEOUT), Reason::IdleTimeout));
    scene.now = at;
    assert_eq!(scene.handle(Input::Timeout), Some(Action::Cut(Reason::IdleTimeout)));
}

#[test]
fn a_stream_of_events_may_be_silent_but_not_beyond_its_deadline() {
    for (deadline, due) in [(None, None), (Some(IDLE_TIMEOUT * 3), Some(Reason::RequestTimeout))] {
        let mut scene = Scene::new(1, true, deadline);
        scene.connect();
        scene.handle(Input::Response { status: 200 });
        scene.exchange.allow_silence();
        assert_eq!(scene.exchange.poll_timeout().map(|(_, reason)| reason), due);
    }
}

#[test]
fn a_tunnel_has_no_deadline_at_all() {
    let mut scene = Scene::new(1, true, Some(IDLE_TIMEOUT));
    scene.connect();
    scene.handle(Input::Response { status: 200 });
    scene.exchange.begin_tunnel();
    assert_eq!(scene.exchange.poll_timeout(), None);
    assert_eq!(scene.handle(Input::UpstreamEnded(Ending::Complete)), Some(Action::Finish));
}

#[test]
fn an_address_outside_the_mesh_is_tried_once() {
    let address = "192.0.2.1:443".parse().unwrap();
    let mut scene = Scene::new(1, true, None);
    let decision = scene.snapshot.decide_connection(Entry::Address(address), b"", Link::UNKNOWN);
    scene.exchange = Exchange::new(decision, true, None, Instant::ZERO);
    assert_eq!(scene.connect(), Some(Action::Send));
    assert_eq!(scene.tried(), ["192.0.2.1:443"]);
    // The same place is no other endpoint: what fails there is told.
    assert!(is_pick(scene.handle(early(AppSaw::Nothing))));
    assert_eq!(scene.pick(), Some(Action::Reply(Reason::UpstreamClosed)));
}

#[test]
fn telling_that_the_body_was_taken_is_no_progress() {
    let mut scene = Scene::new(1, false, None);
    scene.connect();
    let (at, _) = scene.exchange.poll_timeout().unwrap();
    scene.now = at;
    // The shell tells it whenever it looks, also when it looks because nothing has moved.
    assert_eq!(scene.handle(Input::BodyTaken), None);
    assert_eq!(scene.exchange.poll_timeout(), Some((at, Reason::IdleTimeout)));
    assert_eq!(scene.handle(Input::Timeout), Some(Action::Reply(Reason::IdleTimeout)));
}

#[test]
fn silence_is_the_reason_when_it_comes_before_the_deadline() {
    let mut scene = Scene::new(1, true, Some(IDLE_TIMEOUT + Duration::from_secs(9)));
    scene.connect();
    let (at, _) = scene.exchange.poll_timeout().unwrap();
    scene.now = at;
    assert_eq!(scene.handle(Input::Timeout), Some(Action::Reply(Reason::IdleTimeout)));
}

#[test]
fn a_request_that_cannot_be_sent_at_all_is_not_tried_elsewhere() {
    let mut scene = Scene::new(3, true, None);
    scene.connect();
    let unfit = Ending::Early { app_saw: AppSaw::Nothing, reason: Reason::RequestMalformed };
    let action = scene.handle(Input::UpstreamEnded(unfit));
    assert_eq!(action, Some(Action::Reply(Reason::RequestMalformed)), "the budget is for better things");
}

#[test]
fn a_client_that_goes_frees_its_place() {
    let mut scene = Scene::new(1, true, None);
    scene.connect();
    assert_eq!(scene.handle(Input::DownstreamGone), Some(Action::Finish));
    assert_eq!(scene.in_flight(), 0);
    assert_eq!(scene.exchange.record().reason, Some(Reason::DownstreamGone));
    assert_eq!(scene.exchange.record().status, 499);
    assert_eq!(scene.handle(Input::Response { status: 200 }), None);
}

#[test]
fn no_route_is_an_answer() {
    let decision = Decision::nowhere(ListId(0));
    let mut exchange = Exchange::new(decision, true, None, Instant::ZERO);
    assert_eq!(exchange.poll_action(), Some(Action::Reply(Reason::NoRoute)));
    exchange.ended(Instant::ZERO);
    assert_eq!(exchange.poll_action(), Some(Action::Finish));
    assert_eq!(exchange.record().status, 404);
}

#[test]
fn the_callers_deadline_wins_when_it_is_earlier() {
    let mut scene = Scene::new(1, true, Some(Duration::from_secs(3)));
    let decision = scene.exchange.record().decision;
    for (given, expected) in [(1, 1), (9, 3)] {
        let given = Instant::ZERO.after(Duration::from_secs(given));
        scene.exchange = Exchange::new(decision, true, Some(given), Instant::ZERO);
        assert_eq!(scene.exchange.deadline(), Some(Instant::ZERO.after(Duration::from_secs(expected))));
    }
}

#[test]
fn a_refused_decision_is_answered_with_its_reason() {
    let then = Then::Refused(Reason::EgressDenied);
    let decision = Decision { then, ..Decision::nowhere(ListId(u32::MAX)) };
    let mut exchange = Exchange::new(decision, true, None, Instant::ZERO);
    assert_eq!(exchange.poll_action(), Some(Action::Reply(Reason::EgressDenied)));
    assert_eq!(exchange.record().status, 403);
}

#[test]
fn a_call_is_answered_in_its_own_terms_and_recorded_by_its_status() {
    // Answered here.
    let mut scene = Scene::new(0, false, None);
    scene.exchange.begin_call();
    assert_eq!(scene.pick(), Some(Action::Reply(Reason::NoEndpoint)));
    scene.exchange.ended(scene.now);
    let record = scene.exchange.record();
    assert_eq!((record.status, record.reason), (200, Some(Reason::NoEndpoint)));
    assert_eq!(record.grpc, Some(Status::UNAVAILABLE));
    // Answered by the service: with a status, with none, and by something that is no gRPC.
    let rows =
        [(200, Some(Status(5)), Status(5)), (200, None, Status::UNKNOWN), (503, None, Status::UNAVAILABLE)];
    for (status, said, recorded) in rows {
        let mut scene = Scene::new(1, false, None);
        scene.exchange.begin_call();
        scene.connect();
        scene.handle(Input::Response { status });
        if let Some(said) = said {
            scene.exchange.call_ended(said);
        }
        scene.handle(Input::UpstreamEnded(Ending::Complete));
        assert_eq!(scene.exchange.record().grpc, Some(recorded));
    }
    // What is no call has no status.
    let mut scene = Scene::new(1, false, None);
    scene.connect();
    scene.handle(Input::Response { status: 503 });
    scene.handle(Input::UpstreamEnded(Ending::Complete));
    assert_eq!(scene.exchange.record().grpc, None);
}

#[test]
fn a_rules_own_answer_is_no_failure() {
    let then = Then::Answer(302);
    let decision = Decision { then, ..Decision::nowhere(ListId(0)) };
    let mut exchange = Exchange::new(decision, true, None, Instant::from_nanos(0));
    assert_eq!(exchange.poll_action(), Some(Action::Answer));
    assert_eq!(exchange.poll_timeout(), None);
    exchange.ended(Instant::from_nanos(5));
    assert_eq!(exchange.poll_action(), Some(Action::Finish));
    let record = exchange.record();
    assert_eq!((record.status, record.reason, record.grpc), (302, None, None));
    let mut call = Exchange::new(decision, false, None, Instant::from_nanos(0));
    call.begin_call();
    call.ended(Instant::from_nanos(5));
    assert_eq!(call.record().grpc, Some(Status::of_http(302)));
}
mod hedge;
mod policy;
