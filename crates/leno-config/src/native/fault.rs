//! What a route breaks on purpose.

use std::sync::Arc;
use std::time::Duration;

use leno_core::grpc::Status;
use leno_core::spec::{
    ALL_PPM, Abort, FAULT_DELAY_MAX, FAULT_RATES, Fault, STOP_REQUESTS, STOP_WINDOW, Share, Stop,
};
use leno_core::time::UnixTime;

use super::fields::{ABORT, DELAY, FAULT, GRPC_CODES, Kind, RESET, SLOW, STOP, STOP_REQUESTS_MAX};
use super::matching::one_form;
use super::read::Reader;
use super::value;
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value, short};

/// Reads `fault`; `None` when something about it is wrong, which is reported.
pub(crate) fn fault(node: &Node, reader: &mut Reader<'_>) -> Option<Arc<Fault>> {
    let errors = reader.problems.errors();
    let mut fields = reader.fields(node, &FAULT)?;
    let all = fields.get("percent").and_then(|node| percent(node, reader)).unwrap_or(ALL_PPM);
    let mut fault = Fault::default();
    if let Some(node) = fields.get("delay") {
        fault.delay = delay(node, all, reader);
    }
    if let Some(node) = fields.get("abort") {
        fault.abort = abort(node, all, reader);
    }
    if let Some(node) = fields.get("reset") {
        fault.reset = reset(node, all, reader);
    }
    if let Some(node) = fields.get("slow") {
        fault.slow = slow(node, all, reader);
    }
    fault.most_ppm = fields.get("percent_max").and_then(|node| percent(node, reader));
    fault.until = fields.get("until").and_then(|node| until(node, reader));
    fault.stop = fields.get("stop").and_then(|node| stop(node, reader));
    let complete = fields.complete;
    fields.finish();
    if reader.problems.errors() > errors {
        return None;
    }
    if complete && !fault.does_something() {
        let problem = Problem::error(node.span, "the fault breaks nothing");
        reader.error(problem.hint("such as {delay: 2s, percent: 10}, or {abort: 503, percent: 1}"));
        return None;
    }
    Some(Arc::new(fault))
}

fn delay(node: &Node, all: u32, reader: &mut Reader<'_>) -> Option<Share<Duration>> {
    let (node, ppm) = match &node.value {
        Value::Map(_) => {
            let mut fields = reader.fields(node, &DELAY)?;
            let (time, ppm) = (fields.get("time"), fields.get("percent"));
            fields.finish();
            (time?, share(ppm, all, reader)?)
        }
        _ => (node, all),
    };
    let time = reader.parsed(node, Kind::Duration, value::duration)?;
    if time > FAULT_DELAY_MAX {
        let problem = Problem::error(node.span, "a request can be delayed by at most 10m");
        reader.error(problem.hint("more than 0, such as 2s"));
        return None;
    }
    Some(Share { what: time, ppm })
}

fn abort(node: &Node, all: u32, reader: &mut Reader<'_>) -> Option<Share<Abort>> {
    let status = |node: &Node, reader: &mut Reader<'_>| {
        let number = |text: &str| value::number(text, "a status", 200, 599);
        let status = reader.number(node, Kind::Between(200, 599), number)?;
        u16::try_from(status).ok().map(Abort::Http)
    };
    let Value::Map(_) = &node.value else {
        return Some(Share { what: status(node, reader)?, ppm: all });
    };
    let mut fields = reader.fields(node, &ABORT)?;
    let form = one_form(&mut fields, "abort", &["status", "grpc"], "such as {status: 503}", reader);
    let ppm = fields.get("percent");
    fields.finish();
    let (form, entry) = form?;
    let what = if form == "status" {
        status(&entry.value, reader)?
    } else {
        let word = reader.choice(&entry.value, GRPC_CODES)?;
        let code = GRPC_CODES.iter().position(|(it, _)| *it == word)? + 1;
        Abort::Grpc(Status(u8::try_from(code).ok()?))
    };
    Some(Share { what, ppm: share(ppm, all, reader)? })
}

fn reset(node: &Node, all: u32, reader: &mut Reader<'_>) -> Option<Share<()>> {
    let Value::Map(_) = &node.value else {
        return reader.flag(node)?.then_some(Share { what: (), ppm: all });
    };
    let mut fields = reader.fields(node, &RESET)?;
    let ppm = fields.get("percent");
    fields.finish();
    Some(Share { what: (), ppm: share(ppm, all, reader)? })
}

fn slow(node: &Node, all: u32, reader: &mut Reader<'_>) -> Option<Share<u32>> {
    let (node, ppm) = match &node.value {
        Value::Map(_) => {
            let mut fields = reader.fields(node, &SLOW)?;
            let (rate, ppm) = (fields.get("rate"), fields.get("percent"));
            fields.finish();
            (rate?, share(ppm, all, reader)?)
        }
        _ => (node, all),
    };
    let (slowest, fastest) = FAULT_RATES;
    let rate = reader.parsed(node, Kind::Size, |text| value::size(text, fastest))?;
    if rate < slowest {
        let problem = Problem::error(node.span, format!("{rate} bytes a second are next to none"));
        reader.error(problem.hint(format!("from {slowest} on, such as 10KiB")));
        return None;
    }
    Some(Share { what: rate, ppm })
}

fn until(node: &Node, reader: &mut Reader<'_>) -> Option<UnixTime> {
    let text = reader.text(node, Kind::Moment)?;
    let seconds = text.parse::<jiff::Timestamp>().ok().and_then(|it| u64::try_from(it.as_second()).ok());
    if seconds.is_none() {
        let problem = Problem::error(node.span, format!("\"{}\" is no time", short(text)));
        reader
            .error(problem.hint("with its zone, such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00"));
    }
    seconds.map(UnixTime)
}

fn stop(node: &Node, reader: &mut Reader<'_>) -> Option<Stop> {
    let failures = |node: &Node, reader: &mut Reader<'_>| {
        reader.number(node, Kind::Number(99), |text| value::number(text, "a share in percent", 0, 99))
    };
    let mut stop = Stop { failed_percent: 0, requests_min: STOP_REQUESTS, window: STOP_WINDOW };
    let Value::Map(_) = &node.value else {
        return Some(Stop { failed_percent: failures(node, reader)?, ..stop });
    };
    let mut fields = reader.fields(node, &STOP)?;
    let (share, requests, window) = (fields.get("failures"), fields.get("requests"), fields.get("window"));
    fields.finish();
    if let Some(node) = requests {
        let number = |text: &str| value::number(text, "a number of requests", 1, STOP_REQUESTS_MAX);
        stop.requests_min = reader.number(node, Kind::Count(STOP_REQUESTS_MAX), number)?;
    }
    if let Some(node) = window {
        stop.window = reader.parsed(node, Kind::Duration, value::duration)?;
    }
    Some(Stop { failed_percent: failures(share?, reader)?, ..stop })
}

fn percent(node: &Node, reader: &mut Reader<'_>) -> Option<u32> {
    reader.number(node, Kind::Percent, value::percent)
}

/// A share of its own, or that of the whole fault.
fn share(node: Option<&Node>, all: u32, reader: &mut Reader<'_>) -> Option<u32> {
    node.map_or(Some(all), |node| percent(node, reader))
}
