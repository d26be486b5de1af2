//! The resolver beside a workload, asked by `dig`, with a resolver behind it that is everything but reliable.
//!
//! A test whose program is not installed, or that needs to be root, says `SKIPPED` and is counted so by `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod namespaces;
mod on_demand;
mod resolver;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Running, agent, free_port, leno, run, stdout};
use resolver::Resolver;

const SOON: Duration = Duration::from_secs(20);

/// The path of a program, or `None` after saying which test is skipped for want of it.
fn program(name: &str, test: &str) -> Option<PathBuf> {
    use std::io::Write as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(daemons).map(|dir| dir.join(name)).find(|it| it.is_file());
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED dns::{test}: {name} is not installed");
    }
    found
}

/// A sidecar in the namespace `default`, with services around it.
struct Sidecar {
    dns: SocketAddr,
    admin: String,
    running: Running,
    _folder: tempfile::TempDir,
}

impl Sidecar {
    fn start(upstream: &[SocketAddr]) -> Self {
        Self::with(0, |command| {
            for resolver in upstream {
                command.arg("--dns-upstream").arg(resolver.to_string());
            }
        })
    }

    fn with(port: u16, arguments: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = sidecar(&folder);
        command.args(["--dns-listen", &format!("127.0.0.1:{port}")]);
        arguments(&mut command);
        let running = Running::start(command.stderr(Stdio::inherit()));
        let ready = running.event("ready", SOON);
        Self {
            dns: ready["dns"].as_str().unwrap().parse().unwrap(),
            admin: format!("http://{}", ready["admin"].as_str().unwrap()),
            running,
            _folder: folder,
        }
    }

    /// What dig prints, with these arguments.
    fn dig(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dig");
        // Without a cookie: what is asked for is what is said.
        command
            .args([&format!("@{}", self.dns.ip()), "-p", &self.dns.port().to_string()])
            .args(["+time=8", "+tries=1", "+nocookie"])
            .args(arguments);
        stdout(&run(&mut command))
    }

