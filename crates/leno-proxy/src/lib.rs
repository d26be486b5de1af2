//! Leno's data plane: sockets around the core. Sidecars and gateways are this crate; what they decide is
//! [`leno_core`].
//!
//! Follow a request: `listen` accepts, `h1::server` or `mux::accept` presents a head, `drive` does what the core's
//! exchange decides, `h1::client` or `mux::pool` reach the next hop, `telemetry` and `access_log` keep the record.

mod access_log;
mod admin;
pub mod agent;
mod alarm;
mod app;
mod body;
mod buffer;
mod caller;
mod capture;
mod clock;
pub mod config;
pub mod dial;
pub mod dns;
mod door;
mod downstream;
mod drive;
mod gateway;
mod h1;
mod h2;
pub mod health;
mod io;
mod listen;
mod mux;
mod names;
pub mod netns;
mod opaque;
mod outliers;
mod outside;
mod quota;
mod rates;
mod socket;
mod source;
mod splice;
mod sys;
mod telemetry;
mod tls;
mod worker;

pub use app::{ProxyError, run};
pub use config::{
    AccessLog, Bound, CaptureConfig, CaptureMode, IdentitySource, ProxyConfig, Source, Workload,
};
pub use source::SourceError;
