//! An egress gateway: what leaves passes it, known by the caller's identity, and is decided there once more.

use std::fs;
use std::net::UdpSocket;

use crate::common::{free_port, until, write};
use crate::outside::Plain;
use crate::rules::tunnel;
use crate::{SOON, expect, get, proxy};

/// An address of this machine that is not a loopback one: a gateway sends nothing to itself.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket sends nothing.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
}

#[test]
fn what_leaves_passes_the_gateway() {
    let Some(ip) = own_address() else {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED egress::what_leaves_passes_the_gateway: this machine has no address but loopback"
        );
        return;
    };
    let (outside, folder) = (Plain::start(&ip), tempfile::tempdir().unwrap());
    let [cart, user, out, listen] = [free_port(), free_port(), free_port(), free_port()];
    let text = |rules: &str| {
        format!(
            "mesh: outside
gateways:
  out: {{listen: 127.0.0.1:{listen}, routes: [{{to: cart}}]}}
egress:
  mode: registry-only
  via: {{gateway: out, address: 127.0.0.1:{out}}}
  rules:
{rules}    - {{name: test, from: [cart, user], cidrs: [{ip}, 127.0.0.0/8], action: allow}}
services:
  cart: {{health: none, instances: [{{name: cart-1, port: {}, proxy: {cart}}}]}}
  user: {{health: none, instances: [{{name: user-1, port: {}, proxy: {user}}}]}}
",
            free_port(),
            free_port()
        )
    };
    // The gateway knows a rule more, as after a change that has not arrived everywhere.
    let file = write(folder.path(), "mesh.yaml", &text(""));
    let stricter = "    - {name: not-user, from: user, action: deny}\n";
    let stricter = write(folder.path(), "stricter.yaml", &text(stricter));
    let identity = folder.path().join("identity");
    let log = folder.path().join("log");
    let arguments = ["--identity", identity.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
    let _gateway = proxy(&stricter, "out", &arguments);
    let own_log = folder.path().join("user.log");
    let _sidecars = [
        proxy(&file, "cart-1", &arguments[..2]),
        proxy(&file, "user-1", &[arguments[0], arguments[1], "--access-log", own_log.to_str().unwrap()]),
    ];
    let there = outside.address.to_string();
    expect("through the gateway", &get(cart, &there), 200, &["outside "]);
    expect("a tunnel", &tunnel(cart, &there), 200, &["outside "]);
    let seen = outside.seen.lock().unwrap().join("");
    assert!(!seen.contains("leno-egress"), "{seen}");
    until("the gateway has logged who it was for", SOON, || {
        let log = fs::read_to_string(&log).unwrap();
        log.matches("\"source\":\"cart\",\"destination\":\"outside\"").count() == 2
    });
    // Refused by the gateway, with its reason.
    let answer = get(user, &there);
    expect(
        "another caller",
        &answer,
        403,
        &["leno-reason: egress_denied", "the rule \"not-user\" denies it"],
    );
    // Of a tunnel the sidecar learns the reason, and its log has it.
    tunnel(user, &there);
    until("the sidecar has logged why a tunnel is refused", SOON, || {
        let log = fs::read_to_string(&own_log).unwrap();
        log.lines().last().is_some_and(|line| line.contains("CONNECT") && line.contains("\"egress_denied\""))
    });
    // Refused by the sidecar, before anything was sent.
    expect("elsewhere", &get(cart, "192.0.2.1"), 403, &["the mode is registry-only"]);
    // The rules would allow it; but it is the gateway's own loopback, not the sidecar's.
    let answer = get(cart, &format!("127.0.0.1:{listen}"));
    expect("the gateway itself", &answer, 403, &["leno-reason: egress_denied", "127.0.0.1"]);
    // The gateway serves nothing of the mesh in this way.
    assert_eq!(outside.requests(), 2);
}
