//! The one table of routes.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post, put};
use leno_wire::api;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Api, handlers};

/// A method on a path.
pub(super) struct Route {
    /// Lower case, as OpenAPI has it.
    pub(super) method: &'static str,
    /// With `{parameters}`.
    pub(super) path: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// It changes something and needs the token.
    pub(super) changes: bool,
    /// Query parameters and what they mean; all optional.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// The body it takes.
    pub(super) body: Option<SchemaOf>,
    /// Its answer when all is well.
    pub(super) answer: Answer,
    /// Statuses of failures besides 401 (of changes), 403 and 408.
    pub(super) failures: &'static [u16],
    /// The handler.
    pub(super) mount: fn() -> MethodRouter<Arc<Api>>,
}

/// A good answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its body.
    pub(super) body: Body,
}

/// The body of a good answer.
pub(super) enum Body {
    /// None.
    Empty,
    /// JSON of this shape.
    Json(SchemaOf),
    /// Some other JSON.
    AnyJson,
    /// Text.
    Text,
}

/// Makes the schema of one type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of `T`.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A read that answers with `body`.
const fn read(
    path: &'static str,
    summary: &'static str,
    body: Body,
    mount: fn() -> MethodRouter<Arc<Api>>,
) -> Route {
    let answer = Answer { status: 200, body };
    Route {
        method: "get",
        path,
        summary,
        changes: false,
        query: &[],
        body: None,
        answer,
        failures: &[],
        mount,
    }
}

/// Every route.
pub(super) const ROUTES: &[Route] = &[
    read("/v1/status", "The mesh at a glance.", Body::Json(of::<api::Status>), || get(handlers::status)),
    read("/v1/services", "Every declared service.", Body::Json(of::<Vec<api::ServiceView>>), || {
        get(handlers::services)
    }),
    Route {
        failures: &[400, 404],
        ..read(SERVICE, "One declared service.", Body::Json(of::<api::ServiceView>), || {
            get(handlers::service)
        })
    },
    Route {
        method: "put",
        path: SERVICE,
        summary: "Declares a service, or changes its declaration.",
        changes: true,
        query: &[],
        body: Some(of::<api::ServiceDeclaration>),
        answer: Answer { status: 200, body: Body::Json(of::<api::ServiceView>) },
        failures: &[400, 409, 413, 503, 507],
        mount: || put(handlers::put_service),
    },
    Route {
        method: "delete",
        path: SERVICE,
        summary: "Takes a declaration back; its plain instances go with it.",
        changes: true,
        query: &[],
        body: None,
        answer: Answer { status: 204, body: Body::Empty },
        failures: &[400, 404, 409, 503],
        mount: || delete(handlers::delete_service),
    },
    Route {
        method: "post",
        path: "/v1/services/{namespace}/{name}/instances",
        summary: "Registers a plain instance, or changes it.",
        changes: true,
        query: &[],
        body: Some(of::<api::InstanceRegistration>),
        answer: Answer { status: 201, body: Body::Json(of::<api::InstanceView>) },
        failures: &[400, 404, 409, 413, 503, 507],
        mount: || post(handlers::register),
    },
    Route {
        method: "delete",
        path: "/v1/services/{namespace}/{name}/instances/{instance}",
        summary: "Removes a plain instance.",
        changes: true,
        query: &[],
        body: None,
        answer: Answer { status: 204, body: Body::Empty },
        failures: &[400, 404, 409, 503],
        mount: || delete(handlers::deregister),
    },
    Route {
        query: &[("service", "Only instances of this service: NAME or NAMESPACE/NAME.")],
        failures: &[400],
        ..read("/v1/instances", "Instances, and those whose lease ended lately.", INSTANCES, || {
            get(handlers::instances)
        })
    },
    read("/v1/proxies", "Sidecars and gateways with a lease.", Body::Json(of::<Vec<api::ProxyView>>), || {
        get(handlers::proxies)
    }),
    read(
        "/v1/tokens",
        "Join tokens, never with their secrets.",
        Body::Json(of::<Vec<api::TokenView>>),
        || get(handlers::tokens),
    ),
    Route {
        method: "post",
        path: "/v1/tokens",
        summary: "Makes a join token; the answer is the only one that shows it.",
        changes: true,
        query: &[],
        body: Some(of::<api::TokenRequest>),
        answer: Answer { status: 201, body: Body::Json(of::<api::TokenView>) },
        failures: &[400, 404, 413, 503, 507],
        mount: || post(handlers::mint),
    },
    Route {
        method: "delete",
        path: "/v1/tokens/{id}",
        summary: "Makes a join token useless; who has joined with it stays.",
        changes: true,
        query: &[],
        body: None,
        answer: Answer { status: 204, body: Body::Empty },
        failures: &[404, 503],
        mount: || delete(handlers::revoke),
    },
    read("/v1/openapi.json", "This document.", Body::AnyJson, || get(handlers::openapi)),
    read("/ready", "200 when everything is served.", Body::Text, || get(handlers::alive)),
    read("/live", "200 while the process runs.", Body::Text, || get(handlers::alive)),
    read("/metrics", "Figures for Prometheus.", Body::Text, || get(super::metrics::page)),
];

const SERVICE: &str = "/v1/services/{namespace}/{name}";
const INSTANCES: Body = Body::Json(of::<Vec<api::InstanceView>>);
