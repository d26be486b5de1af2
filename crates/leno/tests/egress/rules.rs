//! Who may reach what.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::common::{free_port, write};
use crate::outside::{Authority, Plain, TlsServer};
use crate::{SOON, expect, get, program, proxy, talk};

/// A mesh of two callers, with an `egress` block.
struct Mesh {
    cart: u16,
    user: u16,
    _folder: tempfile::TempDir,
    _proxies: [crate::common::Running; 2],
}

impl Mesh {
    fn new(egress: &str, services: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [cart, user] = [free_port(), free_port()];
        let text = format!(
            "mesh: outside\n{egress}\nservices:\n\
             \x20 cart: {{health: none, instances: [{{name: cart-1, port: {}, proxy: {cart}}}]}}\n\
             \x20 ops/user: {{health: none, instances: [{{name: user-1, port: {}, proxy: {user}}}]}}\n{services}\n",
            free_port(),
            free_port()
        );
        let file = write(folder.path(), "mesh.yaml", &text);
        let proxies = ["cart-1", "ops/user-1"].map(|role| proxy(&file, role, &[]));
        Self { cart, user, _folder: folder, _proxies: proxies }
    }
}

/// `CONNECT AUTHORITY`, then a request through the tunnel.
pub(crate) fn tunnel(port: u16, authority: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    if !head.starts_with("HTTP/1.1 200 ") {
        return head;
    }
    stream.write_all(b"GET /tunnel HTTP/1.1\r\nHost: inside\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn everything_may_leave_by_default() {
    let outside = Plain::start("127.0.0.2");
    let mesh = Mesh::new("", "");
    let answer = get(mesh.cart, &outside.address.to_string());
    expect("an address", &answer, 200, &["outside 127.0.0.2"]);
    let seen = outside.seen.lock().unwrap().join("");
    assert!(
        seen.starts_with("GET / HTTP/1.1\r\n") && seen.contains(&format!("Host: {}", outside.address)),
        "{seen}"
    );
    expect("a tunnel", &tunnel(mesh.cart, &outside.address.to_string()), 200, &["outside 127.0.0.2"]);
    expect("a misspelt service", &get(mesh.cart, "crat"), 502, &["leno-reason: no_such_service"]);
    expect("no such name", &get(mesh.cart, "no-such-host.invalid"), 502, &["leno-reason: name_not_resolved"]);
    expect(
        "a number",
        &get(mesh.cart, "2130706434"),
        403,
        &["leno-reason: egress_denied", "neither a DNS name"],
    );
    // Nobody listens there: the port was free a moment ago.
    let nobody = format!("127.0.0.2:{}", free_port());
    expect("nobody", &get(mesh.cart, &nobody), 503, &["leno-reason: connect_failed"]);
    // What would come back to us is not sent.
    for authority in [format!("127.0.0.1:{}", mesh.cart), format!("[::ffff:127.0.0.1]:{}", mesh.cart)] {
        expect(
            "itself",
            &get(mesh.cart, &authority),
            403,
            &["leno-reason: egress_denied", "this proxy itself"],
        );
    }
}

#[test]
fn rules_decide_by_place_and_caller() {
    let first = Plain::start("127.0.0.2");
    let port = first.port();
    let second = Plain::on(&format!("127.0.0.3:{port}"));
    let egress = format!(
        "egress:
  rules:
    - {{name: no-ads, hosts: [ads.example, \"*.ads.example\"], action: deny}}
    - {{name: cart-only, from: cart, cidrs: 127.0.0.2, ports: {port}, action: allow}}
    - {{name: ops, from: \"ops/*\", hosts: localhost, action: allow}}
    - {{name: closed, cidrs: [127.0.0.0/8, \"::1\"], action: deny}}
    - {{name: partners, hosts: \"*.invalid\", action: allow}}"
    );
    let mesh = Mesh::new(&egress, "");
    let at = |ip: &str| format!("{ip}:{port}");
    expect("by address", &get(mesh.cart, &at("127.0.0.2")), 200, &["outside 127.0.0.2"]);
    expect(
        "by caller",
        &get(mesh.user, &at("127.0.0.2")),
        403,
        &["leno-reason: egress_denied", "the rule \"closed\" denies it"],
    );
    expect("in the range", &get(mesh.cart, &at("127.0.0.3")), 403, &["the rule \"closed\""]);
    for ip in ["[::ffff:127.0.0.3]", "[::ffff:7f00:3]", "[64:ff9b::127.0.0.3]"] {
        expect("the same address", &get(mesh.cart, &at(ip)), 403, &["the rule \"closed\""]);
    }
    for host in ["ads.example", "ADS.example.", "x.y.Ads.Example:8080"] {
        expect(
            host,
            &get(mesh.cart, host),
            403,
            &["leno-reason: egress_denied", "the rule \"no-ads\" denies it"],
        );
        expect(
            host,
            &tunnel(mesh.cart, &format!("{}:443", host.trim_end_matches(":8080"))),
            403,
            &["egress_denied"],
        );
    }
    // A name that leads to a denied address is denied there.
    expect("by what a name means", &get(mesh.cart, &at("localhost")), 403, &["the rule \"closed\""]);
    // It was allowed, and there is no such name.
    expect("allowed by a wildcard", &get(mesh.cart, "no-such.invalid"), 502, &["name_not_resolved"]);
    assert_eq!((first.requests(), second.requests()), (1, 0));
    let local = Plain::start("127.0.0.1");
    let answer = get(mesh.user, &format!("localhost:{}", local.port()));
    expect("by caller and name", &answer, 200, &["outside 127.0.0.1"]);
}

#[test]
fn registry_only_lets_out_what_is_declared() {
    let declared = Plain::start("127.0.0.2");
    let other = Plain::start("127.0.0.3");
    let named = Plain::start("127.0.0.1");
    let services = format!(
        "  bank: {{endpoints: [\"{}\"]}}\n  shop: {{endpoints: [\"localhost:{}\"]}}",
        declared.address,
        named.port()
    );
    let egress = format!(
        "egress:\n  mode: registry-only\n  rules:\n    - {{name: not-user, from: ops/user, cidrs: {}, action: deny}}",
        declared.address.ip()
    );
    let mesh = Mesh::new(&egress, &services);
    expect("the service", &get(mesh.cart, "bank"), 200, &["outside 127.0.0.2"]);
    expect("its address", &get(mesh.cart, &declared.address.to_string()), 200, &["outside 127.0.0.2"]);
    expect("its name", &get(mesh.cart, &format!("localhost:{}", named.port())), 200, &["outside 127.0.0.1"]);
    let not_declared = &["leno-reason: egress_denied", "the mode is registry-only"];
    expect("another address", &get(mesh.cart, &other.address.to_string()), 403, not_declared);
    expect("another port", &get(mesh.cart, &format!("127.0.0.2:{}", other.port())), 403, not_declared);
    expect("another name", &get(mesh.cart, "example.com"), 403, not_declared);
    expect("a tunnel", &tunnel(mesh.cart, &other.address.to_string()), 403, &["leno-reason: egress_denied"]);
    expect("a rule first", &get(mesh.user, &declared.address.to_string()), 403, &["the rule \"not-user\""]);
    assert_eq!(other.requests(), 0);
}

/// A client that begins TLS itself, through the forward proxy's tunnel.
#[test]
fn curl_reaches_https_through_a_tunnel() {
    let test = "curl_reaches_https_through_a_tunnel";
    let (Some(curl), Some(openssl)) = (program("curl", test), program("openssl", test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let good = ours.issue(folder.path(), "good", &["localhost", "127.0.0.1"]);
    let server = TlsServer::start(&openssl, &good, &[]);
    let mesh = Mesh::new("egress: {rules: [{from: cart, action: allow}, {action: deny}]}", "");
    let call = |proxy: u16| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "", "--proxy"]);
        command.arg(format!("http://127.0.0.1:{proxy}")).arg("--cacert").arg(&ours.file);
        let done = command.arg(format!("https://127.0.0.1:{}/", server.port)).output().unwrap();
        (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (page, error) = call(mesh.cart);
    assert!(page.contains("New, TLSv1.3"), "{page}{error}");
    let (page, error) = call(mesh.user);
    assert!(page.is_empty() && error.contains("403"), "{page}{error}");
}

#[test]
fn what_is_no_request_is_refused_before_any_rule() {
    let mesh = Mesh::new("", "");
    for authority in ["evil%2eexample", "user@evil.example", "evil.example:0"] {
        let answer = talk(
            mesh.cart,
            format!("GET http://{authority}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 400 "), "{authority}: {answer}");
    }
}
