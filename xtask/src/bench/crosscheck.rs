//! Other people's load generators, to see that ours finds the same rate. Neither looks at what an answer holds.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::generator::Load;
use super::process::PINNED;
use super::scenario::By;
use crate::shell;

/// Keeps `connections` busy for some seconds. Latencies are not taken: they are compared only with our own.
pub(super) fn run(
    by: By,
    core: u32,
    entry: SocketAddr,
    connections: u32,
    milliseconds: u64,
) -> Result<Load, String> {
    let name = if by == By::Wrk { "wrk" } else { "h2load" };
    let program = shell::find_program(name).ok_or_else(|| format!("{name} is not installed"))?;
    let seconds = milliseconds.div_ceil(1_000).max(1);
    let mut command = Command::new("sh");
    command.args(["-c", PINNED, &core.to_string()]).arg(program);
    if by == By::Wrk {
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    } else {
        command.args(["--h1", "-t1", &format!("-c{connections}"), &format!("-D{seconds}")]);
    }
    let said = shell::output(command.arg(format!("http://{entry}/128")))?;
    let wrong = || format!("{name} said {said}");
    // wrk: "123 requests in 2.00s, ..", and a line of errors only if there were any.
    // h2load: "requests: 123 total, 123 started, 123 done, 123 succeeded, 0 failed, 0 errored, 0 timeout".
    let good = if by == By::Wrk {
        !said.contains("Socket errors") && !said.contains("Non-2xx")
    } else {
        said.contains(" 0 failed, 0 errored, 0 timeout")
    };
    let number_before = |mark: &str| {
        let text = said.split(mark).next()?;
        text.rsplit([' ', '\n']).next()?.parse::<u64>().ok()
    };
    let requests = number_before(if by == By::Wrk { " requests in " } else { " succeeded," });
    match requests.filter(|&requests| good && requests > 0) {
        Some(requests) => {
            Ok(Load { requests, duration: Duration::from_secs(seconds), latencies: [0.0; 5], wait_p99: 0.0 })
        }
        None => Err(wrong()),
    }
}
