//! What a rule asks of a request. How it is compared: [`crate::route::matches`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::cidr::Cidr;
use super::outside::EgressSource;
use super::pattern::Pattern;
use super::tags::Labels;
use super::template::Template;
use crate::name::ServiceId;

/// How deep lists that are shared can use others.
pub const LISTS_DEEP_MAX: usize = 4;

/// What a request must look like; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchSpec {
    /// One of these; empty: any.
    pub hosts: Vec<HostMatch>,
    /// The path without its query.
    pub path: Option<PathMatch>,
    /// The path is compared without case. Says nothing to a [`PathMatch::Regex`], which says so itself.
    pub path_any_case: bool,
    /// One of these; empty: any.
    pub methods: Vec<Arc<str>>,
    /// All of these.
    pub headers: Vec<FieldMatch>,
    /// All of these parameters of the query, compared as they are after percent-decoding.
    pub queries: Vec<FieldMatch>,
    /// It is a call of gRPC, to this.
    pub grpc: Option<GrpcMatch>,
    /// Who sends it: one of these; empty: anybody. A proxy sends for one workload, so this is decided for all of its
    /// requests when its snapshot is built: a rule for others is not in it.
    pub sources: Vec<SourceMatch>,
    /// What its connection must be like; `None`: any.
    pub link: Option<Arc<LinkMatch>>,
    /// All of this must hold too: what the rules ask that have handed the request to a list which several share. Of these
    /// none has another `also`.
    pub also: Vec<MatchSpec>,
}

/// What a connection must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkMatch {
    /// The port that the client connected to or asks for, one of these; empty: any.
    pub ports: Vec<u16>,
    /// The client's address, in one of these ranges; empty: any.
    pub clients: Vec<Cidr>,
    /// The name that the client asked for when TLS began (SNI), one of these; empty: any, or no TLS.
    pub server_names: Vec<HostMatch>,
}

/// A host pattern, lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostMatch {
    /// This host.
    Exact(Arc<str>),
    /// Any host below this suffix: `*.example.com` is kept as `.example.com`.
    Suffix(Arc<str>),
}

/// A path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This path.
    Exact(Arc<str>),
    /// This path and everything below it, by whole segments: `/a` covers `/a` and `/a/b`, never `/ab`.
    Prefix(Arc<str>),
    /// Every path that begins with this text: `/a` covers `/ab` too.
    Start(Arc<str>),
    /// Every path that this matches as a whole.
    Regex(Pattern),
    /// Every path of this form.
    Template(Template),
}

/// A header or a parameter of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMatch {
    /// Its name; a header's in lower case.
    pub name: Arc<str>,
    /// What its value must be. Of several of one name the first counts.
    pub value: TextMatch,
    /// The value is compared without case. Says nothing to a [`TextMatch::Regex`].
    pub any_case: bool,
    /// It must not be so, which includes that it is not there.
    pub not: bool,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// It is enough that it is there.
    Present,
    /// This text.
    Exact(Arc<str>),
    /// It begins with this.
    Prefix(Arc<str>),
    /// It ends with this.
    Suffix(Arc<str>),
    /// This is somewhere in it.
    Contains(Arc<str>),
    /// This matches it as a whole.
    Regex(Pattern),
}

/// Calls of gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMatch {
    /// `package.Service`; `None`: any.
    pub service: Option<Arc<str>>,
    /// `None`: any.
    pub method: Option<Arc<str>>,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMatch {
    /// An instance of which service; `None`: of any, and any gateway.
    pub who: Option<EgressSource>,
    /// Its proxy has all of these labels.
    pub labels: Labels,
}

impl MatchSpec {
    /// True when it asks for something that only a request has: a connection of bytes has none of it.
    pub fn looks_at_requests(&self) -> bool {
        let Self {
            hosts,
            path,
            path_any_case: _,
            methods,
            headers,
            queries,
            grpc,
            sources: _,
            link: _,
            also,
        } = self;
        !hosts.is_empty()
            || path.is_some()
            || !methods.is_empty()
            || !headers.is_empty()
            || !queries.is_empty()
            || grpc.is_some()
            || also.iter().any(Self::looks_at_requests)
    }

    /// This and what must hold too.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        core::iter::once(self).chain(&self.also)
    }

    /// True for what a service sends whose proxy has these labels.
    pub fn covers_source(&self, source: Option<&ServiceId>, labels: &Labels) -> bool {
        self.parts().all(|it| {
            it.sources.is_empty()
                || source.is_some_and(|own| it.sources.iter().any(|of| of.covers(own, labels)))
        })
    }

    /// The same for those who are among its sources.
    #[must_use]
    pub fn for_its_sources(&self) -> Self {
        Self { sources: Vec::new(), ..self.clone() }
    }
}

impl PathMatch {
    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Start(text) => text,
            Self::Regex(pattern) => pattern.as_str(),
            Self::Template(template) => template.as_str(),
        }
    }
}

impl FieldMatch {
    /// A field with exactly this value; `None`: it is enough that it is there.
    pub fn exact(name: &str, value: Option<&str>) -> Self {
        let value = value.map_or(TextMatch::Present, |value| TextMatch::Exact(value.into()));
        Self { name: name.into(), value, any_case: false, not: false }
    }
}

impl SourceMatch {
    /// True when an instance of `service` whose proxy has these labels is one of these callers.
    pub fn covers(&self, service: &ServiceId, labels: &Labels) -> bool {
        self.who.as_ref().is_none_or(|who| who.covers(service)) && labels.have(None, &self.labels)
    }
}

impl From<EgressSource> for SourceMatch {
    fn from(who: EgressSource) -> Self {
        Self { who: Some(who), labels: Labels::NONE }
    }
}

impl EgressSource {
    /// True when `service` is one of these callers.
    pub fn covers(&self, service: &ServiceId) -> bool {
        match self {
            Self::Service(wanted) => wanted == service,
            Self::Namespace(wanted) => *wanted == service.namespace,
        }
    }
}
