//! Requests and answers that routes change, and those that they give themselves.

use std::io::Write as _;

use bytes::Bytes;

use crate::client::{Client, block_on, call};
use crate::origin::Origin;
use crate::{App, Mesh, common, exchange, get, leno};

const GATEWAY: &str = r#"
    {path: /shop, rewrite: /, request_headers: {set: {x-by: "{route} {source}"}, remove: x-secret}, response_headers: {remove: server, set: {x-edge: "{service}"}}, to: server}
    {path: {template: "/users/{id}/**"}, rewrite: {path: "/u/{id}", host: "user.internal:8080"}, request_headers: {add: {x-user: "{id}", x-client: "{client_address}"}}, to: server}
    {name: digits, path: /n, rewrite: {regex: {match: "/n/([0-9]+)", with: '/number/\1'}}, to: server}
    {path: /long, rewrite: {regex: {match: "a", with: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}}, to: server}
    {name: moved, path: /old, redirect: {scheme: https, host: new.example, prefix: /new, status: 308}}
    {path: {template: "/go/{x}"}, redirect: {path: "/gone/{x}"}}
    {name: closed, path: /down, answer: {status: 503, headers: {retry-after: "60", x-path: "{path}"}, body: "closed\n"}}
    {path: /empty, answer: 204, response_headers: {set: {x-edge: yes}}}
    {path: /, to: server}
"#;

const SERVICE: &str = r#"
    {path: /cart, request_headers: {set: {x-service-route: "{route}"}}, to: server}
    {path: {exact: /forbidden}, answer: 403}
"#;

#[test]
fn an_application_sees_what_routes_make_of_requests() {
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, GATEWAY, SERVICE);
    // The service's own route matches what the gateway's has made of the path, and changes it further.
    let answer = get(mesh.gateway, "/shop/cart/7?a=b", "X-Secret: 1\r\nX-By: client\r\nX-Kept: 1\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    assert!(answer.contains("\r\nx-edge: server\r\n") && answer.contains("\r\nX-App: 1\r\n"), "{answer}");
    assert!(!answer.contains("Server:"), "{answer}");
    let head = app.last();
    assert!(head.starts_with("GET /cart/7?a=b HTTP/1.1\r\nHost: shop.example:80\r\n"), "{head}");
    assert!(
        head.contains("\r\nx-by: /shop gateway\r\n") && head.contains("\r\nx-service-route: /cart\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nX-Kept: 1\r\n"), "{head}");
    assert!(!head.contains("client") && !head.to_lowercase().contains("x-secret"), "{head}");
    let logged = mesh.logged("/shop/cart/7?a=b");
    assert_eq!(logged["sent_path"], "/cart/7?a=b", "{logged}");
    assert_eq!(logged["changed_by"], serde_json::json!(["gateway: /shop", "server: /cart"]), "{logged}");
    assert_eq!(logged["rule"], "/cart", "{logged}");
    let way = serde_json::json!([
        {"list": "gateway", "rule": "/shop", "lost": []},
        {"list": "server", "rule": "/cart", "lost": []},
    ]);
    assert_eq!(logged["way"], way, "{logged}");

    get(mesh.gateway, "/users/42/a/b?q=%20", "");
    let head = app.last();
    assert!(head.starts_with("GET /u/42?q=%20 HTTP/1.1\r\nHost: user.internal:8080\r\n"), "{head}");
    assert!(head.contains("\r\nx-user: 42\r\n") && head.contains("\r\nx-client: 127.0.0.1\r\n"), "{head}");
    let logged = mesh.logged("/users/42/a/b?q=%20");
    assert_eq!(logged["sent_authority"], "user.internal:8080");
    assert_eq!(logged["way"][0]["lost"], serde_json::json!(["/shop: path"]), "{logged}");

    get(mesh.gateway, "/n/17", "");
    assert!(app.last().starts_with("GET /number/17 HTTP/1.1\r\n"), "{}", app.last());

    // A caller in the mesh passes the service's rules alone.
    get(mesh.local, "/cart/1", "");
    let head = app.last();
    assert!(head.contains("\r\nx-service-route: /cart\r\n") && !head.contains("x-by"), "{head}");
    let answer = get(mesh.local, "/forbidden", "");
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && !answer.contains("leno-reason"), "{answer}");

    // What is not changed is as it came.
    let before = app.heads.lock().unwrap().len();
    let answer = get(mesh.gateway, "/plain", "X-Secret: 1\r\n");
    assert!(answer.contains("\r\nServer: app\r\n"), "{answer}");
    assert!(app.last().contains("\r\nX-Secret: 1\r\n"), "{}", app.last());
    assert!(mesh.logged("/plain").get("changed_by").is_none());

    // A path that would become longer than any is refused, and says why.
    let answer = get(mesh.gateway, &format!("/long/{}", "a".repeat(1_000)), "");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("leno-reason: request_malformed"),
        "{answer}"
    );
    assert!(answer.contains("longer than a path can be"), "{answer}");
    assert_eq!(app.heads.lock().unwrap().len(), before + 1);
}

