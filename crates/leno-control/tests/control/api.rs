//! The JSON API: guards, refusals, and that it is what its OpenAPI document says.

use serde_json::{Value, json};

use crate::harness::*;

#[tokio::test]
async fn a_change_needs_the_token_and_a_read_does_not() {
    let control = with_cart().await;
    let api = control.bound.api;
    let path = "/v1/services/default/user";
    let (status, error) = http(api, "PUT", path, "", Some("{}")).await;
    assert_eq!((status, error["reason"].as_str()), (401, Some("token_missing")), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("api-token"));
    let (status, error) = http(api, "PUT", path, "Authorization: Bearer guess\r\n", Some("{}")).await;
    assert_eq!((status, error["reason"].as_str()), (401, Some("token_wrong")), "{error}");
    let (status, error) = http(api, "GET", path, "", None).await;
    assert_eq!((status, error["reason"].as_str()), (404, Some("service_not_found")), "{error}");
    assert_eq!(http(api, "GET", "/v1/status", "", None).await.0, 200);
    control.stop().await;
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_on_loopback() {
    let control = with_cart().await;
    for (host, expected) in [("127.0.0.1:15014", 200), ("LocalHost", 200), ("evil.example", 403), ("", 403)] {
        let header = format!("Host: {host}\r\n");
        let (status, body) = http(control.bound.api, "GET", "/v1/status", &header, None).await;
        assert_eq!(status, expected, "{host:?}: {body}");
    }
    control.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let control = with_cart().await;
    let service = "/v1/services/default/user";
    let instances = "/v1/services/default/cart/instances";
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("PUT", service, "{", 400, "EOF while parsing"),
        ("PUT", service, r#"{"protocl": "http1"}"#, 400, "unknown field `protocl`"),
        ("PUT", service, r#"{"health": {"timeout_ms": 0}}"#, 400, "default/user: health.timeout: is 0"),
        ("PUT", service, r#"{"calls": ["A"]}"#, 400, "calls[0]"),
        ("PUT", "/v1/services/default/User", "{}", 400, "a name has only a-z"),
        ("POST", "/v1/tokens", "{}", 400, "service or gateway is missing"),
        ("POST", "/v1/tokens", r#"{"service": "cart", "gateway": "g"}"#, 400, "not for both"),
        ("POST", "/v1/tokens", r#"{"service": "cart", "uses": 0}"#, 400, "uses: 0 is not 1 to"),
        ("POST", "/v1/tokens", r#"{"service": "cart", "expires_in_seconds": 0}"#, 400, "expires_in_seconds"),
        ("POST", "/v1/tokens", r#"{"service": "crt"}"#, 404, "no service crt is declared"),
        ("POST", "/v1/tokens", r#"{"gateway": "g"}"#, 404, "no gateway g is declared"),
        ("DELETE", "/v1/tokens/nobody", "", 404, "there is no token nobody"),
        ("POST", instances, r#"{"name": "a", "address": "x"}"#, 400, "is not IP:PORT"),
        ("POST", instances, r#"{"name": "a", "address": "10.0.0.1:0"}"#, 400, "cannot be connected to"),
        (
            "POST",
            "/v1/services/default/user/instances",
            r#"{"name": "a", "address": "10.0.0.1:1"}"#,
            404,
            "user",
        ),
        ("GET", "/v1/instances?service=A", "", 400, "service: \"A\""),
        ("GET", "/v1/nothing", "", 404, "there is nothing here"),
        ("POST", "/v1/status", "", 405, "does not know this method"),
    ];
    for (method, path, body, expected, words) in cases {
        let (status, error) = control.call(method, path, Some(body)).await;
        assert_eq!(status, *expected, "{method} {path} {body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{method} {path} {body}: {error}");
        assert!(error["reason"].as_str().unwrap().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    }
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    let (status, _) = control.call("PUT", service, Some(&large)).await;
    assert_eq!(status, 413);
    control.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_gone() {
    let control = with_cart().await;
    let (_, made) = control.call("POST", "/v1/tokens", Some(r#"{"service": "cart"}"#)).await;
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(control.call("DELETE", &path, None).await.0, 204);
    let left = control.get("/v1/tokens").await;
    assert!(!left.as_array().unwrap().iter().any(|token| token["id"] == made["id"]), "{left}");
    assert_eq!(control.call("DELETE", &path, None).await.0, 404);
    control.stop().await;
}

/// Every operation of the document answers with its documented status, and the answer fits its schema.
#[tokio::test]
async fn the_api_is_what_its_document_says() {
    let control = with_cart().await;
    let client = control.connect(&control.member("cart").await).await;
    let (_lease, _) = Lease::open(&client, hello("cart-1", "127.0.0.1:4711")).await.unwrap();
    let document = control.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let declaration = json!({
        "rules": [{"name": "all", "when": {"path": {"prefix": "/"}},
                   "then": {"split": [{"service": "cart", "weight": 1}]}}],
        "health": {"http_path": "/healthz"}, "timeout_ms": 5,
    });
    // In an order in which each finds what it needs.
    let plan = [
        ("put", "/v1/services/{namespace}/{name}", declaration),
        ("post", "/v1/services/{namespace}/{name}/instances", json!({"name": "i", "address": "10.0.0.1:1"})),
        ("post", "/v1/tokens", json!({"service": "s"})),
        ("get", "", Value::Null),
        ("delete", "/v1/tokens/{id}", Value::Null),
        ("delete", "/v1/services/{namespace}/{name}/instances/{instance}", Value::Null),
        ("delete", "/v1/services/{namespace}/{name}", Value::Null),
    ];
    let mut tried = 0;
    let mut token_id = String::new();
    for (method, only, body) in plan {
        for (path, operations) in document["paths"].as_object().unwrap() {
            let operation = &operations[method];
            if operation.is_null() || !(only.is_empty() || only == path) {
                continue;
            }
            tried += 1;
            let concrete =
                path.replace("{namespace}", "default").replace("{name}", "s").replace("{instance}", "i");
            let concrete = concrete.replace("{id}", &token_id);
            let text = body.to_string();
            let (status, answer) =
                control.call(&method.to_uppercase(), &concrete, (!body.is_null()).then_some(&text)).await;
            let response = &operation["responses"][status.to_string()];
            assert!(
                (200..300).contains(&status) && !response.is_null(),
                "{method} {path}: {status} {answer}"
            );
            if let Some(id) = answer["id"].as_str() {
                id.clone_into(&mut token_id);
            }
            let schema = &response["content"]["application/json"]["schema"];
            if !schema.is_null() {
                check(&document, schema, &answer, &format!("{method} {path}"));
            }
            if !body.is_null() {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                check(&document, schema, &body, &format!("{method} {path} body"));
            }
        }
    }
    let all: usize =
        document["paths"].as_object().unwrap().values().map(|o| o.as_object().unwrap().len()).sum();
    assert_eq!(tried, all, "every operation was tried");
    let token = control.call("POST", "/v1/tokens", Some(r#"{"service": "cart"}"#)).await.1;
    let mut wrong = token.clone();
    wrong["uses_left"] = json!("one");
    let schema = &document["components"]["schemas"]["TokenView"];
    assert!(std::panic::catch_unwind(|| check(&document, schema, &wrong, "")).is_err(), "the check checks");
    control.stop().await;
}

/// As much of JSON Schema as the document uses.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        return check(document, target.unwrap_or_else(|| panic!("{at}: no {reference}")), value, at);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let fits =
                |option: &Value| std::panic::catch_unwind(|| check(document, option, value, at)).is_ok();
            assert!(options.iter().any(fits), "{at}: {value} fits none of {options:?}");
        }
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value} is none of {allowed:?}");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let fits = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: what is {other}?"),
    };
    assert!(types.is_empty() || types.iter().any(fits), "{at}: {value} is no {types:?}");
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(value.get(name).is_some(), "{at}: {name} is missing in {value}");
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, field) in fields {
            let property = properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is not documented"));
            check(document, property, field, &format!("{at}.{name}"));
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (n, value) in values.iter().enumerate() {
            check(document, items, value, &format!("{at}[{n}]"));
        }
    }
}
