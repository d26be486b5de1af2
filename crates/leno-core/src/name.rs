//! Names that cannot be wrong: parsed once, carried as types.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;

/// Longest DNS label (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// One DNS label: 1 to 63 of `a-z 0-9 -`, not beginning or ending with `-`. Service, namespace, version and
/// instance names are labels, so that each can stand in a host name and in a SPIFFE id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// Why a text is not a [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// No characters at all.
    Empty,
    /// More than [`LABEL_BYTES_MAX`] bytes.
    TooLong,
    /// A character outside `a-z 0-9 -`, at this byte.
    Character(usize),
    /// Begins or ends with `-`.
    Hyphen,
}

impl Label {
    /// Checks `text` against the rules of a DNS label.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > LABEL_BYTES_MAX {
            return Err(LabelError::TooLong);
        }
        if let Some(at) = text.bytes().position(|b| !matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(LabelError::Character(at));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(LabelError::Hyphen);
        }
        Ok(Self(text.into()))
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name cannot be empty"),
            Self::TooLong => write!(f, "a name has at most {LABEL_BYTES_MAX} characters"),
            Self::Character(_) => f.write_str("a name has only a-z, 0-9 and '-'"),
            Self::Hyphen => f.write_str("a name does not begin or end with '-'"),
        }
    }
}

impl core::error::Error for LabelError {}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The namespace of a service whose file names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A service's full name: `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// The namespace it lives in.
    pub namespace: Label,
    /// Its name there.
    pub name: Label,
}

impl ServiceId {
    /// A service `name` in `namespace`.
    pub const fn new(namespace: Label, name: Label) -> Self {
        Self { namespace, name }
    }

    /// Parses `name` (in [`DEFAULT_NAMESPACE`]) or `namespace/name`.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
        Ok(Self { namespace: Label::parse(namespace)?, name: Label::parse(name)? })
    }

    /// True for a service in [`DEFAULT_NAMESPACE`].
    pub fn in_default_namespace(&self) -> bool {
        self.namespace.as_str() == DEFAULT_NAMESPACE
    }
}

/// `name` in the default namespace, else `namespace/name`; parsed back by [`ServiceId::parse`].
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.in_default_namespace() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

/// The name under which certificates of one mesh trust each other, such as `shop.mesh`: DNS labels with dots,
/// at most 255 bytes (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks that every dot-separated part is a [`Label`].
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.len() > 255 {
            return Err(LabelError::TooLong);
        }
        for part in text.split('.') {
            Label::parse(part)?;
        }
        Ok(Self(text.into()))
    }

    /// The domain's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl From<&Label> for String {
    fn from(label: &Label) -> Self {
        label.as_str().into()
    }
}
