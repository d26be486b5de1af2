//! Keys, certificates, join tokens and who a peer is.
//!
//! Nothing here opens a socket or reads the clock: the time is an argument ([`UnixTime`], or a [`tls::Clock`] where
//! rustls asks for it in the middle of a handshake). Only [`files`] touches the disk. Entropy comes from aws-lc-rs.
//!
//! Read in this order: [`authority`] issues, [`credential`] is what a process holds, [`tls`] turns it into rustls
//! configurations, [`outside`] those for servers that are no Leno, [`session`] what two proxies speak after a handshake, [`reason`] says why a handshake failed, [`token`] is how a stranger joins.
#![forbid(unsafe_code)]

pub mod authority;
mod base64;
pub mod credential;
pub mod files;
pub mod ingress;
pub mod outside;
pub mod reason;
pub mod session;
pub mod svid;
pub mod tls;
pub mod token;
mod verify;

pub use leno_core::time::UnixTime;
pub use rustls::pki_types::CertificateDer;

use core::fmt;

/// Fills `bytes` from the process's cryptographic generator.
pub(crate) fn entropy(bytes: &mut [u8]) -> Result<(), EntropyError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| EntropyError)
}

/// The operating system gave no random bytes. Nothing secret can be made then; the only cure is another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntropyError;

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gives no random bytes")
    }
}

impl core::error::Error for EntropyError {}
