//! What a rule asks of a request: `MatchSpec`.

use std::sync::Arc;

use leno_core::name::Label;
use leno_core::spec;

use super::zones::{sources, sources_of};
use super::{WireError, bad, check_path, full_name, host, host_text, id, list, port_number};
use crate::proto::resource as wire;

impl From<&spec::MatchSpec> for wire::Match {
    fn from(spec: &spec::MatchSpec) -> Self {
        let (sources, labelled_sources) = sources_of(&spec.sources);
        Self {
            hosts: spec.hosts.iter().map(host_text).collect(),
            path: spec.path.as_ref().map(|path| match path {
                spec::PathMatch::Exact(text) => wire::Path::Exact(text.to_string()),
                spec::PathMatch::Prefix(text) => wire::Path::Prefix(text.to_string()),
                spec::PathMatch::Start(text) => wire::Path::Start(text.to_string()),
                spec::PathMatch::Regex(pattern) => wire::Path::Regex(pattern.as_str().to_owned()),
                spec::PathMatch::Template(template) => wire::Path::Template(template.as_str().to_owned()),
            }),
            path_any_case: spec.path_any_case,
            methods: spec.methods.iter().map(ToString::to_string).collect(),
            headers: spec.headers.iter().map(wire::Field::from).collect(),
            queries: spec.queries.iter().map(wire::Field::from).collect(),
            grpc: spec.grpc.as_ref().map(|call| wire::Call {
                service: call.service.as_ref().map(ToString::to_string),
                method: call.method.as_ref().map(ToString::to_string),
            }),
            sources,
            labelled_sources,
            ports: spec.link.iter().flat_map(|link| &link.ports).map(|port| u32::from(*port)).collect(),
            clients: spec.link.iter().flat_map(|link| &link.clients).map(ToString::to_string).collect(),
            server_names: spec.link.iter().flat_map(|link| &link.server_names).map(host_text).collect(),
            also: spec.also.iter().map(Self::from).collect(),
        }
    }
}

impl TryFrom<wire::Match> for spec::MatchSpec {
    type Error = WireError;

    fn try_from(message: wire::Match) -> Result<Self, WireError> {
        let field = |message: wire::Field| spec::FieldMatch::try_from(message);
        Ok(Self {
            hosts: list("when.hosts", message.hosts, host)?,
            path: message.path.map(path).transpose()?,
            path_any_case: message.path_any_case,
            methods: list("when.methods", message.methods, |method| {
                if method.is_empty() || !method.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(bad("", format!("{method:?} is no method")));
                }
                Ok(Arc::from(method))
            })?,
            headers: list("when.headers", message.headers, |header| {
                let lower = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b':';
                if header.name.is_empty() || !header.name.bytes().all(lower) {
                    return Err(bad("name", format!("{:?} is no lower-case field name", header.name)));
                }
                field(header)
            })?,
            queries: list("when.queries", message.queries, |parameter| {
                if parameter.name.is_empty() {
                    return Err(bad("name", "is empty"));
                }
                field(parameter)
            })?,
            grpc: message
                .grpc
                .map(|call| {
                    Ok(spec::GrpcMatch {
                        service: call.service.map(|name| segment("when.grpc.service", name)).transpose()?,
                        method: call.method.map(|name| segment("when.grpc.method", name)).transpose()?,
                    })
                })
                .transpose()?,
            sources: sources(message.sources, message.labelled_sources)?,
            link: {
                let link = spec::LinkMatch {
                    ports: list("when.ports", message.ports, |port| port_number("", port))?,
                    clients: list("when.clients", message.clients, |text| {
                        spec::Cidr::parse(&text).map_err(|error| bad("", format!("{text:?}: {error}")))
                    })?,
                    server_names: list("when.server_names", message.server_names, host)?,
                };
                (link != spec::LinkMatch::default()).then(|| Arc::new(link))
            },
            also: also(message.also)?,
        })
    }
}

