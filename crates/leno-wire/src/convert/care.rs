//! How endpoints are looked after.

use std::sync::Arc;
use std::time::Duration;

use leno_core::spec;

use super::{WireError, at_least_one, bad, check_path, full_name, id, list};
use crate::proto::care as wire;
use crate::proto::rate::RateLimit;

impl From<&spec::Care> for wire::Care {
    fn from(spec: &spec::Care) -> Self {
        let off = || wire::Outliers { off: true, ..wire::Outliers::default() };
        Self {
            outliers: Some(spec.outliers.as_ref().map_or_else(off, wire::Outliers::from)),
            limits: (spec.limits != spec::Limits::NONE).then(|| wire::Limits::from(&spec.limits)),
            choices: Some(spec.choices),
            decay_ms: Some(millis(spec.ewma.decay)),
            default_rtt_ms: spec.ewma.default_rtt.map(millis),
            keys: spec.affinity.iter().flat_map(|affinity| &affinity.keys).map(wire::Key::from).collect(),
            bound_percent: spec.affinity.as_ref().and_then(|affinity| affinity.bound_percent),
            slow_start_ms: spec.slow_start.as_ref().map(|it| millis(it.duration)),
            slow_start_percent: spec.slow_start.as_ref().map(|it| it.from_percent),
            backup: spec.backup.as_ref().map(full_name),
            locality: spec.locality.as_deref().map(crate::proto::zones::Locality::from),
            concurrency: spec.concurrency.as_ref().map(wire::Concurrency::from),
            rate_limits: spec.rates.iter().map(|rate| RateLimit::from(&**rate)).collect(),
        }
    }
}

impl TryFrom<wire::Care> for spec::Care {
    type Error = WireError;

    fn try_from(message: wire::Care) -> Result<Self, WireError> {
        Ok(Self {
            outliers: match message.outliers {
                Some(wire::Outliers { off: true, .. }) => None,
                Some(outliers) => Some(outliers.try_into().map_err(|e: WireError| e.below("outliers"))?),
                None => Some(spec::Outliers::default()),
            },
            limits: message
                .limits
                .map_or(Ok(spec::Limits::NONE), spec::Limits::try_from)
                .map_err(|e| e.below("limits"))?,
            choices: message.choices.map_or(Ok(spec::CHOICES), |n| at_least_one("choices", n))?,
            ewma: spec::Ewma {
                decay: period("decay_ms", message.decay_ms, spec::Ewma::new().decay)?,
                default_rtt: some_period("default_rtt_ms", message.default_rtt_ms)?,
            },
            backup: message.backup.map(|name| id("backup", &name)).transpose()?,
            locality: message
                .locality
                .map(|it| spec::Locality::try_from(it).map_err(|e| e.below("locality")))
                .transpose()?
                .map(Arc::new),
            concurrency: message
                .concurrency
                .map(|it| it.try_into().map_err(|e: WireError| e.below("concurrency")))
                .transpose()?,
            rates: super::rate::rates("rate_limits", message.rate_limits, true)?,
            affinity: affinity(message.keys, message.bound_percent)?.map(Arc::new),
            slow_start: some_period("slow_start_ms", message.slow_start_ms)?
                .map(|duration| match message.slow_start_percent {
                    Some(percent) if percent > 100 => {
                        Err(bad("slow_start_percent", format!("{percent} % is more than all")))
                    }
                    percent => {
                        let from_percent = percent.unwrap_or(spec::SLOW_START_FROM);
                        Ok(spec::SlowStart { duration, from_percent })
                    }
                })
                .transpose()?,
        })
    }
}

impl From<&spec::Concurrency> for wire::Concurrency {
    fn from(spec: &spec::Concurrency) -> Self {
        let (limit, min, max) = match spec.limit {
            spec::ConcurrencyLimit::Fixed(limit) => (Some(limit), None, None),
            spec::ConcurrencyLimit::Auto { min, max } => (None, Some(min), Some(max)),
        };
        let queue_ms = if spec.queue.is_zero() { 0 } else { millis(spec.queue) };
        Self { limit, min, max, queue_ms: Some(queue_ms) }
    }
}

impl TryFrom<wire::Concurrency> for spec::Concurrency {
    type Error = WireError;

