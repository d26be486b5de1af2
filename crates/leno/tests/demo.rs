//! The example shop's services by themselves, with an ordinary forward proxy instead of a mesh: they know nothing
//! of Leno.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod common;

use std::time::Duration;

use common::{Demo, ForwardProxy, get, post, within};
use rustix::process::Signal;
use serde_json::json;

/// The three services, which reach each other through a forward proxy.
struct Shop {
    user: Demo,
    product: Demo,
    cart: Demo,
    for_user: ForwardProxy,
    for_cart: ForwardProxy,
}

fn shop() -> Shop {
    let product = Demo::start("product", &[("INSTANCE", "product-2"), ("VERSION", "v2")]);
    let for_cart = ForwardProxy::start(vec![("product", product.port)]);
    let cart = Demo::start("cart", &[("http_proxy", &for_cart.url), ("NO_PROXY", "127.0.0.1,localhost")]);
    let for_user = ForwardProxy::start(vec![("product", product.port), ("cart", cart.port)]);
    let user = Demo::start("user", &[("HTTP_PROXY", &for_user.url), ("INSTANCE", "user-1")]);
    Shop { user, product, cart, for_user, for_cart }
}

#[test]
fn a_users_page_has_data_of_product_and_cart_and_shows_every_hop() {
    within(Duration::from_secs(60), || {
        let shop = shop();
        let (status, page) = get(&format!("{}/users/1", shop.user.url));
        assert_eq!(status, 200, "{page}");
        assert_eq!(page["name"], "Ada");
        assert_eq!(page["favourite"], json!({ "id": 1, "name": "Teapot", "price_cents": 2450 }));
        assert_eq!(page["cart"]["total_cents"], 1780);
        assert_eq!(
            page["served_by"],
            json!({
                "service": "user", "instance": "user-1", "version": "v1",
                "called": [
                    { "service": "product", "instance": "product-2", "version": "v2" },
                    { "service": "cart", "instance": "cart", "version": "v1" },
                ],
            })
        );
        let mut seen = shop.for_user.seen.lock().unwrap().clone();
        seen.sort();
        assert_eq!(seen, ["GET http://cart/cart/1 HTTP/1.1", "GET http://product/products/1 HTTP/1.1"]);
    });
}

#[test]
fn cart_asks_product_for_the_price() {
    within(Duration::from_secs(60), || {
        let shop = shop();
        let items = format!("{}/cart/3/items", shop.cart.url);
        let (status, cart) = post(&items, r#"{"product": 5, "quantity": 2}"#);
        assert_eq!(status, 201, "{cart}");
        assert_eq!(cart["total_cents"], 11_800);
        assert_eq!(cart["served_by"]["called"][0]["instance"], "product-2");
        let (_, cart) = get(&format!("{}/cart/3", shop.cart.url));
        assert_eq!(cart["items"][0]["quantity"], 2);
        assert_eq!(*shop.for_cart.seen.lock().unwrap(), ["GET http://product/products/5 HTTP/1.1"]);
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    within(Duration::from_secs(60), || {
        let shop = shop();
        let unknown = [
            format!("{}/users/99", shop.user.url),
            format!("{}/products/99", shop.product.url),
            format!("{}/products/teapot", shop.product.url),
            format!("{}/cart/99", shop.cart.url),
        ];
        for url in unknown {
            let (status, answer) = get(&url);
            assert_eq!(status, 404, "{url}: {answer}");
            assert!(answer["error"].is_string() && answer["served_by"]["instance"].is_string(), "{answer}");
        }
        let items = format!("{}/cart/1/items", shop.cart.url);
        for body in [
            "",
            "{",
            "[]",
            r#"{"product": 1}"#,
            r#"{"product": 1, "quantity": 0}"#,
            r#"{"product": -1, "quantity": 1}"#,
        ] {
            let (status, answer) = post(&items, body);
            assert_eq!(status, 400, "{body}: {answer}");
        }
        let (status, answer) = post(&items, r#"{"product": 99, "quantity": 1}"#);
        assert_eq!((status, &answer["error"]), (404, &json!("no product 99")));
    });
}

#[test]
fn a_service_that_cannot_be_asked_is_named() {
    within(Duration::from_secs(60), || {
        let nobody = format!("http://127.0.0.1:{}", common::free_port());
        let user = Demo::start("user", &[("HTTP_PROXY", &nobody)]);
        let (status, answer) = get(&format!("{}/users/1", user.url));
        assert_eq!(status, 502);
        assert!(answer["error"].as_str().unwrap().contains("http://product/products/1"), "{answer}");
        assert_eq!(get(&format!("{}/healthz", user.url)).0, 200);
    });
}

#[test]
fn it_ends_when_told_and_says_when_its_port_is_taken() {
    within(Duration::from_secs(60), || {
        let mut product = Demo::start("product", &[]);
        let port = product.port.to_string();
        let second = common::run(common::leno().args(["demo", "product"]).env("PORT", &port));
        assert_eq!(second.status.code(), Some(1));
        assert!(
            common::stderr(&second).contains(&format!("127.0.0.1:{port}")),
            "{}",
            common::stderr(&second)
        );
        product.running.signal(Signal::TERM);
        assert_eq!(product.running.wait(Duration::from_secs(5)).code(), Some(0));
        assert!(!common::listens(product.port));
    });
}