    /// The data of the answers, sorted.
    fn short(&self, arguments: &[&str]) -> Vec<String> {
        let said = self.dig(&[&["+short"], arguments].concat());
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// How it counts.
    fn count(&self, sample: &str) -> u64 {
        let text = agent().get(format!("{}/metrics", self.admin)).call().unwrap();
        let text = text.into_body().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        line.map_or(0, |rest| rest.trim().parse().unwrap())
    }

    fn kind(&self, kind: &str) -> u64 {
        self.count(&format!("leno_dns_queries_total{{kind=\"{kind}\"}}"))
    }
}

/// `leno proxy` for the sidecar in a mesh file of its own.
fn sidecar(folder: &tempfile::TempDir) -> Command {
    let file = folder.path().join("mesh.yaml");
    let (app, mesh) = (free_port(), free_port());
    let text = format!(
        "mesh: shop\nservices:\n  client:\n    health: none\n    instances: [{{name: client, port: {app}, mesh: \"127.0.0.1:{mesh}\"}}]\n\
         \x20 cart: {{endpoints: [\"127.0.0.1:9\"]}}\n\
         \x20 team/cart: {{endpoints: [\"127.0.0.1:9\"]}}\n\
         \x20 db:\n    headless: true\n    srv_port: 5432\n\
         \x20   endpoints: [{{address: \"127.0.0.1:9\"}}, {{address: \"127.0.0.1:10\", weight: 3}}, {{address: \"127.0.0.1:11\", weight: 0}}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = leno();
    command
        .args(["proxy", "--role", "client", "--workers", "1", "--admin", "127.0.0.1:0", "--identity"])
        .arg(folder.path().join("identity"))
        .arg("--file")
        .arg(file);
    command
}

#[test]
fn services_have_addresses() {
    let Some(_) = program("dig", "services_have_addresses") else { return };
    let sidecar = Sidecar::start(&[Resolver::start().address]);
    // Recorded in crates/leno-core/src/vip/tests.rs too: the same in every process.
    for name in ["cart", "cart.default", "cart.default.mesh", "CART.Default.Mesh."] {
        assert_eq!(sidecar.short(&[name, "A"]), ["240.240.62.226"], "{name}");
        assert_eq!(sidecar.short(&[name, "AAAA"]), ["2001:2:0:78d6:8968:b24a:fa9:b28d"], "{name}");
        assert_eq!(sidecar.short(&["+tcp", name, "A"]), ["240.240.62.226"], "{name}");
    }
    assert_eq!(sidecar.short(&["cart.team.mesh", "A"]), ["240.240.211.1"]);
    assert_eq!(sidecar.short(&["-x", "240.240.62.226"]), ["cart.default.mesh."]);
    assert_eq!(sidecar.short(&["-x", "2001:2:0:78d6:8968:b24a:fa9:b28d"]), ["cart.default.mesh."]);
    let said = sidecar.dig(&["CaRt.dEfault.mesh", "A"]);
    assert!(said.contains("CaRt.dEfault.mesh.\t5\tIN\tA\t240.240.62.226"), "{said}");
    assert!(said.contains("flags: qr aa rd ra;") && said.contains("udp: 1232"), "{said}");
    // What is ours and not there is said at once, and how long that holds.
    let said = sidecar.dig(&["nothing.default.mesh", "A"]);
    assert!(said.contains("status: NXDOMAIN") && said.contains("mesh.\t\t\t2\tIN\tSOA"), "{said}");
    let said = sidecar.dig(&["cart.default.mesh", "TXT"]);
    assert!(said.contains("status: NOERROR") && said.contains("ANSWER: 0") && said.contains("SOA"), "{said}");
    assert!(sidecar.kind("mesh") >= 14, "{}", sidecar.kind("mesh"));
    assert_eq!(sidecar.kind("forwarded"), 0);
}

#[test]
fn headless_services_are_their_instances() {
    let Some(_) = program("dig", "headless_services_are_their_instances") else { return };
    let sidecar = Sidecar::start(&[Resolver::start().address]);
    let own = |name: &str| sidecar.short(&[name, "A"]);
    let [first, second, third] = ["db-1.db", "db-2.db.default", "db-3.db.default.mesh"].map(own);
    assert!(
        first.len() == 1 && second.len() == 1 && third.len() == 1 && first != second,
        "{first:?} {second:?}"
    );
    // The third takes nothing new, and can still be named.
    let mut both = [first.clone(), second.clone()].concat();
    both.sort();
    assert_eq!(sidecar.short(&["db", "A"]), both);
    // Whoever takes the first of them is spread over all.
    let firsts: std::collections::BTreeSet<String> =
        (0..4).map(|_| sidecar.dig(&["+short", "db", "A"]).lines().next().unwrap().to_owned()).collect();
    assert_eq!(firsts.len(), 2, "{firsts:?}");
    let places = sidecar.short(&["_pg._tcp.db", "SRV"]);
    assert_eq!(places, ["0 1 5432 db-1.db.default.mesh.", "0 3 5432 db-2.db.default.mesh."]);
    let said = sidecar.dig(&["db", "SRV"]);
    assert!(said.contains("ADDITIONAL: 5") && said.contains(&first[0]), "{said}");
    assert_eq!(sidecar.short(&["cart", "SRV"]), ["0 0 80 cart.default.mesh."]);
    assert_eq!(sidecar.short(&["-x", &first[0]]), ["db-1.db.default.mesh."]);
}

#[test]
fn other_names_are_forwarded_and_remembered() {
    let Some(_) = program("dig", "other_names_are_forwarded_and_remembered") else { return };
    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    let first = sidecar.dig(&["www.example.com", "A"]);
    assert!(first.contains("www.example.com.\t60\tIN\tA\t192.0.2.77"), "{first}");
    assert!(first.contains("flags: qr rd ra;"), "{first}");
    std::thread::sleep(Duration::from_millis(1100));
    // In another case, and over another way: the same question.
    let again = sidecar.dig(&["+tcp", "WWW.example.com", "A"]);
    let life = |said: &str| -> u32 {
        let line = said.lines().find(|line| line.contains("192.0.2.77")).unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(again.contains("WWW.example.com.") && (50..60).contains(&life(&again)), "{again}");
    assert_eq!(resolver.questions(), ["udp www.example.com"]);
    // That there is nothing is remembered too; what says that it lives for a second is asked again after it.
    for _ in 0..2 {
        assert!(sidecar.dig(&["none.example.com", "A"]).contains("status: NXDOMAIN"));
        sidecar.dig(&["brief.example.com", "A"]);
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(resolver.asked("udp none.example.com"), 1);
    assert_eq!(resolver.asked("udp brief.example.com"), 2);
    assert_eq!((sidecar.kind("forwarded"), sidecar.kind("cached")), (4, 2));
    // A resolver that does not know EDNS is asked without.
    assert_eq!(sidecar.short(&["old.example.com", "A"]), ["192.0.2.77"]);
    // A single name that is no service's.
    assert_eq!(sidecar.short(&["printer", "A"]), ["192.0.2.77"]);
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    let Some(_) = program("dig", "what_does_not_fit_comes_over_tcp") else { return };
    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    // The resolver says so: we ask it over TCP, and tell our client the same.
    let said = sidecar.dig(&["big.example.com", "A"]);
    assert!(said.contains("Truncated, retrying in TCP mode") && said.contains("ANSWER: 120"), "{said}");
    assert_eq!(resolver.questions(), ["udp big.example.com", "tcp big.example.com"]);
    // 50 addresses are 800 bytes: each client gets what it can take.
    let ignore = ["+ignore", "medium.example.com", "A"];
    let plain = sidecar.dig(&[&["+noedns"], &ignore[..]].concat());
    assert!(plain.contains(" tc ") && plain.contains("ANSWER: 0") && !plain.contains("EDNS"), "{plain}");
    let small = sidecar.dig(&[&["+bufsize=600"], &ignore[..]].concat());
    assert!(small.contains(" tc ") && small.contains("ANSWER: 0") && small.contains("udp: 1232"), "{small}");
    let large = sidecar.dig(&[&["+bufsize=4096"], &ignore[..]].concat());
    assert!(!large.contains(" tc ") && large.contains("ANSWER: 50"), "{large}");
    assert_eq!(resolver.asked("udp medium.example.com"), 1);
    // Who asks us over TCP is answered from TCP.
    assert_eq!(sidecar.short(&["+tcp", "other.example.com", "A"]), ["192.0.2.77"]);
    assert_eq!(resolver.asked("tcp other.example.com"), 1);
}

#[test]
fn forged_answers_are_ignored() {
    let Some(_) = program("dig", "forged_answers_are_ignored") else { return };
    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    assert_eq!(sidecar.short(&["spoof.example.com", "A"]), ["192.0.2.77"]);
    assert_eq!(sidecar.count("leno_dns_foreign_answers_total"), 3);
    // Somebody guesses: over TCP there is nothing to guess.
    assert_eq!(sidecar.short(&["guess.example.com", "A"]), ["192.0.2.77"]);
    assert_eq!(resolver.questions().last().unwrap(), "tcp guess.example.com");
}

#[test]
fn no_resolver_is_an_answer_too() {
    let Some(_) = program("dig", "no_resolver_is_an_answer_too") else { return };
    // Nobody there: the system says so at once.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let sidecar = Sidecar::start(&[nobody]);
    let began = Instant::now();
    assert!(sidecar.dig(&["www.example.com", "A"]).contains("status: SERVFAIL"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(sidecar.short(&["cart", "A"]), ["240.240.62.226"], "the mesh needs no resolver");
    assert_eq!(sidecar.kind("failed"), 1);
    drop(sidecar);

    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    // Silence: before the C library gives us up after 5 s.
    let began = Instant::now();
    assert!(sidecar.dig(&["silent.example.com", "A"]).contains("status: SERVFAIL"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Asked again at once: heard at once.
    let (began, asked) = (Instant::now(), resolver.questions().len());
    assert!(sidecar.dig(&["silent.example.com", "A"]).contains("status: SERVFAIL"));
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(resolver.questions().len(), asked);
    assert!(sidecar.dig(&["refused.example.com", "A"]).contains("status: SERVFAIL"));
    drop(sidecar);

    // The second of two resolvers answers; from then on it is asked first.
    let sidecar = Sidecar::start(&[nobody, resolver.address]);
    assert_eq!(sidecar.short(&["a.example.com", "A"]), ["192.0.2.77"]);
    assert_eq!(sidecar.short(&["b.example.com", "A"]), ["192.0.2.77"]);
}

#[test]
fn a_question_that_comes_back_is_recognised() {
    let Some(_) = program("dig", "a_question_that_comes_back_is_recognised") else { return };
    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    resolver.lead_back_to(sidecar.dns);
    let began = Instant::now();
    assert!(sidecar.dig(&["loop.example.com", "A"]).contains("status: SERVFAIL"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let loops = sidecar.kind("loop");
    assert!((1..=2).contains(&loops), "{loops}: once for each attempt");
    // Our own address as a resolver is none.
    let own = free_port();
    let sidecar = Sidecar::with(own, |command| {
        command.args(["--dns-upstream", &format!("127.0.0.1:{own}")]);
    });
    assert!(sidecar.dig(&["www.example.com", "A"]).contains("status: SERVFAIL"));
    assert_eq!(sidecar.kind("loop"), 0);
}

#[test]
fn odd_questions() {
    let Some(_) = program("dig", "odd_questions") else { return };
    let sidecar = Sidecar::start(&[Resolver::start().address]);
    for (arguments, status) in [
        (&["CH", "TXT", "version.bind"][..], "REFUSED"),
        (&["+tcp", "AXFR", "mesh"], "REFUSED"),
        (&["+opcode=STATUS", "cart"], "NOTIMP"),
        (&["+edns=1", "+noednsneg", "cart"], "BADVERS"),
    ] {
        let said = sidecar.dig(arguments);
        let transfer_failed = said.contains("Transfer failed");
        assert!(
            said.contains(status) || (arguments.contains(&"AXFR") && transfer_failed),
            "{arguments:?}\n{said}"
        );
    }
    // What is no question gets nothing, and hurts nobody.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for junk in [&b""[..], b"x", &[0xff; 12], &[0x80; 400]] {
        socket.send_to(junk, sidecar.dns).unwrap();
    }
    assert!(socket.recv(&mut [0; 600]).is_err(), "nobody can be made to send");
    assert_eq!(sidecar.short(&["cart", "A"]), ["240.240.62.226"]);
}

/// A question about `name`'s IPv4 address.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut query = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Asks all at once, and again what is not answered after a while, as the C library does: the return codes by question, with when
/// they came.
fn ask_at_once(to: SocketAddr, names: &[String], within: Duration) -> BTreeMap<u16, (u8, Duration)> {
    const AGAIN: Duration = Duration::from_secs(6);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let answers = Arc::new(Mutex::new(BTreeMap::new()));
    let began = Instant::now();
    let receiver = std::thread::spawn({
        let (socket, answers, count) = (socket.try_clone().unwrap(), answers.clone(), names.len());
        move || {
            let mut buffer = [0; 2048];
            while answers.lock().unwrap().len() < count && began.elapsed() < within {
                if socket.recv(&mut buffer).is_ok() {
                    let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                    answers.lock().unwrap().entry(id).or_insert((buffer[3] & 15, began.elapsed()));
                }
            }
        }
    });
    while answers.lock().unwrap().len() < names.len() && began.elapsed() < within {
        let round = Instant::now();
        for (id, name) in names.iter().enumerate() {
            if !answers.lock().unwrap().contains_key(&(id as u16)) {
                socket.send_to(&question(id as u16, name), to).unwrap();
            }
            // A burst larger than the socket's buffer would be lost in the kernel, which is not what is tested.
            if id % 50 == 49 {
                std::thread::sleep(Duration::from_millis(8));
            }
        }
        while round.elapsed() < AGAIN && answers.lock().unwrap().len() < names.len() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    receiver.join().unwrap();
    Arc::try_unwrap(answers).unwrap().into_inner().unwrap()
}

#[test]
fn a_thousand_questions_at_once() {
    let resolver = Resolver::start();
    let sidecar = Sidecar::start(&[resolver.address]);
    let names = |count: usize, first: &str| -> Vec<String> {
        (0..count).map(|n| format!("{first}-{n}.example.com")).collect()
    };
    let before = memory(sidecar.running.pid());
    let codes = ask_at_once(sidecar.dns, &names(1000, "slow"), SOON);
    assert_eq!(codes.len(), 1000);
    assert!(codes.values().all(|(code, _)| *code == 0), "{codes:?}");
    assert_eq!(resolver.questions().len(), 1000);
    assert!(resolver.most_under_way() <= 256, "{}", resolver.most_under_way());
    assert!(sidecar.count("leno_limit_hits_total{limit=\"dns_flights\"}") > 0);
    // The same question a thousand times is one for the resolver.
    let codes = ask_at_once(sidecar.dns, &vec!["slow-same.example.com".to_owned(); 1000], SOON);
    assert_eq!(codes.len(), 1000);
    assert_eq!(resolver.asked("udp slow-same.example.com"), 1);
    // More than can wait are told at once; the others when nobody has answered.
    let codes = ask_at_once(sidecar.dns, &names(1500, "silent"), SOON);
    assert_eq!(codes.len(), 1500);
    assert!(codes.values().all(|(code, _)| *code == 2), "{codes:?}");
    let at_once = codes.values().filter(|(_, when)| *when < Duration::from_secs(2)).count();
    assert!(at_once >= 400, "{at_once}");
    assert!(sidecar.count("leno_limit_hits_total{limit=\"dns_queries\"}") >= 400);
    let grown = memory(sidecar.running.pid()).saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    assert_eq!(ask_at_once(sidecar.dns, &["cart".to_owned()], SOON)[&0].0, 0);
}

/// Resident bytes of a process.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
