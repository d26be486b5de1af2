//! Where the server speaks first, its first byte reaches a client that has said nothing, with no waiting in the path.
//!
//! That is not measured in time, which would prove nothing on a busy machine: every sidecar's system calls are recorded,
//! and from the moment when the client's connection was accepted until its first byte was sent to it, no thread that had
//! to do with it may have come back from waiting because a time was over. A timer of somebody else's may end in
//! between by chance; one in the path would end every time. So one clean attempt in a few is the proof, each with a sidecar that
//! has never seen the port before.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::{pid, until};
use crate::ground::{Ground, SOON, WORK, skip};
use crate::mail_and_shell::{SMTP, SSH};
use crate::mesh::{CALLER, LENO, Mesh};
use crate::scenario::{Need, Scenario};

#[test]
fn an_smtp_greeting_waits_for_no_timer() {
    check(&SMTP, "220 ");
}

#[test]
fn an_ssh_banner_waits_for_no_timer() {
    check(&SSH, "SSH-2.0-");
}

/// The first byte of a server's own, without a word of the client's.
fn check(scenario: &Scenario, greeting: &str) {
    if let Some(why) = Need::Program("strace").missing() {
        return skip(&format!("server_first::{}", scenario.name), &why);
    }
    let Some(ground) = scenario.ground("server-first") else { return };
    let mesh = Mesh::start(&ground, &Mesh::file_of(scenario.name));
    let mut server = scenario.server_captured(&ground, &mesh);
    let mut found = Vec::new();
    for attempt in 0..ATTEMPTS {
        let listen = format!(
            "touch {WORK}/begun; until [ -e {WORK}/go ]; do sleep 0.05; done
             nc -d $HOST $PORT > {WORK}/heard & until [ -s {WORK}/heard ]; do sleep 0.02; done; kill $!"
        );
        let mut command = mesh.run(CALLER, None, &listen);
        command.envs(scenario.environment(scenario.name));
        let client = ground.start(&format!("client-{attempt}"), &mut command);
        until("the client is there", SOON, || ground.inside(&format!("{WORK}/begun")).exists());
        let calls = ground.logs().join(format!("calls-{attempt}"));
        fs::create_dir_all(&calls).unwrap();
        let recorder = record(&ground, &calls);
        ground.write("go", "");
        let heard = ground.inside(&format!("{WORK}/heard"));
        until("the greeting arrives", SOON, || {
            assert!(server.ended().is_none(), "the server ended");
            fs::read_to_string(&heard).is_ok_and(|text| text.starts_with(greeting))
        });
        drop(recorder);
        drop(client);
        ground.holds(&format!("rm -f {WORK}/begun {WORK}/go {WORK}/heard"));
        match timers_in_path(&recorded(&calls), greeting) {
            Ok(0) => return server.stop(Signal::TERM),
            Ok(timers) => found.push(format!("{timers} timers ended in the path")),
            Err(why) => found.push(why),
        }
    }
    panic!("{}: no attempt without a timer: {found:?}", scenario.name);
}

/// strace on every process of Leno's but the control plane; ends with the value.
struct Recorder(std::process::Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        // It lets go of what it watches, and writes the rest.
        let _ = rustix::process::kill_process(pid(self.0.id()), Signal::INT);
        let _ = self.0.wait();
    }
}

fn record(ground: &Ground, into: &Path) -> Recorder {
    let is_proxy = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|word| word.ends_with(LENO.as_bytes()))
            && words.get(1) != Some(&&b"control"[..])
    };
    let proxies: Vec<u32> = ground.processes().into_iter().filter(is_proxy).collect();
    assert!(proxies.len() >= 2, "there are not two sidecars: {proxies:?}");
    let mut command = Command::new("strace");
    command.args(["-ff", "-ttt", "-s", "64", "-qq", "-e", CALLS, "-o"]).arg(into.join("thread"));
    for proxy in &proxies {
        command.args(["-p", &proxy.to_string()]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Every thread that is watched has a file; and a thread that is watched says so in its status.
    until("the system calls are recorded", SOON, || {
        proxies.iter().all(|proxy| {
            let tasks = fs::read_dir(format!("/proc/{proxy}/task")).unwrap().flatten();
            tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default()).all(
                |status| {
                    status
                        .lines()
                        .any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
                },
            )
        })
    });
    Recorder(child)
}

/// What was recorded, thread by thread.
fn recorded(calls: &Path) -> Vec<Vec<Call>> {
    let files = fs::read_dir(calls).unwrap().flatten();
    files.map(|file| parse(&fs::read_to_string(file.path()).unwrap_or_default())).collect()
}

