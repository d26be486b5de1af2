//! Gateways and their listeners.

use std::sync::Arc;

use leno_core::spec;

use super::zones::{zone, zone_of};
use super::{WireError, address, bad, full_name, host, host_text, id, list, rules};
use crate::proto::resource as wire;

impl From<&spec::GatewaySpec> for wire::Gateway {
    fn from(spec: &spec::GatewaySpec) -> Self {
        Self {
            name: full_name(&spec.id),
            rules: spec.rules.iter().map(wire::Rule::from).collect(),
            listeners: spec.listeners.iter().map(|listener| wire::Listener::from(&**listener)).collect(),
            zone: zone_of(spec.zone.as_ref()),
        }
    }
}

/// At least one listener, each with a name of its own.
impl TryFrom<wire::Gateway> for spec::GatewaySpec {
    type Error = WireError;

    fn try_from(message: wire::Gateway) -> Result<Self, WireError> {
        let id = id("name", &message.name)?;
        let parse = move || {
            let listeners: Vec<Arc<spec::ListenerSpec>> =
                list("listeners", message.listeners, |listener| listener.try_into().map(Arc::new))?;
            let mut names: Vec<&str> = listeners.iter().map(|listener| &*listener.name).collect();
            names.sort_unstable();
            if names.is_empty() {
                return Err(bad("listeners", "are missing"));
            }
            if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(bad("listeners", format!("two are named {:?}", twice[0])));
            }
            let zone = zone("zone", &message.zone)?;
            Ok(Self { id, listeners, rules: rules(message.rules)?, zone })
        };
        parse().map_err(|error: WireError| WireError { resource: message.name, ..error })
    }
}

impl From<&spec::ListenerSpec> for wire::Listener {
    fn from(spec: &spec::ListenerSpec) -> Self {
        let hosts = |hosts: &[spec::HostMatch]| hosts.iter().map(host_text).collect();
        Self {
            name: spec.name.to_string(),
            listen: spec.listen.to_string(),
            serve: Some(match &spec.serve {
                spec::Serve::Http(http) => wire::Serve::Http(wire::Http {
                    hosts: hosts(&http.hosts),
                    tls: http.tls.as_ref().map(wire::Termination::from),
                    redirect: http.redirect.map(u32::from),
                    forwarded_hops: http.forwarded_hops.into(),
                }),
                spec::Serve::Passthrough(routes) => {
                    let route = |route: &spec::SniRoute| wire::SniRoute {
                        names: hosts(&route.names),
                        to: full_name(&route.to),
                    };
                    wire::Serve::Passthrough(wire::Passthrough { routes: routes.iter().map(route).collect() })
                }
                spec::Serve::Tcp { to, tls } => wire::Serve::Tcp(wire::Tcp {
                    to: full_name(to),
                    tls: tls.as_ref().map(wire::Termination::from),
                }),
            }),
            proxy_protocol: spec
                .proxy_protocol
                .as_ref()
                .map(|trusted| wire::Trusted { ranges: trusted.iter().map(ToString::to_string).collect() }),
        }
    }
}

impl TryFrom<wire::Listener> for spec::ListenerSpec {
    type Error = WireError;

    fn try_from(message: wire::Listener) -> Result<Self, WireError> {
        if message.name.is_empty() {
            return Err(bad("name", "is empty"));
        }
        let serve = match message.serve {
            Some(wire::Serve::Http(http)) => spec::Serve::Http(http.try_into()?),
            Some(wire::Serve::Passthrough(passthrough)) => {
                let routes = list("routes", passthrough.routes, |route| {
                    let names = list("names", route.names, host)?;
                    if names.is_empty() {
                        return Err(bad("names", "are missing"));
                    }
                    Ok(spec::SniRoute { names, to: id("to", &route.to)? })
                })?;
                if routes.is_empty() {
                    return Err(bad("routes", "are missing"));
                }
                spec::Serve::Passthrough(routes)
            }
            Some(wire::Serve::Tcp(tcp)) => {
                spec::Serve::Tcp { to: id("to", &tcp.to)?, tls: tcp.tls.map(termination).transpose()? }
            }
            None => return Err(bad("serve", "is missing, or of a kind that is not known here")),
        };
        let range =
            |text: String| spec::Cidr::parse(&text).map_err(|error| bad("", format!("{text:?}: {error}")));
        let trusted = message.proxy_protocol.map(|trusted| list("proxy_protocol", trusted.ranges, range));
        Ok(Self {
            name: message.name.into(),
            listen: address("listen", &message.listen)?,
            serve,
            proxy_protocol: trusted.transpose()?,
        })
    }
}

impl TryFrom<wire::Http> for spec::HttpSpec {
    type Error = WireError;

    fn try_from(message: wire::Http) -> Result<Self, WireError> {
        let redirect = message.redirect.map(|port| match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(bad("redirect", format!("{port} is no port"))),
        });
        let hops = message.forwarded_hops;
        Ok(Self {
            hosts: list("hosts", message.hosts, host)?,
            tls: message.tls.map(termination).transpose()?,
            redirect: redirect.transpose()?,
            forwarded_hops: u8::try_from(hops)
                .map_err(|_| bad("forwarded_hops", format!("{hops} is over 255")))?,
        })
    }
}

impl From<&spec::TerminationSpec> for wire::Termination {
    fn from(spec: &spec::TerminationSpec) -> Self {
        let files = |files: &spec::CertificateFiles| wire::CertificateFiles {
            cert: files.cert.clone(),
            key: files.key.clone(),
        };
        Self {
            certificates: spec.certificates.iter().map(files).collect(),
            clients: spec.clients.as_ref().map(|clients| wire::ClientCertificates {
                authorities: clients.authorities.clone(),
                optional: !clients.required,
                forward: clients.forward,
            }),
            min_minor: match spec.min_version {
                spec::TlsVersion::V12 => 2,
                spec::TlsVersion::V13 => 3,
            },
        }
    }
}

fn termination(message: wire::Termination) -> Result<spec::TerminationSpec, WireError> {
    let below = |error: WireError| error.below("tls");
    let file =
        |field: &str, path: String| if path.is_empty() { Err(bad(field, "is empty")) } else { Ok(path) };
    let certificates = list("certificates", message.certificates, |files| {
        Ok(spec::CertificateFiles { cert: file("cert", files.cert)?, key: file("key", files.key)? })
    });
    let certificates = certificates.map_err(below)?;
    if certificates.is_empty() {
        return Err(below(bad("certificates", "are missing")));
    }
    let clients = message.clients.map(|clients| {
        Ok(spec::ClientCertificates {
            authorities: file("authorities", clients.authorities)?,
            required: !clients.optional,
            forward: clients.forward,
        })
    });
    Ok(spec::TerminationSpec {
        certificates,
        clients: clients.transpose().map_err(below)?,
        min_version: match message.min_minor {
            2 => spec::TlsVersion::V12,
            3 => spec::TlsVersion::V13,
            minor => return Err(below(bad("min_minor", format!("{minor} is not known here")))),
        },
    })
}
