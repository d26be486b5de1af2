//! Where instances run, and what callers make of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Most parts of a zone: region, zone, subzone.
pub const ZONE_PARTS_MAX: usize = 3;
/// Longest part, in bytes (that of a label's value).
pub const ZONE_PART_BYTES_MAX: usize = 63;

/// Where something runs: `region`, `region/zone` or `region/zone/subzone`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone(Arc<str>);

/// Why a text is no [`Zone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneError {
    /// More than [`ZONE_PARTS_MAX`] parts.
    TooManyParts,
    /// A part that is empty, too long or has a character that parts do not have.
    Part,
}

/// How near something is. The first is the nearest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Near {
    /// In the same subzone.
    Subzone,
    /// In the same zone, or nothing more is said of one of the two.
    Zone,
    /// In the same region.
    Region,
    /// Elsewhere, or nobody knows where.
    #[default]
    Elsewhere,
}

impl Zone {
    /// Checks one to three parts, each 1 to [`ZONE_PART_BYTES_MAX`] of `a-z A-Z 0-9 . _ -`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let good =
            |part: &str| !part.is_empty() && part.len() <= ZONE_PART_BYTES_MAX && part.bytes().all(fits);
        match text.split('/').count() {
            1..=ZONE_PARTS_MAX if text.split('/').all(good) => Ok(Self(text.into())),
            1..=ZONE_PARTS_MAX => Err(ZoneError::Part),
            _ => Err(ZoneError::TooManyParts),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How near something in `other` is to something here.
    pub fn near(&self, other: &Self) -> Near {
        let same = self.0.split('/').zip(other.0.split('/')).take_while(|(own, other)| own == other).count();
        match same {
            0 => Near::Elsewhere,
            1 => Near::Region,
            2 => Near::Zone,
            _ => Near::Subzone,
        }
    }

    /// True when `other` is here or in a part of it.
    pub fn covers(&self, other: &Self) -> bool {
        let rest = other.0.strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyParts => f.write_str("a zone has at most three parts: region/zone/subzone"),
            Self::Part => {
                write!(
                    f,
                    "a part of a zone has 1 to {ZONE_PART_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' and '-'"
                )
            }
        }
    }
}

impl core::error::Error for ZoneError {}

/// What callers of a service make of where its endpoints are. Says nothing as long as nobody says where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locality {
    /// Whom they prefer.
    pub prefer: Prefer,
    /// Where requests go when those who are preferred cannot take them: one place after the other, then anywhere. Empty: by
    /// nearness.
    pub failover: Vec<Zone>,
    /// For callers in some places, which share of their requests goes where, instead of what `prefer` says.
    pub distribute: Vec<Distribution>,
    /// A set of endpoints takes all that is meant for it while so many percent of those that it needs are there: with 140, until
    /// less than 1/1.4 (71 %) of them can take requests. What it cannot take goes on to the next. At least 100.
    pub overprovision_percent: u32,
    /// With fewer endpoints than this, a place is not preferred to the ones around it.
    pub endpoints_min: u32,
    /// Requests go on to the next place too when those under way are more than this, in percent of what the latency and the
    /// rate of quiet times come to; `None`: however many they are. At least 100.
    pub overflow_percent: Option<u32>,
}

/// Whom callers prefer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// Nobody.
    Anybody,
    /// Those in their region.
    Region,
    /// Those in their zone, then those in their region.
    #[default]
    Zone,
    /// Those in their subzone, then those in their zone, then those in their region.
    Subzone,
}

/// How callers in one place divide their requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Where the callers are.
    pub from: Zone,
    /// Places with the share of each; the sum is not 0.
    pub to: Vec<(Zone, u32)>,
}

/// Envoy's overprovisioning factor.
pub const OVERPROVISION_PERCENT: u32 = 140;
/// What is under way in quiet times, and half of it more: docs/resilience.md has what others come to.
pub const OVERFLOW_PERCENT: u32 = 150;
/// Most places of a failover order, most distributions, and most places of one.
pub const PLACES_MAX: usize = 32;

impl Locality {
    /// What holds where nothing is said.
    pub const fn new() -> Self {
        Self {
            prefer: Prefer::Zone,
            failover: Vec::new(),
            distribute: Vec::new(),
            overprovision_percent: OVERPROVISION_PERCENT,
            endpoints_min: 1,
            overflow_percent: Some(OVERFLOW_PERCENT),
        }
    }
}

impl Default for Locality {
    fn default() -> Self {
        Self::new()
    }
}

impl Near {
    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Subzone => "same_subzone",
            Self::Zone => "same_zone",
            Self::Region => "same_region",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// All, the nearest first.
    pub const ALL: [Self; 4] = [Self::Subzone, Self::Zone, Self::Region, Self::Elsewhere];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearness_is_the_number_of_equal_parts() {
        let zone = |text| Zone::parse(text).unwrap();
        for (own, other, near) in [
            ("eu/a/1", "eu/a/1", Near::Subzone),
            ("eu/a/1", "eu/a/2", Near::Zone),
            ("eu/a/1", "eu/a", Near::Zone),
            ("eu/a", "eu/a", Near::Zone),
            ("eu/a", "eu/b", Near::Region),
            ("eu", "eu", Near::Region),
            ("eu", "eu/a", Near::Region),
            ("eu/a", "us/a", Near::Elsewhere),
        ] {
            assert_eq!(zone(own).near(&zone(other)), near, "{own} {other}");
            assert_eq!(zone(other).near(&zone(own)), near, "{other} {own}");
        }
        assert!(zone("eu").covers(&zone("eu/a")) && zone("eu/a").covers(&zone("eu/a")));
        assert!(!zone("eu/a").covers(&zone("eu/ab")) && !zone("eu/a").covers(&zone("eu")));
    }

    #[test]
    fn what_is_no_zone() {
        for (text, why) in [
            ("", ZoneError::Part),
            ("eu//1", ZoneError::Part),
            ("eu/", ZoneError::Part),
            ("e u", ZoneError::Part),
            ("a/b/c/d", ZoneError::TooManyParts),
        ] {
            assert_eq!(Zone::parse(text), Err(why), "{text}");
        }
        assert!(Zone::parse(&"z".repeat(64)).is_err() && Zone::parse(&"z".repeat(63)).is_ok());
    }
}
