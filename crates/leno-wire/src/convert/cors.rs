//! Which pages of other origins may use what a rule is about.

use std::sync::Arc;
use std::time::Duration;

use leno_core::http1::is_token;
use leno_core::spec::{self, Allowed, Pattern, TextMatch, Unmatched};

use super::{WireError, bad, list};
use crate::proto::cors as wire;

impl From<&spec::Cors> for wire::Cors {
    fn from(spec: &spec::Cors) -> Self {
        let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        Self {
            origins: spec.origins.iter().map(|it| wire::Origin { form: Some(it.into()) }).collect(),
            methods: names(&spec.methods),
            headers: match &spec.headers {
                Allowed::These(headers) => names(headers),
                Allowed::Any => Vec::new(),
            },
            any_header: spec.headers == Allowed::Any,
            expose: names(&spec.expose),
            max_age_seconds: spec.max_age.map(|age| age.as_secs()),
            credentials: spec.credentials,
            forward_unmatched: spec.unmatched == Unmatched::Forward,
        }
    }
}

impl From<&TextMatch> for wire::OriginForm {
    fn from(spec: &TextMatch) -> Self {
        match spec {
            TextMatch::Present => Self::Any(true),
            TextMatch::Exact(text) => Self::Exact(text.to_string()),
            TextMatch::Prefix(text) => Self::Prefix(text.to_string()),
            TextMatch::Suffix(text) => Self::Suffix(text.to_string()),
            TextMatch::Contains(text) => Self::Contains(text.to_string()),
            TextMatch::Regex(pattern) => Self::Regex(pattern.as_str().to_owned()),
        }
    }
}

impl TryFrom<wire::Cors> for spec::Cors {
    type Error = WireError;

    fn try_from(message: wire::Cors) -> Result<Self, WireError> {
        if message.origins.is_empty() {
            return Err(bad("origins", "are missing"));
        }
        let origins = list("origins", message.origins, origin)?;
        let lower = |name: String| token(&name).map(|_| name.to_ascii_lowercase().into());
        let headers = list("headers", message.headers, lower)?;
        if message.any_header && !headers.is_empty() {
            return Err(bad("any_header", "goes with no `headers`"));
        }
        let cors = Self {
            origins,
            methods: list("methods", message.methods, |name| token(&name))?,
            headers: if message.any_header { Allowed::Any } else { Allowed::These(headers) },
            expose: list("expose", message.expose, lower)?,
            max_age: message.max_age_seconds.map(Duration::from_secs),
            credentials: message.credentials,
            unmatched: if message.forward_unmatched { Unmatched::Forward } else { Unmatched::Refuse },
        };
        if cors.credentials && cors.lets_anybody_in() {
            return Err(bad("credentials", "go with origins that are known"));
        }
        Ok(cors)
    }
}

fn origin(message: wire::Origin) -> Result<TextMatch, WireError> {
    use wire::OriginForm;
    Ok(match message.form {
        Some(OriginForm::Any(true)) => TextMatch::Present,
        Some(OriginForm::Exact(text)) => TextMatch::Exact(text.into()),
        Some(OriginForm::Prefix(text)) => TextMatch::Prefix(text.into()),
        Some(OriginForm::Suffix(text)) => TextMatch::Suffix(text.into()),
        Some(OriginForm::Contains(text)) => TextMatch::Contains(text.into()),
        Some(OriginForm::Regex(text)) => TextMatch::Regex(
            Pattern::whole(&text).map_err(|error| bad("regex", format!("{text:?}: {error}")))?,
        ),
        Some(OriginForm::Any(false)) | None => return Err(bad("", "is none")),
    })
}

fn token(name: &str) -> Result<Arc<str>, WireError> {
    if is_token(name.as_bytes()) { Ok(name.into()) } else { Err(bad("", format!("{name:?} is no name"))) }
}
