//! What a request must look like, where a message of the control stream is the API's too: as JSON it is [`super::Match`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Match;
use crate::proto::resource as wire;

pub(crate) fn serialize<S: Serializer>(when: &Option<wire::Match>, to: S) -> Result<S::Ok, S::Error> {
    let when = when.clone().map(leno_core::spec::MatchSpec::try_from).transpose();
    // What is served was parsed before.
    let when = when.map_err(|error| serde::ser::Error::custom(error.to_string()))?;
    when.as_ref().map(Match::from).serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<wire::Match>, D::Error> {
    Ok(Option::<Match>::deserialize(from)?.map(wire::Match::from))
}
