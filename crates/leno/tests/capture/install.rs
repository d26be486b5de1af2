//! `leno capture` on a machine that shares its network with the proxy, and a neighbour that calls it.

use std::process::Command;
use std::time::Duration;

use crate::common::{Running, leno, stderr, stdout, write};
use crate::machine::Machine;

/// A machine with a proxy and an application behind it, and another machine on the same wire.
struct Pair {
    machine: Machine,
    neighbour: Machine,
}

impl Pair {
    fn new(test: &str) -> Option<Self> {
        let (machine, neighbour) = (Machine::new(test)?, Machine::new(test)?);
        let path = neighbour.namespace.path();
        let path = path.display();
        machine.shell(&format!(
            "ip link add wire type veth peer name wire netns {path}; ip link set wire up addrgenmode none; \
             ip address add 10.78.0.1/24 dev wire; ip address add fd78::1/64 dev wire nodad"
        ));
        neighbour.shell(
            "ip link set wire up addrgenmode none; ip address add 10.78.0.2/24 dev wire; ip address add fd78::2/64 dev wire nodad",
        );
        Some(Self { machine, neighbour })
    }

    /// A proxy of `app`, which listens on port 8000 of the machine.
    fn proxy(&self, arguments: &[&str]) -> Running {
        let text = "mesh: t\nservices:\n  app:\n    health: none\n    instances: [{name: app-1, address: \"127.0.0.1:8000\", mesh: \"127.0.0.1:15008\"}]\n";
        let file = write(self.machine.folder.path(), "mesh.yaml", text);
        let mut command = leno();
        command.args(["proxy", "--role", "app-1", "--workers", "1", "--admin", "127.0.0.1:15020"]);
        command.arg("--file").arg(file).arg("--identity").arg(self.machine.folder.path().join("identity"));
        let proxy = self.machine.start(command.args(arguments));
        proxy.event("ready", Duration::from_secs(20));
        proxy
    }

    fn capture(&self, arguments: &[&str]) -> std::process::Output {
        self.machine.output(leno().arg("capture").args(arguments))
    }

