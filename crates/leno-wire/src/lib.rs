//! Messages between Leno's processes: the control stream ([`proto`], over [`grpc`]) and the JSON API ([`api`]).
//!
//! Serialization ends here: what crosses a wire is parsed into the types of `leno_core::spec`, which cannot be
//! wrong, or refused with the resource and the field that is.

pub mod api;
mod convert;
pub mod grpc;
pub mod proto;
pub mod stream;

pub use convert::{Known, WireError, full_name, tags};
