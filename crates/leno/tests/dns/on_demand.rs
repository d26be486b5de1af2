//! Services that nobody has declared to call: the control plane is asked while the question waits.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use leno_control::{Bound, Control, ControlConfig, StateDir};

use crate::common::{Running, free_port, leno, until};
use crate::resolver::Resolver;
use crate::{SOON, Sidecar, program};

/// A control plane in this process.
fn control(state: &Path) -> Bound {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ControlConfig {
        mesh_listen: free,
        api_listen: free,
        ..ControlConfig::new(StateDir::Path(state.to_owned()))
    };
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let control = Control::bind(config).await.unwrap();
            tell.send(control.bound().clone()).unwrap();
            // Until the test's process ends.
            control.serve(std::future::pending()).await.unwrap();
        });
    });
    told.recv_timeout(SOON).unwrap()
}

fn call(bound: &Bound, method: &str, path: &str, body: &str) -> serde_json::Value {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", bound.api))
        .header("authorization", format!("Bearer {}", bound.api_token))
        .header("content-type", "application/json")
        .body(body.to_owned())
        .unwrap();
    let text = ureq::run(request).unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn a_service_is_learnt_by_its_name() {
    let Some(_) = program("dig", "on_demand::a_service_is_learnt_by_its_name") else { return };
    let folder = tempfile::tempdir().unwrap();
    let bound = control(folder.path());
    for service in ["client", "cart"] {
        call(&bound, "PUT", &format!("/v1/services/default/{service}"), "{}");
    }
    let token = call(&bound, "POST", "/v1/tokens", r#"{"service": "client"}"#);
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token["token"].as_str().unwrap()).unwrap();
    let resolver = Resolver::start();
    let mut command = leno();
    command
        .args(["proxy", "--service", "client", "--instance", "client-1", "--app", "127.0.0.1:9"])
        .args(["--mesh-listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--workers", "1", "--dns-listen", &format!("127.0.0.1:{}", free_port())])
        .args(["--dns-upstream", &resolver.address.to_string(), "--control", &bound.mesh.to_string()])
        .arg("--token-file")
        .arg(&token_file);
    let running = Running::start(command.stderr(Stdio::inherit()));
    let ready = running.event("ready", SOON);
    let sidecar = Sidecar {
        dns: ready["dns"].as_str().unwrap().parse().unwrap(),
        admin: format!("http://{}", ready["admin"].as_str().unwrap()),
        running,
        _folder: folder,
    };
    // The first question already has the answer.
    assert_eq!(sidecar.short(&["cart", "A"]), ["240.240.62.226"]);
    // What is no service is known within the wait, and then the resolver is asked.
    let began = Instant::now();
    assert_eq!(sidecar.short(&["example.com", "A"]), ["192.0.2.77"]);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(sidecar.dig(&["late.default.mesh", "A"]).contains("status: NXDOMAIN"));
    assert_eq!(resolver.questions(), ["udp example.com"]);
    // It is told of what comes later.
    call(&bound, "PUT", "/v1/services/default/late", "{}");
    until("the new service has an address", SOON, || !sidecar.short(&["late.default.mesh", "A"]).is_empty());
    assert_eq!(resolver.questions().len(), 1, "what is ours never leaves");
}