    fn try_from(message: wire::Concurrency) -> Result<Self, WireError> {
        let count = |field: &str, set: Option<u32>| match set {
            Some(n) if n > spec::CONCURRENCY_LIMIT_MAX => {
                Err(bad(field, format!("{n} is more than {}", spec::CONCURRENCY_LIMIT_MAX)))
            }
            set => set.map(|n| at_least_one(field, n)).transpose(),
        };
        let limit = match count("limit", message.limit)? {
            Some(limit) => {
                let bound =
                    [("min", message.min), ("max", message.max)].into_iter().find(|it| it.1.is_some());
                if let Some((field, _)) = bound {
                    return Err(bad(field, "does not go with `limit`"));
                }
                spec::ConcurrencyLimit::Fixed(limit)
            }
            None => {
                let max = count("max", message.max)?.unwrap_or(spec::CONCURRENCY_MAX);
                let min = count("min", message.min)?;
                if let Some(min) = min.filter(|min| *min > max) {
                    return Err(bad("min", format!("{min} is more than `max`, {max}")));
                }
                spec::ConcurrencyLimit::Auto { min: min.unwrap_or(spec::CONCURRENCY_MIN.min(max)), max }
            }
        };
        let queue = message.queue_ms.map_or(spec::QUEUE_WAIT, Duration::from_millis);
        if queue > spec::QUEUE_WAIT_MAX {
            return Err(bad("queue_ms", format!("is more than {:?}", spec::QUEUE_WAIT_MAX)));
        }
        Ok(Self { limit, queue })
    }
}

fn affinity(keys: Vec<wire::Key>, bound: Option<u32>) -> Result<Option<spec::Affinity>, WireError> {
    if keys.is_empty() {
        return match bound {
            None => Ok(None),
            Some(_) => Err(bad("bound_percent", "goes with `keys` alone")),
        };
    }
    if let Some(percent) = bound.filter(|percent| *percent < 100) {
        return Err(bad("bound_percent", format!("{percent} % leaves requests without a place")));
    }
    Ok(Some(spec::Affinity { keys: list("keys", keys, spec::KeySpec::try_from)?, bound_percent: bound }))
}

impl From<&spec::KeySpec> for wire::Key {
    fn from(spec: &spec::KeySpec) -> Self {
        let none = Self::default();
        match spec {
            spec::KeySpec::Header(name) => Self { header: Some(name.to_string()), ..none },
            spec::KeySpec::Query(name) => Self { query: Some(name.to_string()), ..none },
            spec::KeySpec::Source => Self { source: true, ..none },
            spec::KeySpec::Cookie(cookie) => Self {
                cookie: Some(cookie.name.to_string()),
                path: Some(cookie.path.to_string()),
                ttl_ms: cookie.ttl.map(millis),
                ..none
            },
        }
    }
}

impl TryFrom<wire::Key> for spec::KeySpec {
    type Error = WireError;

    fn try_from(message: wire::Key) -> Result<Self, WireError> {
        let token = |field: &str, name: String, extra: fn(u8) -> bool| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || extra(b);
            if name.is_empty() || !name.bytes().all(fits) {
                return Err(bad(field, format!("{name:?} is no name")));
            }
            Ok(Arc::from(name))
        };
        let of_token = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
        let cookie_only = message.path.is_some() || message.ttl_ms.is_some();
        match (message.header, message.query, message.source, message.cookie) {
            (Some(name), None, false, None) if !cookie_only => {
                Ok(Self::Header(token("header", name.to_ascii_lowercase(), of_token)?))
            }
            (None, Some(name), false, None) if !cookie_only => {
                Ok(Self::Query(token("query", name, |b| b.is_ascii_graphic() && !b"&=#?".contains(&b))?))
            }
            (None, None, true, None) if !cookie_only => Ok(Self::Source),
            (None, None, false, Some(name)) => {
                let path = message.path.unwrap_or_else(|| "/".into());
                check_path("path", &path)?;
                if path.contains(';') {
                    return Err(bad("path", "has a semicolon"));
                }
                Ok(Self::Cookie(spec::CookieSpec {
                    name: token("cookie", name, of_token)?,
                    path: path.into(),
                    ttl: some_period("ttl_ms", message.ttl_ms)?,
                }))
            }
            _ => Err(bad("", "is not one of a header, a query parameter, a cookie and the source")),
        }
    }
}

