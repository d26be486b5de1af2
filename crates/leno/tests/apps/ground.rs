//! The ground that a test stands on: a network namespace of its own (with its own mounts and process ids), in which
//! everything runs that the test starts. The machine's own network is not touched, tests do not see each other, and
//! nothing is left: when the test ends, however it ends, the first process of the namespace reads the end of its input,
//! exits, and the kernel ends all others.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{children, pid, until};

/// Where scenarios work: in memory, seen by nobody outside, gone with the ground.
pub(crate) const WORK: &str = "/run/test";
/// For a server to come up, on a machine that also compiles.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For one client to do all that it does.
pub(crate) const CLIENT_SECONDS: &str = "60";
/// How many of a program's last lines are shown when a test fails.
const LINES_SHOWN: usize = 25;

/// A namespace and what runs in it.
pub(crate) struct Ground {
    holder: Child,
    /// Held open: its end is the end of the ground.
    _lifeline: ChildStdin,
    /// The namespace's first process, as the machine sees it.
    first: u32,
    /// What programs write, on the machine's side so that it outlives the ground.
    logs: PathBuf,
}

impl Ground {
    /// Makes one. `None` after saying `SKIPPED` where this process may not.
    pub(crate) fn make(test: &str) -> Option<Self> {
        if !may_make_namespaces() {
            skip(test, "no right to make network namespaces (root has it)");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("apps-{}-{number}-{test}", std::process::id()));
        fs::create_dir_all(&logs).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-euc", LAY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(logs.join("ground.log")).unwrap())
            .spawn()
            .unwrap();
        let lifeline = holder.stdin.take().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let ground_log = fs::read_to_string(logs.join("ground.log")).unwrap_or_default();
        assert_eq!(said, "laid\n", "the namespace cannot be made: {ground_log}");
        let first = *children(holder.id()).first().unwrap();
        Some(Self { holder, _lifeline: lifeline, first, logs })
    }

    /// A command that will run in the ground, with an environment that nothing of the machine's reaches into.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.first.to_string());
        command.args(["--net", "--mount", "--pid"]).arg(format!("--wdns={WORK}")).arg("--").arg(program);
        command.env_clear().env("PATH", PATH).env("HOME", WORK).env("LC_ALL", "C.UTF-8").env("DIR", WORK);
        command.stdin(Stdio::null());
        command
    }

    /// A shell script that will run in the ground; it ends at the first command that fails.
    pub(crate) fn script(&self, text: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-euc", text]);
        command
    }

    /// Runs a script to its end, which comes within a minute: whether it succeeded, and its standard output.
    pub(crate) fn run(&self, name: &str, text: &str, environment: &[(&str, String)]) -> (bool, String) {
        let mut command = self.command("timeout");
        command.args(["--kill-after=2", CLIENT_SECONDS, "sh", "-euc", text]);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        self.end(name, &mut command)
    }

    /// Runs a command to its end; it has to have one by itself.
    pub(crate) fn end(&self, name: &str, command: &mut Command) -> (bool, String) {
        // Files, not pipes: what a script left running would keep a pipe open.
        let out = self.logs.join(format!("{name}.out.log"));
        command.stdout(fs::File::create(&out).unwrap());
        let status = command.stderr(fs::File::create(self.log(name)).unwrap()).status().unwrap();
        (status.success(), String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned())
    }

    /// Whether a short command succeeds.
    pub(crate) fn holds(&self, text: &str) -> bool {
        let mut command = self.command("timeout");
        command.args(["--kill-after=1", "10", "sh", "-euc", text]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Starts a program; what it writes is kept under `name`.
    pub(crate) fn start(&self, name: &str, command: &mut Command) -> Program {
        let log = fs::File::create(self.log(name)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Program { child: command.spawn().unwrap(), name: name.to_owned() }
    }

    /// Where a program's output is kept.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The folder of all that.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Every process of the ground, as the machine sees them.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = space(self.first);
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|pid| own.is_some() && space(*pid) == own).collect()
    }

    /// What a program has written so far.
    pub(crate) fn said(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.log(name)).unwrap_or_default()).into_owned()
    }

    /// Writes a file into the ground's working folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.inside(&format!("{WORK}/{name}")), content).unwrap();
    }

    /// The machine's way to a path of the ground.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }

    /// Says which names the ground's own `/etc/hosts` knows, beside `localhost`.
    pub(crate) fn names(&self, lines: &str) {
        fs::write(self.inside("/etc/hosts"), format!("127.0.0.1 localhost\n::1 localhost\n{lines}")).unwrap();
    }

    /// The last lines of everything that ran here.
    pub(crate) fn last_words(&self) -> String {
        let mut text = String::new();
        let mut logs: Vec<_> = fs::read_dir(&self.logs).into_iter().flatten().flatten().collect();
        logs.sort_by_key(fs::DirEntry::file_name);
        for log in logs {
            let content = String::from_utf8_lossy(&fs::read(log.path()).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = content.lines().collect();
            let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n  ");
            if !shown.is_empty() && log.path().extension().is_some_and(|end| end == "log") {
                text.push_str(&format!("-- {}\n  {shown}\n", log.file_name().to_string_lossy()));
            }
        }
        text
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the programs said last:\n{}", self.last_words());
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = fs::remove_dir_all(&self.logs);
    }
}

/// A running program of the ground.
pub(crate) struct Program {
    child: Child,
    name: String,
}

impl Program {
    /// The program itself, as the machine sees it: what was started only leads into the namespace.
    pub(crate) fn pid(&self) -> u32 {
        until(&format!("{} starts", self.name), SOON, || !children(self.child.id()).is_empty());
        children(self.child.id())[0]
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = rustix::process::kill_process(pid(self.pid()), signal);
            until(&format!("{} ends", self.name), SOON, || self.ended().is_some());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for below in children(self.child.id()) {
            let _ = rustix::process::kill_process(pid(below), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of a program of the machine.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// Where `cargo xtask test` puts what comes from the registries of Python and Node.
pub(crate) fn registries() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("apps")
}

/// Says that a test is skipped, in the way that `cargo xtask test` counts.
pub(crate) fn skip(test: &str, why: &str) {
    // Not `eprintln!`: the test runner keeps that to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED apps::{test}: {why}");
}

fn may_make_namespaces() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Where programs are, daemons too.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lays the ground: loopback up; `/run` in memory; names of its own; then waits for the end of its input.
const LAY: &str = "
mount -t tmpfs -o size=1g,mode=755 tmpfs /run
mkdir -p /run/test /run/sshd /run/names
chmod 1777 /run/test
printf '127.0.0.1 localhost\\n::1 localhost\\n' > /run/names/hosts
mount --bind /run/names/hosts /etc/hosts
ip link set lo up
echo laid
exec cat > /dev/null
";
