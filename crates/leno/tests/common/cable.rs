//! Two machines with a network between them.

use std::process::{Command, Stdio};

use super::{run, stderr};

/// Two network namespaces with a cable between them; gone when the test is.
pub struct Cable {
    /// 10.231.NUMBER.1.
    pub here: String,
    /// 10.231.NUMBER.2.
    pub there: String,
}

impl Cable {
    /// For a test of this name; the number is its own, too.
    pub fn lay(test: &str, number: u8) -> Self {
        let name = |end: &str| format!("leno-{test}-{}-{end}", std::process::id());
        let cable = Self { here: name("a"), there: name("b") };
        let (here, there) = (&cable.here, &cable.there);
        for namespace in [here, there] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&["-n", here, "link", "add", "end", "type", "veth", "peer", "name", "end", "netns", there]);
        for (namespace, end) in [(here, 1), (there, 2)] {
            let address = format!("10.231.{number}.{end}/24");
            ip(&["-n", namespace, "addr", "add", &address, "dev", "end"]);
            ip(&["-n", namespace, "link", "set", "end", "up"]);
        }
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            Command::new("ip").args(["netns", "del", namespace]).status().ok();
        }
    }
}

fn ip(arguments: &[&str]) {
    let done = run(Command::new("ip").args(arguments));
    assert!(done.status.success(), "ip {arguments:?}: {}", stderr(&done));
}

/// A program in a namespace.
pub fn inside(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program).stdin(Stdio::null());
    command
}
