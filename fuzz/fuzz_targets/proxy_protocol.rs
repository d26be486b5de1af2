//! See `check::proxy_protocol`.
#![no_main]

#[path = "../../crates/leno-core/tests/edge/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::proxy_protocol(data));
