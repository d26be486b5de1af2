//! A whole control plane on loopback, with raw clients.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod api;
mod attach;
mod harness;
mod join;
mod process;
mod restart;
mod stream;
