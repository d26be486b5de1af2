//! What rules break on purpose.

use std::time::Duration;

use leno_core::grpc::Status;
use leno_core::spec::{self, ALL_PPM, FAULT_DELAY_MAX, FAULT_RATES, STOP_REQUESTS, STOP_WINDOW, Share};
use leno_core::time::UnixTime;

use super::{WireError, bad};
use crate::proto::fault as wire;

impl From<&spec::Fault> for wire::Fault {
    fn from(spec: &spec::Fault) -> Self {
        Self {
            delay: spec.delay.map(|it| wire::Delay { ms: millis(it.what), share_ppm: it.ppm }),
            abort: spec.abort.map(|it| match it.what {
                spec::Abort::Http(status) => {
                    wire::Abort { status: Some(status.into()), grpc: None, share_ppm: it.ppm }
                }
                spec::Abort::Grpc(code) => {
                    wire::Abort { status: None, grpc: Some(code.0.into()), share_ppm: it.ppm }
                }
            }),
            reset_ppm: spec.reset.map(|it| it.ppm),
            slow: spec.slow.map(|it| wire::Slow { bytes_per_second: it.what, share_ppm: it.ppm }),
            most_ppm: spec.most_ppm,
            until: spec.until.map(|until| until.0),
            stop: spec.stop.map(|stop| wire::Stop {
                failed_percent: stop.failed_percent,
                requests_min: Some(stop.requests_min),
                window_ms: Some(millis(stop.window)),
            }),
        }
    }
}

impl TryFrom<wire::Fault> for spec::Fault {
    type Error = WireError;

    fn try_from(message: wire::Fault) -> Result<Self, WireError> {
        let fault = Self {
            delay: message
                .delay
                .map(|it| {
                    let time = Duration::from_millis(it.ms);
                    if time.is_zero() || time > FAULT_DELAY_MAX {
                        return Err(bad("delay.ms", format!("{} is not from 1 to 600000", it.ms)));
                    }
                    share("delay", time, it.share_ppm)
                })
                .transpose()?,
            abort: message.abort.map(|it| share("abort", abort(it)?, it.share_ppm)).transpose()?,
            reset: message.reset_ppm.map(|ppm| share("reset", (), ppm)).transpose()?,
            slow: message
                .slow
                .map(|it| {
                    let rate = it.bytes_per_second;
                    if rate < FAULT_RATES.0 || rate > FAULT_RATES.1 {
                        return Err(bad("slow.bytes_per_second", format!("{rate} is out of range")));
                    }
                    share("slow", rate, it.share_ppm)
                })
                .transpose()?,
            most_ppm: message.most_ppm.map(|ppm| parts("most_ppm", ppm)).transpose()?,
            until: message.until.map(UnixTime),
            stop: message.stop.map(stop).transpose()?,
        };
        if fault.does_something() { Ok(fault) } else { Err(bad("", "does nothing")) }
    }
}

fn abort(message: wire::Abort) -> Result<spec::Abort, WireError> {
    match (message.status, message.grpc) {
        (Some(status), None) => {
            let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
            status.map(spec::Abort::Http).ok_or_else(|| bad("abort.status", "is not from 200 to 599"))
        }
        (None, Some(code)) => {
            let code = u8::try_from(code).ok().filter(|code| (1..=Status::LAST).contains(code));
            code.map(|code| spec::Abort::Grpc(Status(code)))
                .ok_or_else(|| bad("abort.grpc", "is not from 1 to 16"))
        }
        _ => Err(bad("abort", "has one of `status` and `grpc`")),
    }
}

fn stop(message: wire::Stop) -> Result<spec::Stop, WireError> {
    if message.failed_percent > 99 {
        return Err(bad("stop.failed_percent", format!("{} is never passed", message.failed_percent)));
    }
    let window = message.window_ms.map_or(STOP_WINDOW, Duration::from_millis);
    let requests_min = message.requests_min.unwrap_or(STOP_REQUESTS);
    if window.is_zero() || requests_min == 0 {
        return Err(bad("stop", "looks at nothing"));
    }
    Ok(spec::Stop { failed_percent: message.failed_percent, requests_min, window })
}

fn share<T>(field: &str, what: T, ppm: u32) -> Result<Share<T>, WireError> {
    Ok(Share { what, ppm: parts(&format!("{field}.share_ppm"), ppm)? })
}

fn parts(field: &str, ppm: u32) -> Result<u32, WireError> {
    if (1..=ALL_PPM).contains(&ppm) {
        Ok(ppm)
    } else {
        Err(bad(field, format!("{ppm} is not from 1 to a million")))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
