//! Time limits and retries, between the messages and `leno_core::spec`.

use std::sync::Arc;
use std::time::Duration;

use leno_core::exchange::ATTEMPTS_MAX;
use leno_core::spec;

use super::{WireError, bad, list, nanos};
use crate::proto::resource::Header;
use crate::proto::tries as wire;

impl From<&spec::TriesSpec> for wire::Tries {
    fn from(spec: &spec::TriesSpec) -> Self {
        Self {
            try_nanos: spec.try_timeout.map(nanos),
            connect_nanos: spec.connect_timeout.map(nanos),
            idle_nanos: spec.idle_timeout.map(nanos),
            retry: spec.retry.as_ref().map(wire::Retry::from),
            hedge: spec.hedge.map(wire::Hedge::from),
            budget: spec
                .budget
                .map(|budget| wire::Budget { percent: budget.percent, per_second: budget.per_second }),
        }
    }
}

impl TryFrom<wire::Tries> for spec::TriesSpec {
    type Error = WireError;

    fn try_from(message: wire::Tries) -> Result<Self, WireError> {
        let budget = |budget: wire::Budget| {
            if budget.percent > spec::BUDGET_PERCENT_MAX {
                return Err(bad("budget.percent", format!("{} is more than 100", budget.percent)));
            }
            if budget.per_second > spec::BUDGET_PER_SECOND_MAX {
                return Err(bad("budget.per_second", format!("{} is too large", budget.per_second)));
            }
            Ok(spec::BudgetSpec { percent: budget.percent, per_second: budget.per_second })
        };
        let retry = |retry: wire::Retry| spec::RetrySpec::try_from(retry).map_err(|e| e.below("retry"));
        Ok(Self {
            try_timeout: message.try_nanos.map(Duration::from_nanos),
            connect_timeout: message.connect_nanos.map(Duration::from_nanos),
            idle_timeout: message.idle_nanos.map(Duration::from_nanos),
            retry: message.retry.map(retry).transpose()?,
            budget: message.budget.map(budget).transpose()?,
            hedge: message.hedge.map(spec::HedgeSpec::try_from).transpose().map_err(|e| e.below("hedge"))?,
        })
    }
}

impl From<spec::HedgeSpec> for wire::Hedge {
    fn from(spec: spec::HedgeSpec) -> Self {
        let (after_quantile, after_nanos) = match spec.after {
            spec::HedgeAfter::Quantile(percent) => (percent, 0),
            spec::HedgeAfter::Time(time) => (0, nanos(time)),
        };
        Self { after_quantile, after_nanos, percent: spec.percent }
    }
}

impl TryFrom<wire::Hedge> for spec::HedgeSpec {
    type Error = WireError;

    fn try_from(message: wire::Hedge) -> Result<Self, WireError> {
        let after = match (message.after_quantile, message.after_nanos) {
            (0, nanos @ 1..) => spec::HedgeAfter::Time(Duration::from_nanos(nanos)),
            (percent @ spec::HEDGE_QUANTILE_MIN..=spec::HEDGE_QUANTILE_MAX, 0) => {
                spec::HedgeAfter::Quantile(percent)
            }
            (0, 0) => return Err(bad("after", "neither a share of the answers nor a time")),
            (_, 1..) => return Err(bad("after", "a share of the answers and a time")),
            (percent, 0) => return Err(bad("after_quantile", format!("{percent} is not from 50 to 99"))),
        };
        if message.percent > spec::HEDGE_PERCENT_MAX {
            return Err(bad("percent", format!("{} is more than 100", message.percent)));
        }
        Ok(Self { after, percent: message.percent })
    }
}

impl From<&spec::RetrySpec> for wire::Retry {
    fn from(spec: &spec::RetrySpec) -> Self {
        let (any_method, methods) = match &spec.methods {
            spec::RetryMethods::Idempotent => (false, Vec::new()),
            spec::RetryMethods::Any => (true, Vec::new()),
            spec::RetryMethods::These(methods) => (false, methods.iter().map(ToString::to_string).collect()),
        };
        let range = |range: &spec::StatusRange| wire::StatusRange {
            first: range.first.into(),
            last: range.last.into(),
        };
        let header = |header: &spec::AnswerHeader| Header {
            name: header.name.to_string(),
            value: header.value.as_ref().map(ToString::to_string),
        };
        Self {
            attempts: spec.attempts,
            on_reset: spec.on.reset,
            statuses: spec.on.statuses.iter().map(range).collect(),
            grpc: spec.on.grpc,
            headers: spec.on.headers.iter().map(header).collect(),
            any_method,
            methods,
            backoff_nanos: nanos(spec.backoff),
            backoff_max_nanos: nanos(spec.backoff_max),
            asked_wait_max_nanos: nanos(spec.asked_wait_max),
            body_bytes_max: spec.body_bytes_max,
        }
    }
}

impl TryFrom<wire::Retry> for spec::RetrySpec {
    type Error = WireError;

    fn try_from(message: wire::Retry) -> Result<Self, WireError> {
        if !(1..=ATTEMPTS_MAX).contains(&(message.attempts as usize)) {
            return Err(bad("attempts", format!("{} is not from 1 to {ATTEMPTS_MAX}", message.attempts)));
        }
        if message.body_bytes_max > spec::BODY_BYTES_MAX {
            return Err(bad("body_bytes_max", format!("{} is too large", message.body_bytes_max)));
        }
        Ok(Self {
            attempts: message.attempts,
            on: spec::RetryOn {
                reset: message.on_reset,
                statuses: list("statuses", message.statuses, |range| {
                    match (u16::try_from(range.first), u16::try_from(range.last)) {
                        (Ok(first), Ok(last)) if first >= 100 && first <= last && last < 600 => {
                            Ok(spec::StatusRange { first, last })
                        }
                        _ => Err(bad("", format!("{}-{} is no range of statuses", range.first, range.last))),
                    }
                })?,
                grpc: message.grpc,
                headers: list("headers", message.headers, |header| {
                    let lower = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && b != b':';
                    if header.name.is_empty() || !header.name.bytes().all(lower) {
                        return Err(bad("name", format!("{:?} is no lower-case field name", header.name)));
                    }
                    Ok(spec::AnswerHeader { name: header.name.into(), value: header.value.map(Arc::from) })
                })?,
            },
            methods: match (message.any_method, message.methods) {
                (true, _) => spec::RetryMethods::Any,
                (false, methods) if methods.is_empty() => spec::RetryMethods::Idempotent,
                (false, methods) => spec::RetryMethods::These(list("methods", methods, |method| {
                    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_graphic()) {
                        return Err(bad("", format!("{method:?} is no method")));
                    }
                    Ok(Arc::from(method))
                })?),
            },
            backoff: Duration::from_nanos(message.backoff_nanos),
            backoff_max: Duration::from_nanos(message.backoff_max_nanos),
            asked_wait_max: Duration::from_nanos(message.asked_wait_max_nanos),
            body_bytes_max: message.body_bytes_max,
        })
    }
}
