//! What the application beside a sidecar is given.

use std::time::Duration;

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
