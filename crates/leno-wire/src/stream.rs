//! The control stream's requests and responses between `leno_core::session` and delta xDS.

use std::collections::BTreeMap;

use leno_core::index::Version;
use leno_core::name::ServiceId;
use leno_core::session::{Answer, Offer, Request, Response};
use prost::Message;

use crate::grpc::any;
use crate::proto::mesh::Rejected;
use crate::proto::{REJECTED_TYPE_URL, kind_of, type_url, xds};
use crate::{WireError, full_name};

/// Packs a request; `node` goes with the first one of a stream.
pub fn pack_request(request: &Request, node: Option<xds::Node>) -> xds::DeltaDiscoveryRequest {
    let names = |ids: &[ServiceId]| ids.iter().map(full_name).collect();
    let answer = request.answer.as_ref();
    xds::DeltaDiscoveryRequest {
        node,
        type_url: type_url(request.kind).to_owned(),
        resource_names_subscribe: names(&request.subscribe),
        resource_names_unsubscribe: names(&request.unsubscribe),
        initial_resource_versions: request
            .held
            .iter()
            .map(|(id, v)| (full_name(id), v.to_string()))
            .collect(),
        response_nonce: answer.map(|answer| answer.nonce.to_string()).unwrap_or_default(),
        error_detail: answer.and_then(pack_refusal),
    }
}

/// Parses a request.
///
/// # Errors
/// For a type that Leno does not serve, a name that is none, a nonce that was never ours. A held version that is none
/// of ours only means that the content is sent again.
pub fn parse_request(message: xds::DeltaDiscoveryRequest) -> Result<Request, WireError> {
    let kind = kind_of(&message.type_url)
        .ok_or_else(|| bad("type_url", format!("{:?} is no type that Leno serves", message.type_url)))?;
    let mut held = BTreeMap::new();
    for (name, version) in &message.initial_resource_versions {
        if let Some(version) = Version::parse(version) {
            held.insert(id("initial_resource_versions", name)?, version);
        }
    }
    let answer = if message.response_nonce.is_empty() {
        None
    } else {
        let nonce = parse_nonce("response_nonce", &message.response_nonce)?;
        let (rejected, rejects_all) = match message.error_detail {
            None => (Vec::new(), None),
            Some(status) => parse_refusal(status)?,
        };
        Some(Answer { nonce, rejected, rejects_all })
    };
    Ok(Request {
        kind,
        subscribe: ids("resource_names_subscribe", &message.resource_names_subscribe)?,
        unsubscribe: ids("resource_names_unsubscribe", &message.resource_names_unsubscribe)?,
        held,
        answer,
    })
}

/// Packs a response, whose contents are encoded already.
pub fn pack_response<T: AsRef<[u8]>>(response: &Response<T>) -> xds::DeltaDiscoveryResponse {
    let url = type_url(response.kind);
    xds::DeltaDiscoveryResponse {
        system_version_info: response.generation.to_string(),
        resources: response
            .resources
            .iter()
            .map(|offer| xds::Resource {
                version: offer.version.to_string(),
                resource: Some(xds::Any { type_url: url.to_owned(), value: offer.content.as_ref().to_vec() }),
                name: full_name(&offer.id),
            })
            .collect(),
        type_url: url.to_owned(),
        nonce: response.nonce.to_string(),
        removed_resources: response.removed.iter().map(full_name).collect(),
    }
}

/// Parses a response down to the resources, whose contents stay encoded: each is parsed for itself (with
/// [`crate::Known::decode`]), so that a bad one rejects only itself.
///
/// # Errors
/// When the frame around the resources is wrong: the control plane's fault, and the stream's end.
pub fn parse_response(message: xds::DeltaDiscoveryResponse) -> Result<Response<xds::Resource>, WireError> {
    let kind = kind_of(&message.type_url)
        .ok_or_else(|| bad("type_url", format!("{:?} is no type that Leno knows", message.type_url)))?;
    let offer = |resource: xds::Resource| {
        let version = Version::parse(&resource.version)
            .ok_or_else(|| bad("version", format!("{:?} is no version", resource.version)))?;
        Ok(Offer { id: id("name", &resource.name)?, version, content: resource })
    };
    Ok(Response {
        kind,
        nonce: parse_nonce("nonce", &message.nonce)?,
        generation: parse_nonce("system_version_info", &message.system_version_info)?,
        resources: message.resources.into_iter().map(offer).collect::<Result<_, WireError>>()?,
        removed: ids("removed_resources", &message.removed_resources)?,
    })
}

