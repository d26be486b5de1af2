//! The example of docs/egress.md, started as it stands there.

use std::path::Path;

use crate::common::{free_port, write};
use crate::outside::{Authority, TlsServer};
use crate::{expect, get, program, proxy};

#[test]
fn the_example_of_the_manual_works() {
    let Some(openssl) = program("openssl", "the_example_of_the_manual_works") else { return };
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/egress.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let example = manual.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    let bank = Authority::new(&certs, "bank-ca");
    let server = TlsServer::start(&openssl, &bank.issue(&certs, "pay", &["localhost"]), &[]);
    let port = free_port();
    // A server of ours, and an application that runs already.
    let text = example.replace("pay.example:443", &format!("localhost:{}", server.port)).replace(
        "run: ./cart",
        &format!("health: none\n    instances: [{{port: {}, proxy: {port}}}]", free_port()),
    );
    assert_ne!(text, example);
    let file = write(folder.path(), "mesh.yaml", &text);
    let _proxy = proxy(&file, "cart-1", &[]);
    expect("the bank", &get(port, "bank"), 200, &["New, TLSv1.3"]);
    let denied = "tracker.ads.example:80: the rule \"no-ads\" denies it";
    expect("ads", &get(port, "tracker.ads.example"), 403, &["leno-reason: egress_denied", denied]);
    expect("a mirror's wrong port", &get(port, "de.mirror.example"), 403, &["the mode is registry-only"]);
    expect("the old network", &get(port, "10.20.30.40"), 403, &["the rule \"old-network\""]);
}
