//! Credentials without a control plane: from PEM files that somebody else issued, or from an authority of one's own in
//! a directory that the proxies of one machine share.

use core::fmt;
use core::time::Duration;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use leno_core::name::{ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::{Authority, AuthorityError, LEAF_LIFETIME};
use crate::base64::pem_block;
use crate::credential::{CERTIFICATES_MAX, Credential, CredentialError};

/// A chain and a key are a few kilobytes; what is larger is another file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// The shared authority: certificate and private key in one file, so that one rename makes both appear.
pub const AUTHORITY_FILE: &str = "authority.pem";
/// The shared authority's certificate alone, for other programs to trust.
pub const ROOTS_FILE: &str = "roots.pem";
const LOCK_FILE: &str = "lock";
/// Making an authority takes milliseconds, so whoever holds the lock longer is stuck.
const LOCK_ATTEMPTS_MAX: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The credential in these PEM files: chain (leaf first), its private key (PKCS #8, SEC 1 or PKCS #1), and roots.
pub fn credential(cert: &Path, key: &Path, roots: &Path, now: UnixTime) -> Result<Credential, FileError> {
    let chain = certificates(cert)?;
    let roots = certificates(roots)?;
    let key_der = private_key(key)?;
    Credential::new(chain, key_der, roots, now)
        .map_err(|error| FileError::new(cert, Problem::Credential(error)))
}

/// The private key in a PEM file (PKCS #8, SEC 1 or PKCS #1).
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| FileError::pem(path, "private key", error))
}

/// The certificates in a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates_up_to(path, CERTIFICATES_MAX)
}

/// The same, for a file that may have more of them.
pub(crate) fn certificates_up_to(
    path: &Path,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .take(most + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| FileError::pem(path, "certificate", error))?;
    match found.len() {
        0 => Err(FileError::new(path, Problem::Missing("certificate"))),
        count if count > most => Err(FileError::new(path, Problem::TooMany)),
        _ => Ok(found),
    }
}

/// A fresh credential for `service` from the authority in `dir`, which is made by whoever comes first. Every process
/// that can read the directory can become any service of the domain: it is meant for one user on one machine. Call it
/// again for a renewal.
pub fn self_made(
    dir: &Path,
    trust_domain: &TrustDomain,
    service: &ServiceId,
    now: UnixTime,
) -> Result<Credential, FileError> {
    let authority = shared_authority(dir, trust_domain, now)?;
    let id = SpiffeId { trust_domain: trust_domain.clone(), service: service.clone() };
    authority
        .credential(&id, now, LEAF_LIFETIME)
        .map_err(|error| FileError::new(dir, Problem::Credential(error)))
}

/// The authority in `dir`, made under a lock if there is none.
pub fn shared_authority(
    dir: &Path,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<Authority, FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| FileError::io(dir, error))?;
    let _lock = lock(&dir.join(LOCK_FILE))?;
    let path = dir.join(AUTHORITY_FILE);
    let authority = match fs::metadata(&path) {
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => {
            return Err(FileError::new(&path, Problem::Exposed));
        }
        Ok(_) => load(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(dir, &path, trust_domain, now)?,
        Err(error) => return Err(FileError::io(&path, error)),
    };
    if authority.trust_domain() != trust_domain {
        let found = authority.trust_domain().clone();
        return Err(FileError::new(&path, Problem::TrustDomain { found, expected: trust_domain.clone() }));
    }
    Ok(authority)
}

fn load(path: &Path) -> Result<Authority, FileError> {
    let text = read(path)?;
    let root =
        CertificateDer::from_pem_slice(&text).map_err(|error| FileError::pem(path, "certificate", error))?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(&text)
        .map_err(|error| FileError::pem(path, "private key", error))?;
    Authority::load(&root, key.secret_pkcs8_der())
        .map_err(|error| FileError::new(path, Problem::Authority(error)))
}

/// The public file first: when the private one appears, everything is there.
fn create(
    dir: &Path,
    path: &Path,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<Authority, FileError> {
    let authority = Authority::create(trust_domain, now)
        .map_err(|error| FileError::new(path, Problem::Authority(error)))?;
    let roots: String = authority.roots().iter().map(|root| pem_block("CERTIFICATE", root)).collect();
    write(&dir.join(ROOTS_FILE), &roots, 0o644)?;
    write(path, &format!("{roots}{}", pem_block("PRIVATE KEY", authority.key_pkcs8())), 0o600)?;
    Ok(authority)
}

/// Appears whole or not at all. The caller holds the directory's lock, so the temporary file is nobody else's.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    let result = (|| {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    result.map_err(|error| FileError::io(path, error))
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| FileError::io(path, error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| FileError::io(path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::new(path, Problem::TooLong));
    }
    Ok(bytes)
}

/// Held until the file is dropped; the operating system lets go of it when a process dies.
fn lock(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| FileError::io(path, error))?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(FileError::io(path, error)),
        }
    }
    Err(FileError::new(path, Problem::Locked))
}

/// A file or directory from which no credential can be had.
#[derive(Debug)]
pub struct FileError {
    /// Which one.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Problem {
    /// The operating system refused.
    Io(io::Error),
    /// It is not PEM; the parser's reason.
    Pem(String),
    /// It holds no such thing.
    Missing(&'static str),
    /// More than [`CERTIFICATES_MAX`] certificates.
    TooMany,
    /// More than [`FILE_BYTES_MAX`].
    TooLong,
    /// Others than its owner can read the private key in it.
    Exposed,
    /// Another process has held the directory's lock for 5 s.
    Locked,
    /// The authority in the directory belongs to another mesh.
    TrustDomain {
        /// The one there.
        found: TrustDomain,
        /// The one asked for.
        expected: TrustDomain,
    },
    /// The authority cannot be used or made.
    Authority(AuthorityError),
    /// The parts do not make a credential.
    Credential(CredentialError),
}

impl FileError {
    fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.into(), problem: Box::new(problem) }
    }

    fn io(path: &Path, error: io::Error) -> Self {
        Self::new(path, Problem::Io(error))
    }

    fn pem(path: &Path, wanted: &'static str, error: pem::Error) -> Self {
        let problem = match error {
            pem::Error::NoItemsFound => Problem::Missing(wanted),
            other => Problem::Pem(other.to_string()),
        };
        Self::new(path, problem)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &*self.problem {
            Problem::Io(error) => error.fmt(f),
            Problem::Pem(why) => write!(f, "it is not a PEM file: {why}"),
            Problem::Missing(what) => {
                write!(f, "it holds no {what} in PEM form")?;
                if *what == "private key" {
                    f.write_str(" (an encrypted key must be decrypted first)")
                } else {
                    Ok(())
                }
            }
            Problem::TooMany => write!(f, "it holds more than {CERTIFICATES_MAX} certificates"),
            Problem::TooLong => write!(f, "it has more than {FILE_BYTES_MAX} bytes"),
            Problem::Exposed => f.write_str("others can read the private key in it; set its mode to 600"),
            Problem::Locked => f.write_str("another process has held this lock for 5 s"),
            Problem::TrustDomain { found, expected } => {
                write!(f, "this authority is for {found}, not for {expected}; use another directory")
            }
            Problem::Authority(error) => error.fmt(f),
            Problem::Credential(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FileError {}
