//! TLS that ends at the gateway: which certificate, who may come in, and files that change under load.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::pki::Authority;
use crate::{Gateway, SOON, common, connect, curl, echo_server, has};

/// A client that believes the authority in `file`.
fn client(file: &Path) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

type Tls = StreamOwned<ClientConnection, std::net::TcpStream>;

fn shake_hands(config: &Arc<ClientConfig>, at: std::net::SocketAddr, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
    let mut socket = connect(at);
    connection.complete_io(&mut socket)?;
    Ok(StreamOwned::new(connection, socket))
}

fn ask(stream: &mut Tls, host: &str) -> std::io::Result<String> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let bytes = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if bytes == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next()?.parse().ok());
        if length.is_none_or(|length: usize| body.len() >= length) {
            return Ok(text);
        }
    }
}

#[test]
fn certificates_are_chosen_by_the_name_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let first = authority.issue("first", "first", &["first.example"]);
    let wild = authority.issue("wild", "wild", &["*.shop.example", "shop.example"]);
    let exact = authority.issue("exact", "exact", &["a.shop.example"]);
    let certificates = "certificates: [{cert: first.pem, key: first.key}, {cert: wild.pem, key: wild.key}, {cert: exact.pem, key: exact.key}]";
    let listeners = format!(
        "    - {{name: any, protocol: https, {certificates}}}\n    - {{name: strict, protocol: https, hosts: [\"*.shop.example\"], {certificates}}}"
    );
    let gateway = Gateway::start(folder.path(), &listeners, echo_server(), "");
    let config = client(&authority.file);
    for (name, expected) in [
        ("first.example", &first),
        ("shop.example", &wild),
        ("b.shop.example", &wild),
        ("a.shop.example", &exact),
        ("A.SHOP.EXAMPLE", &exact),
    ] {
        let mut stream = shake_hands(&config, gateway.at("any"), name).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap()[0].as_ref(), &expected[..], "{name}");
        let answer = ask(&mut stream, name).unwrap();
        assert!(answer.contains("\r\nx-forwarded-proto: https\r\n"), "{name}: {answer}");
        // HTTP/1 clients may use a connection for every name of its certificate, and for no other.
        let answer = ask(&mut stream, "elsewhere.example").unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 421 ") && answer.contains("leno-reason: misdirected"),
            "{answer}"
        );
    }
    // Names beyond `hosts` are refused in the handshake; the others are served.
    let error = shake_hands(&config, gateway.at("strict"), "first.example").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "an alert: {error}");
    let mut stream = shake_hands(&config, gateway.at("strict"), "b.shop.example").unwrap();
    assert!(ask(&mut stream, "b.shop.example").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(gateway.metrics().contains("tls_handshake"), "{}", gateway.metrics());
    if has("openssl", "certificates_are_chosen_by_the_name_that_is_asked_for") {
        let at = gateway.at("any").to_string();
        let subject = |more: &[&str]| {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &at]).args(more).stdin(Stdio::null());
            common::stdout(&common::run(&mut command))
                .lines()
                .find(|line| line.starts_with("subject="))
                .map(str::to_owned)
        };
        // Who asks for nothing, or for what there is not, gets the first one.
        assert!(subject(&["-noservername"]).unwrap().ends_with("first"));
        assert!(subject(&["-servername", "elsewhere.example"]).unwrap().ends_with("first"));
        assert!(subject(&["-servername", "a.shop.example", "-tls1_2"]).unwrap().ends_with("exact"));
        assert_eq!(
            subject(&["-servername", "a.shop.example", "-tls1_1"]).filter(|it| it.ends_with("exact")),
            None
        );
    }
}

/// The listener and the name that a client asks for tell requests apart, whatever host they say.
#[test]
fn routes_ask_for_the_name_of_the_handshake_and_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("both", "both", &["a.example", "b.example"]);
    let (first, second) = (common::free_port(), common::free_port());
    let listener = |name: &str, port: u16| {
        format!(
            "    - {{name: {name}, listen: 127.0.0.1:{port}, protocol: https, \
             certificates: [{{cert: both.pem, key: both.key}}]}}\n"
        )
    };
    let text = format!(
        "mesh: edge\ngateway:\n  listeners:\n{}{}  routes:\n    - {{sni: a.example, answer: 201}}\n    \
         - {{port: {second}, answer: 202}}\n    - {{answer: 203}}\nservices:\n  web: {{endpoints: [\"127.0.0.1:1\"]}}\n",
        listener("first", first),
        listener("second", second),
    );
    let gateway = Gateway::start_file(folder.path(), &text);
    let config = client(&authority.file);
    for (listener, name, expected) in
        [("first", "a.example", 201), ("first", "b.example", 203), ("second", "b.example", 202)]
    {
        let mut stream = shake_hands(&config, gateway.at(listener), name).unwrap();
        let answer = ask(&mut stream, name).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{listener} {name}: {answer}");
    }
}

