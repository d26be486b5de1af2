//! What is about to be bought. Kept in memory: a restarted instance begins with the example's carts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Problem, Server};
use super::peer::{Peers, take_served_by};

/// `GET /cart/{user}`, `POST /cart/{user}/items`, `GET /healthz`.
pub(super) fn routes(server: Server) -> Router {
    let server = Arc::new(server);
    let carts = (1..=USERS).map(|user| (user, example(user))).collect();
    let parts =
        Parts { server: Arc::clone(&server), peers: Peers::from_env(), carts: Arc::new(Mutex::new(carts)) };
    Router::new()
        .route("/cart/{user}", get(show))
        .route("/cart/{user}/items", post(add))
        .with_state(parts)
        .route("/healthz", get(answer::healthz).with_state(server))
}

/// What every handler gets.
#[derive(Clone)]
struct Parts {
    server: Arc<Server>,
    peers: Peers,
    /// By user. Bounded: [`USERS`] carts of at most one item per product.
    carts: Arc<Mutex<BTreeMap<u32, Vec<Item>>>>,
}

/// One line of a cart.
#[derive(Clone, Debug)]
struct Item {
    product: u32,
    name: String,
    quantity: u32,
    /// What product said when it was put in.
    price_cents: u64,
}

/// The body of `POST /cart/{user}/items`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Addition {
    product: u32,
    quantity: u32,
}

async fn show(State(parts): State<Parts>, Path(user): Path<String>) -> Response {
    let cart = answer::id(&user).and_then(|user| parts.cart(user));
    match cart {
        Ok(cart) => parts.server.ok(StatusCode::OK, cart, Vec::new()),
        Err(problem) => parts.server.refuse(problem),
    }
}

async fn add(State(parts): State<Parts>, Path(user): Path<String>, body: Bytes) -> Response {
    match parts.add(&user, &body).await {
        Ok((cart, called)) => parts.server.ok(StatusCode::CREATED, cart, vec![called]),
        Err(problem) => parts.server.refuse(problem),
    }
}

impl Parts {
    /// A user's cart.
    fn cart(&self, user: u32) -> Result<Value, Problem> {
        let carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        let items = carts.get(&user).ok_or_else(|| Problem::not_found(format!("no cart of user {user}")))?;
        let total: u64 = items.iter().map(|item| item.price_cents * u64::from(item.quantity)).sum();
        let lines: Vec<Value> = items.iter().map(Item::json).collect();
        Ok(json!({ "user": user, "items": lines, "total_cents": total }))
    }

    /// Puts something into a user's cart; also says who told the price.
    async fn add(&self, user: &str, body: &[u8]) -> Result<(Value, Value), Problem> {
        let user = answer::id(user)?;
        self.cart(user)?;
        let Addition { product, quantity } = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_request(format!("not {{\"product\": NUMBER, \"quantity\": NUMBER}}: {error}"))
        })?;
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            return Err(Problem::bad_request(format!("quantity is 1 to {QUANTITY_MAX}")));
        }
        let mut sold = self.peers.get(&format!("http://product/products/{product}")).await?;
        let called = take_served_by(&mut sold);
        let price = sold.get("price_cents").and_then(Value::as_u64);
        let price_cents = price.ok_or_else(|| Problem::bad_gateway("product told no price"))?;
        let name = sold.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        self.put(user, Item { product, name, quantity, price_cents })?;
        Ok((self.cart(user)?, called))
    }

    fn put(&self, user: u32, new: Item) -> Result<(), Problem> {
        let mut carts = self.carts.lock().unwrap_or_else(PoisonError::into_inner);
        let items = carts.entry(user).or_default();
        match items.iter_mut().find(|item| item.product == new.product) {
            Some(item) if item.quantity + new.quantity > QUANTITY_MAX => {
                return Err(Problem::bad_request(format!(
                    "a cart holds at most {QUANTITY_MAX} of one product"
                )));
            }
            Some(item) => {
                item.quantity += new.quantity;
                item.price_cents = new.price_cents;
            }
            None => items.push(new),
        }
        Ok(())
    }
}

impl Item {
    fn json(&self) -> Value {
        json!({
            "product": self.product,
            "name": self.name,
            "quantity": self.quantity,
            "price_cents": self.price_cents,
        })
    }
}

/// What is in a user's cart at first.
fn example(user: u32) -> Vec<Item> {
    match user {
        1 => vec![Item { product: 2, name: "Tea tin".to_owned(), quantity: 2, price_cents: 890 }],
        2 => vec![Item { product: 4, name: "Cup".to_owned(), quantity: 6, price_cents: 1100 }],
        _ => Vec::new(),
    }
}

/// The users that the user service knows are 1 to this.
const USERS: u32 = 3;
/// Of one product in one cart; keeps every sum far from overflow.
const QUANTITY_MAX: u32 = 1000;
