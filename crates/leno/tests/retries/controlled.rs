//! The same from a control plane, as `leno up` runs it; and for connections that nobody looks into.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{Running, free_port, leno, write};
use crate::origin::{Fault, Origin};
use crate::{SOON, status};

fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").unwrap();
    // The application keeps connections that nobody looks into.
    let mut answer = Vec::new();
    let mut piece = [0; 512];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..read]);
        if answer.ends_with(b"hello") {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_control_plane_hands_policies_on() {
    let origin = Origin::start(2);
    let [http, tcp] = [free_port(), free_port()];
    let nobody: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let places = |addresses: &[SocketAddr]| {
        addresses.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ")
    };
    let mut raw: Vec<SocketAddr> = nobody.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
    raw.push(origin.addresses[0]);
    let text = format!(
        "mesh: policies\n\
         gateway:\n  listeners:\n\
         \x20   - {{protocol: http, listen: 127.0.0.1:{http}}}\n\
         \x20   - {{protocol: tcp, listen: 127.0.0.1:{tcp}, to: raw}}\n\
         \x20 routes:\n\
         \x20   - {{path: /once, to: web, retry: {{attempts: 1}}}}\n\
         \x20   - {{to: web}}\n\
         services:\n\
         \x20 web: {{protocol: http, retry: {{on: 503, attempts: 5, backoff: 0}}, endpoints: [{}]}}\n\
         \x20 raw: {{protocol: tcp, retry: {{attempts: 5, backoff: 0}}, endpoints: [{}]}}\n",
        places(&origin.addresses),
        places(&raw),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "mesh.yaml", &text);
    let mut command = leno();
    command.args(["up", "-o", "json"]).arg(file).arg("--state").arg(folder.path().join("state"));
    let mut up = Running::start(&mut command);
    up.event("ready", Duration::from_secs(40));

    let fails = vec![Fault::Answer(503, String::new()); 4];
    let http = ([127, 0, 0, 1], http).into();
    origin.fail(&fails);
    assert_eq!(status(&ask(http, "/fifth")), 200);
    assert_eq!(origin.effects("/fifth"), 5);
    // The route's own policy takes the place of the service's.
    origin.fail(&fails[..1]);
    assert_eq!(status(&ask(http, "/once")), 503);
    assert_eq!(origin.effects("/once"), 1);
    // A connection finds the one of five that is there, whichever is tried first.
    let tcp = ([127, 0, 0, 1], tcp).into();
    for at in 0..10 {
        let answer = ask(tcp, &format!("/raw/{at}"));
        assert!(status(&answer) == 200 && answer.ends_with("hello"), "{at}: {answer}");
    }
    up.signal(rustix::process::Signal::TERM);
    up.wait(Duration::from_secs(30));
}