#[test]
fn curl_is_served_over_tls() {
    if !has("curl", "curl_is_served_over_tls") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "shop", &["shop.example"]);
    let port = common::free_port();
    let listeners = format!(
        "    - {{name: plain, redirect: https}}\n    - {{listen: {port}, protocol: https, certificates: [{{cert: shop.pem, key: shop.key}}]}}"
    );
    let gateway = Gateway::start(folder.path(), &listeners, echo_server(), "");
    let ca = authority.file.to_str().unwrap();
    let plain = gateway.at("plain").port();
    let resolve = [format!("shop.example:{port}:127.0.0.1"), format!("shop.example:{plain}:127.0.0.1")];
    // By the redirect, with a body that is many records long.
    let large = common::write(folder.path(), "large", &"x".repeat(3_000_000));
    let body = format!("@{}", large.display());
    let url = format!("http://shop.example:{plain}/up");
    let (code, text) = curl(&[
        "--cacert",
        ca,
        "--resolve",
        &resolve[0],
        "--resolve",
        &resolve[1],
        "-L",
        "--data-binary",
        &body,
        &url,
    ]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("POST /up HTTP/1.1\n"), "{text}");
    // An authority that curl does not know stays unknown.
    let url = format!("https://shop.example:{port}/");
    let (code, text) = curl(&["--resolve", &resolve[0], &url]);
    assert_eq!(code, 60, "{text}");
}

#[test]
fn http2_is_agreed_on_and_its_streams_are_for_the_hosts_of_the_certificate() {
    let test = "http2_is_agreed_on_and_its_streams_are_for_the_hosts_of_the_certificate";
    if !has("curl", test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "shop", &["shop.example", "*.shop.example"]);
    let listeners = "    - {name: tls, protocol: https, certificates: [{cert: shop.pem, key: shop.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let port = gateway.at("tls").port();
    let (url, resolve) = (format!("https://shop.example:{port}/"), format!("shop.example:{port}:127.0.0.1"));
    let ca = authority.file.to_str().unwrap();
    let ask = |more: &[&str]| {
        let said = ["-w", "%{http_version} %{http_code}", "--cacert", ca, "--resolve", &resolve];
        curl(&[&said[..], more, &[&url]].concat())
    };
    for (protocol, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for (host, status) in [("shop.example", 200), ("a.shop.example", 200), ("other.example", 421)] {
            let (code, text) = ask(&[protocol, "-H", &format!("Host: {host}")]);
            assert!(
                code == 0 && text.trim_end().ends_with(&format!("{version} {status}")),
                "{protocol} {host}: {text}"
            );
            let proto = text.contains("\nx-forwarded-proto: https\n")
                && text.contains("\nx-forwarded-for: 127.0.0.1\n");
            assert_eq!(proto, status == 200, "{protocol} {host}: {text}");
        }
    }
    let large = common::write(folder.path(), "large", &"x".repeat(3_000_000));
    let (code, text) = ask(&["--http2", "--data-binary", &format!("@{}", large.display())]);
    assert!(code == 0 && text.trim_end().ends_with("2 200"), "{text}");
}

