//! Leno's own mesh file.
//!
//! [`load`] and [`parse`] give a [`MeshFile`] in which nothing is left to check: names are names, every reference
//! has its target, every address is taken once, an order to start in exists. Or they give everything that is
//! wrong, with positions. The fields are written down once, in `fields`: the reader refuses what the table does
//! not have, and [`json_schema`] and the reference in the manual are printed from it.

mod care;
mod change;
mod check;
mod cors;
mod covers;
mod egress;
mod endpoint;
mod fault;
mod fields;
mod file;
mod hedge;
mod instance;
mod listener;
mod lists;
mod matching;
mod model;
mod outside;
mod rate;
mod read;
mod rules;
mod schema;
mod service;
mod tries;
mod value;
mod zones;

use std::path::Path;

use crate::diagnostic::{Diagnostics, Problems};
use crate::source::Source;
use crate::yaml;

pub use model::{InstanceEntry, MeshFile, Role, Run, ServiceEntry};
pub use schema::{json_schema, reference};

/// Reads and checks the mesh file at `path`; files over 4 MiB are refused unread.
pub fn load(path: &Path) -> Result<MeshFile, Diagnostics> {
    decode(&Source::read(path)?)
}

/// Checks the mesh file `text`; `file_name` is what diagnostics call it, and its folder is where commands run.
pub fn parse(file_name: &str, text: &str) -> Result<MeshFile, Diagnostics> {
    decode(&Source::from_text(file_name, text)?)
}

fn decode(source: &Source) -> Result<MeshFile, Diagnostics> {
    let mut problems = Problems::default();
    let folder = Path::new(&source.name).parent().unwrap_or(Path::new(""));
    let mesh = yaml::parse(source, &mut problems).and_then(|root| file::decode(&root, folder, &mut problems));
    let warnings = problems.finish(source)?;
    match mesh {
        Some(mesh) => Ok(MeshFile { warnings, ..mesh }),
        // Cannot happen: a decoder that gives up has said why. If it does, the file is not trusted.
        None => Err(Diagnostics::whole_file(&source.name, "the file cannot be understood".into(), None)),
    }
}
