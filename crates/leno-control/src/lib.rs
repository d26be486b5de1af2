//! Leno's control plane: registry, certificate authority, configuration server, JSON API, in one process.
//!
//! Facts come in from three sides: the mesh file (`source`), the JSON API (`api`) and the proxies themselves
//! (`serve`). All of them change one registry (`registry`, pure) behind one short lock (`mesh`); the registry says
//! what must be kept (`store`) and which control streams must be woken. What a stream then tells its proxy is decided
//! by `leno_core::session`. A change is acknowledged when it is on disk, and is told to proxies at once.
#![forbid(unsafe_code)]

mod api;
mod app;
mod authority;
mod clock;
mod error;
mod mesh;
mod registry;
mod serve;
mod source;
mod state_dir;
mod stop;
mod store;

pub use app::{Bound, Control, ControlConfig, StateDir, run};
pub use error::{ControlError, StoreError};
