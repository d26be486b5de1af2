//! A chain of services of which the last one fails: only the sidecar next to it tries again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::common::free_port;
use crate::origin::{Fault, Origin};
use crate::{Way, proxy, status};

/// An application that calls the next service through its sidecar for each request, and fails when that does.
fn relay(next: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or("/");
                let mut call = TcpStream::connect(next).unwrap();
                write!(call, "GET {path} HTTP/1.1\r\nhost: leaf\r\nconnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                call.read_to_string(&mut answer).ok();
                let status = if status(&answer) == 200 { 200 } else { 500 };
                write!(stream, "HTTP/1.1 {status} So\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok();
            });
        }
    });
    address
}

#[test]
fn only_who_is_next_to_the_failure_tries_again() {
    let origin = Origin::start(2);
    let folder = tempfile::tempdir().unwrap();
    let [out, own, app, mesh, leaf] = [free_port(), free_port(), free_port(), free_port(), free_port()];
    let mid = relay(([127, 0, 0, 1], leaf).into());
    let text = format!(
        "mesh: chain\nservices:\n  client:\n    calls: [mid]\n    health: none\n    instances:\n\
         \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{mid: {out}}}}}\n\
         \x20 mid:\n    calls: [leaf]\n    health: none\n    retry: {{on: 5xx, backoff: 0}}\n    instances:\n\
         \x20     - {{name: mid, address: \"{mid}\", mesh: \"127.0.0.1:{mesh}\", outbound: {{leaf: {leaf}}}}}\n\
         \x20 leaf:\n    retry: {{on: 5xx, backoff: 0}}\n    retry_budget: {{percent: 10, per_second: 0}}\n\
         \x20   endpoints: [\"{}\", \"{}\"]\n",
        origin.addresses[0], origin.addresses[1]
    );
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, text).unwrap();
    let (identity, log) = (folder.path().join("identity"), folder.path().join("access.log"));
    let proxies = vec![
        proxy(&file, "mid", Some(&identity), &folder.path().join("mid.log")),
        proxy(&file, "client", Some(&identity), &log),
    ];
    let address = ([127, 0, 0, 1], out).into();
    let way =
        Way { name: "a chain", address, origin, log, _silent: vec![], _proxies: proxies, _folder: folder };

    // While the budget lasts, both try: three attempts at each of two tiers.
    let fails = vec![Fault::Answer(503, String::new()); 1_000];
    way.origin.fail(&fails);
    assert_eq!(status(&way.ask("GET", "/first", "", "")), 500);
    assert_eq!(way.origin.effects("/first"), 9);
    // Ten were saved up. Then it is spent, and whoever calls is told so.
    assert_eq!(status(&way.ask("GET", "/second", "", "")), 500);
    let answer = way.ask("GET", "/third", "", "");
    assert!(status(&answer) == 500 && answer.contains("leno-retried: 1"), "{answer}");
    assert_eq!(way.origin.effects("/third"), 1);
    let line = way.logged("/third");
    assert_eq!(line["attempts"][0]["retry"], "retried_deeper", "{line}");
    assert_eq!(line["attempts"].as_array().unwrap().len(), 1);
    // When it works again nobody is told anything.
    way.origin.fail(&[]);
    let answer = way.ask("GET", "/fourth", "", "");
    assert!(status(&answer) == 200 && !answer.contains("leno-retried"), "{answer}");
}
