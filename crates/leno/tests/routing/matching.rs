//! Requests that are told apart in every way, as a client sees it.

use crate::{App, Mesh, common, get, proxy};

#[test]
fn each_kind_of_condition_finds_its_route() {
    let kinds = [
        ("exact", "path: {exact: /exact}", "/exact", ""),
        ("starts", "path: {starts_with: /Sta, ignore_case: true}", "/starts", ""),
        ("regex", "path: {regex: \"/r[0-9]+/.*\"}", "/r17/x?y", ""),
        ("template", "path: {template: \"/t/{a}/x/**\"}", "/t/1/x", ""),
        ("query", "query: {v: {regex: \"[0-9]\"}}", "/?a&v=%37", ""),
        ("prefix", "headers: {x-h: {prefix: ab, ignore_case: true}}", "/", "X-H: ABC\r\n"),
        ("suffix", "headers: {x-h: {suffix: yz}}", "/", "X-H: xyz\r\n"),
        ("contains", "headers: {x-h: {contains: mid}}", "/", "X-H: amidst\r\n"),
        ("absent", "headers: {x-must: {present: false}}, path: /absent", "/absent", ""),
        ("not", "headers: {x-h: {exact: a, not: true}}, path: /not", "/not", "X-H: b\r\n"),
    ];
    let line = |(name, when, ..): &(&str, &str, &str, &str)| {
        format!("{{name: {name}, {when}, answer: {{status: 200, body: {name}}}}}\n")
    };
    let mut routes: String = kinds.iter().map(line).collect();
    routes.push_str("{name: rest, answer: {status: 200, body: rest}}\n");
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, &routes, "");
    for (name, _, path, headers) in kinds {
        let answer = get(mesh.gateway, path, headers);
        assert!(answer.ends_with(&format!("\r\n\r\n{name}")), "{name}: {answer}");
    }
    for (path, headers) in [
        ("/exact/x", ""),
        ("/r/x", ""),
        ("/t/1/y", ""),
        ("/?v=12", ""),
        ("/absent", "X-Must: 1\r\n"),
        ("/not", "X-H: a\r\n"),
    ] {
        let answer = get(mesh.gateway, path, headers);
        assert!(answer.ends_with("\r\n\r\nrest"), "{path}: {answer}");
    }
}

#[test]
fn connections_tell_requests_apart_too() {
    let routes = "{path: /a, client: [10.0.0.0/8, \"::1\"], answer: 201}\n{path: /a, client: 127.0.0.0/8, answer: 202}\n\
                  {path: /b, port: 1, answer: 201}\n{path: /c, sni: a.example, answer: 201}\n{to: server}";
    let service = "{path: /d, port: 81, answer: 201}\n{path: /d, port: 80, answer: 202}";
    let app = App::start(true);
    let mesh = Mesh::start("auto", app.address, routes, service);
    assert!(get(mesh.gateway, "/a", "").starts_with("HTTP/1.1 202 "));
    assert!(get(mesh.gateway, "/b", "").ends_with("hello"), "the gateway listens elsewhere");
    assert!(get(mesh.gateway, "/c", "").ends_with("hello"), "there is no TLS");
    // The port that is asked for, or HTTP's.
    assert!(get(mesh.local, "/d", "").starts_with("HTTP/1.1 202 "));
}

#[test]
fn a_list_that_is_used_decides_or_lets_go_on() {
    let (app, folder) = (App::start(true), tempfile::tempdir().unwrap());
    let listen = common::free_port();
    let text = format!(
        "mesh: m\ngateway:\n  listen: 127.0.0.1:{listen}\n  routes:\n    - {{path: /shop, use: pages}}\n    \
         - {{headers: {{x-beta: '1'}}, use: pages}}\n    - {{to: web}}\nroute_lists:\n  pages:\n    \
         - {{path: /shop/old, redirect: {{path: /new}}}}\n    - {{headers: {{x-who: '*'}}, use: deeper}}\n  deeper:\n    \
         - {{methods: POST, answer: 403}}\n    - {{headers: {{x-who: me}}, answer: 418}}\n\
         services:\n  web:\n    endpoints: [\"{}\"]\n",
        app.address,
    );
    let file = common::write(folder.path(), "mesh.yaml", &text);
    let (_gateway, _) = proxy(&file, "gateway", &folder.path().join("identity"), None);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], listen));
    for (path, more, expected) in [
        ("/shop/old", "", "302"),
        ("/shop/other", "", "200"),
        ("/shop/other", "x-who: me\r\n", "418"),
        ("/shop/other", "x-who: you\r\n", "200"),
        ("/other", "x-who: me\r\n", "200"),
        ("/other", "x-who: me\r\nx-beta: 1\r\n", "418"),
    ] {
        let answer = get(at, path, more);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{path} {more}: {answer}");
    }
}

#[test]
fn a_route_for_one_caller_is_for_no_other() {
    let app = App::start(true);
    let service = "{from: client, path: /who, answer: {status: 200, body: client}}\n\
                   {from: default/*, path: /who, answer: {status: 200, body: others}}";
    let mesh = Mesh::start("auto", app.address, "{path: /, to: server}", service);
    assert!(get(mesh.local, "/who", "").ends_with("\r\n\r\nclient"));
    assert!(get(mesh.gateway, "/who", "").ends_with("\r\n\r\nothers"), "a gateway is of its namespace");
}
