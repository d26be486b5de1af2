//! A network namespace for one application: nothing in it but loopback, and every connection that leaves the application ends at
//! its sidecar.
//!
//! It has no name and no device that reaches out of it, so that there is nothing to clean up: the kernel removes it, with its rules,
//! when the last process in it and the last holder are gone, however they went.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use leno_proxy::config::{CAPTURE_DNS_PORT_DEFAULT, CAPTURE_OUTBOUND_PORT_DEFAULT};
use leno_proxy::netns::{APP_V4, APP_V6, Namespace};

use crate::failure::Failure;

use super::rules::Rules;
use super::tools;

/// A namespace for one application, held.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    namespace: Namespace,
    ipv6: bool,
}

impl Place {
    /// Makes one; `name` is written into it, so that it can be told from any other.
    ///
    /// # Errors
    /// With what is missing: rights, or a program.
    pub(crate) fn make(name: &str) -> Result<Self, Failure> {
        if let Some(why) = tools::cannot() {
            return Err(Failure::failed(format!("cannot intercept traffic: {why}")));
        }
        let namespace = Namespace::create().map_err(|error| {
            Failure::failed(format!("cannot make a network namespace: {error}; that needs CAP_SYS_ADMIN"))
        })?;
        let ipv6 = inside(&namespace, || furnish(name))?;
        Ok(Self { namespace, ipv6 })
    }

    /// Diverts what leaves the application to its sidecar, which listens by now.
    pub(crate) fn intercept(&self) -> Result<(), Failure> {
        let rules = Rules::of_one_application(
            CAPTURE_OUTBOUND_PORT_DEFAULT,
            Some(CAPTURE_DNS_PORT_DEFAULT),
            self.ipv6,
        );
        inside(&self.namespace, || tools::nft(&rules.script()))
    }

    /// What `leno proxy` is told besides the rest.
    pub(crate) fn proxy_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--app-namespace".to_owned(), self.path().display().to_string()];
        let mut listen = |flag: &str, port: u16| {
            arguments.extend([flag.to_owned(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()]);
            if self.ipv6 {
                arguments
                    .extend([flag.to_owned(), SocketAddr::from((Ipv6Addr::LOCALHOST, port)).to_string()]);
            }
        };
        listen("--capture-outbound", CAPTURE_OUTBOUND_PORT_DEFAULT);
        listen("--capture-dns", CAPTURE_DNS_PORT_DEFAULT);
        arguments
    }

    /// By which other processes of ours find it while this one lives.
    pub(crate) fn path(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Its number.
    pub(crate) fn number(&self) -> Result<u64, Failure> {
        self.namespace
            .number()
            .map_err(|error| Failure::failed(format!("cannot look at a network namespace: {error}")))
    }
}

/// The name of the namespace at `link`, if it was made here.
pub(crate) fn name_of(link: &std::path::Path) -> Option<String> {
    let namespace = Namespace::open(link).ok()?;
    let shown = inside(&namespace, || tools::ip_show(&["-j", "link", "show", "lo"])).ok()?;
    let links: serde_json::Value = serde_json::from_str(&shown).ok()?;
    Some(links[0]["ifalias"].as_str()?.strip_prefix(ALIAS)?.to_owned())
}

/// Loopback, an address beside it, and a way for every destination: what has none cannot even be diverted. Whether there is IPv6.
fn furnish(name: &str) -> Result<bool, Failure> {
    tools::ip(&format!(
        "link set lo alias {ALIAS}{name}\nlink set lo up\naddress add {APP_V4}/32 dev lo\nroute add 0.0.0.0/0 dev lo src {APP_V4}\n"
    ))?;
    // A machine may have switched IPv6 off in new namespaces; a file that is not there says that it has none.
    if fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").is_err() && !tools::ipv6() {
        return Ok(false);
    }
    let made =
        tools::ip(&format!("address add {APP_V6}/128 dev lo nodad\nroute add ::/0 dev lo src {APP_V6}\n"));
    if let Err(why) = &made {
        tracing::warn!(%why, "the application gets no IPv6");
    }
    Ok(made.is_ok())
}

fn inside<T: Send>(
    namespace: &Namespace,
    does: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let result: io::Result<Result<T, Failure>> = namespace.run(|| Ok(does()));
    result.unwrap_or_else(|error| Err(Failure::failed(format!("cannot enter a network namespace: {error}"))))
}

/// Before a name, in the alias of a namespace's loopback interface.
const ALIAS: &str = "leno-";
