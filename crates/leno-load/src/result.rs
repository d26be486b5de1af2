//! What was measured.

use std::time::Duration;

/// Times of all requests, and what they add up to.
pub(crate) struct Measured {
    /// From when a request was due (open loop) or sent (closed loop) to the last byte of its answer, in ns.
    pub(crate) latencies: Vec<u64>,
    /// Open loop: from when a request was due to when it was sent, in ns: our own lateness, and waiting for a free
    /// connection.
    pub(crate) waits: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) duration: Duration,
}

impl Measured {
    /// How many requests were answered.
    pub(crate) fn answers(&self) -> usize {
        self.latencies.len()
    }

    /// One line.
    pub(crate) fn json(mut self) -> String {
        self.latencies.sort_unstable();
        self.waits.sort_unstable();
        let latency = |share| micros(percentile(&self.latencies, share));
        format!(
            "{{\"requests\":{},\"duration_us\":{:.0},\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\
             \"p999_us\":{:.1},\"max_us\":{:.1},\"wait_p99_us\":{:.1}}}",
            self.latencies.len(),
            self.duration.as_secs_f64() * 1e6,
            latency(500),
            latency(900),
            latency(990),
            latency(999),
            latency(1_000),
            micros(percentile(&self.waits, 990)),
        )
    }
}

/// The value that so many thousandths of all do not exceed.
fn percentile(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (sorted.len() * thousandths).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of one run stay far below 2^52")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<u64> = (1..=2_000).collect();
        assert_eq!(
            [500, 900, 990, 999, 1_000].map(|p| percentile(&sorted, p)),
            [1_000, 1_800, 1_980, 1_998, 2_000]
        );
        assert_eq!(percentile(&[7], 500), 7);
        assert_eq!(percentile(&[], 500), 0);
    }
}