    fn install(&self, arguments: &[&str]) {
        let output = self.capture(&[&["install", "--dns", "none"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }

    /// Everything that capture could change.
    fn state(&self) -> String {
        self.machine.shell(
            "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all",
        )
    }

    /// How many connections the proxy took.
    fn taken(&self, listener: &str) -> u64 {
        let metrics = self.machine.shell("curl -s http://127.0.0.1:15020/metrics");
        let name = format!("leno_connections_accepted_total{{listener=\"{listener}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&*name)?.parse().ok()).unwrap_or(0)
    }

    /// What the neighbour's server answers to the machine, and whether the proxy took the connection.
    fn call(&self, url: &str, as_user: &str) -> (String, bool) {
        let before = self.taken("captured");
        let script =
            format!("setpriv --reuid={as_user} --regid=65534 --clear-groups curl -g -s -m 10 '{url}'");
        let answer = self.machine.shell(&script);
        (answer, self.taken("captured") > before)
    }
}

const NOBODY: &str = "65534";
const V4: &str = "http://10.78.0.2:8000/";
const V6: &str = "http://[fd78::2]:8000/";

#[test]
fn what_leaves_goes_through_the_proxy_but_for_what_is_excluded() {
    let Some(pair) = Pair::new("what_leaves_goes_through_the_proxy_but_for_what_is_excluded") else { return };
    let _elsewhere = pair.neighbour.serve("elsewhere");
    let _proxy = pair.proxy(&["--capture"]);
    let before = pair.state();
    let answer = |taken: bool| ("elsewhere".to_owned(), taken);
    assert_eq!(pair.call(V4, NOBODY), answer(false));

    pair.install(&[]);
    assert_eq!(pair.call(V4, NOBODY), answer(true));
    assert_eq!(pair.call(V6, NOBODY), answer(true));
    pair.install(&["--exclude-uid", NOBODY]);
    assert_eq!(pair.call(V4, NOBODY), answer(false));
    assert_eq!(pair.call(V6, "0"), answer(true));
    pair.install(&["--exclude-port", "8000"]);
    assert_eq!(pair.call(V6, NOBODY), answer(false));
    pair.install(&["--exclude-cidr", "10.78.0.0/24", "--exclude-cidr", "fd00::/16"]);
    assert_eq!(pair.call(V4, NOBODY), answer(false));
    assert_eq!(pair.call(V6, NOBODY), answer(true));

    // Installed over and over, it is one table; removed, it is as before.
    let shown = pair.capture(&["show"]);
    pair.install(&["--exclude-cidr", "10.78.0.0/24", "--exclude-cidr", "fd00::/16"]);
    assert_eq!(stdout(&pair.capture(&["show"])), stdout(&shown));
    let json: serde_json::Value =
        serde_json::from_slice(&pair.capture(&["show", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["installed"], true);
    assert_eq!(json["tables"][0]["nftables"][1]["table"]["name"], "leno");
    assert_eq!(stdout(&pair.capture(&["remove"])), "removed\n");
    assert_eq!(stdout(&pair.capture(&["remove"])), "nothing was installed\n");
    assert_eq!(stdout(&pair.capture(&["show"])), "nothing is installed here\n");
    assert_eq!(pair.state(), before);
    assert_eq!(pair.call(V4, NOBODY), answer(false));
}

#[test]
fn what_comes_in_goes_through_the_proxy() {
    let Some(pair) = Pair::new("what_comes_in_goes_through_the_proxy") else { return };
    for mode in ["redirect", "tproxy"] {
        let _app = pair.machine.serve("the application");
        let _proxy = pair.proxy(&["--capture", "--capture-mode", mode]);
        let before = pair.state();
        let ask = |url: &str| pair.neighbour.shell(&format!("curl -g -s -m 10 '{url}' || true"));
        assert_eq!(ask("http://10.78.0.1:8000/"), "the application");
        assert_eq!(pair.taken("captured_inbound"), 0);
        for ports in
            [&["--inbound-port", "8000"][..], &["--inbound-port", "all", "--exclude-inbound-port", "22"]]
        {
            pair.install(&[ports, &["--mode", mode]].concat());
            let taken = pair.taken("captured_inbound");
            assert_eq!(ask("http://10.78.0.1:8000/"), "the application", "{mode}");
            assert_eq!(ask("http://[fd78::1]:8000/"), "the application", "{mode}");
            assert_eq!(pair.taken("captured_inbound"), taken + 2, "{mode}");
        }
        // Whoever was not diverted, or means another port, is refused: it would be sent to us again and again.
        assert_eq!(ask("http://10.78.0.1:15006/"), "");
        assert_eq!(ask("http://10.78.0.1:8001/"), "");
        assert_eq!(stdout(&pair.capture(&["remove"])), "removed\n");
        assert_eq!(pair.state(), before, "{mode}");
    }
}

#[test]
fn nothing_is_installed_before_the_proxy_is_ready() {
    let Some(pair) = Pair::new("nothing_is_installed_before_the_proxy_is_ready") else { return };
    let before = pair.state();
    let refused = |arguments: &[&str], why: &str| {
        let output = pair.capture(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
        assert_eq!(pair.state(), before);
    };
    refused(&["install"], "no proxy that is ready answers at 127.0.0.1:15020");
    let proxy = pair.proxy(&[]);
    refused(&["install", "--dns", "none"], "takes no outbound connections on port 15011");
    drop(proxy);
    let proxy = pair.proxy(&["--capture-outbound", "127.0.0.1:15011"]);
    refused(&["install", "--dns", "none"], "does not mark its connections with 0x1e40");
    refused(
        &["install", "--dns", "none", "--inbound-port", "80"],
        "takes no inbound connections on port 15006",
    );
    drop(proxy);
    let output = pair.capture(&["install", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&pair.capture(&["remove"])), "removed\n");
    assert_eq!(pair.state(), before);
}

#[test]
fn what_is_missing_is_said() {
    let Some(pair) = Pair::new("what_is_missing_is_said") else { return };
    let before = pair.state();
    let no_nft =
        pair.machine.output(leno().args(["capture", "install", "--force"]).env("PATH", "/bin-of-nothing"));
    assert_eq!(no_nft.status.code(), Some(1));
    let said = "is not in PATH; install the package `";
    assert!(stderr(&no_nft).contains(said), "{}", stderr(&no_nft));
    // Where everybody may read it.
    let copy = std::env::temp_dir().join(format!("leno-capture-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_leno"), &copy).unwrap();
    for command in ["install --force", "remove", "show"] {
        let mut nobody = Command::new("setpriv");
        nobody
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .arg("capture")
            .args(command.split(' '));
        let output = pair.machine.output(&mut nobody);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            stderr(&output).contains("needs CAP_NET_ADMIN; run as root"),
            "{command}: {}",
            stderr(&output)
        );
    }
    std::fs::remove_file(copy).unwrap();
    assert_eq!(pair.state(), before);
    let wrong = pair.capture(&["install", "--force", "--exclude-cidr", "10.0.0.0/99"]);
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = pair.capture(&["install", "--force", "--mode", "tproxy"]);
    assert_eq!(wrong.status.code(), Some(2));
}
