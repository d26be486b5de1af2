use std::sync::Mutex;

use leno_core::name::ServiceId;
use leno_core::spec::{Balance, ExternalSpec, KnownService, NamedEndpoint, Protocol, ServiceSpec};

use super::*;

const PACE: Pace = Pace {
    refresh: Duration::from_millis(20),
    retry: Duration::from_millis(5),
    first_wait: Duration::from_millis(300),
};

fn world(hosts: &[&str]) -> Arc<World> {
    let id = ServiceId::parse("payments").unwrap();
    let names = hosts.iter().map(|host| NamedEndpoint {
        name: format!("of-{host}").into(),
        host: (*host).into(),
        port: 443,
        version: None,
        tags: leno_core::spec::Tags::NONE,
        weight: 1,
    });
    let spec = ServiceSpec {
        id: id.clone(),
        protocol: Protocol::default(),
        balance: Balance::default(),
        care: None,
        rules: vec![],
        calls: vec![],
        health: None,
        timeout: None,
        tries: None,
        external: Some(Arc::new(ExternalSpec { names: names.collect(), tls: None })),
        send_proxy: None,
        headless: false,
        srv_port: 80,
    };
    let services = [(id, KnownService { spec, endpoints: vec![] })].into();
    Arc::new(World { services, ..World::default() })
}

fn addresses(world: &watch::Receiver<Arc<World>>) -> Vec<String> {
    let world = world.borrow();
    world.services.values().flat_map(|it| &it.endpoints).map(|it| it.address.to_string()).collect()
}

/// A DNS that answers as it is told.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<BTreeMap<&'static str, Vec<&'static str>>>>);

impl Dns {
    fn set(&self, name: &'static str, addresses: &[&'static str]) {
        self.0.lock().unwrap().insert(name, addresses.to_vec());
    }

    fn answer(
        &self,
    ) -> impl Fn(Arc<str>) -> std::future::Ready<io::Result<Vec<IpAddr>>> + Clone + Send + 'static {
        let dns = self.clone();
        move |name| {
            let known = dns.0.lock().unwrap().get(&*name).cloned();
            let found = known.map(|found| found.iter().map(|ip| ip.parse().unwrap()).collect());
            std::future::ready(found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        }
    }
}

#[tokio::test]
async fn a_name_is_followed_and_its_last_good_answer_kept() {
    let dns = Dns::default();
    dns.set("pay.example", &["192.0.2.1"]);
    let (_sender, world) = watch::channel(world(&["pay.example"]));
    let mut followed = follow_by(world, PACE, dns.answer()).await;
    assert_eq!(addresses(&followed), ["192.0.2.1:443"]);

    dns.set("pay.example", &["192.0.2.1", "192.0.2.2"]);
    followed.changed().await.unwrap();
    assert_eq!(addresses(&followed), ["192.0.2.1:443", "192.0.2.2:443"]);

    dns.0.lock().unwrap().clear();
    tokio::time::sleep(PACE.refresh * 4).await;
    assert!(!followed.has_changed().unwrap());
    assert_eq!(addresses(&followed).len(), 2);

    dns.set("pay.example", &["192.0.2.3"]);
    followed.changed().await.unwrap();
    assert_eq!(addresses(&followed), ["192.0.2.3:443"]);
}

#[tokio::test]
async fn a_new_world_waits_for_its_names_but_not_for_ever() {
    let dns = Dns::default();
    dns.set("a.example", &["192.0.2.1"]);
    dns.set("b.example", &["192.0.2.2"]);
    let (sender, receiver) = watch::channel(world(&["a.example"]));
    let answer = dns.answer();
    let slow = move |name: Arc<str>| {
        let answer = answer.clone();
        async move {
            let takes = if &*name == "b.example" {
                50
            } else if &*name == "c.example" {
                60_000
            } else {
                0
            };
            tokio::time::sleep(Duration::from_millis(takes)).await;
            answer(name).await
        }
    };
    let mut followed = follow_by(receiver, PACE, slow).await;
    sender.send(world(&["a.example", "b.example"])).unwrap();
    followed.changed().await.unwrap();
    assert_eq!(addresses(&followed), ["192.0.2.1:443", "192.0.2.2:443"]);
    sender.send(world(&["a.example", "c.example"])).unwrap();
    let before = Instant::now();
    followed.changed().await.unwrap();
    assert_eq!(addresses(&followed), ["192.0.2.1:443"]);
    assert!(before.elapsed() >= PACE.first_wait && before.elapsed() < LOOKUP_TIMEOUT);
}

#[tokio::test]
async fn a_world_without_names_passes_as_it_is() {
    let empty = Arc::new(World::default());
    let (_sender, receiver) = watch::channel(empty.clone());
    let followed = follow_by(receiver, PACE, Dns::default().answer()).await;
    assert!(Arc::ptr_eq(&followed.borrow(), &empty));
}

#[tokio::test]
async fn the_system_knows_this_machine() {
    let lookups = std::cell::RefCell::default();
    let found = find(&lookups, "localhost").await.unwrap();
    assert!(found.iter().all(|ip| ip.is_loopback()), "{found:?}");
    assert_eq!(find(&lookups, "no-such-host.invalid").await, Err(NoAddress::Unknown));
    assert_eq!(lookups.borrow().known.len(), 2);
}
