//! Zones and labels, between the messages and `leno_core::spec`.

use std::collections::BTreeMap;

use leno_core::spec::{self, Labels, PLACES_MAX, Prefer, Tags, Zone};

use super::matching::{source, source_text};
use super::{WireError, bad, list};
use crate::proto::zones as wire;

/// Most that a level can take, and that it may be slowed down by, in percent.
const PERCENT_MAX: u32 = 10_000;
/// The largest share of a place, so that sums of them fit.
const SHARE_MAX: u32 = 1_000_000;

/// Labels as they are sent.
pub(crate) fn labels_of(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Checks labels.
pub(crate) fn labels(field: &str, sent: &BTreeMap<String, String>) -> Result<Labels, WireError> {
    let pairs = sent.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Labels::parse(pairs).map_err(|error| bad(field, error.to_string()))
}

/// A zone as it is sent; empty: none.
pub(crate) fn zone_of(zone: Option<&Zone>) -> String {
    zone.map(|zone| zone.as_str().to_owned()).unwrap_or_default()
}

/// Checks a zone; empty is none.
pub(crate) fn zone(field: &str, sent: &str) -> Result<Option<Zone>, WireError> {
    if sent.is_empty() { Ok(None) } else { place(field, sent).map(Some) }
}

/// Checks what is said of an instance, or of a proxy.
///
/// # Errors
/// Says which field is wrong.
pub fn tags(sent_zone: &str, sent_labels: &BTreeMap<String, String>) -> Result<Tags, WireError> {
    Ok(Tags { zone: zone("zone", sent_zone)?, labels: labels("labels", sent_labels)? })
}

fn place(field: &str, sent: &str) -> Result<Zone, WireError> {
    Zone::parse(sent).map_err(|error| bad(field, format!("{sent:?}: {error}")))
}

impl From<&spec::Locality> for wire::Locality {
    fn from(spec: &spec::Locality) -> Self {
        let word = match spec.prefer {
            Prefer::Anybody => "none",
            Prefer::Region => "region",
            Prefer::Zone => "zone",
            Prefer::Subzone => "subzone",
        };
        let share = |(zone, weight): &(Zone, u32)| wire::Share { zone: zone.to_string(), weight: *weight };
        Self {
            prefer: Some(word.to_owned()),
            failover: spec.failover.iter().map(ToString::to_string).collect(),
            distribute: spec
                .distribute
                .iter()
                .map(|it| wire::Distribution {
                    from: it.from.to_string(),
                    to: it.to.iter().map(share).collect(),
                })
                .collect(),
            overprovision_percent: Some(spec.overprovision_percent),
            endpoints_min: Some(spec.endpoints_min),
            overflow_percent: Some(spec.overflow_percent.unwrap_or(0)),
        }
    }
}

impl TryFrom<wire::Locality> for spec::Locality {
    type Error = WireError;

    fn try_from(message: wire::Locality) -> Result<Self, WireError> {
        let default = Self::new();
        let at_least = |field: &str, percent: u32| {
            if (100..=PERCENT_MAX).contains(&percent) {
                Ok(percent)
            } else {
                Err(bad(field, format!("{percent} % is not from 100 to {PERCENT_MAX}")))
            }
        };
        let few = |field: &str, count: usize| {
            if count > PLACES_MAX { Err(bad(field, format!("are more than {PLACES_MAX}"))) } else { Ok(()) }
        };
        few("failover", message.failover.len())?;
        few("distribute", message.distribute.len())?;
        let distribution = |sent: wire::Distribution| {
            few("to", sent.to.len())?;
            let to = list("to", sent.to, |it| {
                if it.weight > SHARE_MAX {
                    return Err(bad("weight", format!("{} is more than {SHARE_MAX}", it.weight)));
                }
                Ok((place("zone", &it.zone)?, it.weight))
            })?;
            if to.iter().all(|(_, weight)| *weight == 0) {
                return Err(bad("to", "the sum of the weights is 0"));
            }
            Ok(spec::Distribution { from: place("from", &sent.from)?, to })
        };
        Ok(Self {
            prefer: match message.prefer.as_deref() {
                None => default.prefer,
                Some("none") => Prefer::Anybody,
                Some("region") => Prefer::Region,
                Some("zone") => Prefer::Zone,
                Some("subzone") => Prefer::Subzone,
                Some(other) => return Err(bad("prefer", format!("{other:?} is not known here"))),
            },
            failover: list("failover", message.failover, |sent| place("", &sent))?,
            distribute: list("distribute", message.distribute, distribution)?,
            overprovision_percent: message
                .overprovision_percent
                .map_or(Ok(default.overprovision_percent), |it| at_least("overprovision_percent", it))?,
            endpoints_min: message.endpoints_min.unwrap_or(default.endpoints_min),
            overflow_percent: match message.overflow_percent {
                None => default.overflow_percent,
                Some(0) => None,
                Some(percent) => Some(at_least("overflow_percent", percent)?),
            },
        })
    }
}

/// Callers without labels are sent as texts, those with labels as messages.
pub(super) fn sources_of(sources: &[spec::SourceMatch]) -> (Vec<String>, Vec<wire::Source>) {
    let who = |source: &spec::SourceMatch| source.who.as_ref().map(source_text).unwrap_or_default();
    let (plain, labelled): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| source.labels.is_empty() && source.who.is_some());
    let labelled =
        labelled.into_iter().map(|it| wire::Source { who: who(it), labels: labels_of(&it.labels) }).collect();
    (plain.into_iter().map(who).collect(), labelled)
}

