//! h11 as a strict upstream: whatever Leno forwards is parsed again by somebody else, and must be one request with
//! the body that the client sent. What is malformed must not arrive at all.

use std::process::{Command, Stdio};

use crate::mesh::{Mesh, Process, exchange, free_address};

const SERVER: &str = r#"
import h11, json, socket, sys, threading

def serve(sock):
    conn = h11.Connection(h11.SERVER)
    def event():
        while True:
            e = conn.next_event()
            if e is not h11.NEED_DATA: return e
            conn.receive_data(sock.recv(65536))
    try:
        while True:
            request = event()
            if not isinstance(request, h11.Request): return
            body = b''
            while True:
                e = event()
                if isinstance(e, h11.Data): body += bytes(e.data)
                elif isinstance(e, h11.EndOfMessage): break
                else: return
            seen = {'method': request.method.decode(), 'target': request.target.decode(), 'body': body.decode('latin-1'),
                    'headers': sorted([n.decode(), v.decode('latin-1')] for n, v in request.headers)}
            text = json.dumps(seen).encode()
            for out in (h11.Response(status_code=200, headers=[('content-length', str(len(text)))]), h11.Data(data=text), h11.EndOfMessage()):
                sock.sendall(conn.send(out))
            if conn.our_state is h11.MUST_CLOSE: return
            conn.start_next_cycle()
    except h11.RemoteProtocolError as error:
        text = json.dumps({'h11 refuses': str(error)}).encode()
        sock.sendall(b'HTTP/1.1 418 Strict\r\ncontent-length: %d\r\nconnection: close\r\n\r\n' % len(text) + text)
    finally:
        sock.close()

listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    sock, _ = listener.accept()
    threading.Thread(target=serve, args=(sock,), daemon=True).start()
"#;

#[test]
fn h11_reads_what_was_forwarded() {
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import h11"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    let Some(python) = python else {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED third_party::strict::h11_reads_what_was_forwarded: Python's h11 is not installed"
        );
        return;
    };
    let address = free_address();
    let mut command = Command::new(python);
    command.args(["-c", SERVER, &address.port().to_string()]);
    let _server = Process::serve(&mut command, address);
    let mesh = Mesh::around(address);
    for (way, entry) in mesh.entries() {
        for (request, target, body) in VALID {
            let answer = exchange(entry, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200"), "{way}: {request:?}: {answer}");
            let json = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let seen: serde_json::Value = serde_json::from_str(json)
                .unwrap_or_else(|error| panic!("{way}: {request:?}: {error}: {answer}"));
            assert_eq!(
                (seen["target"].as_str(), seen["body"].as_str()),
                (Some(*target), Some(*body)),
                "{way}: {request:?}"
            );
        }
        for request in MALFORMED {
            let answer = exchange(entry, request.as_bytes());
            let refused = answer.is_empty()
                || ["HTTP/1.1 4", "HTTP/1.1 501", "HTTP/1.1 505"]
                    .iter()
                    .any(|start| answer.starts_with(start));
            assert!(refused && !answer.contains("418 Strict"), "{way}: {request:?}: {answer}");
        }
    }
}

/// A request, and the target and the body that must arrive.
const VALID: &[(&str, &str, &str)] = &[
    ("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", "/", ""),
    ("\r\nGET /a%20b?c=d&e HTTP/1.1\r\nhost:app\r\nconnection:close\r\n\r\n", "/a%20b?c=d&e", ""),
    ("OPTIONS * HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", "*", ""),
    ("POST /l HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "/l", "hello"),
    ("POST /z HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "/z", ""),
    (
        "PUT /c HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         4;ext=\"v\"\r\nwiki\r\n05\r\npedia\r\n0\r\n\r\n",
        "/c",
        "wikipedia",
    ),
    (
        "PUT /t HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        "/t",
        "abc",
    ),
    (
        "GET /h HTTP/1.1\r\nHost: app\r\nX-Empty:\r\nX-Pad:  \t v \t \r\nConnection: close, x-pad\r\n\r\n",
        "/h",
        "",
    ),
];

/// Every one has two readings, or none.
const MALFORMED: &[&str] = &[
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: app\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : app\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: app\r\nX\0Y: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: app\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: app\r\nX: a\r\n b\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: app\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: +1\r\n\r\na",
    "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];
