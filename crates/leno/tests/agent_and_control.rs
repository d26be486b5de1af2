//! The proxy's agent and the real control plane, both in this process: what each believes of the other is true.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_control::{Bound, Control, ControlConfig, StateDir};
use leno_core::name::{Label, ServiceId};
use leno_core::spec::{Transport, World};
use leno_proxy::Workload;
use leno_proxy::agent::{AgentConfig, AgentHandle, start};
use leno_proxy::dial::Dialer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    bound: Bound,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// On `state`, at the addresses of an earlier one if there was one.
    async fn start(state: &Path, before: Option<&Bound>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ControlConfig {
            mesh_listen: before.map_or(free, |bound| bound.mesh),
            api_listen: before.map_or(free, |bound| bound.api),
            lease: Duration::from_secs(3),
            ..ControlConfig::new(StateDir::Path(state.to_owned()))
        };
        let control = Control::bind(config).await.unwrap();
        let bound = control.bound().clone();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stop = async move {
                let _dropped = stopped.await;
            };
            control.serve(stop).await.unwrap();
        });
        Self { bound, stop, task }
    }

    async fn stop(self) -> Bound {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.bound
    }

    async fn call(&self, method: &'static str, path: &str, body: &'static str) -> Value {
        let url = format!("http://{}{path}", self.bound.api);
        let bearer = format!("Bearer {}", self.bound.api_token);
        let call = move || {
            let request = http::Request::builder().method(method).uri(url).header("authorization", bearer);
            let request = request.header("content-type", "application/json").body(body).unwrap();
            let text = ureq::run(request).unwrap().body_mut().read_to_string().unwrap();
            serde_json::from_str(&text).unwrap_or_default()
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    async fn declare(&self, name: &str, declaration: &'static str) {
        self.call("PUT", &format!("/v1/services/default/{name}"), declaration).await;
    }

    async fn token(&self, request: &'static str) -> String {
        let answer = self.call("POST", "/v1/tokens", request).await;
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A sidecar of `service`, beside an application at `app`.
    fn sidecar(&self, service: &str, instance: &str, app: SocketAddr, token: String) -> AgentHandle {
        let config = AgentConfig {
            own: leno_core::spec::Tags::NONE,
            control: self.bound.mesh.to_string(),
            token,
            workload: Workload::Sidecar {
                service: id(service),
                instance: Label::parse(instance).unwrap(),
                version: Some(Label::parse("v1").unwrap()),
                weight: 1,
                app,
            },
            mesh_advertise: Some(SocketAddr::from(([127, 0, 0, 1], 4711))),
            dialer: Dialer::default(),
        };
        start(config, 1).unwrap()
    }
}

fn id(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

async fn app() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Until the world of `agent` is as wanted; how long that took.
async fn until(agent: &AgentHandle, what: &str, is: impl Fn(&World) -> bool) -> Duration {
    let started = Instant::now();
    let mut world = agent.world.clone();
    let found = timeout(PATIENCE, world.wait_for(|world: &Arc<World>| is(world))).await.is_ok();
    assert!(found, "{what}: {:?} {:?}", agent.world.borrow(), agent.status().get());
    started.elapsed()
}

async fn attached(agent: &AgentHandle, wanted: bool) {
    let started = Instant::now();
    while agent.status().get().attached != wanted {
        assert!(started.elapsed() < PATIENCE, "{:?}", agent.status().get());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn healthy(world: &World, service: &str) -> usize {
    world.services.get(&id(service)).map_or(0, |known| known.endpoints.iter().filter(|e| e.healthy).count())
}

#[tokio::test]
async fn a_mesh_lives_through_a_restart_of_its_control_plane() {
    let state = tempfile::tempdir().unwrap();
    let control = Running::start(state.path(), None).await;
    control.declare("product", "{}").await;
    control.declare("cart", r#"{"calls": ["product"]}"#).await;

    // The caller first: it learns of instances as they come.
    let (_cart_app, cart_at) = app().await;
    let token = control.token(r#"{"service": "cart"}"#).await;
    let cart = control.sidecar("cart", "cart-1", cart_at, token);
    timeout(PATIENCE, cart.ready()).await.unwrap().unwrap();
    assert_eq!(healthy(&cart.world.borrow(), "product"), 0);

    let (_one_app, one_at) = app().await;
    let token = control.token(r#"{"service": "product"}"#).await;
    let one = control.sidecar("product", "product-1", one_at, token);
    attached(&one, true).await;
    let took = until(&cart, "product-1", |world| healthy(world, "product") == 1).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let world = cart.world.borrow().clone();
    let endpoint = &world.services[&id("product")].endpoints[0];
    let one_is = one.credential.borrow().clone().unwrap().id.clone();
    assert_eq!((&*endpoint.name, &endpoint.transport), ("product-1", &Transport::Mesh(one_is)));

    // An application dies and comes back.
    let (two_app, two_at) = app().await;
    let token = control.token(r#"{"service": "product"}"#).await;
    let two = control.sidecar("product", "product-2", two_at, token);
    until(&cart, "product-2", |world| healthy(world, "product") == 2).await;
    drop(two_app);
    let took = until(&cart, "product-2 is down", |world| healthy(world, "product") == 1).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    let _two_app = TcpListener::bind(two_at).await.unwrap();
    until(&cart, "product-2 is back", |world| healthy(world, "product") == 2).await;

    // The control plane goes away and comes back: nothing changes, and then news arrives as before.
    let before = cart.world.borrow().services.clone();
    let bound = control.stop().await;
    attached(&cart, false).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cart.world.borrow().services, before);
    let control = Running::start(state.path(), Some(&bound)).await;
    for agent in [&cart, &one, &two] {
        attached(agent, true).await;
    }
    assert_eq!(cart.world.borrow().services, before);
    let (_three_app, three_at) = app().await;
    let token = control.token(r#"{"service": "product"}"#).await;
    let three = control.sidecar("product", "product-3", three_at, token);
    attached(&three, true).await;
    let took = until(&cart, "product-3", |world| healthy(world, "product") == 3).await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    // Who leaves is gone at once; who was asked for and is declared later appears.
    let leaving = Instant::now();
    one.leave().await;
    until(&cart, "product-1 left", |world| {
        !world.services[&id("product")].endpoints.iter().any(|endpoint| &*endpoint.name == "product-1")
    })
    .await;
    assert!(leaving.elapsed() < Duration::from_secs(1), "{:?}", leaving.elapsed());
    assert!(cart.subscribe(id("user")));
    until(&cart, "no user", |world| world.absent.contains(&id("user"))).await;
    control.declare("user", "{}").await;
    until(&cart, "a user", |world| world.services.contains_key(&id("user"))).await;
    control.stop().await;
}

#[tokio::test]
async fn an_instance_of_an_undeclared_service_waits_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    let control = Running::start(state.path(), None).await;
    control.declare("cart", "{}").await;
    let (_app, at) = app().await;
    let token = control.token(r#"{"service": "cart", "uses": 2}"#).await;
    let cart = control.sidecar("cart", "cart-1", at, token.clone());
    timeout(PATIENCE, cart.ready()).await.unwrap().unwrap();
    control.call("DELETE", "/v1/services/default/cart", "").await;
    cart.leave().await;
    let again = control.sidecar("cart", "cart-1", at, token);
    let started = Instant::now();
    while !again.last_error().contains("cart") {
        assert!(started.elapsed() < PATIENCE, "{:?}", again.status().get());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    control.declare("cart", "{}").await;
    timeout(PATIENCE, again.ready()).await.unwrap().unwrap();
    control.stop().await;
}
