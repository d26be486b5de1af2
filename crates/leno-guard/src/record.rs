//! What was measured: one line for each value, for whoever compares it with what is recorded.

/// Values by name, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Measured {
    lines: u64,
}

impl Measured {
    /// Says a value. `remark` is for people.
    pub(crate) fn value(&mut self, name: &str, value: f64, remark: &str) {
        self.lines += 1;
        println!("value {name} {value:.4} {remark}");
    }

    /// Says that values whose names begin so cannot be measured here, and why.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.lines += 1;
        println!("skip {name} {why}");
    }
}
