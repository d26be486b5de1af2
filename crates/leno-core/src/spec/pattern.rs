//! Regular expressions that people write: matched in time that is linear in the text, whatever the pattern is, and
//! bounded in size when they are read, so that no pattern of a mesh file can make a proxy slow or large.
//!
//! Texts are bytes here: `.` is any byte but a line end, `\d`, `\w` and `\s` are those of ASCII. Back-references and
//! look-around do not exist, since nothing that has them is linear.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Longest pattern, in bytes (as RE2 in Istio allows).
pub const PATTERN_BYTES_MAX: usize = 1024;
/// What a pattern may take when it is compiled, in bytes: `[a-z]{1,100}` takes some 10 KiB, `(a{100}){100}` is refused.
const PROGRAM_BYTES_MAX: usize = 256 * 1024;
/// What matching may remember of a pattern, in bytes, for each thread that does so at the same time.
const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// How deep groups may be in each other.
const DEPTH_MAX: u32 = 50;

/// A regular expression that was found to be good.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    extent: Extent,
    regex: Regex,
}

/// How much of a text a pattern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Anywhere,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong, as the end of a sentence.
    pub problem: String,
    /// Where, in bytes from the start of the pattern, when it is one place.
    pub at: Option<usize>,
}

impl Pattern {
    /// A pattern that has to match whole texts.
    ///
    /// # Errors
    /// It is no regular expression, or too large.
    pub fn whole(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, Extent::Whole)
    }

    /// A pattern that is looked for anywhere in a text.
    ///
    /// # Errors
    /// It is no regular expression, or too large.
    pub fn anywhere(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, Extent::Anywhere)
    }

    fn compile(text: &str, extent: Extent) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::new(format!("it has more than {PATTERN_BYTES_MAX} bytes"), None));
        }
        // By itself first: what is put around it must not be able to complete it.
        let mut parser =
            regex_syntax::ParserBuilder::new().unicode(false).utf8(false).nest_limit(DEPTH_MAX).build();
        parser.parse(text).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => {
                PatternError::new(error.kind().to_string(), Some(error.span().start.offset))
            }
            regex_syntax::Error::Translate(error) => {
                PatternError::new(error.kind().to_string(), Some(error.span().start.offset))
            }
            other => PatternError::new(other.to_string(), None),
        })?;
        let source = match extent {
            Extent::Whole => format!(r"\A(?:{text})\z"),
            Extent::Anywhere => text.to_string(),
        };
        let mut builder = RegexBuilder::new(&source);
        builder.unicode(false).size_limit(PROGRAM_BYTES_MAX).dfa_size_limit(MEMORY_BYTES_MAX);
        let regex = builder.nest_limit(DEPTH_MAX + 2).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                PatternError::new("it is too large when it is compiled".into(), None)
            }
            other => PatternError::new(other.to_string(), None),
        })?;
        Ok(Self { text: text.into(), extent, regex })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when it matches `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// How many groups it has whose matches can be named, by number from 1.
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }

    /// The compiled expression.
    pub(crate) const fn regex(&self) -> &Regex {
        &self.regex
    }
}

impl PatternError {
    const fn new(problem: String, at: Option<usize>) -> Self {
        Self { problem, at }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl core::error::Error for PatternError {}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.extent == other.extent
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_pattern_matches_no_part_of_a_text() {
        let cases = [
            ("a|ab", "ab", true),
            ("a", "ab", false),
            ("a", "xa", false),
            ("", "", true),
            ("", "a", false),
            ("/v[0-9]+/.*", "/v12/", true),
            ("(?i)/USERS", "/users", true),
            ("a$", "a", true),
            ("a", "a\n", false),
        ];
        for (pattern, text, expected) in cases {
            let whole = Pattern::whole(pattern).unwrap();
            assert_eq!(whole.matches(text.as_bytes()), expected, "{pattern} on {text:?}");
        }
        assert!(Pattern::anywhere("b").unwrap().matches(b"abc"));
        // Any bytes are a text.
        assert!(Pattern::whole("/.*").unwrap().matches(b"/\xff\xfe"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (pattern, at) in [("/a(b", Some(2)), ("[z-a]", Some(1)), (r"(a)\1", Some(3)), ("a{2", Some(1))] {
            assert_eq!(Pattern::whole(pattern).unwrap_err().at, at, "{pattern}");
        }
        // Closed by what is put around it, it would be a pattern that nobody has written.
        assert!(Pattern::whole("a)(b").is_err());
        assert!(Pattern::whole(r"(?=a)").is_err());
        assert!(Pattern::whole(r"\p{L}").is_err());
    }

    #[test]
    fn size_is_bounded() {
        assert!(Pattern::whole(&"a".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert!(Pattern::whole(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(Pattern::whole("((a{100}){100}){100}").is_err());
        assert!(Pattern::whole(&"(".repeat(100)).is_err());
    }

    #[test]
    fn no_text_is_slow() {
        // Backtracking would take 2^3000 steps.
        let pattern = Pattern::whole("(a+)+b").unwrap();
        assert!(!pattern.matches("a".repeat(3_000).as_bytes()));
    }
}
