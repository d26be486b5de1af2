//! Requests of routes that give second attempts: their bodies are read before they are sent, which must hold up nobody.

use bytes::Bytes;
use http::Request;

use crate::client::{Client, block_on};
use crate::origin::Origin;
use crate::{App, Mesh, common, exchange, proxy};

/// Whoever is refused is told so, whether it sends its body or not.
#[test]
fn a_refusal_does_not_wait_for_a_body() {
    const ROUTES: &str = r#"
        {path: /limited, rate_limits: [{requests: 1, per: 1h}], hedge: 1m, to: server}
        {path: /broken, fault: {abort: 500}, hedge: 1m, to: server}
    "#;
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, ROUTES, "");
    let get = "GET /limited HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(exchange(mesh.gateway, get).starts_with("HTTP/1.1 200 "));
    for (path, expected) in [("/limited", "429"), ("/broken", "500")] {
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50000\r\n\r\n");
        let answer = exchange(mesh.gateway, &head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{path}: {answer}");
    }
}

/// A server that begins its answer before it has read all is sent the rest: one byte more than fits into a stream's first window.
#[test]
fn a_body_is_sent_to_its_end_although_the_answer_has_begun() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let listen = common::free_port();
    let text = format!(
        "mesh: m\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n    - {{to: web}}\nservices:\n  web:\n    \
         protocol: http2\n    hedge: 1m\n    endpoints: [\"{}\"]\n",
        origin.address,
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let (_gateway, _) = proxy(&file, "gateway", &folder.path().join("identity"), None);
    let body = Bytes::from(vec![b'x'; 64 << 10]);
    block_on(async {
        let client = Client::connect(([127, 0, 0, 1], listen).into()).await;
        let request = Request::put("http://shop.example/later").body(()).unwrap();
        let answer = client.ask(request, Some(body.clone()), None).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.body.len(), body.len());
    });
}
