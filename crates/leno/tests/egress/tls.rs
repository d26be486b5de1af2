//! TLS that a sidecar begins with servers outside the mesh.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use rcgen::date_time_ymd;

use crate::common::{free_port, until};
use crate::outside::{Authority, Certificate, Nginx, TlsServer};
use crate::{SOON, expect, get, program, proxy};

/// One service outside: what is asked of its server, and what comes of it.
struct Case<'a> {
    name: &'a str,
    server: &'a TlsServer,
    /// How the file calls its host.
    host: &'a str,
    tls: String,
    status: u16,
    says: &'a [&'a str],
}

#[test]
fn a_server_is_believed_by_what_is_asked_of_it() {
    let test = "a_server_is_believed_by_what_is_asked_of_it";
    let Some(openssl) = program("openssl", test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (ours, theirs) = (Authority::new(dir, "ours"), Authority::new(dir, "theirs"));
    let good = ours.issue(dir, "good", &["localhost", "pay.example", "127.0.0.1"]);
    let spiffe = ours.issue(dir, "spiffe", &["spiffe://bank.example/teller"]);
    let expired = ours.issue_with(dir, "expired", &["localhost"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let future = ours.issue_with(dir, "future", &["localhost"], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
    });
    let client = ours.issue(dir, "client", &["cart.example"]);
    let stranger = theirs.issue(dir, "stranger", &["cart.example"]);
    let start =
        |certificate: &Certificate, arguments: &[&str]| TlsServer::start(&openssl, certificate, arguments);
    let plain = start(&good, &[]);
    let old = start(&good, &["-tls1_2"]);
    let ours_file = ours.file.to_str().unwrap();
    let strict = start(&good, &["-Verify", "3", "-verify_return_error", "-CAfile", ours_file]);
    let strict_old = start(&good, &["-tls1_2", "-Verify", "3", "-verify_return_error", "-CAfile", ours_file]);
    let spiffe_server = start(&spiffe, &[]);
    let expired_server = start(&expired, &[]);
    let future_server = start(&future, &[]);

    let case = |name, server, host, tls: &str, status, says| {
        let tls = tls.replace("CLIENT", "cert: client.pem, key: client.key");
        Case { name, server, host, tls, status, says }
    };
    let ok = &["New, TLSv1.3"][..];
    let pin = |certificate: &Certificate| format!("pinned: \"{}\"", certificate.pin);
    let refused: &dyn Fn(&'static str) -> &'static [&'static str] =
        &|why| Box::leak(Box::new(["leno-reason: tls_refused", why]));
    let authority_pin = crate::outside::pin(&ours.file);
    let cases = [
        case("good", &plain, "localhost", "roots: ours.pem", 200, ok),
        case("by-address", &plain, "127.0.0.1", "roots: ours.pem", 200, ok),
        case("old-version", &old, "localhost", "roots: ours.pem", 200, &["New, TLSv1.2"]),
        case("other-sni", &plain, "127.0.0.1", "roots: ours.pem, sni: pay.example", 200, ok),
        case(
            "one-of-names",
            &plain,
            "127.0.0.1",
            "roots: ours.pem, names: [a.example, pay.example]",
            200,
            ok,
        ),
        case(
            "system-roots",
            &plain,
            "localhost",
            "roots: system",
            503,
            refused("an authority that is not trusted here"),
        ),
        case(
            "default-roots",
            &plain,
            "localhost",
            "sni: localhost",
            503,
            refused("an authority that is not trusted here"),
        ),
        case(
            "other-authority",
            &plain,
            "localhost",
            "roots: theirs.pem",
            503,
            refused("an authority that is not trusted here"),
        ),
        case(
            "wrong-sni",
            &plain,
            "127.0.0.1",
            "roots: ours.pem, sni: evil.example",
            503,
            refused("not for \"evil.example\" but for"),
        ),
        case(
            "wrong-name",
            &plain,
            "localhost",
            "roots: ours.pem, names: a.example",
            503,
            refused("not for \"a.example\""),
        ),
        case(
            "expired",
            &expired_server,
            "localhost",
            "roots: ours.pem",
            503,
            refused("the peer's certificate expired "),
        ),
        case("future", &future_server, "localhost", "roots: ours.pem", 503, refused("is valid only in ")),
        case("pinned", &plain, "localhost", &pin(&good), 200, ok),
        case("pinned-file", &plain, "localhost", "pinned: good.pem", 200, ok),
        case(
            "pinned-authority",
            &plain,
            "localhost",
            &format!("roots: ours.pem, pinned: \"{authority_pin}\""),
            200,
            ok,
        ),
        case("pinned-authority-file", &plain, "localhost", "pinned: ours.pem", 200, ok),
        case("pinned-and-roots", &plain, "localhost", &format!("roots: ours.pem, {}", pin(&good)), 200, ok),
        case(
            "pinned-other",
            &plain,
            "localhost",
            &format!("roots: ours.pem, {}", pin(&expired)),
            503,
            refused("none of the pinned keys"),
        ),
        case(
            "pinned-other-alone",
            &plain,
            "localhost",
            &pin(&expired),
            503,
            refused("none of the pinned keys"),
        ),
        case(
            "pinned-wrong-roots",
            &plain,
            "localhost",
            &format!("roots: theirs.pem, {}", pin(&good)),
            503,
            refused("not trusted here"),
        ),
        case(
            "pinned-expired",
            &expired_server,
            "localhost",
            &pin(&expired),
            503,
            refused("the peer's certificate expired "),
        ),
        case(
            "pinned-wrong-name",
            &plain,
            "127.0.0.1",
            &format!("sni: evil.example, {}", pin(&good)),
            503,
            refused("not for \"evil.example\""),
        ),
        case("client", &strict, "localhost", "roots: ours.pem, CLIENT", 200, ok),
        case(
            "no-client",
            &strict,
            "localhost",
            "roots: ours.pem",
            503,
            refused("it wants a certificate and got none"),
        ),
        case(
            "stranger",
            &strict,
            "localhost",
            "roots: ours.pem, cert: stranger.pem, key: stranger.key",
            503,
            refused("refused by the server: "),
        ),
        case(
            "no-client-old",
            &strict_old,
            "localhost",
            "roots: ours.pem",
            503,
            refused("refused by the peer: "),
        ),
        case("client-old", &strict_old, "localhost", "roots: ours.pem, CLIENT", 200, &["New, TLSv1.2"]),
        case(
            "spiffe",
            &spiffe_server,
            "localhost",
            "roots: ours.pem, spiffe: spiffe://bank.example/teller",
            200,
            ok,
        ),
        case(
            "other-spiffe",
            &spiffe_server,
            "localhost",
            "roots: ours.pem, spiffe: spiffe://bank.example/boss",
            503,
            refused("expected spiffe://bank.example/boss"),
        ),
        case(
            "no-spiffe",
            &plain,
            "localhost",
            "roots: ours.pem, spiffe: spiffe://bank.example/boss",
            503,
            refused("no SPIFFE id"),
        ),
        case("no-file", &plain, "localhost", "roots: nowhere.pem", 503, refused("nowhere.pem: No such file")),
        case("no-h2", &plain, "localhost", "roots: ours.pem, alpn: http/1.1", 200, ok),
    ];
    let proxy_port = free_port();
    let mut text = format!(
        "mesh: outside\nservices:\n  cart:\n    health: none\n    instances: [{{name: cart-1, port: {}, proxy: {proxy_port}}}]\n",
        free_port()
    );
    for Case { name, server, host, tls, .. } in &cases {
        let _ = writeln!(text, "  {name}:\n    endpoints: [\"{host}:{}\"]\n    tls: {{{tls}}}", server.port);
    }
    let file = crate::common::write(dir, "mesh.yaml", &text);
    let log = dir.join("log");
    let _proxy = proxy(&file, "cart-1", &["--access-log", log.to_str().unwrap()]);
    for Case { name, status, says, .. } in &cases {
        expect(name, &get(proxy_port, name), *status, says);
    }
    // The log says the same in words.
    until("the refusals are logged", SOON, || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains("\"why\":\"none of the pinned keys is in the server's chain\"")
    });
    drop((client, stranger));
}

#[test]
fn files_are_read_again_when_they_change() {
    let Some(openssl) = program("openssl", "files_are_read_again_when_they_change") else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (ours, theirs) = (Authority::new(dir, "ours"), Authority::new(dir, "theirs"));
    let good = ours.issue(dir, "good", &["localhost"]);
    let server = TlsServer::start(&openssl, &good, &[]);
    let trusted = dir.join("trusted.pem");
    fs::copy(&theirs.file, &trusted).unwrap();
    let proxy_port = free_port();
    let text = format!(
        "mesh: outside\nservices:\n  cart:\n    health: none\n    instances: [{{name: cart-1, port: {}, proxy: {proxy_port}}}]\n\
         \x20 bank:\n    endpoints: [\"localhost:{}\"]\n    tls: {{roots: trusted.pem}}\n",
        free_port(),
        server.port
    );
    let file = crate::common::write(dir, "mesh.yaml", &text);
    let _proxy = proxy(&file, "cart-1", &[]);
    expect("before", &get(proxy_port, "bank"), 503, &["tls_refused"]);
    fs::copy(&ours.file, dir.join("next.pem")).unwrap();
    fs::rename(dir.join("next.pem"), &trusted).unwrap();
    until("the new roots are used", SOON, || get(proxy_port, "bank").starts_with("HTTP/1.1 200 "));
    // A broken file does not break what works.
    fs::write(&trusted, "nothing").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    expect("after", &get(proxy_port, "bank"), 200, &["New, TLSv1.3"]);
}

/// nginx speaks both versions of HTTP; which one is agreed in the handshake, and connections are kept for both.
#[test]
fn the_handshake_decides_what_is_spoken() {
    let test = "the_handshake_decides_what_is_spoken";
    let (Some(nginx), Some(_)) = (program("nginx", test), program("openssl", test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ours = Authority::new(dir, "ours");
    let good = ours.issue(dir, "good", &["localhost"]);
    let _client = ours.issue(dir, "cart", &["cart.example"]);
    let server = Nginx::start(&nginx, dir, &good, &ours);
    let cases = [
        ("auto", "", "HTTP/2.0 client= verified=NONE request="),
        ("known", "    protocol: http2\n", "HTTP/2.0 client= verified=NONE request="),
        ("older", "    protocol: http\n", "HTTP/1.1 client= verified=NONE request="),
        ("asked", "    tls_alpn: http/1.1\n", "HTTP/1.1 client= verified=NONE request="),
        ("proved", "    tls_client: yes\n", "HTTP/2.0 client=CN=cart verified=SUCCESS request="),
    ];
    let proxy_port = free_port();
    let mut text = format!(
        "mesh: outside\nservices:\n  cart:\n    health: none\n    instances: [{{name: cart-1, port: {}, proxy: {proxy_port}}}]\n",
        free_port()
    );
    for (name, more, _) in cases {
        let (tls, more) = match more.trim() {
            "tls_alpn: http/1.1" => ("roots: ours.pem, alpn: http/1.1", ""),
            "tls_client: yes" => ("roots: ours.pem, cert: cart.pem, key: cart.key", ""),
            _ => ("roots: ours.pem", more),
        };
        let port = server.port;
        let _ = writeln!(text, "  {name}:\n{more}    endpoints: [\"localhost:{port}\"]\n    tls: {{{tls}}}");
    }
    let file = crate::common::write(dir, "mesh.yaml", &text);
    let _proxy = proxy(&file, "cart-1", &[]);
    for (name, _, says) in cases {
        for request in 1..=3 {
            let says = format!("{says}{request}.");
            expect(name, &get(proxy_port, name), 200, &[&says]);
        }
    }
}
