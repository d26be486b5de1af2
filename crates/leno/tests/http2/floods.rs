//! Clients that send too much of what costs them nothing: they are told to calm down, and nobody else notices.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use crate::client::{Client, block_on};
use crate::common::until;
use crate::origin::Origin;
use crate::{SOON, Way};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Sends `bytes` again and again until the proxy has had enough; the code of its GOAWAY, if one came.
fn flood(address: std::net::SocketAddr, mut bytes: impl FnMut(u32) -> Vec<u8> + Send) -> Option<u32> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    let reading = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || goaway(reading));
    let mut ok = stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).is_ok();
    for at in 0..40_000 {
        ok = ok && stream.write_all(&bytes(at)).is_ok();
        if !ok {
            break;
        }
    }
    let (code, ended) = reader.join().unwrap();
    // All of it may fit into the sockets' buffers before the proxy has looked at the first of it.
    assert!(!ok || ended, "the proxy took all of it");
    code
}

/// The code of a GOAWAY, if one comes, and whether the connection ends.
fn goaway(mut stream: TcpStream) -> (Option<u32>, bool) {
    let mut code = None;
    let mut head = [0; 9];
    let ended = loop {
        if let Err(error) = stream.read_exact(&mut head) {
            break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if let Err(error) = stream.read_exact(&mut payload) {
            break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        }
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    };
    (code, ended)
}

/// `GET /s/hangs` for `server`, without compression.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    block.extend([0x04, 8]);
    block.extend(b"/s/hangs");
    block.extend([0x01, 6]);
    block.extend(b"server");
    block
}

#[test]
fn floods_end_the_connection_and_nothing_else() {
    let origin = Origin::start();
    let way = Way::single("http2", origin.address);
    let address = way.address;
    type Bytes = Box<dyn FnMut(u32) -> Vec<u8> + Send>;
    let rows: [(&str, Bytes); 6] = [
        ("h2_flood_ping", Box::new(|_| frame(6, 0, 0, &[0; 8]))),
        ("h2_flood_settings", Box::new(|_| frame(4, 0, 0, &[]))),
        ("h2_flood_priority", Box::new(|at| frame(2, 0, 2 * at + 1, &[0, 0, 0, 0, 1]))),
        ("h2_flood_window_update", Box::new(|_| frame(8, 0, 0, &[0, 0, 0, 1]))),
        (
            "h2_flood_reset",
            Box::new(|at| {
                let stream = 2 * at + 1;
                [frame(1, 5, stream, &head()), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            "h2_flood_continuation",
            Box::new(|at| if at == 0 { frame(1, 1, 1, &head()) } else { frame(9, 0, 1, &[]) }),
        ),
    ];
    block_on(async {
        let client = Client::connect(way.address).await;
        for (name, bytes) in rows {
            let code = std::thread::scope(|scope| scope.spawn(|| flood(address, bytes)).join().unwrap());
            // A client that sends on while the connection is closed may see a reset instead.
            assert!(matches!(code, Some(11) | None), "{name}: {code:?}");
            let counted = [name, "h2_flood_machine"].iter().any(|name| way.metric(&[name]) >= 1);
            assert!(counted, "{name}: {}", way.metrics());
            assert_eq!(client.get("/hello").await.text(), "hello", "after {name}");
        }
    });
    until("the streams of the flood are given up", SOON, || {
        let seen = origin.seen.lock().unwrap();
        let hanging = seen.requests.iter().filter(|it| it.uri.path() == "/s/hangs").count();
        seen.resets >= hanging
    });
}
