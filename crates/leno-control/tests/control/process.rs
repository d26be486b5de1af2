//! The control plane as a process of its own: this test program, started again as `child`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::harness::*;

/// Not a test: what the tests below start. Runs a control plane on the state directory in the environment and prints
/// where it listens.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Some(state) = std::env::var_os("LENO_TEST_STATE") else { return };
    leno_control::run(on(state.as_ref()), |bound| println!("bound {} {}", bound.mesh, bound.api)).unwrap();
    println!("ended");
}

/// Ends with the test, whatever happens.
struct Process(Child, Option<BufReader<std::process::ChildStdout>>);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(state: &std::path::Path) -> (Process, std::net::SocketAddr) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::child", "--ignored", "--nocapture"])
        .env("LENO_TEST_STATE", state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child, None);
    let mut lines = BufReader::new(process.0.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
        if let Some((_, rest)) = line.split_once("bound ") {
            let api = rest.trim().split(' ').nth(1).unwrap().parse().unwrap();
            process.1 = Some(lines);
            return (process, api);
        }
    }
}

/// Whatever was acknowledged before a `kill -9` is there afterwards; several rounds on one state directory.
#[tokio::test]
async fn kill_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let (mut process, api) = spawn(directory.path());
        let token = std::fs::read_to_string(directory.path().join("api-token")).unwrap();
        let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
        let (_, services) = http(api, "GET", "/v1/services", "", None).await;
        let names: Vec<&str> =
            services.as_array().unwrap().iter().map(|service| service["name"].as_str().unwrap()).collect();
        let missing: Vec<&String> =
            acknowledged.iter().filter(|name| !names.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        // Killed in the middle of a run of changes, by a timer that knows nothing of them.
        let victim = process.0.id();
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(150));
            Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap();
        });
        for n in 0.. {
            let name = format!("s{round}-{n}");
            let path = format!("/v1/services/default/{name}");
            let Some(200) = try_put(api, &path, &bearer).await else { break };
            acknowledged.push(name);
        }
        killer.await.unwrap();
        assert!(!process.0.wait().unwrap().success());
    }
    assert!(acknowledged.len() >= 3, "{acknowledged:?}");
}

/// A change over a connection that may break at any byte; the status if it came.
async fn try_put(api: std::net::SocketAddr, path: &str, bearer: &str) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut tcp = tokio::net::TcpStream::connect(api).await.ok()?;
    let head =
        format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n");
    tcp.write_all(format!("{head}{bearer}\r\n{{}}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_signal_ends_it_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (mut process, _) = spawn(directory.path());
    Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    assert!(process.0.wait().unwrap().success());
    let rest: Vec<String> = process.1.take().unwrap().lines().map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("ended")), "{rest:?}");
}
