//! `leno run`: what the program gets and gives, and what is left of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Running, leno, run, stderr, stdout, until, write};
use crate::machine::{Machine, V4, V6, processes_with};

const SOON: Duration = Duration::from_secs(20);

/// Answers by HTTP with its name, on `host`, after `delay` seconds.
fn server(host: &str, delay: &str) -> Vec<String> {
    let family = if host.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "import http.server, os, socket, time\ntime.sleep({delay})\n\
         class Server(http.server.ThreadingHTTPServer):\n    address_family = socket.{family}\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        \
         body = b'from {host}'\n        self.send_response(200)\n        \
         self.send_header('content-length', str(len(body)))\n        self.end_headers()\n        self.wfile.write(body)\n    \
         def log_message(self, *_): pass\n\
         Server(('{host}', int(os.environ['PORT'])), Handler).serve_forever()\n"
    );
    ["python3", "-c", &script].map(str::to_owned).into()
}

fn words(program: &[String]) -> Vec<&str> {
    program.iter().map(String::as_str).collect()
}

#[test]
fn the_program_has_its_own_words_in_and_out() {
    let Some(machine) = Machine::new("the_program_has_its_own_words_in_and_out") else { return };
    let mesh = machine.mesh();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let output = machine.output(&mut mesh.run(&["--service", "caller"], &["sh", "-c", script]));
        assert_eq!(output.status.code(), Some(code), "{script}: {}", stderr(&output));
    }
    let options = ["--service", "caller", "--port", "4711", "--env", "COLOUR=blue", "--version", "v9"];
    let script = "cat; echo err >&2; echo $SERVICE $PORT $COLOUR $VERSION $HTTP_PROXY $LENO_TOKEN.";
    let mut command = mesh.run(&options, &["sh", "-c", script]);
    command.stdin(Stdio::from(std::fs::File::open("/proc/sys/kernel/ostype").unwrap()));
    command.env("HTTP_PROXY", "http://127.0.0.1:1").env("LENO_TOKEN", "secret");
    let output = machine.output(&mut command);
    assert_eq!(stdout(&output), "Linux\ncaller 4711 blue v9 .\n");
    // Before it may stand what was cleaned up of another test's runs that were killed.
    assert!(stderr(&output).ends_with("err\n"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_run_is_said_before_anything_starts() {
    let Some(machine) = Machine::new("what_cannot_be_run_is_said_before_anything_starts") else { return };
    let mesh = machine.mesh();
    let missing = machine.output(&mut mesh.run(&["--service", "caller"], &["no-such-program"]));
    assert_eq!(missing.status.code(), Some(127));
    let said = stderr(&missing);
    assert!(said.ends_with("error: the command `no-such-program` does not exist in PATH\n"), "{said}");
    let not_executable = machine.output(&mut mesh.run(&["--service", "caller"], &["/etc/passwd"]));
    assert_eq!(not_executable.status.code(), Some(126), "{}", stderr(&not_executable));
    let stranger = machine.output(&mut mesh.run(&["--service", "stranger"], &["true"]));
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains("no service stranger is declared"), "{}", stderr(&stranger));
    let nowhere = machine.output(leno().current_dir(machine.folder.path()).args(["run", "--", "true"]));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("no mesh of `leno up` runs here"), "{}", stderr(&nowhere));
    let mut no_nft = mesh.run(&["--service", "caller"], &["/bin/true"]);
    let no_nft = machine.output(no_nft.env("PATH", "/bin-of-nothing"));
    assert_eq!(no_nft.status.code(), Some(1));
    assert!(stderr(&no_nft).contains("install the package `nftables`"), "{}", stderr(&no_nft));
}

