//! The agent against a control plane on loopback.

mod fake;

use fake::Control;
use leno_core::index::{Key, Kind};
use leno_core::name::Label;
use leno_core::spec::{
    ActionSpec, Balance, EndpointSpec, GatewaySpec, ListenerSpec, MatchSpec, Protocol, RuleSpec, ServiceSpec,
    Transport,
};
use leno_identity::token::Grant;
use tokio::net::TcpListener;

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn service(name: &str, calls: &[&str]) -> ServiceSpec {
    ServiceSpec {
        id: id(name),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        care: None,
        rules: vec![],
        calls: calls.iter().map(|name| id(name)).collect(),
        health: None,
        timeout: None,
        tries: None,
        external: None,
        send_proxy: None,
        headless: false,
        srv_port: 80,
    }
}

fn endpoints(count: u16) -> Vec<EndpointSpec> {
    (0..count)
        .map(|n| EndpointSpec {
            name: format!("i{n}").into(),
            address: SocketAddr::from(([127, 0, 0, 1], 1000 + n)),
            transport: Transport::Plain,
            version: None,
            weight: 1,
            healthy: true,
            tags: leno_core::spec::Tags::NONE,
        })
        .collect()
}

/// A sidecar of `cart` beside `app`, with a token for `granted`.
fn sidecar(control: &Control, granted: &str, app: SocketAddr) -> AgentConfig {
    AgentConfig {
        own: leno_core::spec::Tags::NONE,
        control: control.address.to_string(),
        token: control.token(Grant::Service(id(granted))),
        workload: Workload::Sidecar {
            service: id("cart"),
            instance: Label::parse("cart-1").unwrap(),
            version: Some(Label::parse("v2").unwrap()),
            weight: 7,
            app,
        },
        mesh_advertise: Some(SocketAddr::from(([127, 0, 0, 1], 4711))),
        dialer: Dialer::default(),
    }
}

async fn until<T>(receiver: &watch::Receiver<T>, what: &str, mut is: impl FnMut(&T) -> bool)
where
    T: fmt::Debug,
{
    let mut receiver = receiver.clone();
    let found =
        timeout(PATIENCE, receiver.wait_for(|value| is(value))).await.is_ok_and(|found| found.is_ok());
    assert!(found, "{what}: {:?}", *receiver.borrow());
}

/// For what the fake control plane sees.
async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

