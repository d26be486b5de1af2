//! See `check::check`.
#![no_main]
#![allow(dead_code, reason = "the sidecar uses the rest")]

#[path = "../../crates/leno-proxy/src/dns/check.rs"]
mod check;
#[path = "../../crates/leno-proxy/src/dns/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