#[test]
fn clients_prove_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, clients, others) = (
        Authority::new(folder.path(), "ca"),
        Authority::new(folder.path(), "clients"),
        Authority::new(folder.path(), "others"),
    );
    authority.issue("shop", "shop", &["shop.example"]);
    clients.issue("good", "good client", &["client.example"]);
    others.issue("bad", "bad client", &["client.example"]);
    let common_part =
        "protocol: https, certificates: [{cert: shop.pem, key: shop.key}], client_ca: clients.pem";
    let listeners = format!(
        "    - {{name: required, {common_part}, forward_client_certificate: summary}}\n    - {{name: optional, {common_part}, client_certificate: optional, forward_client_certificate: summary}}\n    - {{name: quiet, {common_part}}}"
    );
    let gateway = Gateway::start(folder.path(), &listeners, echo_server(), "");
    if !has("curl", "clients_prove_themselves") {
        return;
    }
    let ca = authority.file.to_str().unwrap();
    let ask = |listener: &str, who: Option<&str>, more: &[&str]| {
        let port = gateway.at(listener).port();
        let (url, resolve) =
            (format!("https://shop.example:{port}/"), format!("shop.example:{port}:127.0.0.1"));
        let path =
            |end: &str| folder.path().join(format!("{}.{end}", who.unwrap_or("none"))).display().to_string();
        let (cert, key) = (path("pem"), path("key"));
        let mut arguments = vec!["--cacert", ca, "--resolve", &resolve];
        if who.is_some() {
            arguments.extend(["--cert", &cert, "--key", &key]);
        }
        arguments.extend(more);
        arguments.push(&url);
        curl(&arguments)
    };
    for tls in [&["--tls-max", "1.2"][..], &[]] {
        for listener in ["required", "optional"] {
            let (code, text) = ask(listener, Some("good"), tls);
            assert!(
                code == 0 && text.contains("x-forwarded-client-cert: Hash="),
                "{listener} {tls:?}: {text}"
            );
            assert!(text.contains(";Subject=\"CN=good client\";DNS=client.example\n"), "{listener}: {text}");
            let (code, text) = ask(listener, Some("bad"), tls);
            assert_ne!(code, 0, "{listener} {tls:?}: {text}");
        }
        let (code, text) = ask("required", None, tls);
        assert_ne!(code, 0, "{tls:?}: {text}");
        let (code, text) =
            ask("optional", None, &[tls, &["-H", "X-Forwarded-Client-Cert: Hash=forged"]].concat());
        assert!(code == 0 && !text.to_lowercase().contains("client-cert"), "{tls:?}: {text}");
    }
    let (code, text) = ask("quiet", Some("good"), &[]);
    assert!(code == 0 && !text.contains("client-cert"), "{text}");
}

