//! Which web pages of other origins may use what a rule is about. Done by `route/cors.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::matching::TextMatch;
use crate::time::Duration;

/// Cross-origin resource sharing, as the Fetch standard has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins of pages, one of these; [`TextMatch::Present`]: any. At least one.
    pub origins: Vec<TextMatch>,
    /// What they may use; empty: what every page may (GET, HEAD, POST).
    pub methods: Vec<Arc<str>>,
    /// Headers that they may send besides those that every page may; lower case.
    pub headers: Allowed,
    /// Headers of answers that they may see besides those that every page may; lower case.
    pub expose: Vec<Arc<str>>,
    /// How long a browser may remember it; `None`: as it likes (5 s).
    pub max_age: Option<Duration>,
    /// Pages may have their users' cookies sent along.
    pub credentials: bool,
    /// What becomes of a browser's question about an origin that is none of these.
    pub unmatched: Unmatched,
}

impl Cors {
    /// True when pages are among its origins of which nobody knows who makes them: any, or any host that begins alike.
    pub fn lets_anybody_in(&self) -> bool {
        self.origins.iter().any(|origin| {
            let made_up = ["null", "https://leno-nobody.invalid", "http://leno-nobody.invalid"];
            let open_end = match origin {
                // What follows a host, but no port, goes on with the host.
                TextMatch::Prefix(prefix) => {
                    !prefix.split_once("://").is_some_and(|(_, host)| host.contains(':'))
                }
                _ => false,
            };
            open_end || made_up.iter().any(|it| origin.holds(it.as_bytes(), false))
        })
    }
}

/// Some headers, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// These.
    These(Vec<Arc<str>>),
    /// Whatever is asked for.
    Any,
}

/// What becomes of a question (a preflight) about an origin that may nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// It is answered here with 403, so that whoever looks sees why.
    #[default]
    Refuse,
    /// The service is asked.
    Forward,
}
