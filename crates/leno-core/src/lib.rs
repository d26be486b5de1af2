//! Leno's decisions. This crate takes facts (an input and the time) and returns actions and reasons.
//!
//! It never does I/O, logs, sleeps, spawns, reads a clock or rolls unseeded dice, so every rule of routing,
//! balancing and retrying runs in a simulator at full speed and replays from a seed. The crate is `no_std`: it
//! could not open a socket if it wanted to.
//!
//! Read [`exchange`] first: it is one request from head to outcome.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod admission;
pub mod affinity;
pub mod backend;
pub mod backoff;
pub mod client_hello;
pub mod detect;
pub mod dns;
pub mod edit;
pub mod egress;
pub mod exchange;
pub mod external;
pub mod fault;
pub mod gateway;
pub mod grpc;
pub mod h2guard;
pub mod head;
pub mod health;
pub mod http1;
pub mod index;
pub mod knowledge;
pub mod mux;
pub mod name;
pub mod peer;
pub mod proxy_protocol;
pub mod quota;
pub mod rate;
pub mod reason;
pub mod renewal;
pub mod rng;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod spec;
pub mod time;
pub mod vip;
