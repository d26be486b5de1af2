//! Programs nobody here wrote, unmodified, inside the mesh: each is a server and its own client, which are captured by
//! `leno run` in network namespaces, with mutual TLS between their sidecars.
//!
//! Each scenario runs twice, on plain loopback and in the mesh. The client has to see the same both times, and a
//! capture of what crosses between the sidecars may hold nothing but TLS. A scenario whose programs are not installed
//! says `SKIPPED` and is counted as skipped by `cargo xtask test`, which is also what installs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod databases;
mod ground;
mod grpc;
mod long_lived;
mod mail_and_shell;
mod mesh;
mod scenario;
mod server_first;
mod stores;
mod web;
mod websocket;
mod wire;
