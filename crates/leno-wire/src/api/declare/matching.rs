//! What a rule asks of a request, as JSON.

use std::sync::Arc;

use leno_core::spec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proto::resource as wire;

/// What a request must look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// One of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// The path without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The path is compared without case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub path_ignore_case: bool,
    /// One of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// All of these: name (lower case) and value; `null`: it is enough that it is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Option<FieldMatch>)>,
    /// All of these parameters of the query, as in `headers`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<(String, Option<FieldMatch>)>,
    /// It is a call of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Call>,
    /// Who sends it: one of these services, `NAMESPACE/NAME`, or all of a namespace, `NAMESPACE/*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Or one of these, whose proxy has labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_labels: Vec<crate::proto::zones::Source>,
    /// The port that the client connected to or asks for, one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The client's address, in one of these ranges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// The name asked for when TLS began (SNI), one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<Host>,
    /// All of this must hold too; has no `also` of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Self>,
}

/// A host: `a.example`, or `*.example` for every host below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Host(pub String);

/// A path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// This path.
    Exact(String),
    /// This path and below, by whole segments.
    Prefix(String),
    /// Every path that begins with this text.
    StartsWith(String),
    /// A regular expression for the whole path.
    Regex(String),
    /// A path with parts that vary, such as `/users/{id}/**`.
    Template(String),
}

/// What a value must be: this text, or what a test says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldMatch {
    /// Exactly this.
    Exact(String),
    /// As this says.
    Test(FieldTest),
}

/// A test of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldTest {
    /// What it is; unset: it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<TextTest>,
    /// Compared without case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// It must not be so, which includes that it is not there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
}

/// A test of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextTest {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// It ends with this.
    Suffix(String),
    /// It has this in it.
    Contains(String),
    /// A regular expression for all of it.
    Regex(String),
}

/// A call of gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// `package.Service`; unset: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Unset: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl Match {
    /// True when every request matches.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Match> for wire::Match {
    fn from(when: Match) -> Self {
        Self {
            hosts: hosts(when.hosts),
            path: when.path.map(|path| match path {
                Path::Exact(path) => wire::Path::Exact(path),
                Path::Prefix(path) => wire::Path::Prefix(path),
                Path::StartsWith(path) => wire::Path::Start(path),
                Path::Regex(text) => wire::Path::Regex(text),
                Path::Template(text) => wire::Path::Template(text),
            }),
            path_any_case: when.path_ignore_case,
            methods: when.methods,
            headers: when.headers.into_iter().map(field).collect(),
            queries: when.query.into_iter().map(field).collect(),
            grpc: when.grpc.map(|call| wire::Call { service: call.service, method: call.method }),
            sources: when.from,
            labelled_sources: when.from_labels,
            ports: when.ports.into_iter().map(u32::from).collect(),
            clients: when.clients,
            server_names: hosts(when.server_names),
            also: when.also.into_iter().map(Self::from).collect(),
        }
    }
}

fn hosts(hosts: Vec<Host>) -> Vec<String> {
    hosts.into_iter().map(|Host(host)| host.strip_prefix('*').map_or(host.clone(), String::from)).collect()
}

fn field((name, value): (String, Option<FieldMatch>)) -> wire::Field {
    let test = match value {
        None => FieldTest::default(),
        Some(FieldMatch::Exact(text)) => {
            FieldTest { is: Some(TextTest::Exact(text)), ..FieldTest::default() }
        }
        Some(FieldMatch::Test(test)) => test,
    };
    let value = test.is.map(|is| match is {
        TextTest::Exact(text) => wire::Text::Exact(text),
        TextTest::Prefix(text) => wire::Text::Prefix(text),
        TextTest::Suffix(text) => wire::Text::Suffix(text),
        TextTest::Contains(text) => wire::Text::Contains(text),
        TextTest::Regex(text) => wire::Text::Regex(text),
    });
    wire::Field { name, value, any_case: test.ignore_case, not: test.not }
}

impl From<&spec::MatchSpec> for Match {
    fn from(spec: &spec::MatchSpec) -> Self {
        let text = |text: &Arc<str>| text.to_string();
        let host = |host: &spec::HostMatch| match host {
            spec::HostMatch::Exact(host) => Host(text(host)),
            spec::HostMatch::Suffix(suffix) => Host(format!("*{suffix}")),
        };
        let link = spec.link.as_deref();
        Self {
            ports: link.map_or(Vec::new(), |link| link.ports.clone()),
            clients: link.iter().flat_map(|link| &link.clients).map(ToString::to_string).collect(),
            server_names: link.iter().flat_map(|link| &link.server_names).map(host).collect(),
            also: spec.also.iter().map(Self::from).collect(),
            hosts: spec.hosts.iter().map(host).collect(),
            path: spec.path.as_ref().map(|path| match path {
                spec::PathMatch::Exact(path) => Path::Exact(text(path)),
                spec::PathMatch::Prefix(path) => Path::Prefix(text(path)),
                spec::PathMatch::Start(path) => Path::StartsWith(text(path)),
                spec::PathMatch::Regex(pattern) => Path::Regex(pattern.as_str().to_owned()),
                spec::PathMatch::Template(template) => Path::Template(template.as_str().to_owned()),
            }),
            path_ignore_case: spec.path_any_case,
            methods: spec.methods.iter().map(text).collect(),
            headers: spec.headers.iter().map(shown).collect(),
            query: spec.queries.iter().map(shown).collect(),
            grpc: spec.grpc.as_ref().map(|call| Call {
                service: call.service.as_ref().map(text),
                method: call.method.as_ref().map(text),
            }),
            from: spec
                .sources
                .iter()
                .filter(|source| source.labels.is_empty())
                .filter_map(|source| source.who.as_ref())
                .map(|who| match who {
                    spec::EgressSource::Service(id) => id.to_string(),
                    spec::EgressSource::Namespace(namespace) => format!("{namespace}/*"),
                })
                .collect(),
            from_labels: wire::Match::from(spec).labelled_sources,
        }
    }
}

/// The shortest form.
fn shown(field: &spec::FieldMatch) -> (String, Option<FieldMatch>) {
    let is = match &field.value {
        spec::TextMatch::Present => None,
        spec::TextMatch::Exact(text) => Some(TextTest::Exact(text.to_string())),
        spec::TextMatch::Prefix(text) => Some(TextTest::Prefix(text.to_string())),
        spec::TextMatch::Suffix(text) => Some(TextTest::Suffix(text.to_string())),
        spec::TextMatch::Contains(text) => Some(TextTest::Contains(text.to_string())),
        spec::TextMatch::Regex(pattern) => Some(TextTest::Regex(pattern.as_str().to_owned())),
    };
    let value = match (is, field.any_case, field.not) {
        (None, false, false) => None,
        (Some(TextTest::Exact(text)), false, false) => Some(FieldMatch::Exact(text)),
        (is, ignore_case, not) => Some(FieldMatch::Test(FieldTest { is, ignore_case, not })),
    };
    (field.name.to_string(), value)
}
