//! Plain HTTP: hosts, redirects, whom to believe about where a request came from.

use crate::{Gateway, connect, curl, echo_server, exchange, has};
use std::io::{Read as _, Write as _};

fn get(host: &str, more: &str) -> Vec<u8> {
    format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").into_bytes()
}

#[test]
fn each_listener_serves_its_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = "    - {name: any}\n    - {name: some, hosts: [shop.example, \"*.shop.example\"]}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    for (listener, host, status) in [
        ("any", "whatever", "200"),
        ("some", "shop.example", "200"),
        ("some", "SHOP.example:80", "200"),
        ("some", "a.b.shop.example", "200"),
        ("some", "other.example", "404"),
        ("some", "shop.example.evil", "404"),
    ] {
        let answer = exchange(gateway.at(listener), &get(host, ""));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{listener} {host}: {answer}");
        assert_eq!(answer.contains("leno-reason: no_route"), status == "404", "{answer}");
    }
}

#[test]
fn a_redirect_keeps_host_path_and_method() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = "    - {name: standard, redirect: 443}\n    - {name: own, redirect: 8443, hosts: shop.example}\n    - {name: any}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let answer = exchange(gateway.at("standard"), &get("shop.example:80", ""));
    assert!(answer.starts_with("HTTP/1.1 301 Moved Permanently\r\n"), "{answer}");
    assert!(answer.contains("\r\nlocation: https://shop.example/a?b=c\r\n"), "{answer}");
    assert!(answer.contains("\r\nleno-reason: https_only\r\n"), "{answer}");
    let post = b"POST /x HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = exchange(gateway.at("own"), post);
    assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
    assert!(answer.contains("\r\nlocation: https://shop.example:8443/x\r\n"), "{answer}");
    // A host that is not served is not sent anywhere.
    let answer = exchange(gateway.at("own"), &get("evil.example", ""));
    assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("location"), "{answer}");
    // The connection is not the worse for it.
    let mut stream = connect(gateway.at("standard"));
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = [0; 2000];
        let bytes = stream.read(&mut answer).unwrap();
        assert!(answer[..bytes].starts_with(b"HTTP/1.1 301 "));
    }
    if has("curl", "a_redirect_keeps_host_path_and_method") {
        let url = format!("http://{}/p", gateway.at("standard"));
        let (_, text) = curl(&["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]);
        assert_eq!(text.trim_end(), "301 https://127.0.0.1/p");
    }
}

#[test]
fn what_a_client_says_of_itself_is_believed_as_far_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let listeners =
        "    - {name: none}\n    - {name: one, forwarded_hops: 1}\n    - {name: two, forwarded_hops: 2}";
    let gateway = Gateway::start(folder.path(), listeners, echo_server(), "");
    let claims = "X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nX-Forwarded-For: 10.0.0.3\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: forged\r\nForwarded: for=forged\r\nX-Forwarded-Client-Cert: Hash=forged\r\n";
    for (listener, chain, proto) in [
        ("none", "127.0.0.1", "http"),
        ("one", "10.0.0.3, 127.0.0.1", "https"),
        ("two", "10.0.0.2, 10.0.0.3, 127.0.0.1", "https"),
    ] {
        let answer = exchange(gateway.at(listener), &get("a", claims));
        assert!(answer.contains(&format!("\r\nx-forwarded-for: {chain}\r\n")), "{listener}: {answer}");
        assert!(answer.contains(&format!("\r\nx-forwarded-proto: {proto}\r\n")), "{listener}: {answer}");
        assert!(!answer.contains("Hash=forged"), "{listener}: {answer}");
        assert_eq!(answer.contains("forged"), listener != "none", "{listener}: {answer}");
        assert_eq!(answer.to_lowercase().matches("x-forwarded-for").count(), 1, "{answer}");
    }
    let bare = exchange(gateway.at("two"), &get("a", ""));
    assert!(bare.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{bare}");
}
