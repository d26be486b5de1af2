//! What a rule changes in the requests that it matches, and in their answers. Done by [`crate::route::Changed`].

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use super::cors::Cors;
use super::fault::Fault;
use super::format::Format;
use super::pattern::Pattern;
use super::rate::RateSpec;
use crate::admission::Class;
use crate::head::FieldId;
use crate::http1::is_token;
use crate::name::{Label, ServiceId};

/// Longest path that a rule can make, with its query, in bytes: what is accepted of a client. A request that would be
/// longer is refused.
pub const CHANGED_PATH_BYTES_MAX: usize = 16 * 1024;

/// Changes to one request and to its answer. Of several rules that one request passes, each changes what the one before
/// it has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The path; its query stays.
    pub path: Option<PathChange>,
    /// `host[:port]` instead of what the client asked for.
    pub host: Option<Arc<str>>,
    /// Headers of the request.
    pub request: FieldChanges,
    /// Headers of the answer, also of one that Leno makes itself.
    pub response: FieldChanges,
    /// Who gets a copy of the request, as it is sent; at most [`MIRRORS_MAX`]. What becomes of a copy changes nothing.
    pub mirrors: Vec<Mirror>,
    /// The class of the request from here on, whatever it was before.
    pub priority: Option<Class>,
    /// What is broken on purpose.
    pub fault: Option<Arc<Fault>>,
    /// Which pages of other origins may use it; of several rules that say it, the first has the say.
    pub cors: Option<Arc<Cors>>,
    /// How many requests pass in a time; of a gateway's rule.
    pub rates: Vec<Arc<RateSpec>>,
}

/// Most copies of one request that one rule can make.
pub const MIRRORS_MAX: usize = 4;

/// Who gets a copy of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The service, whatever its own rules say: a copy is copied no further.
    pub service: ServiceId,
    /// Only endpoints of this version.
    pub version: Option<Label>,
    /// Of how many requests of a million.
    pub share_ppm: u32,
}

impl Mirror {
    /// Of every request.
    pub const ALL_PPM: u32 = 1_000_000;
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// This instead of the text that the rule's `path` has matched: of a prefix, or of a beginning; else instead of all.
    Prefix(Arc<str>),
    /// This instead of all of it.
    Whole(Format),
    /// The second instead of each part that the first matches.
    Regex(Pattern, Replacement),
}

/// What takes the place of a match: `\1` to `\9` are what its groups matched, `\0` all of it, `\\` is a backslash.
#[derive(Clone, PartialEq, Eq)]
pub struct Replacement {
    text: Arc<str>,
    pieces: Arc<[ReplacementPiece]>,
}

/// A part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplacementPiece {
    Text(Arc<str>),
    Group(usize),
}

/// Why a text is no replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacementError {
    /// What is wrong, as the end of a sentence.
    pub problem: String,
    /// Where, in bytes from its start.
    pub at: usize,
}

/// Changes to the fields of one head, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Fields that go; names in lower case.
    pub remove: Vec<Arc<str>>,
    /// Fields that have exactly this value afterwards.
    pub set: Vec<(Arc<str>, Format)>,
    /// Fields that are there besides those that came.
    pub add: Vec<(Arc<str>, Format)>,
}

/// Why a field cannot be changed by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// It is no name of a field.
    NoName,
    /// It is the host, which is changed as such.
    Host,
    /// It says where a message ends, or belongs to one connection: each hop has its own.
    Framing,
    /// It is Leno's own.
    Leno,
}

