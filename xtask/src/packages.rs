//! Programs nobody here wrote that tests and benchmarks use, and the Debian packages they come in.
//!
//! As root, missing ones are installed with `apt-get`. Otherwise they are named, with what will not be tested
//! without them: the tests themselves then say `SKIPPED` and are counted so.

use std::process::{Command, Stdio};

use crate::shell;

/// One package and how to see that it is there.
pub(crate) struct Package {
    /// Its name in Debian.
    name: &'static str,
    /// Its presence.
    probe: Probe,
    /// What is not done without it.
    used_by: &'static str,
}

enum Probe {
    /// A program of this name is found.
    Program(&'static str),
    /// The system's Python finds this module.
    PythonModule(&'static str),
}

/// What `cargo xtask test` uses.
pub(crate) const FOR_TESTS: &[Package] = &[
    Package {
        name: "nginx",
        probe: Probe::Program("nginx"),
        used_by: "tests with nginx as an unchanged service",
    },
    Package { name: "nftables", probe: Probe::Program("nft"), used_by: "tests that intercept traffic" },
    Package { name: "iproute2", probe: Probe::Program("ip"), used_by: "tests that intercept traffic" },
    Package { name: "curl", probe: Probe::Program("curl"), used_by: "tests with curl as a client" },
    Package {
        name: "python3",
        probe: Probe::Program("python3"),
        used_by: "tests with Python's http.server as an unchanged service",
    },
    Package {
        name: "python3-h11",
        probe: Probe::PythonModule("h11"),
        used_by: "tests with h11 as a strict upstream that parses again what was forwarded",
    },
    Package {
        name: "varnish",
        probe: Probe::Program("varnishtest"),
        used_by: "tests with varnishtest as client and server",
    },
    Package {
        name: "openssl",
        probe: Probe::Program("openssl"),
        used_by: "tests with openssl as a TLS peer",
    },
    Package {
        name: "bind9-dnsutils",
        probe: Probe::Program("dig"),
        used_by: "tests with dig as a client of the resolver",
    },
    Package {
        name: "valgrind",
        probe: Probe::Program("valgrind"),
        used_by: "guards that count instructions",
    },
    Package { name: "strace", probe: Probe::Program("strace"), used_by: "guards that count system calls" },
    Package {
        name: "redis-server",
        probe: Probe::Program("redis-server"),
        used_by: "tests with redis as an unchanged service",
    },
    Package {
        name: "redis-tools",
        probe: Probe::Program("redis-cli"),
        used_by: "tests with redis's clients",
    },
    Package {
        name: "memcached",
        probe: Probe::Program("memcached"),
        used_by: "tests with memcached as an unchanged service",
    },
    Package {
        name: "postgresql",
        probe: Probe::Program("pg_createcluster"),
        used_by: "tests with PostgreSQL as an unchanged service",
    },
    Package {
        name: "postgresql-client",
        probe: Probe::Program("psql"),
        used_by: "tests with PostgreSQL's clients",
    },
    Package {
        name: "mariadb-server",
        probe: Probe::Program("mariadbd"),
        used_by: "tests with MariaDB as an unchanged service",
    },
    Package {
        name: "mariadb-client",
        probe: Probe::Program("mariadb"),
        used_by: "tests with MariaDB's client",
    },
    Package {
        name: "openssh-server",
        probe: Probe::Program("sshd"),
        used_by: "tests with OpenSSH as an unchanged service",
    },
    Package { name: "openssh-client", probe: Probe::Program("ssh"), used_by: "tests with OpenSSH's clients" },
    Package {
        name: "netcat-openbsd",
        probe: Probe::Program("nc"),
        used_by: "tests with unchanged services: it sees whether a server listens",
    },
    Package {
        name: "nghttp2-client",
        probe: Probe::Program("h2load"),
        used_by: "tests with nghttp2's clients",
    },
    Package {
        name: "tcpdump",
        probe: Probe::Program("tcpdump"),
        used_by: "tests that look at what crosses between sidecars",
    },
    Package {
        name: "python3-venv",
        probe: Probe::PythonModule("ensurepip"),
        used_by: "virtual environment with gRPC, WebSockets and SMTP by Python",
    },
    Package { name: "nodejs", probe: Probe::Program("node"), used_by: "tests with WebSockets by Node" },
    Package {
        name: "npm",
        probe: Probe::Program("npm"),
        used_by: "tests with WebSockets by Node: it brings the package",
    },
];

/// What `cargo xtask bench` uses.
pub(crate) const FOR_BENCH: &[Package] = &[
    Package {
        name: "nginx",
        probe: Probe::Program("nginx"),
        used_by: "the upstream of every measurement, and a peer",
    },
    Package { name: "haproxy", probe: Probe::Program("haproxy"), used_by: "a peer" },
    Package { name: "wrk", probe: Probe::Program("wrk"), used_by: "cross-check by another load generator" },
    Package {
        name: "nghttp2-client",
        probe: Probe::Program("h2load"),
        used_by: "cross-check by a third load generator",
    },
    Package {
        name: "openssl",
        probe: Probe::Program("openssl"),
        used_by: "certificates of the pairs, and the check that they refuse strangers",
    },
    Package {
        name: "python3-venv",
        probe: Probe::PythonModule("ensurepip"),
        used_by: "virtual environment with Envoy, a peer",
    },
];

impl Package {
    fn is_there(&self) -> bool {
        match self.probe {
            Probe::Program(name) => shell::find_program(name).is_some(),
            Probe::PythonModule(name) => Command::new("/usr/bin/python3")
                .args(["-c", &format!("import {name}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Installs what is missing if that is possible. Returns a line for each package that is missing afterwards.
pub(crate) fn provide(wanted: &[Package]) -> Vec<String> {
    let missing = |wanted: &[Package]| -> Vec<&'static str> {
        wanted.iter().filter(|package| !package.is_there()).map(|package| package.name).collect()
    };
    let first = missing(wanted);
    if first.is_empty() {
        println!("nothing is missing");
        return Vec::new();
    }
    println!("missing Debian packages: {}", first.join(" "));
    if !shell::is_root() {
        println!("not root, so not installed; `sudo apt-get install {}` would", first.join(" "));
    } else if shell::find_program("apt-get").is_none() {
        println!("this machine has no apt-get; install them by its own means");
    } else {
        install(&first);
    }
    wanted
        .iter()
        .filter(|package| !package.is_there())
        .map(|package| format!("{} is not installed: no {}", package.name, package.used_by))
        .collect()
}

fn install(names: &[&str]) {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // The programs are wanted, not the daemons: in this runlevel packages do not start theirs.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        shell::succeeds(&mut command)
    };
    let _ = apt(&["update"]);
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(names);
    if apt(&arguments) {
        return;
    }
    // One name that a suite does not have must not cost the others.
    for name in names {
        let _ = apt(&["install", "-y", "--no-install-recommends", name]);
    }
}
