//! The protobuf messages of the control stream, written by hand (no protoc).
//!
//! The transport is delta xDS as the field knows it; the resources and the service `leno.v1.Mesh` are Leno's own.

pub mod care;
pub mod change;
pub mod cors;
pub mod fault;
pub mod mesh;
pub mod outside;
pub mod quota;
pub mod rate;
pub mod resource;
pub mod tries;
pub mod xds;
pub mod zones;

use leno_core::index::Kind;

/// Largest message either end of the control stream accepts, in bytes: some 100,000 endpoints.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Prefix of every type URL.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";
/// Type URL of [`resource::Service`].
pub const SERVICE_TYPE_URL: &str = "type.googleapis.com/leno.v1.Service";
/// Type URL of [`resource::Endpoints`].
pub const ENDPOINTS_TYPE_URL: &str = "type.googleapis.com/leno.v1.Endpoints";
/// Type URL of [`resource::Gateway`].
pub const GATEWAY_TYPE_URL: &str = "type.googleapis.com/leno.v1.Gateway";
/// Type URL of [`outside::Egress`].
pub const EGRESS_TYPE_URL: &str = "type.googleapis.com/leno.v1.Egress";
/// Type URL of [`mesh::Rejected`], which stands in the details of a refusal.
pub const REJECTED_TYPE_URL: &str = "type.googleapis.com/leno.v1.Rejected";

/// The type URL under which resources of `kind` travel.
pub const fn type_url(kind: Kind) -> &'static str {
    match kind {
        Kind::Egress => EGRESS_TYPE_URL,
        Kind::Endpoints => ENDPOINTS_TYPE_URL,
        Kind::Service => SERVICE_TYPE_URL,
        Kind::Gateway => GATEWAY_TYPE_URL,
    }
}

/// The kind that travels under `url`; `None` for a type that Leno does not serve.
pub fn kind_of(url: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| type_url(*kind) == url)
}
