//! HTTP/1.1 through real proxies on loopback: what one hop, and a pair of sidecars with mutual TLS between them, must
//! pass on, and what they must refuse. Both ends are raw sockets in this file: no library repairs what is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod origin;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::{Running, free_port, leno, until};
use origin::{Origin, dechunk, fill_until, pattern};

/// For anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// More than all buffers between an application and a client hold.
pub(crate) const HUGE_BYTES: u64 = 1 << 40;

/// Proxies between a client and an [`Origin`].
struct Way {
    name: &'static str,
    address: SocketAddr,
    origin: Origin,
    /// Killed when the test is done.
    _proxies: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Way {
    /// One proxy, plain on both sides.
    fn single() -> Self {
        let (origin, folder, port) = (Origin::start(), tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /, to: web}}\n\
             services:\n  web:\n    endpoints: [\"{}\"]\n",
            origin.address
        );
        std::fs::write(&file, text).unwrap();
        let proxy = proxy(&file, "gateway", None);
        Self {
            name: "one hop",
            address: ([127, 0, 0, 1], port).into(),
            origin,
            _proxies: vec![proxy],
            _folder: folder,
        }
    }

    /// A client's and a server's sidecar with mutual TLS between them.
    fn pair() -> Self {
        let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
        let [out, mesh, own, app] = [free_port(), free_port(), free_port(), free_port()];
        let file = folder.path().join("mesh.yaml");
        let text = format!(
            "mesh: pair\nservices:\n  client:\n    calls: [server]\n    health: none\n    instances:\n\
             \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{server: {out}}}}}\n\
             \x20 server:\n    protocol: http\n    health: none\n    instances:\n\
             \x20     - {{name: server, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
            origin.address
        );
        std::fs::write(&file, text).unwrap();
        let identity = folder.path().join("identity");
        let proxies = ["server", "client"].map(|role| proxy(&file, role, Some(&identity)));
        Self {
            name: "a pair",
            address: ([127, 0, 0, 1], out).into(),
            origin,
            _proxies: proxies.into(),
            _folder: folder,
        }
    }

    /// Sends raw bytes and reads until the proxy closes.
    fn talk(&self, request: &[u8]) -> String {
        String::from_utf8_lossy(&self.talk_bytes(request)).into_owned()
    }

    fn talk_bytes(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The proxy may refuse before it has read everything.
        stream.write_all(request).ok();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                answer.extend_from_slice(b"<reset>");
                answer
            }
            Err(error) => panic!("{}: {error} after {:?}", self.name, String::from_utf8_lossy(&answer)),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A request that asks to close, for [`Way::talk`].
    fn get(&self, path: &str) -> String {
        self.talk(format!("GET {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").as_bytes())
    }
}

fn proxy(file: &Path, role: &str, identity: Option<&Path>) -> Running {
    let mut command = leno();
    command.args(["proxy", "--role", role, "--workers", "1", "--admin", "127.0.0.1:0", "--file"]).arg(file);
    if let Some(identity) = identity {
        command.arg("--identity").arg(identity);
    }
    let running = Running::start(command.stderr(Stdio::inherit()));
    running.event("ready", SOON);
    running
}

/// Runs a test once for each way.
fn each(test: impl Fn(&Way)) {
    test(&Way::single());
    test(&Way::pair());
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}")).1
}

