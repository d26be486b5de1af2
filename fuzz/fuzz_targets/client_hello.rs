//! See `check::client_hello`.
#![no_main]

#[path = "../../crates/leno-core/tests/edge/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::client_hello(data));
