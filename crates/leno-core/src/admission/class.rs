//! What a request is worth when not all can be served.

/// The header that carries a request's class from hop to hop.
pub const PRIORITY_HEADER: &str = "leno-priority";

/// The class of a request. In order: the first is the last to be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Users see at once when it fails, and it costs something.
    Critical,
    /// Users see it.
    High,
    /// What nothing is said of.
    #[default]
    Normal,
    /// It can be done later, or not at all: batches, prefetching, crawlers.
    Low,
}

impl Class {
    /// All of them, the highest first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The class of a word; `None`: there is none of that name.
    pub fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|class| word.eq_ignore_ascii_case(class.word().as_bytes()))
    }

    /// The class that a header says; what says none is [`Class::Normal`].
    pub fn of_header(value: Option<&[u8]>) -> Self {
        value.and_then(Self::parse).unwrap_or_default()
    }

    /// Its place in [`Class::ALL`].
    pub const fn rank(self) -> usize {
        self as usize
    }
}
