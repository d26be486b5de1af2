//! What the mesh knows and who must learn it.

use core::fmt;

use crate::name::ServiceId;

/// What a resource of the control stream describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where a service can be reached. First in order: a proxy that hears of endpoints before it hears of the rule
    /// that sends requests to them has no moment without any (make before break).
    Endpoints,
    /// A service as declared.
    Service,
    /// A gateway as declared.
    Gateway,
}

impl Kind {
    /// Every kind, in the order in which they are sent.
    pub const ALL: [Self; 3] = [Self::Endpoints, Self::Service, Self::Gateway];
}

/// The name of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it describes.
    pub kind: Kind,
    /// Whose.
    pub id: ServiceId,
}

impl Key {
    /// The resource of `kind` for `id`.
    pub const fn new(kind: Kind, id: ServiceId) -> Self {
        Self { kind, id }
    }
}

/// The content of a resource, told apart: equal versions mean equal content, over restarts of the control plane
/// too. The shell makes it from a digest of the encoded content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

/// 32 hexadecimal digits, as sent.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Version {
    /// Parses what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}
