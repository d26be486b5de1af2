//! The PROXY protocol: believed from load balancers, refused from everybody else, and said to those who ask for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use crate::pki::Authority;
use crate::{Gateway, SOON, connect, curl, echo_server, has, tcp_echo_server};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 80\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x08\xc6\x33\x64\x01\x04\xd2\x00\x50\x03\x00\x00";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Everything that comes back for these pieces; nothing when the connection is refused.
fn say(at: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = connect(at);
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        // The other end may have refused what came before.
        if stream.write_all(piece).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_load_balancer_says_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = "    - {name: trusting, proxy_protocol: [10.0.0.0/8, 127.0.0.0/8]}\n    - {name: chain, proxy_protocol: 127.0.0.1, forwarded_hops: 1}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let at = gateway.at("trusting");
    let bytewise: Vec<&[u8]> = V2.chunks(1).collect();
    for (pieces, client) in [
        (vec![V1, REQUEST], "192.0.2.7"),
        (vec![&*[V1, REQUEST].concat()], "192.0.2.7"),
        (vec![V2, REQUEST], "192.0.2.8"),
        ([&bytewise[..], &[REQUEST]].concat(), "192.0.2.8"),
        (vec![&V1[..9], &V1[9..20], &V1[20..], &REQUEST[..5], &REQUEST[5..]], "192.0.2.7"),
        (vec![b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", REQUEST], "2001:db8::1"),
        // It speaks for itself.
        (vec![LOCAL, REQUEST], "127.0.0.1"),
        (vec![b"PROXY UNKNOWN\r\n", REQUEST], "127.0.0.1"),
    ] {
        let answer = say(at, &pieces);
        assert!(answer.contains(&format!("\r\nx-forwarded-for: {client}\r\n")), "{pieces:?}: {answer}");
    }
    let more = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n";
    let answer = say(gateway.at("chain"), &[V1, more]);
    assert!(answer.contains("\r\nx-forwarded-for: 10.0.0.1, 192.0.2.7\r\n"), "{answer}");
}

#[test]
fn headers_are_refused_where_they_are_not_allowed_or_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = "    - {name: trusting, proxy_protocol: 127.0.0.1}\n    - {name: others, proxy_protocol: 10.0.0.0/8}\n    - {name: none}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    // From an address that may not: with a header and without one.
    for pieces in [&[V1, REQUEST][..], &[V2, REQUEST], &[REQUEST]] {
        assert_eq!(say(gateway.at("others"), pieces), "", "{pieces:?}");
    }
    // From one that has to: without one, or with something like it.
    let long = [&b"PROXY UNKNOWN "[..], &[b'a'; 200], b"\r\n"].concat();
    let endless = [&V2[..14], &[0xff, 0xff], &[0; 5000]].concat();
    for pieces in [
        &[REQUEST][..],
        &[b"PROXY TCP4 192.0.2.7 198.51.100.1 1234\r\n", REQUEST],
        &[b"PROXY TCP4 192.0.2.777 198.51.100.1 1234 80\r\n", REQUEST],
        &[b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c0123456789ab", REQUEST],
        &[&long, REQUEST],
        &[&endless, REQUEST],
        // Two of them: the second is no request.
        &[b"PROXY TCP4 192.0.2.7\n"],
    ] {
        assert_eq!(say(gateway.at("trusting"), pieces), "", "{pieces:?}");
    }
    // Where nobody sends one it is what it looks like: no HTTP.
    assert!(say(gateway.at("none"), &[V1, REQUEST]).starts_with("HTTP/1.1 400 "));
    let second = say(gateway.at("trusting"), &[V1, V1, REQUEST]);
    assert!(second.starts_with("HTTP/1.1 400 "), "{second}");
    let metrics = gateway.metrics();
    assert!(metrics.contains("proxy_untrusted") && metrics.contains("proxy_header"), "{metrics}");
}

#[test]
fn the_header_comes_before_tls() {
    if !has("curl", "the_header_comes_before_tls") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    authority.issue("shop", "shop", &["shop.example"]);
    let listeners = "    - {name: tls, protocol: https, proxy_protocol: 127.0.0.1, certificates: [{cert: shop.pem, key: shop.key}]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let port = gateway.at("tls").port();
    let (url, resolve) = (format!("https://shop.example:{port}/"), format!("shop.example:{port}:127.0.0.1"));
    let ca = authority.file.to_str().unwrap();
    // curl says that it is itself.
    let (code, text) = curl(&["--haproxy-protocol", "--cacert", ca, "--resolve", &resolve, &url]);
    assert!(code == 0 && text.contains("\nx-forwarded-for: 127.0.0.1\n"), "{code} {text}");
    let (code, text) = curl(&["--cacert", ca, "--resolve", &resolve, &url]);
    assert_eq!(code, 35, "{text}");
}

#[test]
fn services_that_ask_for_it_are_told_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let (told, tell) = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, receiver) = mpsc::channel();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
                let _ = stream.write_all(b"seen");
                if sender.send(all).is_err() {
                    return;
                }
            }
        });
        (receiver, at)
    };
    let more = format!(
        "  one:\n    protocol: tcp\n    send_proxy: v1\n    endpoints: [\"{tell}\"]\n  two:\n    protocol: tcp\n    send_proxy: v2\n    endpoints: [\"{tell}\"]\n  plain:\n    protocol: tcp\n    endpoints: [\"{}\"]\n",
        tcp_echo_server()
    );
    let listeners = "    - {name: web}\n    - {name: one, protocol: tcp, to: one}\n    - {name: two, protocol: tcp, to: two, proxy_protocol: 127.0.0.1}\n    - {name: plain, protocol: tcp, to: plain, proxy_protocol: 127.0.0.1}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), &more);
    let through = |listener: &str, words: &[&[u8]]| {
        let mut stream = connect(gateway.at(listener));
        let own = stream.local_addr().unwrap();
        for word in words {
            stream.write_all(word).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        (own, back)
    };
    let (own, back) = through("one", &[b"hello"]);
    assert_eq!(back, "seen");
    let at = gateway.at("one").port();
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {at}\r\nhello", own.port());
    assert_eq!(String::from_utf8(told.recv_timeout(SOON).unwrap()).unwrap(), expected);
    // From one PROXY header to the next: the client at the very front.
    through("two", &[V1, b"hello"]);
    let seen = told.recv_timeout(SOON).unwrap();
    assert_eq!(&seen[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", "{seen:?}");
    assert_eq!(&seen[16..], b"\xc0\x00\x02\x07\xc6\x33\x64\x01\x04\xd2\x00\x50hello", "{seen:?}");
    // Who does not ask for it gets the client's bytes and nothing else.
    assert_eq!(through("plain", &[V1, b"hello"]).1, "hello");
}