impl Fixed {
    /// Why the field `name` cannot be changed, if so.
    pub fn of(name: &str) -> Option<Self> {
        let id = FieldId::of(name.as_bytes());
        match id {
            _ if !is_token(name.as_bytes()) => Some(Self::NoName),
            FieldId::Host => Some(Self::Host),
            FieldId::ContentLength | FieldId::Trailer | FieldId::Expect => Some(Self::Framing),
            _ if id.hop_by_hop() || name.eq_ignore_ascii_case("http2-settings") => Some(Self::Framing),
            _ if name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("leno-")) => Some(Self::Leno),
            _ => None,
        }
    }

    /// The end of a sentence about the field.
    pub const fn why(self) -> &'static str {
        match self {
            Self::NoName => "has a character that a header's name cannot have",
            Self::Host => "is changed by `rewrite: {host: …}`",
            Self::Framing => "belongs to one connection and is made anew for each",
            Self::Leno => "is one of Leno's own",
        }
    }
}

impl Change {
    /// True when later rules see another request.
    pub const fn rewrites(&self) -> bool {
        self.path.is_some() || self.host.is_some()
    }

    /// True when requests and answers stay as they are, though they may be counted.
    pub fn changes_nothing(&self) -> bool {
        let Self { path, host, request, response, mirrors, priority, rates: _, fault, cors } = self;
        let none = FieldChanges::default();
        path.is_none()
            && host.is_none()
            && *request == none
            && *response == none
            && mirrors.is_empty()
            && priority.is_none()
            && fault.is_none()
            && cors.is_none()
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Replacement {
    /// Parses what takes the place of a match of `pattern`.
    ///
    /// # Errors
    /// A group that the pattern does not have, or a backslash that says nothing.
    pub fn parse(text: &str, pattern: &Pattern) -> Result<Self, ReplacementError> {
        let (mut pieces, mut plain) = (vec![], String::new());
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            if c != '\\' {
                plain.push(c);
                continue;
            }
            let group = match chars.next() {
                Some((_, '\\')) => {
                    plain.push('\\');
                    continue;
                }
                Some((_, digit)) if digit.is_ascii_digit() => digit as usize - '0' as usize,
                _ => return Err(ReplacementError { problem: "a backslash that says nothing".into(), at }),
            };
            if group > pattern.groups() {
                let groups = pattern.groups();
                let problem = format!("there is no group {group}: the expression has {groups}");
                return Err(ReplacementError { problem, at });
            }
            if !plain.is_empty() {
                pieces.push(ReplacementPiece::Text(core::mem::take(&mut plain).into()));
            }
            pieces.push(ReplacementPiece::Group(group));
        }
        if !plain.is_empty() {
            pieces.push(ReplacementPiece::Text(plain.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn pieces(&self) -> &[ReplacementPiece] {
        &self.pieces
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for ReplacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl core::error::Error for ReplacementError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_make_a_message_what_it_is_stay_as_they_are() {
        for (name, fixed) in [
            ("x-user", None),
            ("Authorization", None),
            ("x-request-id", None),
            ("host", Some(Fixed::Host)),
            ("Content-Length", Some(Fixed::Framing)),
            ("transfer-encoding", Some(Fixed::Framing)),
            ("Connection", Some(Fixed::Framing)),
            ("keep-alive", Some(Fixed::Framing)),
            ("te", Some(Fixed::Framing)),
            ("trailer", Some(Fixed::Framing)),
            ("upgrade", Some(Fixed::Framing)),
            ("proxy-connection", Some(Fixed::Framing)),
            ("expect", Some(Fixed::Framing)),
            ("leno-reason", Some(Fixed::Leno)),
            ("Leno-x", Some(Fixed::Leno)),
            (":path", Some(Fixed::NoName)),
            ("", Some(Fixed::NoName)),
        ] {
            assert_eq!(Fixed::of(name), fixed, "{name}");
        }
    }

    #[test]
    fn a_replacement_names_groups_that_are_there() {
        let pattern = Pattern::anywhere("(a)(b)").unwrap();
        assert!(Replacement::parse(r"/\2/\1\\\0", &pattern).is_ok());
        for (text, at) in [(r"/\3", 1), (r"\x", 0), ("ab\\", 2)] {
            assert_eq!(Replacement::parse(text, &pattern).unwrap_err().at, at, "{text}");
        }
    }
}