#[test]
fn every_framing_of_a_response_arrives_whole() {
    each(|way| {
        let plain = way.get("/plain");
        assert!(plain.starts_with("HTTP/1.1 200 OK\r\n"), "{}: {plain}", way.name);
        assert_eq!(body(&plain), "hello");
        let chunked = way.get("/chunked");
        let lower = chunked.to_lowercase();
        assert!(lower.contains("\r\ntransfer-encoding: chunked\r\n"), "{}: {chunked}", way.name);
        assert_eq!(dechunk(body(&chunked).as_bytes()), b"hello world", "{}", way.name);
        assert!(lower.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{}: trailers: {chunked}", way.name);
        assert!(!lower.contains("ext=1"), "{}: chunk extensions go no further", way.name);
        let until_close = way.get("/close");
        assert_eq!(dechunk(body(&until_close).as_bytes()), b"until the end", "{}", way.name);
        for status in ["204", "304"] {
            let answer = way.get(&format!("/{status}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", way.name);
            assert_eq!(body(&answer), "", "{}", way.name);
        }
    });
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    each(|way| {
        let answer = way.talk(b"GET /chunked HTTP/1.0\r\nHost: server\r\n\r\n");
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "{}: {answer}", way.name);
        assert_eq!(body(&answer), "hello world", "{}", way.name);
    });
}

#[test]
fn an_http_1_0_client_needs_no_host() {
    each(|way| {
        let answer = way.talk(b"GET /plain HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", way.name);
        assert_eq!(body(&answer), "hello", "{}", way.name);
    });
}

#[test]
fn a_tunnel_through_the_proxy_is_refused_with_its_reason() {
    each(|way| {
        let answer = way.talk(b"CONNECT server:80 HTTP/1.1\r\nHost: server:80\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 501 "), "{}: {answer}", way.name);
        assert!(answer.contains("leno-reason: unsupported"), "{}: {answer}", way.name);
    });
}

#[test]
fn head_has_a_length_and_no_body() {
    each(|way| {
        let answer =
            way.talk(b"HEAD /plain HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").to_lowercase();
        assert!(answer.contains("\r\ncontent-length: 5\r\n"), "{}: {answer}", way.name);
        assert_eq!(body(&answer), "", "{}", way.name);
    });
}

#[test]
fn bodies_go_up_in_both_framings() {
    each(|way| {
        let length = way.talk(
            b"POST /echo HTTP/1.1\r\nHost: server\r\nContent-Length: 11\r\nConnection: close\r\n\r\nhello there",
        );
        assert_eq!(body(&length), "hello there", "{}", way.name);
        let chunked = way.talk(
            b"POST /echo HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
              6\r\nhello \r\n5\r\nthere\r\n0\r\n\r\n",
        );
        assert_eq!(body(&chunked), "hello there", "{}", way.name);
    });
}

