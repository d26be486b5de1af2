//! Who buys: one page about a user, put together from what product and cart know.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::answer::{self, Problem, Server};
use super::peer::{Peers, take_served_by};

/// `GET /users`, `GET /users/{id}`, `GET /healthz`.
pub(super) fn routes(server: Server) -> Router {
    Router::new()
        .route("/users", get(list))
        .route("/users/{id}", get(one))
        .route("/healthz", get(answer::healthz))
        .with_state(Parts { server: Arc::new(server), peers: Peers::from_env() })
}

/// What every handler gets.
#[derive(Clone)]
struct Parts {
    server: Arc<Server>,
    peers: Peers,
}

impl FromRef<Parts> for Arc<Server> {
    fn from_ref(parts: &Parts) -> Self {
        Self::clone(&parts.server)
    }
}

async fn list(State(server): State<Arc<Server>>) -> Response {
    let users: Vec<Value> = USERS.iter().map(User::json).collect();
    server.ok(StatusCode::OK, json!({ "users": users }), Vec::new())
}

async fn one(State(parts): State<Parts>, Path(id): Path<String>) -> Response {
    match page(&parts.peers, &id).await {
        Ok((body, called)) => parts.server.ok(StatusCode::OK, body, called),
        Err(problem) => parts.server.refuse(problem),
    }
}

/// The page about one user, and who else was asked for it.
async fn page(peers: &Peers, id: &str) -> Result<(Value, Vec<Value>), Problem> {
    let id = answer::id(id)?;
    let user = USERS.iter().find(|user| user.id == id);
    let user = user.ok_or_else(|| Problem::not_found(format!("no user {id}")))?;
    let favourite = format!("http://product/products/{}", user.favourite);
    let cart = format!("http://cart/cart/{id}");
    let (favourite, cart) = tokio::join!(peers.get(&favourite), peers.get(&cart));
    let (mut favourite, mut cart) = (favourite?, cart?);
    let called = vec![take_served_by(&mut favourite), take_served_by(&mut cart)];
    let mut body = user.json();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("favourite".to_owned(), favourite);
        fields.insert("cart".to_owned(), cart);
    }
    Ok((body, called))
}

struct User {
    id: u32,
    name: &'static str,
    city: &'static str,
    /// A product's number.
    favourite: u32,
}

impl User {
    fn json(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "city": self.city })
    }
}

const USERS: [User; 3] = [
    User { id: 1, name: "Ada", city: "London", favourite: 1 },
    User { id: 2, name: "Emmy", city: "Erlangen", favourite: 5 },
    User { id: 3, name: "Grace", city: "New York", favourite: 3 },
];