#[test]
fn files_change_under_load_and_nobody_notices_but_new_connections() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let old = authority.issue("shop", "old", &["shop.example"]);
    let listeners = "    - {name: tls, protocol: https, certificates: [{cert: shop.pem, key: shop.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let (config, at) = (client(&authority.file), gateway.at("tls"));
    let mut standing = shake_hands(&config, at, "shop.example").unwrap();
    assert!(ask(&mut standing, "shop.example").unwrap().starts_with("HTTP/1.1 200 "));
    // New connections, one after another, through all that follows.
    let (over, made, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let presented = || {
        let stream = shake_hands(&config, at, "shop.example").unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let asked = shake_hands(&config, at, "shop.example")
                        .and_then(|mut stream| ask(&mut stream, "shop.example"));
                    let good = asked.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
                    (if good { &made } else { &failed }).fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for = |what: &str, wanted: &[u8]| {
            let end = Instant::now() + SOON;
            while presented() != wanted {
                assert!(Instant::now() < end, "{what}: not presented in time");
                thread::sleep(Duration::from_millis(50));
            }
        };
        assert_eq!(presented(), old);
        let new = authority.issue("shop", "new", &["shop.example"]);
        wait_for("the new pair", &new);
        // A certificate without its key, and files that are none, change nothing.
        let key = std::fs::read(folder.path().join("shop.key")).unwrap();
        let next = authority.issue("shop", "newest", &["shop.example"]);
        let newest_key = std::fs::read(folder.path().join("shop.key")).unwrap();
        std::fs::write(folder.path().join("shop.key"), &key).unwrap();
        thread::sleep(Duration::from_secs(3));
        assert_eq!(presented(), new, "a key that is not the certificate's");
        std::fs::write(folder.path().join("shop.key"), "no key").unwrap();
        thread::sleep(Duration::from_secs(3));
        assert_eq!(presented(), new, "no key at all");
        std::fs::remove_file(folder.path().join("shop.key")).unwrap();
        thread::sleep(Duration::from_secs(3));
        assert_eq!(presented(), new, "no file at all");
        std::fs::write(folder.path().join("shop.key"), &newest_key).unwrap();
        wait_for("the newest pair", &next);
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {} connections", made.load(Ordering::Relaxed));
    assert!(made.load(Ordering::Relaxed) > 50, "{made:?}");
    // The connection that stood before all of it stands still.
    assert!(ask(&mut standing, "shop.example").unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_gateway_does_not_start_with_files_that_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("a", "a", &["a.example"]);
    authority.issue("b", "b", &["b.example"]);
    for (cert, key, says) in
        [("a.pem", "b.key", "b.key"), ("a.pem", "nowhere.key", "nowhere.key"), ("a.key", "a.key", "a.key")]
    {
        let text = format!(
            "mesh: m\ngateway:\n  listeners: [{{protocol: https, certificates: [{{cert: {cert}, key: {key}}}]}}]\n  routes: [{{to: web}}]\nservices: {{web: {{endpoints: [\"127.0.0.1:1\"]}}}}\n"
        );
        let file = common::write(folder.path(), "mesh.yaml", &text);
        let output = common::run(common::leno().args(["proxy", "--role", "gateway", "--file"]).arg(file));
        let error = common::stderr(&output);
        assert!(!output.status.success() && error.contains(says), "{cert} {key}: {error}");
    }
}

#[test]
fn strangers_in_the_middle_of_a_handshake_are_bounded_and_do_not_disturb() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "shop", &["shop.example"]);
    let listeners = "    - {name: tls, protocol: https, certificates: [{cert: shop.pem, key: shop.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let (config, at) = (client(&authority.file), gateway.at("tls"));
    // Silent ones, ones with half a hello, ones that speak something else, ones that are gone again.
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = connect(at);
        match number % 4 {
            0 => {}
            1 => stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap(),
            2 => stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap(),
            _ => {
                drop(stream);
                continue;
            }
        }
        held.push(stream);
    }
    let mut stream = shake_hands(&config, at, "shop.example").unwrap();
    assert!(ask(&mut stream, "shop.example").unwrap().starts_with("HTTP/1.1 200 "));
    // Those that said nothing useful are cut by the deadline, not kept.
    for mut stream in held {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    let metrics = gateway.metrics();
    assert!(metrics.contains("tls_handshake_timeout"), "{metrics}");
    assert!(ask(&mut stream, "shop.example").unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_hello_in_many_small_pieces_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "shop", &["shop.example"]);
    let listeners = "    - {name: tls, protocol: https, certificates: [{cert: shop.pem, key: shop.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let config = client(&authority.file);
    let mut connection =
        ClientConnection::new(config, ServerName::try_from("shop.example").unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut socket = connect(gateway.at("tls"));
    socket.set_nodelay(true).unwrap();
    for byte in &hello {
        socket.write_all(&[*byte]).unwrap();
    }
    connection.complete_io(&mut socket).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    assert!(ask(&mut stream, "shop.example").unwrap().starts_with("HTTP/1.1 200 "));
}

/// The commands at the top of the example, and what they show.
#[test]
fn the_example_works_as_it_says() {
    let test = "the_example_works_as_it_says";
    if ["openssl", "curl", "python3"].iter().any(|program| !has(program, test)) {
        return;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gateway/mesh.yaml");
    let mut text = std::fs::read_to_string(example).unwrap();
    let certificate = text.lines().skip_while(|line| !line.contains("openssl req")).take(2);
    let commands: String =
        certificate.map(|line| line.trim_start_matches('#').trim().trim_end_matches('\\')).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("certs")).unwrap();
    let made = common::run(Command::new("sh").arg("-c").arg(&commands).current_dir(folder.path()));
    assert!(made.status.success(), "{commands}: {}", common::stderr(&made));
    let ports: Vec<(&str, String)> = ["8080", "8443", "8081", "9443", "6380", "9001"]
        .map(|port| (port, common::free_port().to_string()))
        .into();
    for (port, free) in &ports {
        text = text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{free}"));
    }
    let port = |port: &str| ports.iter().find(|(old, _)| *old == port).unwrap().1.clone();
    std::fs::write(folder.path().join("hello.txt"), "hello from the example\n").unwrap();
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", "--bind", "127.0.0.1", &port("9001")]).current_dir(folder.path());
    let _server = common::Running::start(server.stderr(Stdio::null()));
    common::until("the service listens", SOON, || common::listens(port("9001").parse().unwrap()));
    let _gateway = Gateway::start_file(folder.path(), &text);
    let (plain, secure) = (port("8080"), port("8443"));
    let ca = folder.path().join("certs/shop.pem").display().to_string();
    let (a, b) = (format!("shop.example:{plain}:127.0.0.1"), format!("shop.example:{secure}:127.0.0.1"));
    let url = format!("http://shop.example:{plain}/hello.txt");
    let (code, text) = curl(&["-L", "--cacert", &ca, "--resolve", &a, "--resolve", &b, &url]);
    assert_eq!((code, &*text), (0, "hello from the example\n"));
}