#[test]
fn megabytes_arrive_unchanged_both_ways() {
    each(|way| {
        let down = way.talk_bytes(b"GET /big HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
        let start = down.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(down[start..] == pattern(3_000_000)[..], "{}: {} bytes", way.name, down.len() - start);
        let payload = pattern(1_500_000);
        let mut request = format!(
            "POST /echo HTTP/1.1\r\nHost: server\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            payload.len()
        )
        .into_bytes();
        request.extend_from_slice(&payload);
        let echoed = way.talk_bytes(&request);
        let start = echoed.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(echoed[start..] == payload[..], "{}: {} bytes", way.name, echoed.len() - start);
    });
}

#[test]
fn expect_continue_waits_for_the_application() {
    each(|way| {
        let mut stream = way.connect();
        stream
            .write_all(
                b"POST /continue HTTP/1.1\r\nHost: server\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\
                  Connection: close\r\n\r\n",
            )
            .unwrap();
        let mut read = Vec::new();
        fill_until(&mut stream, &mut read, b"100 Continue\r\n\r\n")
            .unwrap_or_else(|| panic!("{}: {:?}", way.name, String::from_utf8_lossy(&read)));
        stream.write_all(b"data").unwrap();
        stream.read_to_end(&mut read).unwrap();
        assert!(String::from_utf8_lossy(&read).ends_with("\r\n\r\ndata"), "{}", way.name);
    });
}

#[test]
fn an_expectation_reaches_the_application() {
    each(|way| {
        let mut stream = way.connect();
        stream
            .write_all(
                b"POST /expect HTTP/1.1\r\nHost: server\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\
                  Connection: close\r\n\r\n",
            )
            .unwrap();
        let mut read = Vec::new();
        fill_until(&mut stream, &mut read, b"100 Continue\r\n\r\n")
            .unwrap_or_else(|| panic!("{}: {:?}", way.name, String::from_utf8_lossy(&read)));
        stream.write_all(b"data").unwrap();
        stream.read_to_end(&mut read).unwrap();
        assert!(String::from_utf8_lossy(&read).ends_with("\r\n\r\ndata"), "{}", way.name);
    });
}

#[test]
fn interim_responses_are_passed_on() {
    each(|way| {
        let answer = way.get("/early");
        assert!(answer.starts_with("HTTP/1.1 103 "), "{}: {answer}", way.name);
        assert!(answer.ends_with("\r\n\r\nok"), "{}: {answer}", way.name);
    });
}

#[test]
fn interim_responses_without_end_are_no_answer() {
    each(|way| {
        let answer = way.get("/babble");
        assert!(answer.contains("HTTP/1.1 502 "), "{}: {:?}", way.name, &answer[..answer.len().min(200)]);
        assert!(answer.contains("leno-reason: upstream_malformed"), "{}: {answer}", way.name);
    });
}

#[test]
fn requests_may_be_sent_ahead() {
    each(|way| {
        let one = "GET /plain HTTP/1.1\r\nHost: server\r\n\r\n";
        let last = "GET /plain HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
        let answers = way.talk(format!("{one}{one}{last}").as_bytes());
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{}: {answers}", way.name);
    });
}

#[test]
fn an_upgraded_connection_is_a_tunnel_with_two_halves() {
    each(|way| {
        let mut stream = way.connect();
        stream
            .write_all(
                b"GET /upgrade HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )
            .unwrap();
        let mut read = Vec::new();
        let end =
            fill_until(&mut stream, &mut read, b"\r\n\r\n").unwrap_or_else(|| panic!("{}: no 101", way.name));
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        assert!(
            head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: echo"),
            "{}: {head}",
            way.name
        );
        read.drain(..end);
        for word in [&b"one"[..], b"two", b"\0\xff"] {
            stream.write_all(word).unwrap();
            fill_until(&mut stream, &mut read, word).unwrap_or_else(|| panic!("{}: no echo", way.name));
            read.clear();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"bye", "{}: the other half stays open", way.name);
    });
}

#[test]
fn a_tunnel_ends_for_the_application_when_its_client_is_reset() {
    each(|way| {
        let mut stream = way.connect();
        stream
            .write_all(
                b"GET /upgrade HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )
            .unwrap();
        let mut read = Vec::new();
        fill_until(&mut stream, &mut read, b"\r\n\r\n").unwrap_or_else(|| panic!("{}: no 101", way.name));
        stream.write_all(b"one").unwrap();
        stream.peek(&mut [0]).unwrap();
        // Closing with something unread is a reset.
        drop(stream);
        until(&format!("{}: the application is told", way.name), SOON / 2, || {
            way.origin.seen().iter().any(|seen| seen == "the tunnel ended")
        });
    });
}

#[test]
fn an_offer_that_no_hop_could_pass_on_is_served_without_it() {
    each(|way| {
        for offer in ["a b", "websocket, h2c", "a/b/c"] {
            let request = format!(
                "GET /plain HTTP/1.1\r\nHost: server\r\nConnection: upgrade, close\r\nUpgrade: {offer}\r\n\r\n"
            );
            let answer = way.talk(request.as_bytes());
            assert_eq!(body(&answer), "hello", "{} {offer}: {answer}", way.name);
        }
    });
}

#[test]
fn fields_of_one_hop_stay_there() {
    each(|way| {
        let answer = way.talk(
            b"GET /hop HTTP/1.1\r\nHost: server\r\nConnection: close, x-private\r\nx-private: 1\r\n\
              Keep-Alive: timeout=1\r\nProxy-Authorization: basic x\r\nTE: trailers\r\nx-public: 2\r\n\r\n",
        );
        let lower = answer.to_lowercase();
        assert!(lower.contains("x-kept: 2") && !lower.contains("x-secret"), "{}: {answer}", way.name);
        assert!(!lower.contains("keep-alive"), "{}: {answer}", way.name);
        let seen = way.origin.seen().last().unwrap().to_lowercase();
        assert!(seen.contains("x-public: 2") && !seen.contains("x-private"), "{}: {seen}", way.name);
        assert!(
            !seen.contains("proxy-authorization") && !seen.contains("keep-alive:"),
            "{}: {seen}",
            way.name
        );
        assert!(seen.contains("x-request-id: "), "{}: {seen}", way.name);
        assert_eq!(seen.matches("host: ").count(), 1, "{}: {seen}", way.name);
    });
}

#[test]
fn a_response_that_is_cut_is_seen_to_be_cut() {
    each(|way| {
        let answer = way.get("/cut");
        assert!(answer.ends_with("<reset>"), "{}: {answer:?}", way.name);
    });
}

#[test]
fn a_cut_is_seen_where_only_the_end_of_the_connection_ends_a_body() {
    each(|way| {
        let answer =
            way.talk(b"POST /early-cut HTTP/1.0\r\nHost: server\r\nContent-Length: 100\r\n\r\nnot all yet");
        assert!(answer.ends_with("<reset>"), "{}: {answer:?}", way.name);
    });
}

#[test]
fn a_first_burst_is_served_over_a_connection_that_is_not_there_yet() {
    each(|way| {
        let mut clients: Vec<TcpStream> = (0..400).map(|_| way.connect()).collect();
        for client in &mut clients {
            client.write_all(b"GET /plain HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").unwrap();
        }
        for (at, mut client) in clients.into_iter().enumerate() {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{} {at}: {answer}", way.name);
        }
    });
}

#[test]
fn a_long_head_may_be_the_first_of_its_connection() {
    each(|way| {
        let long = "a".repeat(40_000);
        let answer = way.talk(
            format!("GET /plain HTTP/1.1\r\nHost: server\r\nx-long: {long}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", way.name);
    });
}

#[test]
fn a_service_of_another_namespace_is_called_by_a_host_name() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let [out, mesh, own, app] = [free_port(), free_port(), free_port(), free_port()];
    let file = folder.path().join("mesh.yaml");
    let text = format!(
        "mesh: pair\nservices:\n  client:\n    calls: [team/server]\n    health: none\n    instances:\n\
         \x20     - {{name: client, port: {app}, mesh: \"127.0.0.1:{own}\", outbound: {{team/server: {out}}}}}\n\
         \x20 team/server:\n    health: none\n    instances:\n\
         \x20     - {{name: server, address: \"{}\", mesh: \"127.0.0.1:{mesh}\"}}\n",
        origin.address
    );
    std::fs::write(&file, text).unwrap();
    let identity = folder.path().join("identity");
    let _proxies = ["team/server", "client"].map(|role| proxy(&file, role, Some(&identity)));
    let mut stream = TcpStream::connect(("127.0.0.1", out)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = origin.seen().join("");
    assert!(seen.contains("\r\nHost: server.team\r\n"), "{seen}");
}

#[test]
fn clients_that_do_not_read_do_not_stop_others() {
    each(|way| {
        let stalled: Vec<TcpStream> = (0..40)
            .map(|_| {
                let mut client = way.connect();
                client.write_all(b"GET /huge HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
                client.peek(&mut [0]).unwrap();
                client
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        let answer = way.get("/plain");
        assert!(answer.starts_with("HTTP/1.1 200 ") && body(&answer) == "hello", "{}: {answer}", way.name);
        drop(stalled);
    });
}

#[test]
fn an_answer_during_a_drain_says_that_it_is_the_last() {
    let way = Way::single();
    let mut stream = way.connect();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: server\r\n\r\n").unwrap();
    until("the request is there", SOON, || !way.origin.seen().is_empty());
    way._proxies[0].signal(rustix::process::Signal::TERM);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(body(&answer), "hello");
}

#[test]
fn a_gateway_replaces_what_a_client_says_of_itself() {
    let way = Way::single();
    way.talk(
        b"GET /plain HTTP/1.1\r\nHost: server\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\
          Connection: close\r\n\r\n",
    );
    let seen = way.origin.seen().join("");
    assert!(seen.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    assert_eq!(seen.to_lowercase().matches("x-forwarded-for").count(), 1, "{seen}");
}

#[test]
fn a_response_that_is_not_http_is_a_502_with_its_reason() {
    each(|way| {
        for path in ["/garbage", "/two-lengths"] {
            let answer = way.get(path);
            assert!(answer.starts_with("HTTP/1.1 502 "), "{} {path}: {answer}", way.name);
            assert!(answer.contains("leno-reason: upstream_malformed"), "{} {path}: {answer}", way.name);
        }
    });
}

#[test]
fn an_application_that_does_not_listen_is_a_503_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (port, nobody) = (free_port(), free_port());
    let file = folder.path().join("mesh.yaml");
    let text = format!(
        "mesh: hop\ngateway:\n  listen: 127.0.0.1:{port}\n  routes:\n    - {{path: /web, to: web}}\n\
         services:\n  web:\n    endpoints: [\"127.0.0.1:{nobody}\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let _proxy = proxy(&file, "gateway", None);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
            .write_all(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let refused = ask("/web");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("leno-reason: connect_failed") && refused.contains("tried web-1"), "{refused}");
    let no_route = ask("/other");
    assert!(
        no_route.starts_with("HTTP/1.1 404 ") && no_route.contains("leno-reason: no_route"),
        "{no_route}"
    );
}

#[test]
fn what_is_not_http_is_refused_and_never_forwarded() {
    each(|way| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../leno-core/tests/http1/malformed");
        let mut cases = 0;
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // A comment says what the file is; the bytes follow it.
            let file = std::fs::read(&path).unwrap();
            let marker = b"# --\n";
            let at = file.windows(marker.len()).position(|window| window == marker).unwrap() + marker.len();
            if !file.starts_with(b"# request") {
                continue;
            }
            cases += 1;
            let before = way.origin.seen().len();
            let mut stream = way.connect();
            stream.write_all(&file[at..]).ok();
            // Some of them are incomplete: no more will come.
            stream.shutdown(Shutdown::Write).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
            // The preface of HTTP/2 is a beginning of that: it is answered by SETTINGS.
            let settings = answer.get(3) == Some(&4) && name.starts_with("http2_preface");
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let refused = answer.is_empty()
                || settings
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 501 ")
                || answer.starts_with("HTTP/1.1 505 ");
            assert!(refused, "{} {name}: {answer}", way.name);
            assert_eq!(way.origin.seen().len(), before, "{} {name} was forwarded", way.name);
        }
        assert!(cases >= 40, "{cases} cases");
    });
}

#[test]
fn a_body_that_breaks_off_or_breaks_the_rules_reaches_nobody_whole() {
    each(|way| {
        let answer = way.talk(
            b"POST /echo HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 400 "), "{}: {answer}", way.name);
        assert!(answer.contains("leno-reason: request_malformed"), "{}: {answer}", way.name);
    });
}

#[test]
fn many_fields_and_long_heads_are_431() {
    each(|way| {
        let many: String = (0..10_000).map(|at| format!("x-{at}: 1\r\n")).collect();
        let long = format!("x-long: {}\r\n", "a".repeat(1 << 20));
        for fields in [many, long] {
            let request = format!("GET / HTTP/1.1\r\nHost: server\r\n{fields}\r\n");
            let answer = way.talk(request.as_bytes());
            assert!(
                answer.starts_with("HTTP/1.1 431 "),
                "{}: {:?}",
                way.name,
                &answer[..answer.len().min(80)]
            );
        }
    });
}