/// What must hold too, one level deep.
fn also(messages: Vec<wire::Match>) -> Result<Vec<spec::MatchSpec>, WireError> {
    const FIELD: &str = "when.also";
    if messages.len() > spec::LISTS_DEEP_MAX {
        return Err(bad(FIELD, format!("are more than {}", spec::LISTS_DEEP_MAX)));
    }
    list(FIELD, messages, |message| {
        if message.also.is_empty() { message.try_into() } else { Err(bad("also", "goes one level deep")) }
    })
}

fn path(path: wire::Path) -> Result<spec::PathMatch, WireError> {
    const FIELD: &str = "when.path";
    let plain = |path: String| -> Result<Arc<str>, WireError> {
        check_path(FIELD, &path)?;
        Ok(path.into())
    };
    Ok(match path {
        wire::Path::Exact(path) => spec::PathMatch::Exact(plain(path)?),
        wire::Path::Prefix(path) => spec::PathMatch::Prefix(plain(path)?),
        wire::Path::Start(path) => spec::PathMatch::Start(plain(path)?),
        wire::Path::Regex(text) => spec::PathMatch::Regex(whole(FIELD, &text)?),
        wire::Path::Template(text) => {
            let template = spec::Template::parse(&text);
            spec::PathMatch::Template(template.map_err(|error| bad(FIELD, format!("{text:?}: {error}")))?)
        }
    })
}

impl From<&spec::FieldMatch> for wire::Field {
    fn from(spec: &spec::FieldMatch) -> Self {
        Self {
            name: spec.name.to_string(),
            value: match &spec.value {
                spec::TextMatch::Present => None,
                spec::TextMatch::Exact(text) => Some(wire::Text::Exact(text.to_string())),
                spec::TextMatch::Prefix(text) => Some(wire::Text::Prefix(text.to_string())),
                spec::TextMatch::Suffix(text) => Some(wire::Text::Suffix(text.to_string())),
                spec::TextMatch::Contains(text) => Some(wire::Text::Contains(text.to_string())),
                spec::TextMatch::Regex(pattern) => Some(wire::Text::Regex(pattern.as_str().to_owned())),
            },
            any_case: spec.any_case,
            not: spec.not,
        }
    }
}

impl TryFrom<wire::Field> for spec::FieldMatch {
    type Error = WireError;

    fn try_from(message: wire::Field) -> Result<Self, WireError> {
        Ok(Self {
            name: message.name.into(),
            value: match message.value {
                None => spec::TextMatch::Present,
                Some(wire::Text::Exact(text)) => spec::TextMatch::Exact(text.into()),
                Some(wire::Text::Prefix(text)) => spec::TextMatch::Prefix(text.into()),
                Some(wire::Text::Suffix(text)) => spec::TextMatch::Suffix(text.into()),
                Some(wire::Text::Contains(text)) => spec::TextMatch::Contains(text.into()),
                Some(wire::Text::Regex(text)) => spec::TextMatch::Regex(whole("value", &text)?),
            },
            any_case: message.any_case,
            not: message.not,
        })
    }
}

fn whole(field: &str, text: &str) -> Result<spec::Pattern, WireError> {
    spec::Pattern::whole(text).map_err(|error| bad(field, format!("{text:?}: {error}")))
}

/// The name of a service or method of gRPC: one segment of a path.
fn segment(field: &str, name: String) -> Result<Arc<str>, WireError> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        return Err(bad(field, format!("{name:?} is no name in gRPC")));
    }
    Ok(name.into())
}

/// `NAMESPACE/NAME`, or `NAMESPACE/*` for every service there.
pub(super) fn source_text(source: &spec::EgressSource) -> String {
    match source {
        spec::EgressSource::Service(id) => full_name(id),
        spec::EgressSource::Namespace(namespace) => format!("{namespace}/*"),
    }
}

/// A source as [`source_text`] writes it.
pub(super) fn source(text: String) -> Result<spec::EgressSource, WireError> {
    match text.strip_suffix("/*") {
        None => Ok(spec::EgressSource::Service(id("", &text)?)),
        Some(namespace) => Label::parse(namespace)
            .map(spec::EgressSource::Namespace)
            .map_err(|error| bad("", format!("{text:?}: {error}"))),
    }
}
