//! Options of the form `--name value`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// What was given.
pub(crate) struct Flags {
    values: BTreeMap<String, String>,
}

impl Flags {
    /// Only these names are known.
    pub(crate) fn parse(arguments: &[String], known: &[&str]) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let plain = name.strip_prefix("--").filter(|plain| known.contains(plain));
            let plain = plain.ok_or_else(|| format!("no option is called `{name}`"))?;
            let value = rest.next().ok_or_else(|| format!("`{name}` needs a value"))?;
            values.insert(plain.to_owned(), value.clone());
        }
        Ok(Self { values })
    }

    /// A value that must be there.
    pub(crate) fn needed<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.values.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        value.parse().map_err(|_| format!("--{name}: `{value}` makes no sense"))
    }

    /// A value, or this one.
    pub(crate) fn or<T: FromStr>(&self, name: &str, usual: T) -> Result<T, String> {
        if self.values.contains_key(name) { self.needed(name) } else { Ok(usual) }
    }

    /// A number from 1 to `most`; 1 when it is not given.
    pub(crate) fn count(&self, name: &str, most: usize) -> Result<usize, String> {
        let count = self.or(name, 1_usize)?;
        if (1..=most).contains(&count) { Ok(count) } else { Err(format!("--{name}: not 1 to {most}")) }
    }

    /// Milliseconds.
    pub(crate) fn time(&self, name: &str) -> Result<Duration, String> {
        self.or(name, 0).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::Flags;

    #[test]
    fn what_is_unknown_or_makes_no_sense_is_refused() {
        let parse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Flags::parse(&words, &["to", "streams"])
        };
        let good = parse("--streams 8").unwrap();
        assert_eq!(good.count("streams", 64), Ok(8));
        assert_eq!(good.count("connections", 64), Ok(1));
        assert!(good.count("streams", 7).is_err());
        assert!(good.needed::<u16>("to").is_err());
        assert!(parse("--stream 8").is_err());
        assert!(parse("--to").is_err());
    }
}
