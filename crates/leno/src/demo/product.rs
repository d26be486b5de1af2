//! What the shop sells.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{self, Problem, Server};

/// `GET /products`, `GET /products/{id}`, `GET /healthz`.
pub(super) fn routes(server: Server) -> Router {
    Router::new()
        .route("/products", get(list))
        .route("/products/{id}", get(one))
        .route("/healthz", get(answer::healthz))
        .with_state(Arc::new(server))
}

async fn list(State(server): State<Arc<Server>>) -> Response {
    let products: Vec<Value> = PRODUCTS.iter().map(Product::json).collect();
    server.ok(StatusCode::OK, json!({ "products": products }), Vec::new())
}

async fn one(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Response {
    match find(&id) {
        Ok(product) => server.ok(StatusCode::OK, product.json(), Vec::new()),
        Err(problem) => server.refuse(problem),
    }
}

fn find(text: &str) -> Result<&'static Product, Problem> {
    let id = answer::id(text)?;
    let found = PRODUCTS.iter().find(|product| product.id == id);
    found.ok_or_else(|| Problem::not_found(format!("no product {id}")))
}

struct Product {
    id: u32,
    name: &'static str,
    price_cents: u32,
}

impl Product {
    fn json(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "price_cents": self.price_cents })
    }
}

const PRODUCTS: [Product; 5] = [
    Product { id: 1, name: "Teapot", price_cents: 2450 },
    Product { id: 2, name: "Tea tin", price_cents: 890 },
    Product { id: 3, name: "Strainer", price_cents: 620 },
    Product { id: 4, name: "Cup", price_cents: 1100 },
    Product { id: 5, name: "Kettle", price_cents: 5900 },
];
