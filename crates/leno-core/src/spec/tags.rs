//! What an instance, or a proxy, is tagged with beside its version: where it runs, and labels.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{EndpointSpec, Zone};
use crate::name::Label;

/// Most labels of one instance, and of one selection.
pub const LABELS_MAX: usize = 32;
/// Longest key of a label, in bytes: that of a name with a prefix, such as `example.com/track`.
pub const LABEL_KEY_BYTES_MAX: usize = 127;
/// Longest value of a label, in bytes (that of Kubernetes).
pub const LABEL_VALUE_BYTES_MAX: usize = 63;

/// The key under which a version can be asked for like a label.
const VERSION: &str = "version";

/// Labels, by key. Cheap to copy, and nothing at all where there are none.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Option<Arc<[Pair]>>);

/// A key and its value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(Arc<str>, Arc<str>);

/// Why something is no set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsError {
    /// More than [`LABELS_MAX`].
    TooMany,
    /// A key that is empty, too long or has a character that keys do not have.
    Key,
    /// A value that is too long or has a character that values do not have.
    Value,
    /// Two labels of one key.
    Twice,
}

/// What is said of an instance, or of a proxy, beside its name, version and weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Where it runs, if that is said.
    pub zone: Option<Zone>,
    /// Its labels.
    pub labels: Labels,
}

impl Tags {
    /// Nothing is said.
    pub const NONE: Self = Self { zone: None, labels: Labels::NONE };
}

impl Labels {
    /// No labels.
    pub const NONE: Self = Self(None);

    /// Checks labels in any order: at most [`LABELS_MAX`], of different keys. A key is 1 to [`LABEL_KEY_BYTES_MAX`] of `a-z A-Z
    /// 0-9 . _ - /`, a value up to [`LABEL_VALUE_BYTES_MAX`] of the same without `/`.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn parse<'t>(pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, LabelsError> {
        let mut labels: Vec<Pair> = Vec::new();
        for (key, value) in pairs {
            if labels.len() == LABELS_MAX {
                return Err(LabelsError::TooMany);
            }
            Self::check_key(key)?;
            Self::check_value(value)?;
            labels.push(Pair(key.into(), value.into()));
        }
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(LabelsError::Twice);
        }
        Ok(Self((!labels.is_empty()).then(|| labels.into())))
    }

    /// Checks a key by itself.
    ///
    /// # Errors
    /// It is none.
    pub fn check_key(key: &str) -> Result<(), LabelsError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_/".contains(&b);
        let good = !key.is_empty() && key.len() <= LABEL_KEY_BYTES_MAX && key.bytes().all(fits);
        if good { Ok(()) } else { Err(LabelsError::Key) }
    }

    /// Checks a value by itself.
    ///
    /// # Errors
    /// It is none.
    pub fn check_value(value: &str) -> Result<(), LabelsError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let good = value.len() <= LABEL_VALUE_BYTES_MAX && value.bytes().all(fits);
        if good { Ok(()) } else { Err(LabelsError::Value) }
    }

    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each label, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| labels.iter()).map(|Pair(key, value)| (&**key, &**value))
    }

    /// The same with a version as the label `version`, unless there is one already or no room for it: what a proxy asks rules
    /// about callers by.
    #[must_use]
    pub fn with_version(&self, version: Option<&Label>) -> Self {
        let labels = self.iter().chain(version.map(|version| (VERSION, version.as_str())));
        Self::parse(labels).unwrap_or_else(|_| self.clone())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let labels = self.0.as_deref()?;
        let at = labels.binary_search_by(|Pair(known, _)| (**known).cmp(key)).ok()?;
        labels.get(at).map(|Pair(_, value)| &**value)
    }

    /// True when it has all that are `wanted`. A version counts as the label `version` where no label says otherwise.
    pub fn have(&self, version: Option<&Label>, wanted: &Self) -> bool {
        wanted.iter().all(|(key, value)| match self.get(key) {
            Some(own) => own == value,
            None => key == VERSION && version.is_some_and(|version| version.as_str() == value),
        })
    }
}

impl EndpointSpec {
    /// True when it is one of those that a target means.
    pub fn is_of(&self, version: Option<&Label>, labels: &Labels) -> bool {
        version.is_none_or(|version| self.version.as_ref() == Some(version))
            && self.tags.labels.have(self.version.as_ref(), labels)
    }
}

/// `key=value,key=value`, as command lines write them.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl fmt::Display for LabelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are at most {LABELS_MAX} labels"),
            Self::Key => {
                write!(
                    f,
                    "a label's key has 1 to {LABEL_KEY_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_', '-' and '/'"
                )
            }
            Self::Value => {
                write!(
                    f,
                    "a label's value has at most {LABEL_VALUE_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' and '-'"
                )
            }
            Self::Twice => f.write_str("a label is given twice"),
        }
    }
}

impl core::error::Error for LabelsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Result<Labels, LabelsError> {
        Labels::parse(text.split(',').filter(|it| !it.is_empty()).filter_map(|it| it.split_once('=')))
    }

    #[test]
    fn labels_are_bounded_and_of_few_characters() {
        assert_eq!(labels("").unwrap(), Labels::NONE);
        let two = labels("track=canary,example.com/team=a.b_C").unwrap();
        assert_eq!(alloc::format!("{two}"), "example.com/team=a.b_C,track=canary");
        assert_eq!((two.get("track"), two.get("team")), (Some("canary"), None));
        assert_eq!(labels("track=").unwrap().get("track"), Some(""));
        assert_eq!(labels("=v"), Err(LabelsError::Key));
        assert_eq!(labels("a b=v"), Err(LabelsError::Key));
        assert_eq!(labels("a=v/w"), Err(LabelsError::Value));
        assert_eq!(labels("a=1,a=2"), Err(LabelsError::Twice));
        let many: alloc::string::String = (0..=LABELS_MAX).map(|at| alloc::format!("k{at}=v,")).collect();
        assert_eq!(labels(&many), Err(LabelsError::TooMany));
        assert_eq!(labels(&alloc::format!("{}=v", "k".repeat(128))), Err(LabelsError::Key));
        assert_eq!(labels(&alloc::format!("k={}", "v".repeat(64))), Err(LabelsError::Value));
    }

    #[test]
    fn all_that_is_wanted_must_be_there_and_a_version_is_a_label() {
        let own = labels("track=canary,disk=ssd").unwrap();
        let v1 = Label::parse("v1").unwrap();
        for (wanted, has) in [
            ("", true),
            ("track=canary", true),
            ("track=canary,disk=ssd", true),
            ("track=canary,disk=hdd", false),
            ("cpu=fast", false),
            ("version=v1", true),
            ("version=v2", false),
        ] {
            assert_eq!(own.have(Some(&v1), &labels(wanted).unwrap()), has, "{wanted}");
        }
        assert!(!own.have(None, &labels("version=v1").unwrap()));
        assert!(!labels("version=beta").unwrap().have(Some(&v1), &labels("version=v1").unwrap()));
    }
}