#[test]
fn routes_answer_by_themselves() {
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, GATEWAY, "");
    let answer = get(mesh.gateway, "/old/page?a=b", "");
    assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
    assert!(answer.contains("\r\nlocation: https://new.example/new/page?a=b\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-request-id: ") && !answer.contains("leno-reason"), "{answer}");
    let answer = get(mesh.gateway, "/go/7?x", "");
    assert!(answer.starts_with("HTTP/1.1 302 Found\r\n"), "{answer}");
    assert!(answer.contains("\r\nlocation: http://shop.example/gone/7?x\r\n"), "{answer}");

    let answer = get(mesh.gateway, "/down/now?x", "");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    for part in ["\r\nretry-after: 60\r\n", "\r\nx-path: /down/now\r\n", "\r\n\r\nclosed\n"] {
        assert!(answer.contains(part), "{part:?} in {answer}");
    }
    assert!(answer.contains("\r\ncontent-type: text/plain") && !answer.contains("leno-reason"), "{answer}");
    let head = "HEAD /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(exchange(mesh.gateway, head).ends_with("\r\n\r\n"));
    let answer = get(mesh.gateway, "/empty", "");
    assert!(
        answer.starts_with("HTTP/1.1 204 No Content\r\n") && answer.contains("\r\nx-edge: yes\r\n"),
        "{answer}"
    );
    assert!(!answer.to_lowercase().contains("content-length"), "{answer}");
    // A connection is not the worse for it.
    let twice =
        "GET /down HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange(mesh.gateway, twice);
    assert!(answer.contains("closed\nHTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    // A body that nobody will read does not hold it up.
    let post = "POST /down HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert!(exchange(mesh.gateway, post).ends_with("closed\n"));

    let logged = mesh.logged("/down/now?x");
    assert_eq!((&logged["rule"], &logged["status"]), (&"closed".into(), &503.into()), "{logged}");
    assert_eq!((&logged["reason"], &logged["attempts"]), (&"".into(), &serde_json::json!([])), "{logged}");
    assert_eq!(mesh.logged("/old/page?a=b")["location"], "https://new.example/new/page?a=b");
    let metrics = get(mesh.admin, "/metrics", "");
    assert!(
        metrics.contains("leno_rule_answers_total{list=\"gateway\",rule=\"moved\",kind=\"redirect\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("rule=\"closed\",kind=\"direct\"}"), "{metrics}");
    assert_eq!(app.heads.lock().unwrap().len(), 1);
}

#[test]
fn every_attempt_sends_what_the_route_has_made() {
    let (bad, good) = (App::start(false), App::start(true));
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "mesh: m\ngateway:\n  listen: 127.0.0.1:{}\n  routes:\n    - {{path: /v1, rewrite: /, request_headers: \
         {{set: {{x-a: one}}}}, to: web}}\nservices:\n  web:\n    balance: round-robin\n    endpoints: [\"{}\", \"{}\"]\n",
        common::free_port(),
        bad.address,
        good.address
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let mut command = leno();
    command.args(["proxy", "--role", "gateway", "--workers", "1", "--file"]).arg(&file);
    let running = common::Running::start(&mut command);
    let ready = running.event("ready", crate::SOON);
    let gateway = ready["listeners"]["http"].as_str().unwrap().parse().unwrap();
    for _ in 0..6 {
        let answer = get(gateway, "/v1/x", "");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    for app in [bad, good] {
        let heads = app.heads.lock().unwrap();
        assert!(!heads.is_empty());
        for head in heads.iter() {
            assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
            assert_eq!(head.matches("\r\nx-a: one\r\n").count(), 1, "{head}");
        }
    }
}

#[test]
fn http2_and_calls_are_changed_alike() {
    const ROUTES: &str = r#"
        {grpc: old.Service, rewrite: {regex: {match: "^/old.Service/(.*)", with: '/s/\1'}}, request_headers: {set: {x-a: "{method}"}}, response_headers: {set: {x-edge: "{route}"}}, to: server}
        {path: /shop, rewrite: {prefix: /, host: inside.example}, request_headers: {set: {x-a: "{scheme}", cookie: a}, remove: x-secret}, response_headers: {remove: x-origin, add: {x-edge: here}}, to: server}
        {path: /old, redirect: {host: new.example}}
        {grpc: closed.Service, answer: {status: 503, body: "closed for today"}}
        {path: /down, answer: {status: 410, body: gone}}
        {path: /, to: server}
    "#;
    let origin = Origin::start();
    let mesh = Mesh::start("http2", origin.address, ROUTES, "");
    block_on(async {
        let client = Client::connect(mesh.gateway).await;
        let request = http::Request::get("http://server/shop/hello?a=b");
        let request = request.header("x-secret", "1").header("cookie", "z").body(()).unwrap();
        let answer = client.ask(request, None, None).await.unwrap();
        assert_eq!((answer.text(), answer.field("x-edge"), answer.field("x-origin")), ("hello", "here", ""));
        let seen = origin.last();
        assert_eq!(seen.uri.to_string(), "http://inside.example/hello?a=b");
        assert_eq!(
            (&seen.headers["x-a"], &seen.headers["cookie"]),
            (&"http".parse().unwrap(), &"a".parse().unwrap())
        );
        assert!(seen.headers.get("x-secret").is_none());

        let message = Bytes::from_static(b"\0\0\0\0\x02hi");
        let request = call("/old.Service/unary").body(()).unwrap();
        let answer = client.ask(request, Some(message.clone()), None).await.unwrap();
        assert_eq!((answer.trailer("grpc-status"), answer.field("x-edge")), ("0", "old.Service"));
        assert_eq!(origin.last().uri.path(), "/s/unary");
        assert_eq!(origin.last().headers["x-a"], "POST");

        let answer = client.get("/old/x?y").await;
        assert_eq!(
            (answer.head.status.as_u16(), answer.field("location")),
            (302, "http://new.example/old/x?y")
        );
        let answer = client.get("/down").await;
        assert_eq!((answer.head.status.as_u16(), answer.text()), (410, "gone"));
        assert!(!answer.field("x-request-id").is_empty() && answer.field("leno-reason").is_empty());
        // A call is answered in its own terms.
        let request = call("/closed.Service/Any").body(()).unwrap();
        let answer = client.ask(request, Some(message), None).await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.field("grpc-status")), (200, "14"));
        assert_eq!(answer.field("grpc-message"), "closed for today");
    });
    std::io::stdout().flush().ok();
}
