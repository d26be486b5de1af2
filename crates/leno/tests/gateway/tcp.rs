//! Connections that pass: TLS by the name that is asked for, and bytes.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use crate::common::Running;
use crate::pki::Authority;
use crate::{Gateway, SOON, common, connect, curl, echo_server, has, tcp_echo_server};

#[test]
fn bytes_pass_to_a_service_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!("  db:\n    protocol: tcp\n    endpoints: [\"{}\"]\n", tcp_echo_server());
    let gateway = Gateway::start(
        folder.path(),
        "    - {name: web}\n    - {name: db, protocol: tcp, to: db}",
        echo_server(),
        &more,
    );
    let mut stream = connect(gateway.at("db"));
    // What would be HTTP elsewhere is bytes here.
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut back = [0; 18];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"GET / HTTP/1.1\r\n\r\n");
    let large: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = large.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == large);
}

#[test]
fn redis_is_served_through_a_tcp_listener() {
    if !has("redis-server", "redis_is_served_through_a_tcp_listener")
        || !has("redis-cli", "redis_is_served_through_a_tcp_listener")
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = common::free_port();
    let mut redis = Command::new("redis-server");
    redis
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder.path());
    let _redis = Running::start(redis.stderr(Stdio::null()));
    common::until("redis listens", SOON, || common::listens(port));
    let more = format!("  db:\n    protocol: tcp\n    endpoints: [\"127.0.0.1:{port}\"]\n");
    let gateway = Gateway::start(
        folder.path(),
        "    - {name: web}\n    - {name: db, protocol: tcp, to: db}",
        echo_server(),
        &more,
    );
    let cli = |words: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &gateway.at("db").port().to_string()]).args(words);
        common::stdout(&common::run(&mut command)).trim().to_owned()
    };
    assert_eq!(cli(&["SET", "a", "through the gateway"]), "OK");
    assert_eq!(cli(&["GET", "a"]), "through the gateway");
}

#[test]
fn tls_passes_to_nginx_by_its_name_and_ends_there() {
    if !has("nginx", "tls_passes_to_nginx_by_its_name_and_ends_there")
        || !has("curl", "tls_passes_to_nginx_by_its_name_and_ends_there")
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "nginx", &["shop.example", "a.wild.example"]);
    let port = common::free_port();
    let at = folder.path().display().to_string();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error;\nevents {{}}\nhttp {{ access_log off;\n client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {at}/shop.pem; ssl_certificate_key {at}/shop.key;\n location / {{ return 200 \"nginx for $ssl_server_name\\n\"; }} }} }}\n"
    );
    let file = common::write(folder.path(), "nginx.conf", &text);
    let mut nginx = Command::new("nginx");
    let _nginx = Running::start(nginx.arg("-c").arg(&file).stderr(Stdio::null()));
    common::until("nginx listens", SOON, || common::listens(port));
    let more = format!("  site:\n    protocol: tcp\n    endpoints: [\"127.0.0.1:{port}\"]\n");
    let listeners = "    - {name: web}\n    - {name: pass, protocol: tls, sni: [{host: [shop.example, \"*.wild.example\"], to: site}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), &more);
    let pass = gateway.at("pass").port();
    let ask = |name: &str, more: &[&str]| {
        let resolve = format!("{name}:{pass}:127.0.0.1");
        let url = format!("https://{name}:{pass}/");
        curl(
            &[&["--cacert", authority.file.to_str().unwrap(), "--resolve", &resolve][..], more, &[&url]]
                .concat(),
        )
    };
    for name in ["shop.example", "a.wild.example"] {
        for tls in [&[][..], &["--tls-max", "1.2"]] {
            assert_eq!(ask(name, tls), (0, format!("nginx for {name}\n")));
        }
    }
    // A name that no route has is refused by an alert, not left waiting: curl says that TLS failed (35).
    let (code, text) = ask("other.example", &[]);
    assert_eq!(code, 35, "{text}");
    assert!(gateway.metrics().contains("unknown_server_name"), "{}", gateway.metrics());
    // Who does not speak TLS has no way in.
    let mut stream = connect(gateway.at("pass"));
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn tls_can_end_before_bytes() {
    if !has("openssl", "tls_can_end_before_bytes") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("db", "db", &["db.example"]);
    let more = format!("  db:\n    protocol: tcp\n    endpoints: [\"{}\"]\n", tcp_echo_server());
    let listeners = "    - {name: web}\n    - {name: db, protocol: tcp, to: db, certificates: [{cert: db.pem, key: db.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), &more);
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-quiet",
        "-verify_quiet",
        "-verify_return_error",
        "-servername",
        "db.example",
        "-connect",
    ]);
    command.arg(gateway.at("db").to_string()).arg("-CAfile").arg(&authority.file);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"over TLS\n").unwrap();
    let mut back = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
    assert_eq!(&back, b"over TLS\n");
    child.kill().unwrap();
    child.wait().unwrap();
}
