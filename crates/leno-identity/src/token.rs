//! Join tokens: how a proxy that has nothing yet becomes one service of the mesh.
//!
//! The text is `leno1.ID.SECRET.PIN`. The pin lets the holder recognise the control plane before it sends anything; the
//! id finds the record; the secret proves that the holder was given the token. The control plane keeps a
//! [`TokenRecord`] with only a hash of the secret, so that whoever reads its store cannot join. A plain SHA-256 is
//! enough, because the secret is 256 random bits and not a password.

use core::fmt;

use aws_lc_rs::{constant_time, digest};
use leno_core::name::ServiceId;
use leno_core::time::UnixTime;

use crate::authority::{CONTROL_NAMESPACE, Pin};
use crate::{EntropyError, base64, entropy};

/// A token in the hands of whoever may use it. Its text is a secret: it is never logged, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Finds the record; not a secret.
    pub id: String,
    /// 256 random bits.
    secret: [u8; SECRET_BYTES],
    /// Of the authority that made it.
    pub pin: Pin,
}

/// What the control plane keeps about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token's id.
    pub id: String,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// What its holder becomes.
    pub grant: Grant,
    /// How often it may still be used; `None`: until it expires.
    pub uses_left: Option<u32>,
    /// From this time on it is refused.
    pub expires: UnixTime,
}

/// What a proxy may become.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// The sidecar of an instance of this service.
    Service(ServiceId),
    /// This gateway, by the full name that is its identity.
    Gateway(ServiceId),
}

/// Why a token was not accepted. The applicant is told only "refused"; this is for the control plane's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No record has this id.
    Unknown,
    /// The secret is not the record's.
    WrongSecret,
    /// Its time is over since so many seconds.
    Expired {
        /// Seconds since it expired.
        ago: u64,
    },
    /// It has been used as often as it may.
    UsedUp,
    /// It is for something else than what the applicant wants to be.
    WrongGrant {
        /// What the token is for.
        granted: Grant,
        /// What the applicant asked to become.
        wanted: Grant,
    },
}

const PREFIX: &str = "leno1";
const ID_BYTES: usize = 9;
const SECRET_BYTES: usize = 32;
/// A well-formed token has 107 characters; longer text is not looked at.
pub const TOKEN_BYTES_MAX: usize = 256;

impl JoinToken {
    /// A new token and the record to keep. `uses`: how often it may be used, `None` for any number until `expires`.
    pub fn new(
        pin: Pin,
        grant: Grant,
        uses: Option<u32>,
        expires: UnixTime,
    ) -> Result<(Self, TokenRecord), EntropyError> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        entropy(&mut id)?;
        entropy(&mut secret)?;
        let token = Self { id: base64::encode(&id), secret, pin };
        let record = TokenRecord {
            id: token.id.clone(),
            secret_sha256: hash(&secret),
            grant,
            uses_left: uses,
            expires,
        };
        Ok((token, record))
    }

    /// Reads what [`text`](Self::text) writes; white space around it is allowed, because it comes from files.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let mut parts = text.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError::Prefix);
        }
        let (Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        if base64::decode(id).is_none_or(|bytes| bytes.len() != ID_BYTES) {
            return Err(TokenError::Part("id"));
        }
        let secret = base64::decode(secret)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(TokenError::Part("secret"))?;
        let pin = Pin::parse(pin).ok_or(TokenError::Part("pin"))?;
        Ok(Self { id: id.into(), secret, pin })
    }

    /// The whole token, secret included: for the one place that hands it out.
    pub fn text(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.id, base64::encode(&self.secret), self.pin)
    }
}

impl TokenRecord {
    /// Checks `token` against the record that its id found (if any), for an applicant that wants to become `wanted`
    /// (`None`: whatever the token grants). The secret is compared first and in constant time, so that nothing else
    /// about a record is told to whoever does not know its secret. Does not count the use: see
    /// [`spend`](Self::spend).
    pub fn verify<'a>(
        record: Option<&'a Self>,
        token: &JoinToken,
        wanted: Option<&Grant>,
        now: UnixTime,
    ) -> Result<&'a Grant, TokenRefusal> {
        let record = record.filter(|record| record.id == token.id).ok_or(TokenRefusal::Unknown)?;
        constant_time::verify_slices_are_equal(&record.secret_sha256, &hash(&token.secret))
            .map_err(|_| TokenRefusal::WrongSecret)?;
        if now >= record.expires {
            return Err(TokenRefusal::Expired { ago: now.since(record.expires).as_secs() });
        }
        if record.uses_left == Some(0) {
            return Err(TokenRefusal::UsedUp);
        }
        if let Some(wanted) = wanted.filter(|wanted| **wanted != record.grant) {
            return Err(TokenRefusal::WrongGrant { granted: record.grant.clone(), wanted: wanted.clone() });
        }
        Ok(&record.grant)
    }

    /// Counts one use; to be stored before the certificate is handed out, or a crash would give a use back.
    pub fn spend(&mut self) {
        self.uses_left = self.uses_left.map(|left| left.saturating_sub(1));
    }
}

impl Grant {
    /// Whose identity the holder gets, for gateways as for services: names are unique among both. `None` for what
    /// nobody may be given: a name in Leno's own namespace.
    pub fn identity(&self) -> Option<&ServiceId> {
        let (Self::Service(id) | Self::Gateway(id)) = self;
        (id.namespace.as_str() != CONTROL_NAMESPACE).then_some(id)
    }
}

fn hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    bytes
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// More than [`TOKEN_BYTES_MAX`] bytes: this many.
    TooLong(usize),
    /// It does not begin with `leno1.`.
    Prefix,
    /// It has not four parts.
    Parts,
    /// This part is damaged.
    Part(&'static str),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => {
                write!(f, "a join token has at most {TOKEN_BYTES_MAX} bytes, not {bytes}")
            }
            Self::Prefix => write!(f, "a join token begins with \"{PREFIX}.\""),
            Self::Parts => write!(f, "a join token has four parts: {PREFIX}.ID.SECRET.PIN"),
            Self::Part(which) => write!(f, "the join token's {which} is damaged; copy it again"),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service {id}"),
            Self::Gateway(name) => write!(f, "gateway {name}"),
        }
    }
}

impl TokenRefusal {
    /// A short name out of a fixed set, for metrics and structured logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::Expired { .. } => "expired",
            Self::UsedUp => "used_up",
            Self::WrongGrant { .. } => "wrong_grant",
        }
    }
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such join token"),
            Self::WrongSecret => f.write_str("the join token's secret is wrong"),
            Self::Expired { ago } => write!(f, "the join token expired {ago} s ago"),
            Self::UsedUp => f.write_str("the join token has been used up"),
            Self::WrongGrant { granted, wanted } => {
                write!(f, "the join token is for {granted}, the applicant wants to be {wanted}")
            }
        }
    }
}

/// The id only.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl core::error::Error for TokenError {}
impl core::error::Error for TokenRefusal {}
