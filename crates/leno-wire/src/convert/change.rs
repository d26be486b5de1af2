//! What rules change and answer: `Change` and `Answer`.

use std::sync::Arc;

use leno_core::admission::Class;
use leno_core::http1::is_authority;
use leno_core::spec::{self, Fixed, Format, PathMatch, Pattern, Replacement, Scope};

use super::rate::rates;
use super::{WireError, bad, check_path, id, list, optional_label, port_number};
use crate::proto::change as wire;
use crate::proto::rate::RateLimit;
use crate::proto::resource::Action;

impl From<&spec::Change> for wire::Change {
    fn from(spec: &spec::Change) -> Self {
        let fields = |changes: &spec::FieldChanges| {
            (*changes != spec::FieldChanges::default()).then(|| wire::FieldChanges {
                remove: changes.remove.iter().map(ToString::to_string).collect(),
                set: values(&changes.set),
                add: values(&changes.add),
            })
        };
        Self {
            path: spec.path.as_ref().map(path_text),
            host: spec.host.as_ref().map(ToString::to_string),
            request: fields(&spec.request),
            response: fields(&spec.response),
            mirrors: spec
                .mirrors
                .iter()
                .map(|mirror| wire::Mirror {
                    service: mirror.service.to_string(),
                    version: mirror.version.as_ref().map(String::from).unwrap_or_default(),
                    share_ppm: mirror.share_ppm,
                })
                .collect(),
            priority: spec.priority.map(|class| class.word().to_owned()),
            fault: spec.fault.as_deref().map(From::from),
            cors: spec.cors.as_deref().map(From::from),
            rate_limits: spec.rates.iter().map(|rate| RateLimit::from(&**rate)).collect(),
        }
    }
}

impl From<&spec::Answer> for Action {
    fn from(spec: &spec::Answer) -> Self {
        match spec {
            spec::Answer::Redirect(redirect) => Self::Redirect(wire::Redirect {
                scheme: redirect.scheme.map(|scheme| scheme.word().to_owned()),
                host: redirect.host.as_ref().map(ToString::to_string),
                port: redirect.port.map(u32::from),
                path: redirect.path.as_ref().map(path_text),
                status: redirect.status.into(),
            }),
            spec::Answer::Direct(direct) => Self::Answer(wire::Direct {
                status: direct.status.into(),
                headers: values(&direct.headers),
                body: direct.body.to_string(),
            }),
        }
    }
}

fn path_text(path: &spec::PathChange) -> wire::PathChange {
    match path {
        spec::PathChange::Prefix(to) => wire::PathChange::Prefix(to.to_string()),
        spec::PathChange::Whole(format) => wire::PathChange::Whole(format.as_str().to_owned()),
        spec::PathChange::Regex(pattern, with) => wire::PathChange::Regex(wire::Replacing {
            pattern: pattern.as_str().to_owned(),
            with: with.as_str().to_owned(),
        }),
    }
}

fn values(fields: &[(Arc<str>, Format)]) -> Vec<wire::Value> {
    let value = |(name, format): &(Arc<str>, Format)| wire::Value {
        name: name.to_string(),
        value: format.as_str().to_owned(),
    };
    fields.iter().map(value).collect()
}

/// The changes of a rule that is about requests as `when` says.
pub(super) fn change(message: wire::Change, when: &spec::MatchSpec) -> Result<spec::Change, WireError> {
    let parts = parts(when);
    Ok(spec::Change {
        path: message.path.map(|it| path("change.path", it, when)).transpose()?,
        host: message.host.map(|host| authority("change.host", host)).transpose()?,
        request: fields("change.request", message.request, &parts)?,
        response: fields("change.response", message.response, &parts)?,
        mirrors: mirrors(message.mirrors)?,
        priority: message.priority.map(priority).transpose()?,
        fault: message
            .fault
            .map(|fault| fault.try_into().map(Arc::new))
            .transpose()
            .map_err(|error: WireError| error.below("change.fault"))?,
        cors: message
            .cors
            .map(|cors| cors.try_into().map(Arc::new))
            .transpose()
            .map_err(|error: WireError| error.below("change.cors"))?,
        rates: rates("change.rate_limits", message.rate_limits, false)?,
    })
}

fn priority(word: String) -> Result<Class, WireError> {
    // The words are what they are: another case would be another word elsewhere.
    let known = Class::ALL.into_iter().find(|class| class.word() == word);
    known.ok_or_else(|| bad("change.priority", format!("{word:?} is no class")))
}

fn mirrors(messages: Vec<wire::Mirror>) -> Result<Vec<spec::Mirror>, WireError> {
    const FIELD: &str = "change.mirrors";
    if messages.len() > spec::MIRRORS_MAX {
        return Err(bad(FIELD, format!("are more than {}", spec::MIRRORS_MAX)));
    }
    list(FIELD, messages, |mirror| {
        if !(1..=spec::Mirror::ALL_PPM).contains(&mirror.share_ppm) {
            return Err(bad("share_ppm", format!("{} is not from 1 to a million", mirror.share_ppm)));
        }
        Ok(spec::Mirror {
            service: id("service", &mirror.service)?,
            version: optional_label("version", &mirror.version)?,
            share_ppm: mirror.share_ppm,
        })
    })
}

