//! Rate limits, told to people: their counters, and what they are now.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::access_log::json_string;
use crate::telemetry::{family, line};
use leno_core::rate::{Rate, Tally, WHOLE};
use leno_core::spec::RateScope;

/// Appends the counters of all limits.
pub(crate) fn render(rates: &[Rate], out: &mut String) {
    type Count = fn(&Tally) -> &AtomicU64;
    let counters: [(&str, &str, Count); 4] = [
        ("leno_rate_limited_total", "Requests that a rate limit has refused.", |tally| &tally.refused),
        ("leno_rate_limit_allowed_total", "Requests that a rate limit has let through.", |tally| {
            &tally.allowed
        }),
        ("leno_rate_limit_dry_run_total", "Requests that a rate limit would have refused.", |tally| {
            &tally.would_refuse
        }),
        (
            "leno_rate_limit_strangers_total",
            "Requests that were counted together because a rate limit's table of keys was full.",
            |tally| &tally.strangers,
        ),
    ];
    for (name, help, count) in counters {
        family(out, name, "counter", help);
        for rate in rates {
            let labels = format!("limit=\"{}\"", rate.label.replace('\\', "\\\\").replace('"', "\\\""));
            line(out, name, &labels, count(&rate.tally).load(Ordering::Relaxed));
        }
    }
    family(out, "leno_rate_limit_share", "gauge", "This proxy's share of a limit that holds mesh-wide.");
    for rate in rates.iter().filter(|rate| rate.spec.scope == RateScope::Mesh) {
        let labels = format!("limit=\"{}\"", rate.label.replace('\\', "\\\\").replace('"', "\\\""));
        line(out, "leno_rate_limit_share", &labels, f64::from(rate.share()) / f64::from(WHOLE));
    }
}

/// Appends them as a field of a JSON object.
pub(crate) fn write_json(rates: &[Rate], out: &mut String) {
    out.push_str(",\"rate_limits\":[");
    for (at, rate) in rates.iter().enumerate() {
        out.push_str(if at > 0 { ",{\"name\":" } else { "{\"name\":" });
        json_string(out, rate.label.as_bytes());
        let spec = &rate.spec;
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            ",\"requests\":{},\"per_ms\":{},\"burst\":{},\"dry_run\":{},\"share\":{}}}",
            spec.requests,
            spec.per.as_millis(),
            spec.burst,
            spec.dry_run,
            f64::from(rate.share()) / f64::from(WHOLE)
        );
    }
    out.push(']');
}
