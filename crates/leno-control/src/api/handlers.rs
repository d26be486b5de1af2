//! One function per route.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use leno_core::name::{Label, LabelError, ServiceId};
use leno_core::time::Duration;
use leno_identity::token::Grant;
use leno_wire::api;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Api, Failure};
use crate::mesh::MintRefusal;
use crate::registry::{MemberKey, Refusal};
use crate::store::{NotKept, Reach};

/// The handlers' state.
type Shared = State<Arc<Api>>;

/// `?service=NAME`.
#[derive(Deserialize)]
pub(super) struct InstanceFilter {
    /// Only of this service.
    service: Option<String>,
}

/// `GET /v1/status`.
pub(super) async fn status(State(api): Shared) -> Json<api::Status> {
    let mesh = &api.mesh;
    let file = mesh.file();
    let status = mesh.read(|registry, now| api::Status {
        mesh: mesh.trust_domain().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: registry.generation(),
        uptime_ms: u64::try_from(now.since(api.started).as_millis()).unwrap_or(u64::MAX),
        counts: registry.counts(),
        file,
        proxies: registry.proxies(),
    });
    Json(status)
}

/// `GET /v1/services`.
pub(super) async fn services(State(api): Shared) -> Json<Vec<api::ServiceView>> {
    Json(api.mesh.read(|registry, _| registry.services()))
}

