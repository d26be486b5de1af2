//! Clients that people really use: curl through the forward proxy, varnishtest on both sides.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::mesh::{Mesh, free_address};
use crate::{program, run};

#[test]
fn curl_takes_the_forward_proxy() {
    let test = "clients::curl_takes_the_forward_proxy";
    let Some(curl) = program("curl", test) else { return };
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || echo_lengths(&upstream));
    let mesh = Mesh::around(address);
    let proxy = format!("http://{}", mesh.caller.address("/proxy"));
    let curl = |arguments: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["-sS", "-m", "20", "-x", &proxy]).args(arguments);
        let (body, error, _) = run(&mut command);
        format!("{}{error}", String::from_utf8_lossy(&body))
    };
    assert_eq!(curl(&["http://app/any/path?q=1"]), "GET /any/path?q=1 0");
    // Large enough for curl to ask first, with `Expect: 100-continue`.
    let file = mesh.folder.file("upload", vec![b'u'; 2_000_000]);
    let data = format!("@{}", file.display());
    assert_eq!(curl(&["--data-binary", &data, "http://app/up"]), "POST /up 2000000");
    assert_eq!(
        curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &data, "http://app/up"]),
        "POST /up 2000000"
    );
    // A name that the mesh does not know is an error that says so.
    let answer = curl(&["-i", "http://nowhere/"]);
    assert!(answer.contains("leno-reason: no_such_service"), "{answer}");
}

#[test]
fn varnishtest_on_both_sides() {
    let test = "clients::varnishtest_on_both_sides";
    let Some(varnishtest) = program("varnishtest", test) else { return };
    let upstream = free_address();
    let mesh = Mesh::around_counting(upstream);
    for (way, entry) in mesh.entries() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/third_party/both_sides.vtc");
        let mut command = Command::new(&varnishtest);
        command.arg(format!("-Dproxy={entry}")).arg(format!("-Dup={upstream}")).arg(script);
        let (said, error, status) = run(&mut command);
        assert!(status.success(), "{way}: {error}\n{}", String::from_utf8_lossy(&said));
    }
}

/// Answers each request with its first line and the length of its body, over connections that are kept.
fn echo_lengths(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut stream = stream;
            let mut buffer = Vec::new();
            loop {
                let head_end = loop {
                    if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                        break at + 4;
                    }
                    read_more(&mut stream, &mut buffer)?;
                };
                let head = String::from_utf8_lossy(&buffer[..head_end]).to_lowercase();
                let first = String::from_utf8_lossy(&buffer[..head_end])
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                buffer.drain(..head_end);
                if head.contains("expect: 100-continue") {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let length = if head.contains("transfer-encoding: chunked") {
                    chunked(&mut stream, &mut buffer)?
                } else {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                    while buffer.len() < length {
                        read_more(&mut stream, &mut buffer)?;
                    }
                    buffer.drain(..length);
                    length
                };
                let body = format!("{} {length}", first.strip_suffix(" HTTP/1.1").unwrap_or(&first));
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            }
        });
    }
}

fn chunked(stream: &mut std::net::TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut sum = 0;
    loop {
        let line_end = loop {
            if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            read_more(stream, buffer)?;
        };
        let size = usize::from_str_radix(String::from_utf8_lossy(&buffer[..line_end]).trim(), 16).unwrap();
        while buffer.len() < line_end + 2 + size + 2 {
            read_more(stream, buffer)?;
        }
        buffer.drain(..line_end + 2 + size + 2);
        sum += size;
        if size == 0 {
            return Ok(sum);
        }
    }
}

fn read_more(stream: &mut std::net::TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut piece = [0; 65_536];
    match stream.read(&mut piece)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        length => {
            buffer.extend_from_slice(&piece[..length]);
            Ok(())
        }
    }
}