/// The status that refuses some resources; `None` when nothing is refused.
fn pack_refusal(answer: &Answer) -> Option<xds::Status> {
    let first = answer.rejected.first().map(|(id, reason)| format!("{id}: {reason}"));
    let message = answer.rejects_all.clone().or(first)?;
    let details = answer.rejected.iter().map(|(id, reason)| {
        any(REJECTED_TYPE_URL, &Rejected { name: full_name(id), reason: reason.clone() })
    });
    Some(xds::Status { code: INVALID_ARGUMENT, message, details: details.collect() })
}

/// Single resources with reasons; the reason for all of them when no single one is named.
#[allow(clippy::type_complexity, reason = "the two halves of an answer, named where they are used")]
fn parse_refusal(status: xds::Status) -> Result<(Vec<(ServiceId, String)>, Option<String>), WireError> {
    let mut rejected = Vec::new();
    for detail in status.details.iter().filter(|detail| detail.type_url == REJECTED_TYPE_URL) {
        let one = Rejected::decode(&*detail.value).map_err(|e| bad("error_detail", e.to_string()))?;
        rejected.push((id("error_detail", &one.name)?, one.reason));
    }
    let all = rejected.is_empty().then_some(status.message);
    Ok((rejected, all))
}

/// A list of names.
fn ids(field: &str, names: &[String]) -> Result<Vec<ServiceId>, WireError> {
    names.iter().map(|name| id(field, name)).collect()
}

/// One name.
fn id(field: &str, name: &str) -> Result<ServiceId, WireError> {
    ServiceId::parse(name).map_err(|error| bad(field, format!("{name:?}: {error}")))
}

/// A number of ours, decimal.
fn parse_nonce(field: &str, text: &str) -> Result<u64, WireError> {
    text.parse().map_err(|_| bad(field, format!("{text:?} is no number")))
}

/// An error about `field` of the frame.
fn bad(field: &str, problem: String) -> WireError {
    WireError { resource: String::new(), field: field.to_owned(), problem }
}

/// gRPC's status code for a refused argument.
const INVALID_ARGUMENT: i32 = 3;

#[cfg(test)]
mod tests {
    use leno_core::index::Kind;

    use super::*;

    #[test]
    fn a_request_is_read_back() {
        let id = |name: &str| ServiceId::parse(name).unwrap();
        let rejected = vec![(id("a"), "why".to_owned()), (id("x/b"), String::new())];
        for answer in [
            None,
            Some(Answer { nonce: 7, rejected: vec![], rejects_all: None }),
            Some(Answer { nonce: 8, rejected, rejects_all: None }),
            Some(Answer { nonce: 9, rejected: vec![], rejects_all: Some("all".to_owned()) }),
        ] {
            let request = Request {
                kind: Kind::Endpoints,
                subscribe: vec![id("a"), id("x/b")],
                unsubscribe: vec![id("c")],
                held: [(id("a"), Version(5))].into(),
                answer,
            };
            let bytes = pack_request(&request, None).encode_to_vec();
            let message = xds::DeltaDiscoveryRequest::decode(&*bytes).unwrap();
            assert_eq!(parse_request(message), Ok(request));
        }
    }

    #[test]
    fn a_response_is_read_back() {
        let id = |name: &str| ServiceId::parse(name).unwrap();
        let response = Response {
            kind: Kind::Service,
            nonce: 3,
            generation: 12,
            resources: vec![Offer { id: id("a"), version: Version(1 << 100), content: vec![1, 2, 3] }],
            removed: vec![id("x/b")],
        };
        let parsed = parse_response(pack_response(&response)).unwrap();
        assert_eq!((parsed.nonce, parsed.generation, &parsed.removed), (3, 12, &response.removed));
        assert_eq!(parsed.resources[0].version, response.resources[0].version);
        assert_eq!(parsed.resources[0].content.resource.as_ref().unwrap().value, vec![1, 2, 3]);
    }

    #[test]
    fn what_is_not_ours_is_refused_with_its_field() {
        let good = || {
            let request = Request {
                kind: Kind::Service,
                subscribe: vec![],
                unsubscribe: vec![],
                held: BTreeMap::new(),
                answer: None,
            };
            pack_request(&request, None)
        };
        let envoy = xds::DeltaDiscoveryRequest { type_url: "type.googleapis.com/x".to_owned(), ..good() };
        assert_eq!(parse_request(envoy).unwrap_err().field, "type_url");
        let star = xds::DeltaDiscoveryRequest { resource_names_subscribe: vec!["*".to_owned()], ..good() };
        assert_eq!(parse_request(star).unwrap_err().field, "resource_names_subscribe");
        let nonce = xds::DeltaDiscoveryRequest { response_nonce: "abc".to_owned(), ..good() };
        assert_eq!(parse_request(nonce).unwrap_err().field, "response_nonce");
    }
}
