//! Instances: registered, kept alive, gone.

use std::time::Duration;

use leno_core::index::Kind;
use leno_wire::proto::mesh::AttachAnswer;
use serde_json::json;
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn an_instance_reaches_subscribers_at_once_and_follows_its_health() {
    let control = with_cart().await;
    control.declare("cart", r#"{"calls": ["user"]}"#).await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    proxy.want(Kind::Endpoints, "cart").await;
    proxy.next().await.unwrap();
    assert!(proxy.endpoints("cart").is_empty());

    let begin = std::time::Instant::now();
    let (mut lease, answer) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    proxy.until(|proxy| proxy.endpoints("cart") == ["cart-1 up"]).await;
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    let AttachAnswer::Attached(attached) = answer else { panic!("{answer:?}") };
    assert_eq!((attached.lease_millis, attached.calls), (900, vec!["default/user".to_owned()]));

    lease.heartbeat(Some("connection refused")).await.unwrap();
    proxy.until(|proxy| proxy.endpoints("cart") == ["cart-1 down"]).await;
    let view = control.get("/v1/instances").await;
    assert_eq!(view[0]["health"], "unhealthy");
    assert_eq!(view[0]["reason"], "connection refused");
    assert_eq!((&view[0]["transport"], &view[0]["address"]), (&json!("mesh"), &json!("127.0.0.1:4711")));
    lease.heartbeat(None).await.unwrap();
    proxy.until(|proxy| proxy.endpoints("cart") == ["cart-1 up"]).await;

    lease.leave().await;
    proxy.until(|proxy| proxy.endpoints("cart").is_empty()).await;
    assert_eq!(control.get("/v1/instances").await, json!([]));
    control.stop().await;
}

#[tokio::test]
async fn a_broken_stream_leaves_the_lease_and_its_end_removes_the_instance() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "watcher", Default::default()).await.unwrap();
    proxy.want(Kind::Endpoints, "cart").await;
    let (mut lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    proxy.until(|proxy| proxy.endpoints("cart") == ["cart-1 up"]).await;
    // Kept over more than a lease by heartbeats.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(matches!(lease.heartbeat(None).await, Ok(AttachAnswer::Renewed(_))));
    }
    drop(lease);
    control.until("/v1/instances", |all| all[0]["connected"] == false).await;
    assert_eq!(control.get("/v1/instances").await[0]["health"], "healthy");
    // It comes back on a new stream, and goes again.
    let (lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    drop(lease);
    proxy.until(|proxy| proxy.endpoints("cart").is_empty()).await;
    let all = control.get("/v1/instances").await;
    assert_eq!(all[0]["health"], "expired", "{all}");
    assert!(all[0]["reason"].as_str().unwrap().starts_with("no heartbeat"), "{all}");
    assert_eq!(control.get("/v1/status").await["counts"]["instances"], 0);
    control.stop().await;
}

#[tokio::test]
async fn a_silent_stream_ends_with_its_lease() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let (mut lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let end = lease.answer().await.unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
    control.until("/v1/instances", |all| all[0]["health"] == "expired").await;
    control.stop().await;
}

#[tokio::test]
async fn a_name_belongs_to_one_address_while_its_stream_lives() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let (first, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let refusal = Lease::open(&client, hello("cart-1", "127.0.0.1:4712")).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(refusal.message().contains("127.0.0.1:4711"), "{refusal:?}");
    // The same proxy on a new stream takes over from its own half-dead one.
    let (mut second, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let mut first = first;
    assert_eq!(first.heartbeat(None).await.unwrap_err().code(), Code::Aborted);
    second.heartbeat(None).await.unwrap();
    // Once its stream is gone a restarted proxy may come back elsewhere.
    drop(second);
    control.until("/v1/instances", |all| all[0]["connected"] == false).await;
    Lease::open(&client, hello("cart-1", "127.0.0.1:4713")).await.unwrap();
    assert_eq!(control.get("/v1/instances").await[0]["address"], "127.0.0.1:4713");
    control.stop().await;
}

#[tokio::test]
async fn a_wrong_hello_is_refused_with_its_field() {
    let control = with_cart().await;
    control.declare("user", "{}").await;
    let client = control.connect(&control.member("cart").await).await;
    for (hello, code, words) in [
        (hello("Cart", "127.0.0.1:1"), Code::InvalidArgument, "hello: instance"),
        (hello("cart-1", "here:1"), Code::InvalidArgument, "hello: mesh_address"),
        (hello("cart-1", "0.0.0.0:1"), Code::InvalidArgument, "cannot be connected to"),
        (hello("cart-1", "127.0.0.1:0"), Code::InvalidArgument, "cannot be connected to"),
    ] {
        let refusal = Lease::open(&client, hello).await.map(|_| ()).unwrap_err();
        assert_eq!(refusal.code(), code);
        assert!(refusal.message().contains(words), "{refusal:?}");
    }
    let mut gateway = hello("gw-1", "");
    gateway.gateway = true;
    let refusal = Lease::open(&client, gateway).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound, "{refusal:?}");

    let (status, _) = control.call("DELETE", "/v1/services/default/cart", None).await;
    assert_eq!(status, 204);
    let refusal = Lease::open(&client, hello("cart-1", "127.0.0.1:1")).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    assert!(refusal.message().contains("no service cart is declared"), "{refusal:?}");
    control.stop().await;
}

/// A burst of registrations costs a subscriber a few messages, not one each.
#[tokio::test]
async fn a_burst_is_told_in_few_messages() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "watcher", Default::default()).await.unwrap();
    proxy.want(Kind::Endpoints, "cart").await;
    proxy.next().await.unwrap();
    let before = proxy.offered;
    // Streams of one connection are bounded, so that each instance has its own.
    let credential = control.member("cart").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(control.connect(&credential).await);
    }
    let begin = std::time::Instant::now();
    let mut arriving = tokio::task::JoinSet::new();
    for (n, client) in clients.into_iter().enumerate() {
        let hello = hello(&format!("cart-{n}"), &format!("127.0.0.1:{}", 5000 + n));
        arriving.spawn(async move { (Lease::open(&client, hello).await.unwrap(), client) });
    }
    proxy.until(|proxy| proxy.endpoints("cart").len() == 40).await;
    let windows = usize::try_from(begin.elapsed().as_millis() / 20).unwrap();
    let messages = proxy.offered - before;
    assert!(messages <= windows + 2, "{messages} messages in {windows} windows of 20 ms");
    control.stop().await;
}
