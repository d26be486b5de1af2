//! Why the control plane does not start or does not go on: one sentence each, naming the thing.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leno_core::name::TrustDomain;

/// Why [`crate::run`] ended other than by being told to.
#[derive(Debug)]
pub enum ControlError {
    /// The state directory cannot be made or written.
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database.
    Store(StoreError),
    /// The mesh file has mistakes; nothing was started.
    File(leno_config::diagnostic::Diagnostics),
    /// The mesh file, the state directory and the command line do not agree on the trust domain.
    TrustDomain {
        /// What was asked for.
        asked: TrustDomain,
        /// What the state directory belongs to.
        stored: TrustDomain,
    },
    /// An address cannot be listened on.
    Listen {
        /// What it is for: `mesh` or `api`.
        what: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The certificate authority cannot be made or used.
    Authority(String),
    /// The operating system refused something else that is needed.
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// What is wrong with the database.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It cannot be read or written.
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Arc<redb::Error>,
    },
    /// Its disk does not keep up.
    Stalled(PathBuf),
    /// It was written by another version of Leno.
    Schema {
        /// The file.
        path: PathBuf,
        /// The layout's version in it, as bytes.
        found: Vec<u8>,
    },
    /// One record cannot be understood.
    Record {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: String,
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// An error of redb's about `path`.
    pub(crate) fn of(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse(path.to_owned()),
            error => Self::Database { path: path.to_owned(), error: Arc::new(error) },
        }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { path, error } => {
                write!(f, "the state directory {} cannot be used: {error}", path.display())
            }
            Self::Store(error) => error.fmt(f),
            Self::File(diagnostics) => diagnostics.fmt(f),
            Self::TrustDomain { asked, stored } => write!(
                f,
                "the state directory belongs to trust domain {stored}, not {asked}; use another --state for {asked}"
            ),
            Self::Listen { what, address, error } => {
                write!(f, "the {what} address {address} cannot be listened on: {error}")
            }
            Self::Authority(why) => f.write_str(why),
            Self::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(
                    f,
                    "{} is in use by another control plane; stop it or use another --state",
                    path.display()
                )
            }
            Self::Database { path, error } => match &**error {
                redb::Error::Io(io) if io.kind() == io::ErrorKind::StorageFull => {
                    write!(f, "the disk is full: {} cannot be written", path.display())
                }
                error => write!(f, "{} cannot be read or written: {error}", path.display()),
            },
            Self::Stalled(path) => {
                write!(f, "the disk under {} does not keep up with the changes to be kept", path.display())
            }
            Self::Schema { path, found } => write!(
                f,
                "{} was written by another version of Leno (layout {found:?}); use that version or another --state",
                path.display()
            ),
            Self::Record { path, key, why } => {
                write!(f, "{}: the record {key:?} cannot be understood: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