impl From<&spec::Limits> for wire::Limits {
    fn from(spec: &spec::Limits) -> Self {
        Self {
            requests: spec.requests,
            endpoint_requests: spec.endpoint_requests,
            connections: spec.connections,
            pending: spec.pending,
            pending_timeout_ms: spec.pending_timeout.map(millis),
            retries: spec.retries,
        }
    }
}

impl TryFrom<wire::Limits> for spec::Limits {
    type Error = WireError;

    fn try_from(message: wire::Limits) -> Result<Self, WireError> {
        let some = |field: &str, set: Option<u32>| set.map(|n| at_least_one(field, n)).transpose();
        Ok(Self {
            requests: some("requests", message.requests)?,
            endpoint_requests: some("endpoint_requests", message.endpoint_requests)?,
            connections: some("connections", message.connections)?,
            pending: message.pending,
            pending_timeout: some_period("pending_timeout_ms", message.pending_timeout_ms)?,
            retries: message.retries,
        })
    }
}

impl From<&spec::Outliers> for wire::Outliers {
    fn from(spec: &spec::Outliers) -> Self {
        Self {
            off: false,
            errors: Some(spec.errors.unwrap_or(0)),
            gateway_errors: Some(spec.gateway_errors.unwrap_or(0)),
            local_failures: Some(spec.local_failures.unwrap_or(0)),
            success_rate: Some(spec.success_rate),
            failure_percent: Some(spec.failure_percent.unwrap_or(0)),
            latency: Some(spec.latency.unwrap_or(0)),
            requests_min: Some(spec.requests_min),
            window_ms: Some(millis(spec.window)),
            ejection_ms: Some(millis(spec.ejection)),
            ejection_max_ms: Some(millis(spec.ejection_max)),
            ejected_percent: Some(spec.ejected_percent),
            panic_percent: Some(spec.panic_percent),
            probation: Some(spec.probation),
        }
    }
}

impl TryFrom<wire::Outliers> for spec::Outliers {
    type Error = WireError;

    fn try_from(message: wire::Outliers) -> Result<Self, WireError> {
        let default = Self::default();
        // Unset is the default, 0 is off.
        let switch = |set: Option<u32>, default: Option<u32>| match set {
            None => default,
            Some(0) => None,
            number => number,
        };
        let share = |field: &str, set: Option<u32>, default: u32| match set {
            Some(percent) if percent > 100 => Err(bad(field, format!("{percent} % is more than all"))),
            percent => Ok(percent.unwrap_or(default)),
        };
        let count =
            |field: &str, set: Option<u32>, default: u32| set.map_or(Ok(default), |n| at_least_one(field, n));
        let failure_percent = switch(message.failure_percent, default.failure_percent);
        let spec = Self {
            errors: switch(message.errors, default.errors),
            gateway_errors: switch(message.gateway_errors, default.gateway_errors),
            local_failures: switch(message.local_failures, default.local_failures),
            success_rate: message.success_rate.unwrap_or(default.success_rate),
            failure_percent: failure_percent
                .map(|percent| share("failure_percent", Some(percent), percent))
                .transpose()?,
            latency: switch(message.latency, default.latency),
            requests_min: count("requests_min", message.requests_min, default.requests_min)?,
            window: period("window_ms", message.window_ms, default.window)?,
            ejection: period("ejection_ms", message.ejection_ms, default.ejection)?,
            ejection_max: period("ejection_max_ms", message.ejection_max_ms, default.ejection_max)?,
            ejected_percent: share("ejected_percent", message.ejected_percent, default.ejected_percent)?,
            panic_percent: share("panic_percent", message.panic_percent, default.panic_percent)?,
            probation: count("probation", message.probation, default.probation)?,
        };
        Ok(Self { ejection_max: spec.ejection_max.max(spec.ejection), ..spec })
    }
}

/// Milliseconds that are not 0.
fn period(field: &str, set: Option<u64>, default: Duration) -> Result<Duration, WireError> {
    match set {
        Some(0) => Err(bad(field, "is 0")),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Ok(default),
    }
}

/// Milliseconds that are not 0, if they are set.
fn some_period(field: &str, set: Option<u64>) -> Result<Option<Duration>, WireError> {
    set.map(|millis| period(field, Some(millis), Duration::ZERO)).transpose()
}

/// Whole milliseconds, at least 1 so that a short time does not read as none.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