/// `GET /v1/services/{namespace}/{name}`.
pub(super) async fn service(
    State(api): Shared,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<api::ServiceView>, Failure> {
    let id = service_id(&namespace, &name)?;
    view_of(&api, &id).map(Json)
}

/// `PUT /v1/services/{namespace}/{name}`.
pub(super) async fn put_service(
    State(api): Shared,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<api::ServiceView>, Failure> {
    let id = service_id(&namespace, &name)?;
    let declaration: api::ServiceDeclaration = parse(&body)?;
    let spec = declaration.parse(&id).map_err(|error| invalid(error.to_string()))?;
    let kept =
        api.mesh.change_and_keep(|registry, now, effects| registry.put_service(spec, now, effects)).await;
    kept.map_err(|NotKept| Failure::not_kept())??;
    view_of(&api, &id).map(Json)
}

/// `DELETE /v1/services/{namespace}/{name}`.
pub(super) async fn delete_service(
    State(api): Shared,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let id = service_id(&namespace, &name)?;
    let kept =
        api.mesh.change_and_keep(|registry, now, effects| registry.delete_service(&id, now, effects)).await;
    kept.map_err(|NotKept| Failure::not_kept())??;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/services/{namespace}/{name}/instances`.
pub(super) async fn register(
    State(api): Shared,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<api::InstanceView>), Failure> {
    let service = service_id(&namespace, &name)?;
    let asked: api::InstanceRegistration = parse(&body)?;
    let address: SocketAddr =
        asked.address.parse().map_err(|_| invalid(format!("address: {:?} is not IP:PORT", asked.address)))?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(invalid(format!("address: {address} cannot be connected to")));
    }
    let key = MemberKey { service, name: label("name", &asked.name)? };
    let reach = Reach {
        address,
        version: asked.version.as_deref().map(|version| label("version", version)).transpose()?,
        weight: asked.weight.unwrap_or(1),
        tags: leno_wire::tags(asked.zone.as_deref().unwrap_or_default(), &asked.labels)
            .map_err(|error| invalid(error.to_string()))?,
    };
    let registered = key.clone();
    let kept = api
        .mesh
        .change_and_keep(|registry, now, effects| registry.register_plain(registered, reach, now, effects))
        .await;
    kept.map_err(|NotKept| Failure::not_kept())??;
    let all = api.mesh.read(|registry, now| registry.instances(Some(&key.service), now));
    match all.into_iter().find(|view| view.name == key.name.as_str()) {
        Some(view) => Ok((StatusCode::CREATED, Json(view))),
        // Removed again between the two locks.
        None => Err(Refusal::NoSuchInstance(key.name.to_string()).into()),
    }
}

/// `DELETE /v1/services/{namespace}/{name}/instances/{instance}`.
pub(super) async fn deregister(
    State(api): Shared,
    Path((namespace, name, instance)): Path<(String, String, String)>,
) -> Result<StatusCode, Failure> {
    let key = MemberKey { service: service_id(&namespace, &name)?, name: label("instance", &instance)? };
    let kept =
        api.mesh.change_and_keep(|registry, now, effects| registry.remove_plain(&key, now, effects)).await;
    kept.map_err(|NotKept| Failure::not_kept())??;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/instances`.
pub(super) async fn instances(
    State(api): Shared,
    Query(filter): Query<InstanceFilter>,
) -> Result<Json<Vec<api::InstanceView>>, Failure> {
    let of = filter.service.as_deref().map(|text| service_name("service", text)).transpose()?;
    Ok(Json(api.mesh.read(|registry, now| registry.instances(of.as_ref(), now))))
}

/// `GET /v1/proxies`.
pub(super) async fn proxies(State(api): Shared) -> Json<Vec<api::ProxyView>> {
    Json(api.mesh.read(|registry, _| registry.proxies()))
}

/// `GET /v1/tokens`.
pub(super) async fn tokens(State(api): Shared) -> Json<Vec<api::TokenView>> {
    let view = |record: &leno_identity::token::TokenRecord| {
        let (kind, subject) = shown(&record.grant);
        api::TokenView {
            id: record.id.clone(),
            subject,
            kind,
            uses_left: record.uses_left.unwrap_or(u32::MAX),
            expires_unix: record.expires.0,
            token: None,
        }
    };
    Json(api.mesh.tokens(|tokens| tokens.iter().map(view).collect()))
}

/// `POST /v1/tokens`.
pub(super) async fn mint(
    State(api): Shared,
    body: Bytes,
) -> Result<(StatusCode, Json<api::TokenView>), Failure> {
    let asked: api::TokenRequest = parse(&body)?;
    let grant = match (asked.service.as_deref(), asked.gateway.as_deref()) {
        (Some(name), None) => Grant::Service(service_name("service", name)?),
        (None, Some(name)) => Grant::Gateway(service_name("gateway", name)?),
        (None, None) => {
            return Err(invalid("service or gateway is missing: what may the token's holder become?"));
        }
        (Some(_), Some(_)) => return Err(invalid("a token is for a service or for a gateway, not for both")),
    };
    let uses = asked.uses.unwrap_or(1);
    if !(1..=USES_MAX).contains(&uses) {
        return Err(invalid(format!("uses: {uses} is not 1 to {USES_MAX}")));
    }
    let seconds = asked.expires_in_seconds.unwrap_or(EXPIRES_DEFAULT_SECONDS);
    if !(1..=EXPIRES_MAX_SECONDS).contains(&seconds) {
        return Err(invalid(format!("expires_in_seconds: {seconds} is not 1 to {EXPIRES_MAX_SECONDS}")));
    }
    // A misspelt name is found here, not when the proxy is refused later.
    let known = api.mesh.read(|registry, _| match &grant {
        Grant::Service(id) if registry.service(id).is_none() => Err(Refusal::NoSuchService(id.clone())),
        Grant::Gateway(id) if !registry.has_gateway(id) => Err(Refusal::NoSuchGateway(id.clone())),
        Grant::Service(_) | Grant::Gateway(_) => Ok(()),
    });
    known?;
    if grant.identity().is_none() {
        return Err(invalid(format!("{grant} belongs to Leno itself")));
    }
    let (kind, subject) = shown(&grant);
    let minted = api.mesh.mint(grant, Some(uses), Duration::from_secs(seconds)).await;
    let (token, expires) = match minted.map_err(|NotKept| Failure::not_kept())? {
        Ok(minted) => minted,
        Err(MintRefusal::Refused(refusal)) => return Err(refusal.into()),
        Err(MintRefusal::Entropy(error)) => {
            return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "no_entropy", error.to_string()));
        }
    };
    let view = api::TokenView {
        id: token.id.clone(),
        subject,
        kind,
        uses_left: uses,
        expires_unix: expires.0,
        token: Some(token.text()),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// `DELETE /v1/tokens/{id}`.
pub(super) async fn revoke(State(api): Shared, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    api.mesh.revoke(&id).await.map_err(|NotKept| Failure::not_kept())??;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/openapi.json`.
pub(super) async fn openapi(State(api): Shared) -> Json<serde_json::Value> {
    Json(api.openapi.clone())
}

/// `GET /ready`, `GET /live`: there is nothing to wait for once the listener answers.
pub(super) async fn alive() -> impl IntoResponse {
    "ok\n"
}

/// The view of a declared service.
fn view_of(api: &Api, id: &ServiceId) -> Result<api::ServiceView, Failure> {
    let view = api.mesh.read(|registry, _| registry.service_by_name(id));
    view.ok_or_else(|| Refusal::NoSuchService(id.clone()).into())
}

/// What a token is for.
fn shown(grant: &Grant) -> (api::ProxyKind, String) {
    match grant {
        Grant::Service(id) => (api::ProxyKind::Sidecar, id.to_string()),
        Grant::Gateway(id) => (api::ProxyKind::Gateway, id.to_string()),
    }
}

/// Parses a body.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("the body: {error}")))
}

/// The name in a path.
fn service_id(namespace: &str, name: &str) -> Result<ServiceId, Failure> {
    Ok(ServiceId::new(label("namespace", namespace)?, label("name", name)?))
}

/// `NAME` or `NAMESPACE/NAME`.
fn service_name(field: &str, text: &str) -> Result<ServiceId, Failure> {
    ServiceId::parse(text).map_err(|error| not_a_name(field, text, error))
}

/// One DNS label.
fn label(field: &str, text: &str) -> Result<Label, Failure> {
    Label::parse(text).map_err(|error| not_a_name(field, text, error))
}

/// A name that is none.
fn not_a_name(field: &str, text: &str, error: LabelError) -> Failure {
    invalid(format!("{field}: {text:?}: {error}"))
}

/// A request that cannot be understood.
fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "invalid", message)
}

/// Most uses of a token.
const USES_MAX: u32 = 10_000;
/// A token's life unless asked otherwise.
const EXPIRES_DEFAULT_SECONDS: u64 = 3600;
/// A token's longest life: a year.
const EXPIRES_MAX_SECONDS: u64 = 31_536_000;
