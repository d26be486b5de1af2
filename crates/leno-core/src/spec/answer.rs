//! Answers that a rule gives by itself, without asking anybody. They are no errors: what the operator wanted is done.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::change::PathChange;
use super::format::Format;

/// Largest body of an answer, in bytes (Envoy's default is 4 KiB, Istio allows 1 MiB): every proxy that may give the
/// answer holds it in memory.
pub const ANSWER_BODY_BYTES_MAX: usize = 16 * 1024;

/// Statuses of a redirect.
pub const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ask elsewhere.
    Redirect(Redirect),
    /// This is it.
    Direct(Direct),
}

/// Where else to ask. What is `None` is as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// What to speak there.
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    pub host: Option<Arc<str>>,
    /// The port. `None`: that of the request, or the usual one when the scheme or the host is another.
    pub port: Option<u16>,
    /// The path; the query stays.
    pub path: Option<PathChange>,
    /// One of [`REDIRECT_STATUSES`].
    pub status: u16,
}

/// What a URL begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// 200 to 599.
    pub status: u16,
    /// Its headers; names in lower case.
    pub headers: Vec<(Arc<str>, Format)>,
    /// Its body, at most [`ANSWER_BODY_BYTES_MAX`]; empty: none.
    pub body: Arc<str>,
}

impl Answer {
    /// The status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Redirect(redirect) => redirect.status,
            Self::Direct(direct) => direct.status,
        }
    }

    /// The word for it in metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Redirect(_) => "redirect",
            Self::Direct(_) => "direct",
        }
    }
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL does not have to say.
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme that is written like this.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.word() == word)
    }
}
