//! What the application beside a sidecar is given.

use std::time::Duration;

use leno_core::admission::Class;
use leno_core::spec;

use crate::proto;

#[test]
fn a_concurrency_is_a_number_or_found_out_within_bounds() {
    use proto::care::Concurrency as Wire;
    use spec::ConcurrencyLimit::{Auto, Fixed};
    for (limit, queue) in [(Fixed(1), 0), (Fixed(1_000_000), 100), (Auto { min: 3, max: 1_000 }, 1)] {
        let concurrency = spec::Concurrency { limit, queue: Duration::from_millis(queue) };
        assert_eq!(spec::Concurrency::try_from(Wire::from(&concurrency)), Ok(concurrency));
    }
    let none = Wire::default;
    assert_eq!(none().try_into(), Ok(spec::Concurrency::auto()));
    let narrow: spec::Concurrency = Wire { max: Some(2), ..none() }.try_into().unwrap();
    assert_eq!(narrow.limit, Auto { min: 2, max: 2 });
    for (wrong, field) in [
        (Wire { limit: Some(0), ..none() }, "limit"),
        (Wire { limit: Some(1_000_001), ..none() }, "limit"),
        (Wire { limit: Some(5), min: Some(1), ..none() }, "min"),
        (Wire { limit: Some(5), max: Some(9), ..none() }, "max"),
        (Wire { min: Some(9), max: Some(8), ..none() }, "min"),
        (Wire { min: Some(0), ..none() }, "min"),
        (Wire { queue_ms: Some(60_001), ..none() }, "queue_ms"),
    ] {
        assert_eq!(spec::Concurrency::try_from(wrong).unwrap_err().field, field);
    }
}

#[test]
fn a_class_is_one_of_four_words() {
    let change = |word: &str| {
        let message =
            proto::change::Change { priority: Some(word.into()), ..proto::change::Change::default() };
        crate::convert::change::change(message, &spec::MatchSpec::default())
    };
    assert_eq!(change("critical").unwrap().priority, Some(Class::Critical));
    for word in ["", "Low", "urgent", "low "] {
        assert_eq!(change(word).unwrap_err().field, "change.priority", "{word:?}");
    }
}
