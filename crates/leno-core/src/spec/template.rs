//! Paths with parts that vary: `/users/{id}/posts/*`. Each part is a whole segment, so that what matches can be seen at a
//! glance, and what a part stood for has a name.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

/// Most segments of a template.
const SEGMENTS_MAX: usize = 64;
/// Longest name of a part, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A path template that was found to be good.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    /// Between the slashes; a path that ends with a slash has an empty last one.
    segments: Arc<[Segment]>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Exactly this.
    Text(Arc<str>),
    /// `{name}` or `*`: anything that is not empty.
    Any(Option<Arc<str>>),
    /// `{name=**}` or `**`: all that is left of the path, which may be nothing. Always the last.
    Rest(Option<Arc<str>>),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong, as the end of a sentence.
    pub problem: String,
    /// Where, in bytes from the start of the template.
    pub at: usize,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Says what it is instead, and where.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |problem: &str, at: usize| Err(TemplateError { problem: problem.into(), at });
        let Some(rest) = text.strip_prefix('/') else { return error("it does not begin with a slash", 0) };
        let (mut segments, mut at) = (vec![], 1);
        let mut names: Vec<&str> = vec![];
        for part in rest.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return error("nothing can follow `**`", at - 1);
            }
            if segments.len() == SEGMENTS_MAX {
                return error(&format!("it has more than {SEGMENTS_MAX} segments"), at);
            }
            let segment = match (part, part.strip_prefix('{')) {
                ("*", _) => Segment::Any(None),
                ("**", _) => Segment::Rest(None),
                (_, Some(inner)) => {
                    let Some(inner) = inner.strip_suffix('}') else {
                        return error("a `{name}` has to be a whole segment", at);
                    };
                    let (name, rest) = match inner.strip_suffix("=**") {
                        Some(name) => (name, true),
                        None => (inner, false),
                    };
                    if !is_name(name) {
                        return error("a part's name is made of letters, digits and `_`", at + 1);
                    }
                    if names.contains(&name) {
                        return error(&format!("two parts are called `{name}`"), at + 1);
                    }
                    names.push(name);
                    if rest { Segment::Rest(Some(name.into())) } else { Segment::Any(Some(name.into())) }
                }
                _ => match part.find(['{', '}', '*', '?', '#']) {
                    Some(wrong) if part[wrong..].starts_with(['?', '#']) => {
                        return error("it has a query or fragment", at + wrong);
                    }
                    Some(wrong) => return error("a part that varies has to be a whole segment", at + wrong),
                    None if !part.bytes().all(|byte| byte.is_ascii_graphic()) => {
                        return error("a character that a path cannot have", at);
                    }
                    None => Segment::Text(part.into()),
                },
            };
            segments.push(segment);
            at += part.len() + 1;
        }
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when `path` (without a query) is one of its paths.
    pub fn matches(&self, path: &[u8], any_case: bool) -> bool {
        self.walk(path, any_case, |_, _| {})
    }

    /// What the part called `name` stands for in `path`, if it matches.
    pub fn part<'a>(&self, path: &'a [u8], any_case: bool, name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        let matches = self.walk(path, any_case, |part, value| {
            if part == Some(name) {
                found = Some(value);
            }
        });
        found.filter(|_| matches)
    }

    /// The names of its parts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Any(name) | Segment::Rest(name) => name.as_deref(),
            Segment::Text(_) => None,
        })
    }

    /// The segments before the first that varies, as a path without a slash at its end: each of its paths is this or
    /// below. Without parts that vary, the path itself.
    pub fn fixed(&self) -> (&str, bool) {
        let mut end = 0;
        for segment in &*self.segments {
            match segment {
                Segment::Text(text) => end += 1 + text.len(),
                Segment::Any(_) | Segment::Rest(_) => return (&self.text[..end], false),
            }
        }
        (&self.text, true)
    }

    fn walk<'a>(&self, path: &'a [u8], any_case: bool, mut part: impl FnMut(Option<&str>, &'a [u8])) -> bool {
        // After the slash that every segment begins with; `None` behind the last one.
        let mut rest = path.strip_prefix(b"/");
        for segment in &*self.segments {
            match (segment, rest) {
                (Segment::Rest(name), rest) => {
                    part(name.as_deref(), rest.unwrap_or(b""));
                    // A path that is none (`*`) has no rest.
                    return path.first() == Some(&b'/');
                }
                (_, None) => return false,
                (segment, Some(left)) => {
                    let (here, next) = match memchr::memchr(b'/', left) {
                        Some(slash) => (&left[..slash], Some(&left[slash + 1..])),
                        None => (left, None),
                    };
                    let holds = match segment {
                        Segment::Text(text) if any_case => text.as_bytes().eq_ignore_ascii_case(here),
                        Segment::Text(text) => text.as_bytes() == here,
                        Segment::Any(name) => {
                            part(name.as_deref(), here);
                            !here.is_empty()
                        }
                        Segment::Rest(_) => false,
                    };
                    if !holds {
                        return false;
                    }
                    rest = next;
                }
            }
        }
        rest.is_none()
    }
}

/// True for the name of a part or of a variable.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.text)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl core::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_whole_segment_and_a_rest_is_any() {
        let cases = [
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/7/", false),
            ("/users/{id}", "/users/7/posts", false),
            ("/users/{id}/posts/*", "/users/7/posts/9", true),
            ("/users/{id}/posts/*", "/users/7/8/posts/9", false),
            ("/users/**", "/users", true),
            ("/users/**", "/users/", true),
            ("/users/**", "/users/a/b/", true),
            ("/users/**", "/usersearch", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/**", "*", false),
            ("/a/", "/a/", true),
            ("/a/", "/a", false),
            ("/", "/", true),
            ("/*/b", "//b", false),
            ("/A", "/a", false),
        ];
        for (template, path, expected) in cases {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.matches(path.as_bytes(), false), expected, "{template} on {path}");
        }
        assert!(Template::parse("/A/{x}").unwrap().matches(b"/a/B", true));
    }

    #[test]
    fn parts_have_names() {
        let template = Template::parse("/users/{id}/files/{path=**}").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["id", "path"]);
        let path = b"/users/7/files/a/b.txt";
        assert_eq!(template.part(path, false, "id"), Some(&b"7"[..]));
        assert_eq!(template.part(path, false, "path"), Some(&b"a/b.txt"[..]));
        assert_eq!(template.part(b"/users/7/files", false, "path"), Some(&b""[..]));
        assert_eq!(template.part(path, false, "other"), None);
        assert_eq!(template.part(b"/other", false, "id"), None);
    }

    #[test]
    fn what_comes_before_the_first_part_is_known() {
        let fixed = |text: &str| {
            let template = Template::parse(text).unwrap();
            let (fixed, whole) = template.fixed();
            (String::from(fixed), whole)
        };
        assert_eq!(fixed("/users/{id}/x"), ("/users".into(), false));
        assert_eq!(fixed("/{id}"), ("".into(), false));
        assert_eq!(fixed("/a/**"), ("/a".into(), false));
        assert_eq!(fixed("/a/b/"), ("/a/b/".into(), true));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, at) in [
            ("users", 0),
            ("/a/**/b", 5),
            ("/a/x{id}", 4),
            ("/a/{id}.json", 3),
            ("/{a}/{a}", 6),
            ("/{}", 2),
            ("/{a b}", 2),
            ("/a?b", 2),
            ("/a b", 1),
        ] {
            assert_eq!(Template::parse(text).unwrap_err().at, at, "{text}");
        }
        assert!(Template::parse(&"/a".repeat(SEGMENTS_MAX + 1)).is_err());
    }
}
