//! A whole control plane on loopback, with raw clients.

mod api;
mod attach;
mod harness;
mod join;
mod process;
mod restart;
mod stream;
