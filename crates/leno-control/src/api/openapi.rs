//! The OpenAPI 3.1 document, from the table of routes and the types of the answers.

use leno_wire::api::ApiError;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::{Body, ROUTES, Route};

/// The whole document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ApiError>();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator, &json!(error));
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(route.method.to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leno control plane",
            "version": "v1",
            "summary": "Services, instances, proxies and join tokens of one mesh.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// One method on one path.
fn operation(route: &Route, generator: &mut SchemaGenerator, error: &Value) -> Value {
    let mut parameters: Vec<Value> = parameters_of(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.query.iter().map(|(name, meaning)| {
        json!({"name": name, "in": "query", "required": false, "description": meaning,
               "schema": {"type": "string"}})
    }));
    let content = match route.answer.body {
        Body::Empty => None,
        Body::Json(schema) => Some(("application/json", json!({"schema": schema(generator)}))),
        Body::AnyJson => Some(("application/json", json!({"schema": {"type": "object"}}))),
        Body::Text => Some(("text/plain", json!({"schema": {"type": "string"}}))),
    };
    let mut answer = json!({"description": "Done."});
    if let Some((kind, content)) = content {
        answer["content"] = json!({kind: content});
    }
    let mut responses = Map::new();
    responses.insert(route.answer.status.to_string(), answer);
    let failures =
        [403, 408].iter().chain(route.failures).chain(if route.changes { &[401][..] } else { &[] });
    for status in failures {
        let content = json!({"application/json": {"schema": error}});
        let failure = json!({"description": "Refused; the body says why.", "content": content});
        responses.insert(status.to_string(), failure);
    }
    let mut operation = json!({"summary": route.summary, "parameters": parameters, "responses": responses});
    if let Some(body) = route.body {
        let content = json!({"application/json": {"schema": body(generator)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if route.changes {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}

/// The names in braces.
fn parameters_of(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