#[test]
fn signals_reach_the_program() {
    let Some(machine) = Machine::new("signals_reach_the_program") else { return };
    let mesh = machine.mesh();
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1"), (Signal::HUP, "HUP")]
    {
        let script = format!("trap 'echo got {name}; exit 5' {name}; echo set; while :; do sleep 0.05; done");
        let mut running = machine.start(&mut mesh.run(&["--service", "caller"], &["sh", "-c", &script]));
        running.find(SOON, |line| (line == "set").then_some(()));
        running.signal(signal);
        running.find(SOON, |line| (line == format!("got {name}")).then_some(()));
        assert_eq!(running.wait(SOON).code(), Some(5));
    }
}

#[test]
fn every_address_leads_through_the_sidecar() {
    let Some(machine) = Machine::new("every_address_leads_through_the_sidecar") else { return };
    let mesh = machine.mesh();
    let _outside = machine.serve("outside");
    let script = format!(
        "curl -s -m 10 http://{V4}:8000/ && echo && curl -g -s -m 10 'http://[{V6}]:8000/' && echo && \
         ip -o link show"
    );
    let output = machine.output(&mut mesh.run(&["--service", "caller"], &["sh", "-c", &script]));
    let text = stdout(&output);
    assert!(text.starts_with("outside\noutside\n"), "{text}{}", stderr(&output));
    // There is nothing but loopback, so nothing went another way.
    assert_eq!(text.lines().filter(|line| line.contains(": <")).count(), 1, "{text}");
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let Some(machine) = Machine::new("what_nobody_serves_is_refused_at_once") else { return };
    let mesh = machine.mesh();
    let script = "import socket, errno\n\
        for family, host in ((socket.AF_INET, '192.0.2.1'), (socket.AF_INET6, '2001:db8::1')):\n    \
        s = socket.socket(family, socket.SOCK_DGRAM)\n    s.settimeout(10)\n    s.connect((host, 443))\n    s.send(b'x')\n    \
        try:\n        s.recv(1)\n    except OSError as error:\n        print(errno.errorcode.get(error.errno, 'TIMEOUT'))\n\
        infos = socket.getaddrinfo('localhost', 80, flags=socket.AI_ADDRCONFIG)\n\
        print(len(infos) > 0)\n\
        s = socket.socket()\n\
        try:\n    s.connect(('127.0.0.1', 1))\nexcept ConnectionRefusedError:\n    print('own loopback')\n";
    let output = machine.output(&mut mesh.run(&["--service", "caller"], &["python3", "-c", script]));
    assert_eq!(stdout(&output), "ECONNREFUSED\nECONNREFUSED\nTrue\nown loopback\n", "{}", stderr(&output));
}

#[test]
fn a_program_is_reached_wherever_it_listens_and_whenever() {
    let Some(machine) = Machine::new("a_program_is_reached_wherever_it_listens_and_whenever") else { return };
    let mesh = machine.mesh();
    for (host, delay) in [("127.0.0.1", "0"), ("::1", "0"), ("::", "0"), ("192.0.0.8", "2")] {
        let program = server(host, delay);
        let mut running =
            machine.start(&mut mesh.run(&["--service", "app", "--port", "5000"], &words(&program)));
        until("the program's answer", SOON, || mesh.ask_gateway() == format!("from {host} 200"));
        // The port is the program's alone: the machine's is free.
        assert!(machine.inside(|| std::net::TcpListener::bind("127.0.0.1:5000").is_ok()));
        running.signal(Signal::TERM);
        assert_eq!(running.wait(SOON).code(), Some(143));
        until("its leaving the mesh", SOON, || !mesh.ask_gateway().contains("200"));
    }
}

