use leno_core::name::ServiceId;

use super::*;

#[test]
fn a_declaration_survives_json_and_the_core_model() {
    let text = r#"{
        "protocol": "http1", "balance": "round_robin",
        "rules": [{"name": "canary",
                   "when": {"hosts": ["a.example", "*.b.example"], "path": {"prefix": "/x"}, "methods": ["GET"],
                            "headers": [["x-beta", null], ["x-user", "7"]]},
                   "then": {"split": [{"service": "product", "version": "v1", "labels": {"track": "canary"},
                                       "weight": 90},
                                      {"service": "shop/other", "weight": 10}]},
                   "timeout_ms": 0,
                   "tries": {"try_timeout_ms": 50, "connect_timeout_ms": 0}},
                  {"name": "asks",
                   "when": {"path": {"template": "/users/{id}/**"}, "path_ignore_case": true,
                            "headers": [["x-a", {"is": {"suffix": "z"}, "not": true}]],
                            "query": [["debug", null], ["v", {"is": {"regex": "[0-9]+"}}], ["w", "1"],
                                      ["x", {"not": true}]],
                            "grpc": {"service": "a.B", "method": "C"}, "from": ["cart", "ops/*"],
                            "from_labels": [{"who": "shop/web", "labels": {"track": "canary"}}]},
                   "then": {"service": "cart"}},
                  {"name": "away", "when": {"path": {"template": "/y/{id}"}},
                   "then": {"redirect": {"scheme": "https", "path": {"whole": "/x/{id}"}, "status": 308}}},
                  {"name": "here", "then": {"answer": {"status": 503, "body": "later",
                                                       "headers": [{"name": "retry-after", "value": "60"}]}}},
                  {"name": "rest", "then": {"service": "cart"},
                   "change": {"path": {"regex": {"pattern": "/(a)", "with": "/\\1"}}, "host": "h:80",
                              "request": {"remove": ["x-a"], "set": [{"name": "x-b", "value": "{path}"}]},
                              "response": {"add": [{"name": "x-c", "value": "c"}]}}}],
        "calls": ["cart", "shop/user"],
        "health": {"http_path": "/healthz", "interval_ms": 500, "timeout_ms": 250, "healthy_after": 1,
                   "unhealthy_after": 2},
        "timeout_ms": 15000,
        "tries": {"idle_timeout_ms": 3600000,
                  "retry": {"attempts": 5, "on_reset": true, "statuses": [[502, 504]], "grpc": [14],
                            "headers": [["x-again", null]], "any_method": true, "backoff_ms": 10,
                            "backoff_max_ms": 100, "asked_wait_max_ms": 0, "body_bytes_max": 1024},
                  "hedge": {"after_ms": 50, "percent": 5},
                  "budget": {"percent": 20, "per_second": 10}},
        "headless": true,
        "srv_port": 6379
    }"#;
    let declaration: ServiceDeclaration = serde_json::from_str(text).unwrap();
    let spec = declaration.clone().parse(&ServiceId::parse("shop/product").unwrap()).unwrap();
    assert_eq!(ServiceDeclaration::from(&spec), declaration);
    let printed: serde_json::Value = serde_json::to_value(&declaration).unwrap();
    assert_eq!(printed, serde_json::from_str::<serde_json::Value>(text).unwrap());
}

#[test]
fn a_request_with_an_unknown_field_is_refused() {
    let error = serde_json::from_str::<TokenRequest>(r#"{"service": "a", "use": 3}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `use`"), "{error}");
}

#[test]
fn a_wrong_declaration_names_the_field() {
    let declaration: ServiceDeclaration =
        serde_json::from_str(r#"{"rules": [{"name": "a", "then": {"split": []}}]}"#).unwrap();
    let error = declaration.parse(&ServiceId::parse("a").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "default/a: rules[0].split: the sum of the weights is 0");
}