/// How often a thread that carried the greeting was woken by a timer between the client's connection and the greeting.
fn timers_in_path(threads: &[Vec<Call>], greeting: &str) -> Result<usize, String> {
    let carries = |calls: &&Vec<Call>| calls.iter().any(|call| call.text.contains(greeting));
    let carriers: Vec<&Call> = threads.iter().filter(carries).flatten().collect();
    let sent = carriers.iter().filter(|call| call.sends(greeting)).map(|call| call.at);
    let end = sent.fold(f64::NEG_INFINITY, f64::max);
    let accepted =
        threads.iter().flatten().filter(|call| call.accepts() && call.at < end).map(|call| call.at);
    let begin = accepted.fold(f64::INFINITY, f64::min);
    if !begin.is_finite() || !end.is_finite() {
        return Err(format!("the greeting was not seen in the calls of {} threads", threads.len()));
    }
    let within = carriers.iter().filter(|call| call.at >= begin && call.at <= end);
    Ok(within.filter(|call| call.timed_out()).count())
}

/// A line of strace's.
struct Call {
    at: f64,
    text: String,
}

impl Call {
    /// Whether it came back from waiting because its time was over, and not because it had none.
    fn timed_out(&self) -> bool {
        let waits = self.text.starts_with("epoll_")
            || self.text.starts_with("poll")
            || self.text.starts_with("ppoll");
        let Some((arguments, result)) = self.text.rsplit_once(" = ") else { return false };
        let no_time = arguments.ends_with(", 0)")
            || arguments.contains(", 0, NULL")
            || arguments.contains("tv_nsec=0}");
        let timeout = result.starts_with('0') && waits && !no_time;
        timeout || (self.text.starts_with("futex") && result.contains("ETIMEDOUT"))
    }

    /// Whether a connection was taken; the queue may also have been found empty.
    fn accepts(&self) -> bool {
        self.text.starts_with("accept") && !self.text.contains(" = -1")
    }

    fn sends(&self, greeting: &str) -> bool {
        let sends = ["write", "send"].iter().any(|name| self.text.starts_with(name));
        sends && self.text.contains(greeting)
    }
}

fn parse(text: &str) -> Vec<Call> {
    let line = |line: &str| {
        let (at, text) = line.split_once(' ')?;
        Some(Call { at: at.parse().ok()?, text: text.trim().to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// What is recorded: how a thread waits, and what it sends and receives.
const CALLS: &str = "trace=epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,futex,accept4,accept,connect,\
                     read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,splice";
/// Timers of others end about once a second; a greeting takes some milliseconds.
const ATTEMPTS: usize = 4;

#[test]
fn a_timer_is_told_from_readiness() {
    let timed_out: Vec<bool> = parse(
        "1.5 epoll_wait(5, [], 1024, 37) = 0\n\
         1.6 epoll_wait(5, [{events=EPOLLIN, data={u32=7, u64=7}}], 1024, 37) = 1\n\
         1.7 epoll_wait(5, [], 1024, 0) = 0\n\
         1.8 epoll_pwait(5, [], 1024, 12, NULL, 8) = 0\n\
         1.9 futex(0x7f, FUTEX_WAIT_BITSET_PRIVATE, 0, {tv_sec=1, tv_nsec=0}, 0) = -1 ETIMEDOUT (Connection timed out)\n\
         2.0 sendto(12, \"220 hello\", 9, MSG_NOSIGNAL, NULL, 0) = 9\n",
    )
    .iter()
    .map(Call::timed_out)
    .collect();
    assert_eq!(timed_out, [true, false, false, true, true, false]);
}

#[test]
fn a_timer_in_the_path_is_found() {
    let client = |wait: &str| {
        parse(&format!(
            "1.0 epoll_wait(5, [], 1024, 99) = 0\n2.0 accept4(9, {{sa_family=AF_INET}}, [16], SOCK_NONBLOCK) = 12\n\
             2.1 {wait}\n2.3 sendto(12, \"220 hello\", 9, MSG_NOSIGNAL, NULL, 0) = 9\n3.0 epoll_wait(5, [], 1024, 99) = 0\n"
        ))
    };
    let server = |wait: &str| {
        parse(&format!("1.9 {wait}\n2.15 {wait}\n2.2 recvfrom(8, \"220 hello\", 99, 0, NULL, NULL) = 9\n"))
    };
    let (timer, none) =
        ("epoll_wait(5, [], 1024, 37) = 0", "epoll_wait(5, [{events=EPOLLIN}], 1024, 37) = 1");
    let bystander = parse("2.1 epoll_wait(3, [], 1024, 1) = 0\n");
    assert_eq!(timers_in_path(&[client(none), server(none), bystander], "220 "), Ok(0));
    assert_eq!(timers_in_path(&[client(timer), server(none)], "220 "), Ok(1));
    assert_eq!(timers_in_path(&[client(none), server(timer)], "220 "), Ok(1));
    assert!(timers_in_path(&[parse("2.0 accept4(9, 0, 0, 0) = 12\n")], "220 ").is_err());
}
