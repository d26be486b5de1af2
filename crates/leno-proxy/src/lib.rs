//! Leno's data plane: sockets around the core

pub mod agent;
pub mod clock;
pub mod config;
pub mod health;
