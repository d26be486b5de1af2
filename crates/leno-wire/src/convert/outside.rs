//! What is outside of the mesh, between the messages and `leno_core::spec`.

use std::sync::Arc;

use leno_core::egress::Destination;
use leno_core::peer::SpiffeId;
use leno_core::spec;

use super::matching::{source, source_text};
use super::zones::{labels_of, tags, zone_of};
use super::{WireError, address, bad, host, list, optional_label};
use crate::proto::outside as wire;

impl From<&spec::ExternalSpec> for wire::External {
    fn from(spec: &spec::ExternalSpec) -> Self {
        let named = |named: &spec::NamedEndpoint| wire::NamedEndpoint {
            name: named.name.to_string(),
            host: named.host.to_string(),
            port: named.port.into(),
            version: named.version.as_ref().map(String::from).unwrap_or_default(),
            weight: named.weight,
            zone: zone_of(named.tags.zone.as_ref()),
            labels: labels_of(&named.tags.labels),
        };
        Self { names: spec.names.iter().map(named).collect(), tls: spec.tls.as_deref().map(wire::Tls::from) }
    }
}

impl TryFrom<wire::External> for spec::ExternalSpec {
    type Error = WireError;

    fn try_from(message: wire::External) -> Result<Self, WireError> {
        let named = |named: wire::NamedEndpoint| {
            if named.name.is_empty() {
                return Err(bad("name", "is empty"));
            }
            let destination = Destination::of_authority(named.host.as_bytes(), 1);
            let Ok(Destination { host: Some(host), .. }) = destination else {
                return Err(bad("host", format!("{:?} is no host name", named.host)));
            };
            Ok(spec::NamedEndpoint {
                name: named.name.into(),
                host: host.as_str().into(),
                port: port("port", named.port)?,
                version: optional_label("version", &named.version)?,
                weight: named.weight,
                tags: tags(&named.zone, &named.labels)?,
            })
        };
        let tls = message.tls.map(|tls| spec::TlsSpec::try_from(tls).map_err(|error| error.below("tls")));
        Ok(Self { names: list("names", message.names, named)?, tls: tls.transpose()?.map(Arc::new) })
    }
}

impl From<&spec::TlsSpec> for wire::Tls {
    fn from(spec: &spec::TlsSpec) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let (roots, roots_file) = match &spec.roots {
            None => (wire::Roots::Unspecified, String::new()),
            Some(spec::Roots::System) => (wire::Roots::System, String::new()),
            Some(spec::Roots::Mesh) => (wire::Roots::Mesh, String::new()),
            Some(spec::Roots::File(file)) => (wire::Roots::File, file.to_string()),
        };
        let (identity, cert, key) = match &spec.identity {
            None => (wire::Identity::Unspecified, String::new(), String::new()),
            Some(spec::ClientIdentity::Mesh) => (wire::Identity::Mesh, String::new(), String::new()),
            Some(spec::ClientIdentity::Files { cert, key }) => {
                (wire::Identity::Files, cert.to_string(), key.to_string())
            }
        };
        Self {
            sni: text(&spec.sni),
            roots: roots.into(),
            roots_file,
            pinned: spec.pinned.iter().map(ToString::to_string).collect(),
            names: spec.names.iter().map(ToString::to_string).collect(),
            spiffe: text(&spec.spiffe),
            identity: identity.into(),
            cert,
            key,
            alpn: spec.alpn.iter().map(|alpn| alpn.id().to_owned()).collect(),
        }
    }
}

impl TryFrom<wire::Tls> for spec::TlsSpec {
    type Error = WireError;

