//! The control stream: what proxies are told.

use std::time::Duration;

use leno_core::index::{Key, Kind};
use leno_core::spec::Balance;
use leno_wire::Known;
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn a_service_that_does_not_exist_is_absent_until_it_is_declared() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    let user = Key::new(Kind::Service, id("user"));
    proxy.want(Kind::Service, "user").await;
    let changes = proxy.next().await.unwrap();
    assert_eq!(changes.removed, vec![user.clone()]);
    assert!(proxy.session.is_absent(&user));

    control.declare("user", "{}").await;
    assert_eq!(proxy.next().await.unwrap().updated, vec![user.clone()]);
    control.declare("user", r#"{"balance": "random"}"#).await;
    proxy.next().await.unwrap();
    let Some(Known::Service(spec)) = proxy.held.get(&user) else { panic!("{:?}", proxy.held) };
    assert_eq!(spec.balance, Balance::Random);
    // The same declaration again is no change; a service nobody here asked for is not told.
    control.declare("user", r#"{"balance": "random"}"#).await;
    control.declare("other", "{}").await;
    proxy.silent(Duration::from_millis(150)).await;

    let (status, _) = control.call("DELETE", "/v1/services/default/user", None).await;
    assert_eq!(status, 204);
    assert_eq!(proxy.next().await.unwrap().removed, vec![user]);
    control.stop().await;
}

#[tokio::test]
async fn plain_endpoints_are_registered_by_hand() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    proxy.want(Kind::Endpoints, "cart").await;
    proxy.next().await.unwrap();
    let path = "/v1/services/default/cart/instances";
    let body = r#"{"name": "old", "address": "10.0.0.1:80", "version": "v0", "weight": 3}"#;
    let (status, view) = control.call("POST", path, Some(body)).await;
    assert_eq!((status, view["transport"].as_str()), (201, Some("plain")), "{view}");
    proxy.next().await.unwrap();
    let Some(Known::Endpoints(_, endpoints)) = proxy.held.get(&Key::new(Kind::Endpoints, id("cart"))) else {
        panic!("{:?}", proxy.held)
    };
    assert_eq!(endpoints[0].transport, leno_core::spec::Transport::Plain);
    assert_eq!(endpoints[0].weight, 3);
    let (status, _) = control.call("DELETE", &format!("{path}/old"), None).await;
    assert_eq!(status, 204);
    proxy.until(|proxy| proxy.endpoints("cart").is_empty()).await;
    let (status, error) = control.call("DELETE", &format!("{path}/old"), None).await;
    assert_eq!((status, error["reason"].as_str()), (404, Some("instance_not_found")));
    control.stop().await;
}

#[tokio::test]
async fn a_refused_resource_is_shown_and_the_rest_applies() {
    let control = with_cart().await;
    control.declare("user", "{}").await;
    let client = control.connect(&control.member("cart").await).await;
    let (_lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    proxy.refuse = Some((Key::new(Kind::Service, id("user")), "I do not like it".to_owned()));
    proxy.session.want(Key::new(Kind::Service, id("user")));
    proxy.want(Kind::Service, "cart").await;
    let changes = proxy.next().await.unwrap();
    assert_eq!((changes.updated.len(), changes.rejected.len()), (1, 1));
    let proxies = control.until("/v1/proxies", |all| !all[0]["rejected"].is_null()).await;
    assert_eq!(proxies[0]["rejected"][0]["resource"], "service user");
    assert_eq!(proxies[0]["rejected"][0]["reason"], "I do not like it");
    assert_eq!((&proxies[0]["up_to_date"], &proxies[0]["connected"]), (&true.into(), &true.into()));
    control.declare("user", r#"{"balance": "random"}"#).await;
    proxy.refuse = None;
    proxy.next().await.unwrap();
    let status = control.until("/v1/status", |status| status["proxies"][0]["up_to_date"] == true).await;
    assert!(status["proxies"][0]["rejected"].is_null(), "{status}");
    assert_eq!(status["proxies"][0]["generation_acknowledged"], status["generation"], "{status}");
    control.stop().await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_ends_the_stream_with_the_reason() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    for n in 0..5000 {
        proxy.session.want(Key::new(Kind::Service, id(&format!("s{n}"))));
    }
    proxy.pump().await;
    let end = proxy.next().await.unwrap_err();
    assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
    control.stop().await;
}

#[tokio::test]
async fn at_shutdown_streams_end_with_the_reason() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let (mut lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let mut proxy = Proxy::open(&client, "cart-1", Default::default()).await.unwrap();
    proxy.want(Kind::Service, "cart").await;
    proxy.next().await.unwrap();
    let stopping = tokio::spawn(control.stop());
    assert_eq!(proxy.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(lease.answer().await.unwrap_err().code(), Code::Unavailable);
    stopping.await.unwrap();
}