#[test]
fn programs_find_each_other_by_name_whatever_they_speak() {
    let Some(machine) = Machine::new("programs_find_each_other_by_name_whatever_they_speak") else { return };
    let mesh = machine.mesh();
    // It speaks first, and only on IPv6.
    let program = "import socket, os\n\
        server = socket.create_server(('::1', int(os.environ['PORT'])), family=socket.AF_INET6)\n\
        while True:\n    client, _ = server.accept()\n    try:\n        client.sendall(b'220 ready\\r\\n')\n        \
        client.sendall(b'echo ' + client.recv(100))\n    except OSError: pass\n    client.close()\n";
    let _app =
        machine.start(&mut mesh.run(&["--service", "app", "--port", "2525"], &["python3", "-c", program]));
    until("the program's health", SOON, || mesh.instances().contains(" healthy "));
    let client = "import socket\n\
        for family, name in ((socket.AF_INET, 'app'), (socket.AF_INET6, 'app.default.mesh')):\n    \
        address = socket.getaddrinfo(name, 25, family, socket.SOCK_STREAM)[0][4]\n    \
        client = socket.socket(family)\n    client.settimeout(10)\n    client.connect(address)\n    \
        print(client.recv(100))\n    client.sendall(b'hello')\n    print(client.recv(100))\n";
    let output = machine.output(&mut mesh.run(&["--service", "caller"], &["python3", "-c", client]));
    let once = "b'220 ready\\r\\n'\nb'echo hello'\n";
    assert_eq!(stdout(&output), [once, once].concat(), "{}", stderr(&output));
}

#[test]
fn a_sidecar_that_is_killed_is_started_again() {
    let Some(machine) = Machine::new("a_sidecar_that_is_killed_is_started_again") else { return };
    let mesh = machine.mesh();
    let program = server("127.0.0.1", "0");
    let options = ["--service", "app", "--port", "5000", "--instance", "phoenix"];
    let _running = machine.start(mesh.run(&options, &words(&program)).stderr(Stdio::null()));
    until("the program's answer", SOON, || mesh.ask_gateway().ends_with("200"));
    let sidecar = processes_with("phoenix").into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("\0proxy\0")
    });
    rustix::process::kill_process(crate::common::pid(sidecar.unwrap()), Signal::KILL).unwrap();
    until("its end", SOON, || !mesh.ask_gateway().ends_with("200"));
    until("the program's answer again", SOON, || mesh.ask_gateway().ends_with("200"));
}

#[test]
fn what_goes_into_the_background_ends_too() {
    let Some(machine) = Machine::new("what_goes_into_the_background_ends_too") else { return };
    let mesh = machine.mesh();
    let script = "(setsid sleep 86399.1 &) ; (setsid sh -c 'trap \"\" TERM; sleep 86399.2 & wait; sleep 86399.2' &) ; sleep 0.3; exit 4";
    let output = machine.output(&mut mesh.run(&["--service", "caller"], &["sh", "-c", script]));
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("processes that the command had left behind"), "{}", stderr(&output));
    assert_eq!(processes_with("86399."), Vec::<u32>::new());
    // Or is waited for.
    let began = Instant::now();
    let script = "(setsid sh -c 'sleep 1.5; echo late' &) ; exit 4";
    let output = machine.output(&mut mesh.run(&["--service", "caller", "--wait"], &["sh", "-c", script]));
    assert_eq!((output.status.code(), stdout(&output)), (Some(4), "late\n".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

#[test]
fn nothing_survives_whoever_is_killed() {
    let Some(machine) = Machine::new("nothing_survives_whoever_is_killed") else { return };
    let mesh = machine.mesh();
    let start = |mark: &str| -> Running {
        let script = format!("(setsid sleep {mark} &) ; echo on; sleep {mark}");
        let running = machine.start(&mut mesh.run(
            &["--service", "caller", "--instance", &format!("m{}", mark.replace('.', "-"))],
            &["sh", "-c", &script],
        ));
        running.find(SOON, |line| (line == "on").then_some(()));
        until("the background", SOON, || processes_with(&format!("sleep\0{mark}")).len() == 2);
        running
    };
    let gone = |mark: &str| until("the end of all of it", SOON, || processes_with(mark).is_empty());
    let kill = |pid: u32| rustix::process::kill_process(crate::common::pid(pid), Signal::KILL).unwrap();
    let warden = |mark: &str| {
        let found = processes_with(mark).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("\0warden\0")
        });
        found.unwrap()
    };

    // `leno run` itself.
    let running = start("86398.1");
    kill(running.pid());
    gone("86398.1");
    // Its whole process group.
    let running = start("86398.2");
    rustix::process::kill_process_group(crate::common::pid(running.pid()), Signal::KILL).unwrap();
    gone("86398.2");
    // The warden.
    let mut running = start("86398.3");
    kill(warden("86398.3"));
    assert_eq!(running.wait(SOON).code(), Some(137));
    gone("86398.3");
    // Both of them: what has gone into the background is found by the next run.
    let mut running = start("86398.4");
    kill(warden("86398.4"));
    kill(running.pid());
    running.wait(SOON);
    until("the end of the program", SOON, || processes_with("86398.4").len() <= 1);
    run(leno().args(["run", "--clean"]));
    gone("86398.4");
    assert_eq!(
        stdout(&run(leno().args(["run", "--clean", "-o", "json"]))).replace(char::is_whitespace, ""),
        "{\"runs\":0,\"processes\":0}"
    );
}

