//! Other people's load generators, to see that ours finds the same rate. Neither looks at what an answer holds.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::candidate::path_text;
use super::generator::Load;
use super::process::PINNED;
use super::protocol::Protocol;
use super::scenario::{By, Case};
use crate::shell;

/// Keeps `connections` busy for some seconds. Latencies are not taken: they are compared only with our own.
pub(super) fn run(
    core: u32,
    entry: SocketAddr,
    case: &Case,
    protocol: Protocol,
    milliseconds: u64,
) -> Result<Load, String> {
    let (by, connections) = (case.by, case.connections);
    let name = if by == By::Wrk { "wrk" } else { "h2load" };
    let program = shell::find_program(name).ok_or_else(|| format!("{name} is not installed"))?;
    let seconds = milliseconds.div_ceil(1_000).max(1);
    let mut command = Command::new("sh");
    command.args(["-c", PINNED, &core.to_string()]).arg(program);
    if by == By::Wrk {
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    } else {
        command.args(["-t1", &format!("-c{connections}"), &format!("-D{seconds}")]);
    }
    let path = if protocol == Protocol::Grpc {
        // The same message each time; the upstream accepts any number in it.
        let message = std::env::temp_dir().join(format!("leno-bench-{}.grpc", std::process::id()));
        let bytes = [&[0, 0, 0, 0, 128][..], &7_u64.to_be_bytes(), &[b'm'; 120]].concat();
        std::fs::write(&message, bytes).map_err(|error| format!("{}: {error}", message.display()))?;
        command.args([&format!("-m{}", case.streams), "-d", &path_text(&message)]);
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        "/bench.Echo/Unary"
    } else {
        if by == By::H2load {
            command.arg("--h1");
        }
        "/128"
    };
    let said = shell::output(command.arg(format!("http://{entry}{path}")))?;
    let wrong = || format!("{name} said {said}");
    let Some(requests) = requests(by, &said) else { return Err(wrong()) };
    Ok(Load { requests, duration: Duration::from_secs(seconds), latencies: [0.0; 5], wait_p99: 0.0 })
}

/// How many requests were answered; nothing when any went wrong.
fn requests(by: By, said: &str) -> Option<u64> {
    // wrk: "123 requests in 2.00s, ..", and a line of errors only if there were any.
    // h2load: "requests: 123 total, 123 started, 123 done, 123 succeeded, 0 failed, 0 errored, 0 timeout".
    let (good, mark) = if by == By::Wrk {
        (!said.contains("Socket errors") && !said.contains("Non-2xx"), " requests in ")
    } else {
        (said.contains(" 0 failed, 0 errored, 0 timeout"), " succeeded,")
    };
    let (before, _) = said.split_once(mark)?;
    let number = before.rsplit([' ', '\n']).next()?.parse::<u64>().ok()?;
    (good && number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{By, requests};

    #[test]
    fn a_run_with_errors_is_no_result() {
        let wrk = "Running 1s test @ http://127.0.0.1:1/128\n  79 requests in 1.00s, 3.1MB read\n";
        assert_eq!(requests(By::Wrk, wrk), Some(79));
        assert_eq!(requests(By::Wrk, &format!("{wrk}  Non-2xx or 3xx responses: 3\n")), None);
        assert_eq!(requests(By::Wrk, "unable to connect"), None);
        let h2load = "requests: 9 total, 9 started, 9 done, 8 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(requests(By::H2load, h2load), Some(8));
        assert_eq!(requests(By::H2load, &h2load.replace("0 failed", "1 failed")), None);
    }
}
