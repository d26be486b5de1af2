//! Certificates: who gets one, who does not.

use leno_identity::authority::Authority;
use leno_identity::credential::KeyAndCsr;
use leno_wire::proto::mesh::RenewRequest;
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn a_token_is_good_for_its_uses_and_no_more() {
    let control = with_cart().await;
    let token = control.mint(r#"{"service": "cart"}"#).await;
    assert_eq!(pin_of(&token), control.bound.pin);
    let key = KeyAndCsr::generate().unwrap();
    let answer = control.join(&token, key.csr_der()).await.unwrap();
    assert_eq!(answer.id, "spiffe://test.mesh/ns/default/sa/cart");

    let again = control.join(&token, key.csr_der()).await;
    assert!(again.is_ok(), "the same request again is the same use: {again:?}");
    accept(key, answer);
    let other = KeyAndCsr::generate().unwrap();
    let refusal = control.join(&token, other.csr_der()).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.message()),
        (Code::Unauthenticated, "the join token has been used up")
    );

    let twice = control.mint(r#"{"service": "cart", "uses": 2}"#).await;
    for expected in [true, true, false] {
        let key = KeyAndCsr::generate().unwrap();
        assert_eq!(control.join(&twice, key.csr_der()).await.is_ok(), expected);
    }
    let left: Vec<_> = control.get("/v1/tokens").await.as_array().unwrap().clone();
    assert!(left.iter().all(|view| view["uses_left"] == 0 && view.get("token").is_none()), "{left:?}");
    control.stop().await;
}

#[tokio::test]
async fn a_bad_token_is_refused_and_a_bad_request_costs_no_use() {
    let control = with_cart().await;
    let key = KeyAndCsr::generate().unwrap();
    let token = control.mint(r#"{"service": "cart"}"#).await;
    let other = control.mint(r#"{"service": "cart"}"#).await;
    // The id of one with the secret of the other.
    let parts: Vec<&str> = token.split('.').collect();
    let secret = other.split('.').nth(2).unwrap();
    let forged = format!("{}.{}.{secret}.{}", parts[0], parts[1], parts[3]);
    let refusal = control.join(&forged, key.csr_der()).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unauthenticated, "the join token was refused"));
    for garbage in ["", "leno1.a.b.c", "x"] {
        assert_eq!(control.join(garbage, key.csr_der()).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let refusal = control.join(&token, b"no request").await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
    assert!(control.join(&token, key.csr_der()).await.is_ok());
    let metrics = control.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("leno_control_joins_refused_total 5\n"), "{metrics}");
    control.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let control = with_cart().await;
    let token = control.mint(r#"{"service": "cart", "expires_in_seconds": 1}"#).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let refusal = control.join(&token, KeyAndCsr::generate().unwrap().csr_der()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert!(refusal.message().starts_with("the join token expired"), "{refusal:?}");
    control.stop().await;
}

#[tokio::test]
async fn without_a_certificate_only_join_is_answered() {
    let control = with_cart().await;
    let client = stranger(&control.bound).await;
    let renew = client.renew(RenewRequest { csr_der: vec![] }, PATIENCE).await.unwrap_err();
    assert_eq!(renew.code(), Code::Unauthenticated);
    let attach = Lease::open(&client, hello("cart-1", "127.0.0.1:1")).await.map(|_| ()).unwrap_err();
    assert_eq!(attach.code(), Code::Unauthenticated);
    let delta = Proxy::open(&client, "x", Default::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(delta.code(), Code::Unauthenticated);
    control.stop().await;
}

#[tokio::test]
async fn renewal_keeps_the_identity_whatever_the_request_says() {
    let control = with_cart().await;
    let credential = control.member("cart").await;
    let client = control.connect(&credential).await;
    let key = KeyAndCsr::generate().unwrap();
    let answer = client.renew(RenewRequest { csr_der: key.csr_der().to_vec() }, PATIENCE).await.unwrap();
    assert!(answer.expires_unix > now().0 + 86_000);
    let renewed = accept(key, answer);
    assert_eq!(renewed.id, credential.id);
    control.connect(&renewed).await;
    control.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let control = with_cart().await;
    let foreign = Authority::create(&control.bound.trust_domain, now()).unwrap();
    let id = leno_core::peer::SpiffeId::parse("spiffe://test.mesh/ns/default/sa/cart").unwrap();
    let credential = foreign.credential(&id, now(), std::time::Duration::from_secs(600)).unwrap();
    // It would not trust us either; what counts here is that we refuse it, so it connects with our pin alone.
    let expected = leno_identity::authority::control_id(&control.bound.trust_domain);
    let tls = leno_identity::tls::client_config(
        &credential,
        &expected,
        &[leno_identity::tls::ALPN_CONTROL],
        &leno_identity::tls::Clock::system(),
    )
    .unwrap();
    assert!(dial(control.bound.mesh, tls).await.is_err());
    control.until("/metrics", |page| page.as_str().unwrap().contains("handshakes_failed_total 1\n")).await;
    control.stop().await;
}
