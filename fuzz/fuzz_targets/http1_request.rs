//! See `check::request`.
#![no_main]

#[path = "../../crates/leno-core/tests/http1/check/mod.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::request(data));
