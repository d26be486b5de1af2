//! The certificate authority as it is kept: made on first start, loaded ever after.

use leno_core::name::TrustDomain;
use leno_core::time::UnixTime;
use leno_identity::authority::Authority;
use prost::Message;

use crate::error::ControlError;
use crate::store::{AUTHORITY_KEY, AuthorityRecord, NotKept, Op, Store, Table};

/// Loads the kept authority, or makes one for `asked` (or [`DEFAULT_TRUST_DOMAIN`]) and keeps it before it is used.
///
/// # Errors
/// When the kept one belongs to another trust domain, or cannot be read.
pub(crate) async fn open(
    store: &Store,
    kept: Option<AuthorityRecord>,
    asked: Option<TrustDomain>,
    now: UnixTime,
) -> Result<Authority, ControlError> {
    let failed = |error: &dyn std::fmt::Display| ControlError::Authority(error.to_string());
    if let Some(record) = kept {
        let authority =
            Authority::load(&record.cert_der, &record.key_pkcs8).map_err(|error| failed(&error))?;
        let stored = authority.trust_domain();
        return match asked {
            Some(asked) if asked != *stored => {
                Err(ControlError::TrustDomain { asked, stored: stored.clone() })
            }
            Some(_) | None => Ok(authority),
        };
    }
    let domain = match asked {
        Some(domain) => domain,
        None => TrustDomain::parse(DEFAULT_TRUST_DOMAIN).map_err(|error| failed(&error))?,
    };
    let authority = Authority::create(&domain, now).map_err(|error| failed(&error))?;
    let cert_der = authority.roots().first().map(|root| root.to_vec()).unwrap_or_default();
    let record = AuthorityRecord { cert_der, key_pkcs8: authority.key_pkcs8().to_vec() };
    let op = Op::Put(Table::Meta, AUTHORITY_KEY.to_owned(), record.encode_to_vec());
    match store.keep(vec![op]).kept().await {
        Ok(()) => {}
        Err(NotKept) => return Err(store.failed().await.into()),
    }
    tracing::info!(trust_domain = %domain, "made a new certificate authority");
    Ok(authority)
}

/// The trust domain when neither the command line, nor the mesh file, nor the state names one.
const DEFAULT_TRUST_DOMAIN: &str = "leno.mesh";