async fn app() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_sidecar_joins_registers_and_learns_what_it_calls() {
    let (control, _running) = Control::new().await;
    control.put_service(service("cart", &["product", "gone"]));
    control.put_service(service("product", &[]));
    control.put_endpoints(&id("product"), endpoints(3));
    control.state().calls = vec!["default/user".into(), "not a name".into()];
    let (_app, address) = app().await;
    let agent = start(sidecar(&control, "cart", address), 1).unwrap();
    until(&agent.status, "ready", |status| status.ready && status.attached).await;

    let world = agent.world.borrow().clone();
    assert_eq!(world.services.keys().cloned().collect::<Vec<_>>(), [id("cart"), id("product")]);
    assert_eq!(world.services[&id("product")].endpoints, endpoints(3));
    assert_eq!(world.absent, [id("gone"), id("user")].into());
    let credential = agent.credential.borrow().clone().unwrap();
    assert_eq!(credential.id.to_uri(), "spiffe://shop.mesh/ns/default/sa/cart");
    {
        let state = control.state();
        let hello = &state.hellos[0];
        assert_eq!(
            (hello.instance.as_str(), hello.version.as_str(), hello.weight),
            ("cart-1", "v2", Some(7))
        );
        assert_eq!((hello.mesh_address.as_str(), hello.gateway), ("127.0.0.1:4711", false));
    }
    eventually("the application's health is told at once", || {
        control.state().beats.iter().any(|beat| beat.health.as_ref().unwrap().healthy)
    })
    .await;
    eventually("the generation is acknowledged", || {
        let state = control.state();
        state.beats.last().is_some_and(|beat| beat.generation == state.index.generation())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_learns_its_rules() {
    let (control, _running) = Control::new().await;
    let spec = GatewaySpec {
        id: id("edge"),
        listeners: vec![Arc::new(ListenerSpec::http("http", SocketAddr::from(([127, 0, 0, 1], 80))))],
        rules: vec![RuleSpec {
            name: "all".into(),
            when: MatchSpec::default(),
            then: ActionSpec::Service(id("user")),
            timeout: None,
            change: None,
            tries: None,
        }],
        zone: None,
    };
    control.put_gateway(spec.clone());
    control.put_service(service("user", &["product"]));
    control.put_endpoints(&id("user"), endpoints(1));
    let config = AgentConfig {
        own: leno_core::spec::Tags::NONE,
        control: control.address.to_string(),
        token: control.token(Grant::Gateway(id("edge"))),
        workload: Workload::Gateway { name: Label::parse("edge").unwrap() },
        mesh_advertise: None,
        dialer: Dialer::default(),
    };
    let agent = start(config, 1).unwrap();
    until(&agent.status, "ready", |status| status.ready).await;
    let world = agent.world.borrow().clone();
    assert_eq!(world.gateway, Some(spec));
    assert_eq!(world.services.keys().cloned().collect::<Vec<_>>(), [id("user")]);
    let state = control.state();
    assert!(state.hellos[0].gateway && state.hellos[0].health.as_ref().unwrap().healthy);
}

#[tokio::test]
async fn what_the_workload_calls_is_learnt_on_demand() {
    let (control, _running) = Control::new().await;
    control.put_service(service("product", &[]));
    control.put_endpoints(&id("product"), endpoints(2));
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    // Also before there is a connection.
    assert!(agent.subscribe(id("product")));
    until(&agent.world, "product", |world| world.services.contains_key(&id("product"))).await;
    assert!(agent.subscribe(id("nobody")));
    until(&agent.world, "nobody", |world| world.absent.contains(&id("nobody"))).await;
    control.put_service(service("nobody", &[]));
    until(&agent.world, "somebody", |world| world.services.contains_key(&id("nobody"))).await;
    control.state().delete(Kind::Service, &id("nobody"));
    control.put_service(service("unrelated", &[]));
    until(&agent.world, "nobody again", |world| world.absent.contains(&id("nobody"))).await;
}

#[tokio::test]
async fn a_restarted_control_plane_loses_and_resends_nothing() {
    let (control, running) = Control::new().await;
    control.put_service(service("cart", &["product"]));
    control.put_service(service("product", &[]));
    control.put_endpoints(&id("product"), endpoints(3));
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "ready", |status| status.ready).await;
    let before = agent.world.borrow().clone();

    drop(running);
    until(&agent.status, "it is gone", |status| !status.attached && status.error.is_some()).await;
    assert_eq!(*agent.world.borrow(), before);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(*agent.world.borrow(), before);
    let offered = control.state().offered.len();

    let back = Instant::now();
    let _running = control.restart().await;
    until(&agent.status, "it is back", |status| status.attached && status.error.is_none()).await;
    assert!(back.elapsed() < Duration::from_secs(5));
    assert_eq!(*agent.world.borrow(), before);
    control.put_endpoints(&id("product"), endpoints(4));
    until(&agent.world, "the new endpoint", |world| world.services[&id("product")].endpoints.len() == 4)
        .await;
    let state = control.state();
    assert_eq!(state.offered[offered..], [Key::new(Kind::Endpoints, id("product"))], "only the difference");
    assert_eq!(state.hellos.len(), 2);
    assert_eq!(state.tokens[0].uses_left, Some(0), "joined once, with a token for one use");
}

#[tokio::test]
async fn a_bad_resource_refuses_itself_and_the_last_good_one_stays() {
    let (control, _running) = Control::new().await;
    control.put_service(service("cart", &["product"]));
    control.put_service(service("product", &[]));
    control.put_endpoints(&id("product"), endpoints(3));
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "ready", |status| status.ready).await;
    let key = Key::new(Kind::Endpoints, id("product"));
    control.put_bytes(key.clone(), vec![0xff; 20]);
    eventually("it is refused", || control.state().refused.iter().any(|(refused, _)| *refused == key)).await;
    assert_eq!(agent.world.borrow().services[&id("product")].endpoints, endpoints(3));
    control.put_endpoints(&id("product"), endpoints(1));
    until(&agent.world, "a good one", |world| world.services[&id("product")].endpoints.len() == 1).await;
}

#[tokio::test]
async fn an_application_that_dies_is_told_of_within_a_second_or_so() {
    let (control, _running) = Control::new().await;
    control.put_service(service("cart", &[]));
    control.state().lease = Duration::from_secs(600);
    let (listener, address) = app().await;
    let agent = start(sidecar(&control, "cart", address), 1).unwrap();
    until(&agent.health, "healthy", |health| *health == Health::Healthy).await;
    eventually("told healthy", || {
        let state = control.state();
        state.beats.last().is_some_and(|beat| beat.health.as_ref().unwrap().healthy)
    })
    .await;
    let died = Instant::now();
    drop(listener);
    eventually("told unhealthy", || {
        let state = control.state();
        let health = state.beats.last().unwrap().health.clone().unwrap();
        !health.healthy && health.reason == "connection refused"
    })
    .await;
    assert!(died.elapsed() < Duration::from_secs(3), "{:?}", died.elapsed());
}

#[tokio::test]
async fn heartbeats_come_three_times_a_lease() {
    let (control, _running) = Control::new().await;
    control.state().lease = Duration::from_millis(600);
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "attached", |status| status.attached).await;
    let before = control.state().beats.len();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let beats = control.state().beats.len() - before;
    assert!((3..=9).contains(&beats), "{beats}");
    assert_eq!(control.state().hellos.len(), 1);
}

