//! A peer that is no Leno: it has a certificate of the mesh and speaks HTTP over mutual TLS to a sidecar's mesh port.

use std::fs;
use std::process::Command;

use crate::common::{free_port, until, write};
use crate::outside::{Authority, Certificate, Nginx, Plain};
use crate::{SOON, expect, get, program, proxy};

#[test]
fn curl_with_a_certificate_of_the_mesh_is_served() {
    let Some(curl) = program("curl", "curl_with_a_certificate_of_the_mesh_is_served") else { return };
    let folder = tempfile::tempdir().unwrap();
    let app = Plain::start("127.0.0.1");
    let mesh = free_port();
    let text = format!(
        "mesh: pair\nservices:\n  web:\n    protocol: http\n    health: none\n    instances:\n\
         \x20     - {{name: web-1, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
        app.address
    );
    let file = write(folder.path(), "mesh.yaml", &text);
    let identity = folder.path().join("identity");
    let log = folder.path().join("log");
    let arguments = ["--identity", identity.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
    let _sidecar = proxy(&file, "web-1", &arguments);

    // Made by the mesh's own authority, for a service without a sidecar.
    let authority = Authority::of_mesh(&identity);
    let issue = |name: &str, domain: &str| {
        authority.issue(folder.path(), name, &[&format!("spiffe://{domain}/ns/default/sa/legacy")])
    };
    let call = |identity: Option<&Certificate>, version: &str| {
        let mut command = Command::new(&curl);
        // Its name is a SPIFFE id, which curl cannot compare.
        command.args([
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "10",
            "--noproxy",
            "*",
            version,
        ]);
        if let Some(Certificate { cert, key, .. }) = identity {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        let done = command.arg(format!("https://127.0.0.1:{mesh}/path")).output().unwrap();
        (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let ours = issue("ours", "pair.mesh");
    let (page, error) = call(Some(&ours), "--http1.1");
    assert_eq!(page, "outside 127.0.0.1", "{error}");
    let (page, error) = call(Some(&ours), "--http2");
    assert_eq!(page, "outside 127.0.0.1", "{error}");
    let seen = app.seen.lock().unwrap().join("");
    assert!(seen.starts_with("GET /path HTTP/1.1\r\n"), "{seen}");
    until("it is logged by its identity", SOON, || {
        fs::read_to_string(&log).unwrap().contains("\"direction\":\"inbound\",\"source\":\"legacy\"")
    });
    // Nobody else is.
    for stranger in [None, Some(&issue("theirs", "other.mesh"))] {
        let (page, error) = call(stranger, "--http1.1");
        assert!(page.is_empty() && !error.is_empty(), "{page}{error}");
    }
    assert_eq!(app.requests(), 2);
}

/// The other way round: a server with a certificate of the mesh and no sidecar, which wants to know who calls.
#[test]
fn a_server_of_the_mesh_without_a_sidecar_is_called_by_identity() {
    let test = "a_server_of_the_mesh_without_a_sidecar_is_called_by_identity";
    let (Some(nginx), Some(_)) = (program("nginx", test), program("openssl", test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (identity, proxy_port) = (dir.join("identity"), free_port());
    let seed = write(
        dir,
        "seed.yaml",
        "mesh: pair\nservices: {cart: {health: none, instances: [{name: seed, port: 1, mesh: 1}]}}\n",
    );
    // The authority is made by whoever comes first.
    let text = fs::read_to_string(&seed)
        .unwrap()
        .replace("port: 1, mesh: 1", &format!("port: {}, mesh: {}", free_port(), free_port()));
    fs::write(&seed, text).unwrap();
    drop(proxy(&seed, "seed", &["--identity", identity.to_str().unwrap()]));
    let authority = Authority::of_mesh(&identity);
    let legacy = authority.issue(dir, "legacy", &["spiffe://pair.mesh/ns/default/sa/legacy"]);
    let server = Nginx::start(&nginx, dir, &legacy, &authority);
    let text = format!(
        "mesh: pair
services:
  cart:
    health: none
    instances: [{{name: cart-1, port: {}, proxy: {proxy_port}, mesh: {}}}]
  legacy:
    endpoints: [\"127.0.0.1:{}\"]
    tls: {{roots: mesh, cert: mesh, spiffe: spiffe://pair.mesh/ns/default/sa/legacy}}
  other:
    endpoints: [\"127.0.0.1:{}\"]
    tls: {{roots: mesh, cert: mesh, spiffe: spiffe://pair.mesh/ns/default/sa/other}}
",
        free_port(),
        free_port(),
        server.port,
        server.port
    );
    let file = write(dir, "mesh.yaml", &text);
    let _sidecar = proxy(&file, "cart-1", &["--identity", identity.to_str().unwrap()]);
    expect(
        "by its identity",
        &get(proxy_port, "legacy"),
        200,
        &["HTTP/2.0 client=", "verified=SUCCESS request=1."],
    );
    let answer = get(proxy_port, "other");
    expect(
        "another one",
        &answer,
        503,
        &["tls_refused", "the server is spiffe://pair.mesh/ns/default/sa/legacy"],
    );
}
