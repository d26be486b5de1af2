//! What a proxy says of itself: where it is, and labels. Typed, or in the environment, where whoever starts the machine puts it once.

use leno_core::spec::{Labels, Tags, Zone};

use crate::failure::Failure;

/// The variables that hold where nothing is typed.
const ZONE_VARIABLE: &str = "LENO_ZONE";
const LABELS_VARIABLE: &str = "LENO_LABELS";

/// What was typed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TagFlags {
    /// Where this is: region, region/zone or region/zone/subzone [default: the variable LENO_ZONE].
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    zone: Option<Zone>,
    /// A label; may be given several times [default: the variable LENO_LABELS, KEY=VALUE,KEY=VALUE].
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

impl TagFlags {
    /// What was typed, else what the environment says.
    pub(crate) fn resolve(&self) -> Result<Tags, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let wrong = |name: &str, error: String| Failure::invalid(format!("the variable {name}: {error}"));
        let zone = match (&self.zone, variable(ZONE_VARIABLE)) {
            (Some(zone), _) => Some(zone.clone()),
            (None, Some(text)) => Some(zone(&text).map_err(|error| wrong(ZONE_VARIABLE, error))?),
            (None, None) => None,
        };
        let labels = match variable(LABELS_VARIABLE).filter(|_| self.labels.is_empty()) {
            Some(text) => labels(&text).map_err(|error| wrong(LABELS_VARIABLE, error))?,
            None => {
                let typed = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                Labels::parse(typed).map_err(|error| Failure::invalid(format!("--label: {error}")))?
            }
        };
        Ok(Tags { zone, labels })
    }
}

/// The flags that say this.
pub(crate) fn arguments(tags: &Tags) -> Vec<String> {
    let zone = tags.zone.iter().flat_map(|zone| ["--zone".to_owned(), zone.to_string()]);
    let labels = tags.labels.iter().flat_map(|(key, value)| ["--label".to_owned(), format!("{key}={value}")]);
    zone.chain(labels).collect()
}

fn zone(text: &str) -> Result<Zone, String> {
    Zone::parse(text).map_err(|error| error.to_string())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Labels::parse([(key, value)]).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').map(|pair| pair.split_once('=').ok_or("expected KEY=VALUE,KEY=VALUE"));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    Labels::parse(pairs).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_typed_as_it_is_read() {
        let tags = Tags { zone: zone("eu/a").ok(), labels: labels("track=canary,disk=").unwrap() };
        assert_eq!(arguments(&tags), ["--zone", "eu/a", "--label", "disk=", "--label", "track=canary"]);
        assert_eq!(labels("track").unwrap_err(), "expected KEY=VALUE,KEY=VALUE");
        assert!(pair("a b=c").is_err() && pair("a").is_err() && zone("a/b/c/d").is_err());
    }
}
