//! Interception in network namespaces that the tests make: programs that know nothing of Leno, run by `leno run`, and the rules that
//! `leno capture` installs. The machine's own namespace is left alone.
//!
//! A test that may not make namespaces, or whose programs are not installed, says `SKIPPED`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod hundred;
mod install;
mod machine;
mod run;