#[tokio::test]
async fn a_control_plane_that_falls_silent_is_connected_to_anew() {
    let (control, _running) = Control::new().await;
    control.state().lease = Duration::from_millis(400);
    control.state().mute = true;
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "it is noticed", |status| {
        status.error.as_ref().is_some_and(|error| error.starts_with("no word about the lease for"))
    })
    .await;
    control.state().mute = false;
    until(&agent.status, "attached again", |status| status.attached).await;
    assert!(control.state().hellos.len() > 1);
}

#[tokio::test]
async fn the_certificate_is_renewed_on_time_and_used_at_once() {
    let (control, _running) = Control::new().await;
    control.state().leaf_lifetime = Duration::from_secs(3);
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.credential, "joined", Option::is_some).await;
    let first = agent.credential.borrow().clone().unwrap();
    control.state().leaf_lifetime = Duration::from_secs(3600);
    until(&agent.credential, "renewed", |now| now.as_ref().unwrap().not_after > first.not_after).await;
    let second = agent.credential.borrow().clone().unwrap();
    assert_eq!(second.id, first.id);
    assert_ne!(second.chain(), first.chain());
    eventually("connected anew", || control.state().hellos.len() == 2).await;
    until(&agent.status, "attached", |status| status.attached && status.error.is_none()).await;
    assert_eq!(control.state().renewals, 1);
}

#[tokio::test]
async fn leaving_says_so_and_stops() {
    let (control, _running) = Control::new().await;
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "attached", |status| status.attached).await;
    agent.leave().await;
    assert_eq!(control.state().leaves, 1);
    assert!(!agent.status.borrow().attached);
    assert!(!agent.subscribe(id("product")), "it has stopped");
}

#[tokio::test]
async fn leaving_while_the_control_plane_is_away_is_quick() {
    let (control, running) = Control::new().await;
    drop(running);
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "an error", |status| status.error.is_some()).await;
    let error = agent.status.borrow().error.clone().unwrap();
    assert!(error.starts_with("connecting: "), "{error}");
    let started = Instant::now();
    agent.leave().await;
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn tokens_that_cannot_work_stop_the_agent_with_the_reason() {
    let (control, _running) = Control::new().await;
    let address = app().await.1;
    assert!(matches!(
        start(AgentConfig { token: "leno1.x".into(), ..sidecar(&control, "cart", address) }, 1),
        Err(AgentError::Token(_))
    ));
    let used = sidecar(&control, "cart", address);
    control.state().tokens.last_mut().unwrap().uses_left = Some(0);
    for (config, reason) in [
        (used, "joining was refused: the join token has been used up; it needs a new join token"),
        (
            sidecar(&control, "user", address),
            "the join token is for user, this proxy is meant for service cart",
        ),
    ] {
        let agent = start(config, 1).unwrap();
        until(&agent.status, "failed", |status| status.failed).await;
        assert_eq!(agent.status.borrow().error.as_deref(), Some(reason));
        assert!(agent.credential.borrow().is_none());
    }
}

#[tokio::test]
async fn a_control_plane_of_another_mesh_is_not_told_the_token() {
    let (control, _running) = Control::new().await;
    let (other, _other_running) = Control::new().await;
    let config =
        AgentConfig { control: other.address.to_string(), ..sidecar(&control, "cart", app().await.1) };
    let agent = start(config, 1).unwrap();
    until(&agent.status, "an error", |status| status.error.is_some()).await;
    let error = agent.status.borrow().error.clone().unwrap();
    assert_eq!(error, "TLS: the peer's authority is not the one that the join token names");
}

#[tokio::test]
async fn a_flood_of_unknown_names_is_bounded_and_forgotten() {
    let (control, _running) = Control::new().await;
    let agent = start(sidecar(&control, "cart", app().await.1), 1).unwrap();
    until(&agent.status, "attached", |status| status.attached).await;
    let mut taken = 0;
    for n in 0..10 * COMMANDS_MAX {
        taken += usize::from(agent.subscribe(id(&format!("s{n}"))));
    }
    assert_eq!(taken, COMMANDS_MAX);
    until(&agent.world, "the answers", |world| world.absent.len() > COMMANDS_MAX).await;
    assert!(agent.subscribe(id("one-more")));
}
