//! Requests that are told apart in every way, as a client sees it.

use crate::{App, Mesh, get};

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
fn a_route_for_one_caller_is_for_no_other() {
    let app = App::start(true);
    let service = "{from: client, path: /who, answer: {status: 200, body: client}}\n\
                   {from: default/*, path: /who, answer: {status: 200, body: others}}";
    let mesh = Mesh::start("auto", app.address, "{path: /, to: server}", service);
    assert!(get(mesh.local, "/who", "").ends_with("\r\n\r\nclient"));
    assert!(get(mesh.gateway, "/who", "").ends_with("\r\n\r\nothers"), "a gateway is of its namespace");
}
