//! The rules as the control plane tells them: they arrive, and change while everything runs.

use std::fs;
use std::time::Duration;

use crate::common::mesh::Mesh;
use crate::common::{free_port, until};
use crate::outside::Plain;
use crate::{SOON, expect, get};

#[test]
fn rules_arrive_from_the_control_plane_and_change() {
    let outside = Plain::start("127.0.0.2");
    let named = Plain::start("127.0.0.1");
    let proxy = free_port();
    let rule = "egress: {rules: [{name: no-loopback, cidrs: 127.0.0.2, action: deny}]}\n";
    let leno = env!("CARGO_BIN_EXE_leno");
    // The test calls the forward proxy itself, from outside of any namespace.
    let mesh = Mesh::start(&["--capture", "off"], |_| {
        format!(
            "mesh: outside\ngateway: {{listen: {}, routes: [{{to: cart}}]}}\nservices:\n  cart:\n    calls: bank\n    run: [\"{leno}\", demo, user, --port, \"{{port}}\"]\n    \
             instances: [{{name: cart-1, proxy: {proxy}}}]\n  bank: {{endpoints: [\"localhost:{}\"]}}\n{rule}",
            free_port(),
            named.port()
        )
    });
    let there = outside.address.to_string();
    expect("denied", &get(proxy, &there), 403, &["the rule \"no-loopback\" denies it"]);
    expect("by name", &get(proxy, "bank"), 200, &["outside 127.0.0.1"]);
    let file = mesh.folder.path().join("mesh.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("action: deny", "action: allow")).unwrap();
    until("it may leave", SOON, || get(proxy, &there).starts_with("HTTP/1.1 200 "));
    let closed =
        text.replace("{rules", "{mode: registry-only, rules").replace("cidrs: 127.0.0.2", "ports: 1");
    fs::write(&file, closed).unwrap();
    until("only what is declared", SOON, || get(proxy, &there).contains("the mode is registry-only"));
    expect("it is declared", &get(proxy, "bank"), 200, &["outside 127.0.0.1"]);
    // Without the block everything may leave.
    fs::write(&file, text.replace(rule, "")).unwrap();
    until("everything", SOON, || get(proxy, &there).starts_with("HTTP/1.1 200 "));
    std::thread::sleep(Duration::from_millis(10));
    mesh.stop();
}