    fn try_from(message: wire::Tls) -> Result<Self, WireError> {
        let optional = |text: String| Some(Arc::from(text)).filter(|text: &Arc<str>| !text.is_empty());
        let file = |field: &str, text: String| {
            if text.is_empty() { Err(bad(field, "is empty")) } else { Ok(Arc::from(text)) }
        };
        let roots = match wire::Roots::try_from(message.roots) {
            Ok(wire::Roots::Unspecified) => None,
            Ok(wire::Roots::System) => Some(spec::Roots::System),
            Ok(wire::Roots::Mesh) => Some(spec::Roots::Mesh),
            Ok(wire::Roots::File) => Some(spec::Roots::File(file("roots_file", message.roots_file)?)),
            Err(_) => return Err(bad("roots", format!("{} is not known here", message.roots))),
        };
        let identity = match wire::Identity::try_from(message.identity) {
            Ok(wire::Identity::Unspecified) => None,
            Ok(wire::Identity::Mesh) => Some(spec::ClientIdentity::Mesh),
            Ok(wire::Identity::Files) => Some(spec::ClientIdentity::Files {
                cert: file("cert", message.cert)?,
                key: file("key", message.key)?,
            }),
            Err(_) => return Err(bad("identity", format!("{} is not known here", message.identity))),
        };
        let pin = |text: String| match text.strip_prefix("sha256:") {
            Some(digits) => spec::Pinned::parse_key(digits)
                .ok_or_else(|| bad("", format!("{text:?} is no SHA-256 of a key"))),
            None => Ok(spec::Pinned::File(file("", text)?)),
        };
        let alpn =
            |id: String| spec::Alpn::parse(&id).ok_or_else(|| bad("", format!("{id:?} is not known here")));
        Ok(Self {
            sni: optional(message.sni),
            roots,
            pinned: list("pinned", message.pinned, pin)?,
            names: list("names", message.names, |name| file("", name))?,
            spiffe: optional(message.spiffe),
            identity,
            alpn: list("alpn", message.alpn, alpn)?,
        })
    }
}

impl From<&spec::EgressSpec> for wire::Egress {
    fn from(spec: &spec::EgressSpec) -> Self {
        let rule = |rule: &spec::EgressRule| wire::EgressRule {
            name: rule.name.to_string(),
            from: rule.from.iter().map(source_text).collect(),
            hosts: rule
                .hosts
                .iter()
                .map(|host| match host {
                    spec::HostMatch::Exact(text) | spec::HostMatch::Suffix(text) => text.to_string(),
                })
                .collect(),
            cidrs: rule.cidrs.iter().map(ToString::to_string).collect(),
            ports: rule.ports.iter().copied().map(u32::from).collect(),
            allow: rule.allow,
        };
        Self {
            mode: match spec.mode {
                spec::EgressMode::Allow => wire::EgressMode::Allow,
                spec::EgressMode::RegistryOnly => wire::EgressMode::RegistryOnly,
            }
            .into(),
            rules: spec.rules.iter().map(rule).collect(),
            via: spec
                .via
                .as_ref()
                .map(|via| wire::Via { identity: via.identity.to_uri(), address: via.address.to_string() }),
        }
    }
}

impl TryFrom<wire::Egress> for spec::EgressSpec {
    type Error = WireError;

    fn try_from(message: wire::Egress) -> Result<Self, WireError> {
        let via = |via: wire::Via| {
            Ok(spec::Via {
                identity: SpiffeId::parse(&via.identity)
                    .map_err(|error| bad("via.identity", format!("{:?}: {error}", via.identity)))?,
                address: address("via.address", &via.address)?,
            })
        };
        Ok(Self {
            mode: match wire::EgressMode::try_from(message.mode) {
                Ok(wire::EgressMode::Allow) => spec::EgressMode::Allow,
                Ok(wire::EgressMode::RegistryOnly) => spec::EgressMode::RegistryOnly,
                Ok(wire::EgressMode::Unspecified) | Err(_) => {
                    return Err(bad("mode", format!("{} is not known here", message.mode)));
                }
            },
            rules: list("rules", message.rules, rule)?,
            via: message.via.map(via).transpose()?,
        })
    }
}

fn rule(message: wire::EgressRule) -> Result<spec::EgressRule, WireError> {
    if message.name.is_empty() {
        return Err(bad("name", "is empty"));
    }
    let cidr = |text: String| spec::Cidr::parse(&text).map_err(|error| bad("", format!("{text:?}: {error}")));
    Ok(spec::EgressRule {
        name: message.name.into(),
        from: list("from", message.from, source)?,
        hosts: list("hosts", message.hosts, host)?,
        cidrs: list("cidrs", message.cidrs, cidr)?,
        ports: list("ports", message.ports, |number| port("", number))?,
        allow: message.allow,
    })
}

/// 1 to 65535.
fn port(field: &str, number: u32) -> Result<u16, WireError> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(bad(field, format!("{number} is no port"))),
    }
}
