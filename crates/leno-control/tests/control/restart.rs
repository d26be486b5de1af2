//! What outlives the process.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use leno_control::{Control, ControlConfig, ControlError, StoreError};
use leno_core::index::{Key, Kind};
use leno_core::session::Client as Session;

use crate::harness::*;

#[tokio::test]
async fn a_restart_loses_nothing_and_takes_nothing_away() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let config = || ControlConfig { lease: Duration::from_secs(2), ..on(&state) };
    let control = start(config()).await;
    control.declare("cart", r#"{"balance": "round_robin"}"#).await;
    let token = control.mint(r#"{"service": "cart", "uses": 2}"#).await;
    let credential = control.member("cart").await;
    let key = leno_identity::credential::KeyAndCsr::generate().unwrap();
    control.join(&token, key.csr_der()).await.unwrap();
    let client = control.connect(&credential).await;
    let (mut lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    lease.heartbeat(Some("not yet")).await.unwrap();
    let mut proxy = Proxy::open(&client, "cart-1", Session::new()).await.unwrap();
    proxy.session.want(Key::new(Kind::Endpoints, id("cart")));
    proxy.session.want(Key::new(Kind::Service, id("ghost")));
    proxy.want(Kind::Service, "cart").await;
    proxy.until(|proxy| proxy.held.len() == 2 && proxy.endpoints("cart") == ["cart-1 down"]).await;
    let (before, generation) = (control.get("/v1/services").await, proxy.session.generation());
    let api_token = control.bound.api_token.clone();
    control.stop().await;

    let control = start(config()).await;
    assert_eq!(control.bound.api_token, api_token);
    assert_eq!(control.get("/v1/services").await, before);
    // The old certificate is still good: the authority is the same.
    let client = control.connect(&credential).await;
    let instances = control.get("/v1/instances").await;
    assert_eq!((&instances[0]["name"], &instances[0]["reason"]), (&"cart-1".into(), &"not yet".into()));
    assert!(instances[0]["lease_remaining_ms"].as_u64().unwrap() > 1000, "{instances}");
    // The stream resumes: nothing is sent that is held, nothing is taken away.
    let session = proxy.session.clone();
    let mut proxy = Proxy::open(&client, "cart-1", session).await.unwrap();
    for _ in 0..2 {
        let changes = proxy.next().await.unwrap();
        assert_eq!(changes, Default::default());
    }
    assert_eq!((proxy.offered, proxy.removals), (0, 1), "the one removal says that the ghost is still none");
    assert!(proxy.session.generation() >= generation);
    // The token has one use left.
    for expected in [true, false] {
        let key = leno_identity::credential::KeyAndCsr::generate().unwrap();
        assert_eq!(control.join(&token, key.csr_der()).await.is_ok(), expected);
    }
    // Whoever does not come back within a lease is removed.
    proxy
        .until(|proxy| {
            proxy.session.version(&Key::new(Kind::Endpoints, id("cart"))).is_some()
                && proxy.held.contains_key(&Key::new(Kind::Endpoints, id("cart")))
        })
        .await;
    assert!(proxy.endpoints("cart").is_empty());
    control.stop().await;

    let control = start(config()).await;
    assert_eq!(control.get("/v1/instances").await, serde_json::json!([]));
    control.stop().await;
}

#[tokio::test]
async fn only_the_owner_may_read_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("a/state");
    let control = start(on(&state)).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for file in ["leno.redb", "api-token"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    let kept = std::fs::read_to_string(state.join("api-token")).unwrap();
    assert_eq!(kept.trim(), control.bound.api_token);
    control.stop().await;
}

#[tokio::test]
async fn what_is_wrong_at_start_is_said_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let first = start(on(&state)).await;
    let error = Control::bind(on(&state)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ControlError::Store(StoreError::InUse(_))), "{error}");
    assert!(error.to_string().contains("is in use by another control plane"), "{error}");

    let mut taken = config(leno_control::StateDir::Ephemeral);
    taken.mesh_listen = first.bound.api;
    let error = Control::bind(taken).await.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("the mesh address {} cannot be listened on", first.bound.api)),
        "{error}"
    );
    first.stop().await;

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Control::bind(on(&file)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
    let error = Control::bind(on(&file.join("below"))).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");

    let other = ControlConfig {
        trust_domain: Some(leno_core::name::TrustDomain::parse("other.mesh").unwrap()),
        ..on(&state)
    };
    let error = Control::bind(other).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("belongs to trust domain test.mesh, not other.mesh"), "{error}");

    std::fs::write(state.join("leno.redb"), "this is no database").unwrap();
    let error = Control::bind(on(&state)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("leno.redb cannot be read or written"), "{error}");
}

const MESH: &str = "\
mesh: test
services:
  cart:
    endpoints: [10.0.0.1:80]
  user: {}
";

#[tokio::test]
async fn the_mesh_file_is_followed_and_a_bad_version_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    let write = |text: &str| {
        let new = directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
    };
    let with_file = || ControlConfig { file: Some(path.clone()), ..on(&directory.path().join("state")) };

    write("mesh: test\nservces: {}\n");
    let error = Control::bind(with_file()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ControlError::File(_)), "{error}");
    assert!(!directory.path().join("state").exists(), "nothing was written");

    write(MESH);
    let control = start(with_file()).await;
    let client = control.connect(&control.member("cart").await).await;
    let mut proxy = Proxy::open(&client, "x", Session::new()).await.unwrap();
    proxy.session.want(Key::new(Kind::Service, id("user")));
    proxy.want(Kind::Endpoints, "cart").await;
    proxy.until(|proxy| proxy.endpoints("cart").len() == 1 && proxy.held.len() == 2).await;
    let (status, error) = control.call("PUT", "/v1/services/default/cart", Some("{}")).await;
    assert_eq!((status, error["reason"].as_str()), (409, Some("declared_in_file")));

    write("mesh: test\nservices: {cart: {port: 80}}\n");
    let status = control.until("/v1/status", |status| !status["file"]["problem"].is_null()).await;
    assert_eq!(status["counts"]["services"], 2, "{status}");
    assert!(status["file"]["problem"].as_str().unwrap().contains("port"), "{status}");
    proxy.silent(Duration::from_millis(100)).await;

    write("mesh: test\nservices: {cart: {endpoints: [10.0.0.1:80, 10.0.0.2:80]}}\n");
    proxy.until(|proxy| proxy.endpoints("cart").len() == 2 && proxy.held.len() == 1).await;
    assert!(proxy.session.is_absent(&Key::new(Kind::Service, id("user"))));
    assert!(control.get("/v1/status").await["file"]["problem"].is_null());
    control.stop().await;
}