#[test]
fn without_capture_the_program_is_told_its_sidecar() {
    let Some(machine) = Machine::new("without_capture_the_program_is_told_its_sidecar") else { return };
    let mesh = machine.mesh();
    let program = server("127.0.0.1", "0");
    let _app = machine
        .start(&mut mesh.run(&["--service", "app", "--port", "5001", "--no-capture"], &words(&program)));
    until("the program's answer", SOON, || mesh.ask_gateway().ends_with("200"));
    let curl = ["curl", "-s", "-m", "10", "http://app/"];
    let output = machine.output(&mut mesh.run(&["--service", "caller", "--no-capture"], &curl));
    assert_eq!(stdout(&output).trim_end(), "from 127.0.0.1", "{}", stderr(&output));
}

#[test]
fn leno_up_captures_each_service() {
    let Some(machine) = Machine::new("leno_up_captures_each_service") else { return };
    let _outside = machine.serve("outside");
    // The second asks the first by its name, and somebody outside by address, each time that it is asked.
    let ask = "import http.server, os, urllib.request\n\
        class Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        \
        body = b'ok'\n        \
        if self.path != '/ok':\n            \
        body = b' '.join(urllib.request.urlopen(url, timeout=5).read() for url in ('http://first/ok', 'http://10.77.0.1:8000/'))\n        \
        self.send_response(200)\n        self.send_header('content-length', str(len(body)))\n        \
        self.end_headers()\n        self.wfile.write(body)\n    def log_message(self, *_): pass\n\
        http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n";
    let script = write(machine.folder.path(), "ask.py", ask);
    let run = format!("env -u HTTP_PROXY -u http_proxy python3 {}", script.display());
    let text = format!(
        "mesh: t\ngateway: {{listen: \"127.0.0.1:8080\", routes: [{{to: second}}]}}\n\
         services:\n  first: {{run: {run}, health: /ok}}\n  second: {{run: {run}, health: /ok, calls: first}}\n"
    );
    let file = write(machine.folder.path(), "mesh.yaml", &text);
    for (when, answer) in [("on", "ok outside 200"), ("auto", "ok outside 200")] {
        let mut command = leno();
        command.args(["up", "-o", "json", "--ephemeral", "--capture", when]).arg(&file);
        let mut up = machine.start(&mut command);
        up.event("ready", Duration::from_secs(40));
        let asked = "curl -s -m 10 -w ' %{http_code}' http://127.0.0.1:8080/";
        assert_eq!(machine.shell(asked), answer, "{when}");
        up.signal(Signal::TERM);
        assert_eq!(up.wait(SOON).code(), Some(0));
    }
    let cannot = machine.output(
        leno().args(["up", "--ephemeral", "--capture", "on"]).arg(&file).env("PATH", "/bin-of-nothing"),
    );
    assert_eq!(cannot.status.code(), Some(1));
    assert!(stderr(&cannot).contains("install the package `nftables`"), "{}", stderr(&cannot));
}
