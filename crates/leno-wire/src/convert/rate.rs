//! How many requests pass in a time.

use std::sync::Arc;
use std::time::Duration;

use leno_core::spec::{
    self, RATE_KEYS_MAX, RATE_PER, RATE_PER_MAX, RATE_PER_MIN, RATE_REQUESTS_MAX, RATES_MAX,
};

use super::{WireError, bad, list};
use crate::proto::{rate as wire, resource};

/// Longest name of a limit, in bytes.
const NAME_BYTES_MAX: usize = 63;

impl From<&spec::RateSpec> for wire::RateLimit {
    fn from(spec: &spec::RateSpec) -> Self {
        let none = wire::RateKey::default();
        Self {
            name: spec.name.to_string(),
            when: (spec.when != spec::MatchSpec::default()).then(|| resource::Match::from(&spec.when)),
            requests: spec.requests,
            per_ms: Some(u64::try_from(spec.per.as_millis()).unwrap_or(u64::MAX)),
            burst: Some(spec.burst),
            by: spec
                .by
                .iter()
                .map(|key| match key {
                    spec::RateKey::Caller => wire::RateKey { caller: true, ..none.clone() },
                    spec::RateKey::Client => wire::RateKey { client: true, ..none.clone() },
                    spec::RateKey::Header(name) => {
                        wire::RateKey { header: Some(name.to_string()), ..none.clone() }
                    }
                })
                .collect(),
            mesh: spec.scope == spec::RateScope::Mesh,
            dry_run: spec.dry_run,
        }
    }
}

/// The limits of a service, or of a gateway's rule; `caller` says whether there are callers with an identity.
pub(super) fn rates(
    field: &str,
    messages: Vec<wire::RateLimit>,
    caller: bool,
) -> Result<Vec<Arc<spec::RateSpec>>, WireError> {
    if messages.len() > RATES_MAX {
        return Err(bad(field, format!("are more than {RATES_MAX}")));
    }
    let rates = list(field, messages, |message| rate(message, caller).map(Arc::new))?;
    let mut names: Vec<&str> = rates.iter().map(|rate| &*rate.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(bad(field, format!("two are named {:?}", twice[0]))),
        None => Ok(rates),
    }
}

fn rate(message: wire::RateLimit, caller: bool) -> Result<spec::RateSpec, WireError> {
    // It stands in quotes in a header.
    let fits = |b: u8| b.is_ascii_graphic() && !b"\"\\/".contains(&b);
    if message.name.is_empty() || message.name.len() > NAME_BYTES_MAX || !message.name.bytes().all(fits) {
        return Err(bad("name", format!("{:?} is no name", message.name)));
    }
    let count = |field: &str, count: u32| {
        if (1..=RATE_REQUESTS_MAX).contains(&count) {
            Ok(count)
        } else {
            Err(bad(field, format!("{count} is not from 1 to {RATE_REQUESTS_MAX}")))
        }
    };
    let requests = count("requests", message.requests)?;
    let per = message.per_ms.map_or(RATE_PER, Duration::from_millis);
    if !(RATE_PER_MIN..=RATE_PER_MAX).contains(&per) {
        return Err(bad("per_ms", format!("{per:?} is not from {RATE_PER_MIN:?} to {RATE_PER_MAX:?}")));
    }
    if message.by.len() > RATE_KEYS_MAX {
        return Err(bad("by", format!("has more than {RATE_KEYS_MAX} parts")));
    }
    let when = spec::MatchSpec::try_from(message.when.unwrap_or_default())?;
    if when
        .parts()
        .flat_map(|when| &when.sources)
        .any(|source| source.who.is_none() || !source.labels.is_empty())
    {
        return Err(bad("when.labelled_sources", "only a caller's own proxy knows its labels"));
    }
    let by = list("by", message.by, key)?;
    if !caller && (by.contains(&spec::RateKey::Caller) || !when.sources.is_empty()) {
        return Err(bad("", "asks for a caller, and clients of a gateway have no identity"));
    }
    Ok(spec::RateSpec {
        name: message.name.into(),
        when,
        requests,
        per,
        burst: message.burst.map_or(Ok(requests), |burst| count("burst", burst))?,
        by,
        scope: if message.mesh { spec::RateScope::Mesh } else { spec::RateScope::Instance },
        dry_run: message.dry_run,
    })
}

fn key(message: wire::RateKey) -> Result<spec::RateKey, WireError> {
    match (message.caller, message.client, message.header) {
        (true, false, None) => Ok(spec::RateKey::Caller),
        (false, true, None) => Ok(spec::RateKey::Client),
        (false, false, Some(name)) if leno_core::http1::is_token(name.as_bytes()) => {
            Ok(spec::RateKey::Header(name.to_ascii_lowercase().into()))
        }
        (false, false, Some(name)) => Err(bad("header", format!("{name:?} is no name of a header"))),
        _ => Err(bad("", "is not one of the caller, the client and a header")),
    }
}
