//! Texts with gaps: in `{id}` a name in braces stands for something of the request that is being served. `{{` and `}}`
//! are the braces themselves.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use super::template::is_name;

/// A text with gaps that was found to be good.
#[derive(Clone, PartialEq, Eq)]
pub struct Format {
    text: Arc<str>,
    pieces: Arc<[Piece]>,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(Arc<str>),
    /// What stands for this.
    Gap(Variable),
}

/// What can stand in a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// A part of the path by its name in the route's template.
    Part(Arc<str>),
    /// The address of the client, without a port.
    ClientAddress,
    /// The host that the client asked for, without a port.
    Host,
    /// The method.
    Method,
    /// The path that the client asked for, without its query.
    Path,
    /// The query that the client asked with, without the question mark.
    Query,
    /// `http` or `https`: what the client spoke.
    Scheme,
    /// The service, or gateway, whose proxy this is.
    Source,
    /// The service whose rules had the last word.
    Service,
    /// The name of the route.
    Route,
    /// The request's id.
    RequestId,
}

/// Where a text is to be used, which says what may stand in its gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// As the value of a header: everything.
    Field,
    /// As a path: only parts of the path, which are fit for one.
    Path,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// What is wrong, as the end of a sentence.
    pub problem: String,
    /// Where, in bytes from the start of the text.
    pub at: usize,
    /// The name that nothing has, if that is what is wrong.
    pub unknown: Option<String>,
}

/// Every variable that is not a part of the path, by its name.
pub const VARIABLES: [(&str, Variable); 10] = [
    ("client_address", Variable::ClientAddress),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("scheme", Variable::Scheme),
    ("source", Variable::Source),
    ("service", Variable::Service),
    ("route", Variable::Route),
    ("request_id", Variable::RequestId),
];

impl Format {
    /// Parses a text for `scope`, in a route whose template has the parts `parts`. A part comes before a variable of the
    /// same name.
    ///
    /// # Errors
    /// A brace without its other half, or a name that nothing has.
    pub fn parse(text: &str, scope: Scope, parts: &[&str]) -> Result<Self, FormatError> {
        let error = |problem: &str, at| Err(FormatError { problem: problem.into(), at, unknown: None });
        let (mut pieces, mut plain) = (vec![], String::new());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(brace) = rest.find(['{', '}']) else {
                plain.push_str(rest);
                break;
            };
            plain.push_str(&rest[..brace]);
            at += brace;
            let rest = &rest[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                plain.push_str(&rest[..1]);
                at += 2;
                continue;
            }
            if rest.starts_with('}') {
                return error("a `}` without its `{`; write }} for the brace itself", at);
            }
            let Some(end) = rest.find('}') else {
                return error("a `{` without its `}`; write {{ for the brace itself", at);
            };
            let name = &rest[1..end];
            let known = VARIABLES.iter().find(|(known, _)| *known == name);
            let variable = match known {
                _ if parts.contains(&name) => Variable::Part(name.into()),
                Some((_, variable)) if scope == Scope::Field => variable.clone(),
                Some(_) => return error("only parts of the route's template can stand in a path", at),
                None => {
                    let unknown = is_name(name).then(|| name.into());
                    let problem = format!("there is no `{{{name}}}`");
                    return Err(FormatError { problem, at, unknown });
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(core::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Gap(variable));
            at += end + 1;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Appends the text with what `value` appends for each gap.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mut value: impl FnMut(&Variable, &mut Vec<u8>)) {
        for piece in &*self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Gap(variable) => value(variable, out),
            }
        }
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl core::error::Error for FormatError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let mut out = vec![];
        Format::parse(text, Scope::Field, &["id", "host"]).unwrap().write(&mut out, |variable, out| {
            out.extend_from_slice(match variable {
                Variable::Part(name) => name.as_bytes(),
                Variable::Route => b"R",
                _ => b"?",
            });
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn gaps_are_filled_and_braces_are_braces() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a{id}b{route}", "aidbR"),
            ("{method}{path}", "??"),
            ("{host}", "host"),
            ("{{id}}", "{id}"),
            ("{{{id}}}", "{id}"),
            ("é{id}é", "éidé"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong = |text, scope| Format::parse(text, scope, &["id"]).unwrap_err();
        assert_eq!(wrong("a{id", Scope::Field).at, 1);
        assert_eq!(wrong("ab}", Scope::Field).at, 2);
        assert_eq!(wrong("a{{{x}", Scope::Field).at, 3);
        assert_eq!(wrong("{nothing}", Scope::Field).unknown.as_deref(), Some("nothing"));
        assert_eq!(wrong("{}", Scope::Field).unknown, None);
        assert_eq!(wrong("/{id}/{host}", Scope::Path).at, 6);
        assert!(Format::parse("/{id}", Scope::Path, &["id"]).is_ok());
    }
}
