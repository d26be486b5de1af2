//! How long answers take: a histogram of a fixed size whose buckets grow with what they hold, and which forgets.
//!
//! Each power of two of microseconds has 16 buckets, so that a quantile is told with an error of at most a sixteenth, in 800
//! bytes. When a thousand answers are in it all counts are halved: an answer counts half after five hundred more.

use alloc::boxed::Box;

use crate::time::Duration;

/// Buckets for each power of two, and the bits that tell them apart.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 4;
/// Powers of two beyond the first 16 µs: up to 134 s, which no delay needs.
const POWERS: usize = 23;
const BUCKETS: usize = (POWERS + 1) * PARTS;
/// Answers that are remembered at a time.
const SAMPLES_MAX: u32 = 1_000;
/// Answers before anything is said about them: of a hundred the slowest five say where the 95th percentile is.
pub const SAMPLES_MIN: u32 = 100;

/// How long answers take.
#[derive(Clone, Debug)]
pub(super) struct Times {
    counts: Box<[u16; BUCKETS]>,
    all: u32,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), all: 0 }
    }
}

impl Times {
    /// An answer took so long.
    pub(super) fn add(&mut self, took: Duration) {
        let micros = took.as_micros().min(u128::from(u32::MAX)) as u64;
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
            self.all += 1;
        }
        if self.all >= SAMPLES_MAX {
            self.forget();
        }
    }

    /// What this share of the answers did not pass, in percent, rounded up to the end of a bucket; `None` while there are
    /// too few.
    pub(super) fn quantile(&self, percent: u32) -> Option<Duration> {
        if self.all < SAMPLES_MIN {
            return None;
        }
        let rank = (self.all * percent).div_ceil(100).max(1);
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u32::from(*count);
            below >= rank
        })?;
        Some(Duration::from_micros(end(at)))
    }

    /// Halves all counts. What is left over of one counts in the next, so that few in many buckets do not vanish.
    fn forget(&mut self) {
        let (mut over, mut all) = (0, 0);
        for count in &mut *self.counts {
            let sum = *count + over;
            (*count, over) = (sum / 2, sum % 2);
            all += u32::from(*count);
        }
        self.all = all;
    }
}

fn bucket(micros: u64) -> usize {
    if micros < PARTS as u64 {
        return micros as usize;
    }
    let power = micros.ilog2() - PART_BITS;
    let part = (micros >> power) as usize - PARTS;
    ((power as usize + 1) * PARTS + part).min(BUCKETS - 1)
}

/// The first microsecond behind a bucket.
const fn end(bucket: usize) -> u64 {
    let (power, part) = (bucket / PARTS, bucket % PARTS);
    match power {
        0 => part as u64 + 1,
        _ => ((PARTS + part + 1) as u64) << (power - 1),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_microsecond_has_its_bucket() {
        let mut last = 0;
        for micros in (0..200_000).chain([1 << 20, 1 << 26, (1 << 27) - 1]) {
            let at = bucket(micros);
            assert!(at >= last && micros < end(at), "{micros} in {at}");
            assert!(at == 0 || micros >= end(at - 1), "{micros} in {at}");
            last = at;
        }
        assert_eq!(bucket(u64::from(u32::MAX)), BUCKETS - 1);
    }

    /// Draws of several kinds, in microseconds.
    fn draw(kind: u64, rng: &mut Rng) -> u64 {
        match kind {
            0 => 1_000 + rng.below(9_000),
            // A tail of 2 %.
            1 => (500 + rng.below(100)) * if rng.below(50) == 0 { 20 } else { 1 },
            // Products of evenly drawn numbers: what many services look like.
            2 => 100 + rng.below(100) * rng.below(100) * rng.below(100) / 10,
            _ => 37,
        }
    }

    #[test]
    fn a_quantile_is_told_with_an_error_of_a_tenth() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let (mut times, mut all) = (Times::default(), Vec::new());
            // No more than are remembered whole, so that all that differs is the bucket.
            for _ in 0..100 + rng.below(899) {
                let micros = draw(seed % 4, &mut rng);
                times.add(Duration::from_micros(micros));
                all.push(micros);
            }
            all.sort_unstable();
            for percent in 50..=99 {
                let exact = all[(all.len() * percent).div_ceil(100) - 1];
                let told = times.quantile(percent as u32).unwrap().as_micros() as u64;
                assert!(
                    told > exact && told <= exact + exact / 16 + 1,
                    "seed {seed}, p{percent}: {told} for {exact}"
                );
            }
        }
    }

    /// However many answers there were before: the rank of what is told is near the one asked for.
    #[test]
    fn forgetting_keeps_the_shape() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut times = Times::default();
            for _ in 0..20_000 {
                times.add(Duration::from_micros(draw(seed % 3, &mut rng)));
                assert!(
                    times.all < SAMPLES_MAX
                        && times.all == times.counts.iter().map(|it| u32::from(*it)).sum()
                );
            }
            for percent in [50, 90, 95, 98] {
                let told = times.quantile(percent).unwrap().as_micros() as u64;
                let passed = (0..50_000).filter(|_| draw(seed % 3, &mut rng) < told).count() as f64 / 500.0;
                // A bucket may hold many of those that are alike.
                assert!(passed > f64::from(percent) - 4.0, "seed {seed}, p{percent}: {passed} %");
                let inner = (0..50_000).filter(|_| draw(seed % 3, &mut rng) < told - told / 12).count()
                    as f64
                    / 500.0;
                assert!(inner < f64::from(percent) + 4.0, "seed {seed}, p{percent}: {inner} %");
            }
        }
    }

    #[test]
    fn it_follows_a_change_within_a_thousand_answers() {
        let mut times = Times::default();
        (0..5_000).for_each(|_| times.add(Duration::from_millis(10)));
        (0..1_000).for_each(|_| times.add(Duration::from_millis(100)));
        assert!(times.quantile(50).unwrap() >= Duration::from_millis(100));
        (0..3_000).for_each(|_| times.add(Duration::from_millis(1)));
        assert!(times.quantile(95).unwrap() < Duration::from_millis(2), "{:?}", times.quantile(95));
    }

    #[test]
    fn too_few_answers_say_nothing() {
        let mut times = Times::default();
        (1..SAMPLES_MIN).for_each(|_| times.add(Duration::from_millis(1)));
        assert_eq!(times.quantile(95), None);
        times.add(Duration::from_millis(1));
        assert!(times.quantile(95).is_some());
    }
}
