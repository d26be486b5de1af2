//! See `check::check`.
#![no_main]

#[path = "../../crates/leno-core/tests/mux/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