/// The reverse.
pub(super) fn sources(
    plain: Vec<String>,
    labelled: Vec<wire::Source>,
) -> Result<Vec<spec::SourceMatch>, WireError> {
    let mut sources = list("when.sources", plain, |text| source(text).map(spec::SourceMatch::from))?;
    sources.extend(list("when.labelled_sources", labelled, |sent| {
        if sent.labels.is_empty() && sent.who.is_empty() {
            return Err(bad("labels", "are missing"));
        }
        let who = (!sent.who.is_empty()).then(|| source(sent.who)).transpose()?;
        Ok(spec::SourceMatch { who, labels: labels("labels", &sent.labels)? })
    })?);
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_places_arrives_as_it_was_said() {
        let zone = |text| Zone::parse(text).unwrap();
        let said = spec::Locality {
            prefer: Prefer::Subzone,
            failover: vec![zone("eu/b"), zone("us")],
            distribute: vec![spec::Distribution {
                from: zone("eu/a"),
                to: vec![(zone("eu/a"), 80), (zone("eu/b"), 20)],
            }],
            overprovision_percent: 200,
            endpoints_min: 3,
            overflow_percent: None,
        };
        for spec in [said, spec::Locality::new()] {
            assert_eq!(spec::Locality::try_from(wire::Locality::from(&spec)).unwrap(), spec);
        }
        assert_eq!(spec::Locality::try_from(wire::Locality::default()).unwrap(), spec::Locality::new());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_field() {
        let good = || wire::Locality::default();
        let many = vec!["eu".to_owned(); PLACES_MAX + 1];
        let none =
            wire::Distribution { from: "eu".into(), to: vec![wire::Share { zone: "eu".into(), weight: 0 }] };
        for (message, field) in [
            (wire::Locality { prefer: Some("city".into()), ..good() }, "prefer"),
            (wire::Locality { failover: vec!["a/b/c/d".into()], ..good() }, "failover[0]"),
            (wire::Locality { failover: many, ..good() }, "failover"),
            (wire::Locality { distribute: vec![none], ..good() }, "distribute[0].to"),
            (wire::Locality { overprovision_percent: Some(99), ..good() }, "overprovision_percent"),
            (wire::Locality { overflow_percent: Some(1), ..good() }, "overflow_percent"),
        ] {
            assert_eq!(spec::Locality::try_from(message).unwrap_err().field, field);
        }
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(tags("eu//a", &BTreeMap::new()).unwrap_err().field, "zone");
        assert_eq!(tags("eu", &map("a b", "c")).unwrap_err().field, "labels");
        assert_eq!(tags("", &BTreeMap::new()).unwrap(), Tags::NONE);
    }

    #[test]
    fn callers_with_labels_are_told_apart() {
        let label = leno_core::name::Label::parse("shop").unwrap();
        let who = spec::EgressSource::Namespace(label);
        let labels = Labels::parse([("track", "canary")]).unwrap();
        let all = vec![
            spec::SourceMatch::from(who.clone()),
            spec::SourceMatch { who: Some(who), labels: labels.clone() },
            spec::SourceMatch { who: None, labels },
        ];
        let (plain, labelled) = sources_of(&all);
        assert_eq!((plain.len(), labelled.len()), (1, 2));
        assert_eq!(sources(plain, labelled).unwrap(), all);
        assert_eq!(
            sources(vec![], vec![wire::Source::default()]).unwrap_err().field,
            "when.labelled_sources[0].labels"
        );
    }
}
