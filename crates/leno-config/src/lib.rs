//! What operators write, checked and explained.
//!
//! One module per dialect; each turns text into core types or into [`Diagnostics`] that say where, what and how to
//! put it right, all mistakes of a file at once. This is the only crate that knows YAML as people write it. It
//! reads the one file it is given, and nothing else: no socket, no clock, no environment.
//!
//! [`native`] is Leno's own mesh file.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod native;

mod source;
mod suggest;
mod words;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
