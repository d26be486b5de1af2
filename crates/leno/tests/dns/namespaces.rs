//! Who is answered: programs of this machine, at any of its addresses, and nobody on the network.

use std::process::Stdio;

use crate::common::cable::{Cable, inside};
use crate::common::{Running, run, stdout};
use crate::resolver::Resolver;
use crate::{SOON, program, sidecar};

#[test]
fn strangers_are_refused() {
    use std::io::Write as _;
    let test = "namespaces::strangers_are_refused";
    let (Some(_), Some(_)) = (program("dig", test), program("ip", test)) else { return };
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "SKIPPED dns::{test}: only root can make network namespaces");
        return;
    }
    let cable = Cable::lay("dns", 17);
    let folder = tempfile::tempdir().unwrap();
    let proxy = sidecar(&folder);
    let mut command = inside(&cable.here, proxy.get_program());
    command.args(proxy.get_args()).args(["--dns-listen", "0.0.0.0:5353"]);
    // Not reachable from there, and not needed.
    command.args(["--dns-upstream", &Resolver::start().address.to_string()]);
    let running = Running::start(command.stderr(Stdio::inherit()));
    running.event("ready", SOON);
    let dig = |from: &str, to: &str, more: &[&str]| {
        let mut dig = inside(from, "dig");
        dig.args([to, "-p", "5353", "+time=5", "+tries=1"]).args(more).args(["cart.default.mesh", "A"]);
        stdout(&run(&mut dig))
    };
    for way in [&[][..], &["+tcp"]] {
        for to in ["@127.0.0.1", "@10.231.17.1"] {
            let said = dig(&cable.here, to, way);
            assert!(said.contains("status: NOERROR") && said.contains("240.240.62.226"), "{to}: {said}");
        }
        let said = dig(&cable.there, "@10.231.17.1", way);
        assert!(said.contains("status: REFUSED") && said.contains("ANSWER: 0"), "{said}");
    }
}