/// A redirect.
pub(super) fn redirect(
    message: wire::Redirect,
    when: &spec::MatchSpec,
) -> Result<spec::ActionSpec, WireError> {
    let scheme = |word: String| {
        spec::Scheme::parse(&word)
            .ok_or_else(|| bad("redirect.scheme", format!("{word:?} is not known here")))
    };
    let status = u16::try_from(message.status).ok().filter(|it| spec::REDIRECT_STATUSES.contains(it));
    Ok(spec::ActionSpec::Answer(Arc::new(spec::Answer::Redirect(spec::Redirect {
        scheme: message.scheme.map(scheme).transpose()?,
        host: message.host.map(|host| bare_host("redirect.host", host)).transpose()?,
        port: message.port.map(|port| port_number("redirect.port", port)).transpose()?,
        path: message.path.map(|it| path("redirect.path", it, when)).transpose()?,
        status: status
            .ok_or_else(|| bad("redirect.status", format!("{} is none of a redirect", message.status)))?,
    }))))
}

/// An answer.
pub(super) fn direct(message: wire::Direct, when: &spec::MatchSpec) -> Result<spec::ActionSpec, WireError> {
    let status = u16::try_from(message.status).ok().filter(|status| (200..600).contains(status));
    if message.body.len() > spec::ANSWER_BODY_BYTES_MAX {
        return Err(bad("answer.body", format!("has more than {} bytes", spec::ANSWER_BODY_BYTES_MAX)));
    }
    Ok(spec::ActionSpec::Answer(Arc::new(spec::Answer::Direct(spec::Direct {
        status: status
            .ok_or_else(|| bad("answer.status", format!("{} is not from 200 to 599", message.status)))?,
        headers: formats("answer.headers", message.headers, &parts(when))?,
        body: message.body.into(),
    }))))
}

/// The parts of a rule's path that have names.
fn parts(when: &spec::MatchSpec) -> Vec<&str> {
    match &when.path {
        Some(PathMatch::Template(template)) => template.names().collect(),
        _ => Vec::new(),
    }
}

fn path(
    field: &str,
    message: wire::PathChange,
    when: &spec::MatchSpec,
) -> Result<spec::PathChange, WireError> {
    Ok(match message {
        wire::PathChange::Prefix(to) => {
            check_path(field, &to)?;
            spec::PathChange::Prefix(to.into())
        }
        wire::PathChange::Whole(text) => {
            check_path(field, &text)?;
            let format = Format::parse(&text, Scope::Path, &parts(when));
            spec::PathChange::Whole(format.map_err(|error| bad(field, format!("{text:?}: {error}")))?)
        }
        wire::PathChange::Regex(wire::Replacing { pattern, with }) => {
            let pattern = Pattern::anywhere(&pattern).map_err(|e| bad(field, format!("{pattern:?}: {e}")))?;
            if !with.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(bad(field, format!("{with:?} is no part of a path")));
            }
            let with =
                Replacement::parse(&with, &pattern).map_err(|e| bad(field, format!("{with:?}: {e}")))?;
            spec::PathChange::Regex(pattern, with)
        }
    })
}

fn fields(
    field: &str,
    message: Option<wire::FieldChanges>,
    parts: &[&str],
) -> Result<spec::FieldChanges, WireError> {
    let message = message.unwrap_or_default();
    Ok(spec::FieldChanges {
        remove: list(&format!("{field}.remove"), message.remove, name)?,
        set: formats(&format!("{field}.set"), message.set, parts)?,
        add: formats(&format!("{field}.add"), message.add, parts)?,
    })
}

fn formats(
    field: &str,
    values: Vec<wire::Value>,
    parts: &[&str],
) -> Result<Vec<(Arc<str>, Format)>, WireError> {
    list(field, values, |value| {
        let text = value.value;
        if text.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err(bad("value", format!("{text:?} is no value of a field")));
        }
        let format = Format::parse(&text, Scope::Field, parts);
        Ok((name(value.name)?, format.map_err(|error| bad("value", format!("{text:?}: {error}")))?))
    })
}

fn name(name: String) -> Result<Arc<str>, WireError> {
    if let Some(fixed) = Fixed::of(&name) {
        return Err(bad("name", format!("{name:?} {}", fixed.why())));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn authority(field: &str, text: String) -> Result<Arc<str>, WireError> {
    if !is_authority(text.as_bytes()) {
        return Err(bad(field, format!("{text:?} is no host, or host and port")));
    }
    Ok(text.into())
}

fn bare_host(field: &str, text: String) -> Result<Arc<str>, WireError> {
    if leno_core::head::host_of(text.as_bytes()) != text.as_bytes() {
        return Err(bad(field, format!("{text:?} has a port")));
    }
    authority(field, text)
}
