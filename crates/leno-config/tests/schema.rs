//! The schema, the reader and the manual say the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use leno_config::native;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};

#[test]
fn good_files_fit_the_schema_and_use_every_field() {
    let schema = native::json_schema();
    let mut used = BTreeSet::new();
    for file in good_files() {
        let text = fs::read_to_string(&file).unwrap();
        if let Err(why) = fits(&yaml(&text), &schema, &schema, &mut used) {
            panic!("{}: {why}", file.display());
        }
    }
    for (object, fields) in objects(&schema) {
        for field in fields {
            let unused = ["mesh.gateway", "service.endpoints"].contains(&&*format!("{object}.{field}"));
            assert!(unused || used.contains(&field), "no good file has {object}.{field}");
        }
    }
}

/// The reader knows every field of the schema, and no other.
#[test]
fn the_reader_has_the_fields_of_the_schema() {
    let schema = native::json_schema();
    let objects = objects(&schema);
    assert_eq!(objects.len(), PLACES.len(), "every object has a place below");
    for (object, fields) in objects {
        let place = PLACES.iter().find(|(name, _)| *name == object);
        let (_, template) = place.unwrap_or_else(|| panic!("no place for {object}"));
        for field in &fields {
            let found = messages(&template.replace("FIELD", &format!("{field}: {{[]: 1}}")));
            let found = found.join("\n")
                + &messages(&template.replace("FIELD", &format!("{field}: {{zz: [[]]}}"))).join("\n");
            assert!(!found.contains(&format!("unknown field \"{field}\"")), "{object}.{field}: {found}");
        }
        let found = messages(&template.replace("FIELD", "zzzzzz: 1"));
        assert!(found.contains(&"unknown field \"zzzzzz\"".to_owned()), "{object}: {found:?}");
    }
}

/// What the schema refuses, the reader refuses: values of every wrong type in every field.
#[test]
fn the_reader_refuses_what_the_schema_refuses() {
    let schema = native::json_schema();
    let wrong = [
        "[]",
        "{}",
        "[[x]]",
        "{zz: {zz: zz}}",
        "\"\"",
        "\" \"",
        "-7",
        "1.5e99",
        "true",
        "[{}]",
        "[true, {a: b}]",
    ];
    for (object, fields) in objects(&schema) {
        let (_, template) = PLACES.iter().find(|(name, _)| *name == object).unwrap();
        for (field, value) in fields.iter().flat_map(|field| wrong.map(|value| (field, value))) {
            let text = template.replace("FIELD", &format!("{field}: {value}"));
            let refused_by_schema = fits(&yaml(&text), &schema, &schema, &mut BTreeSet::new()).is_err();
            let accepted = native::parse("wrong.yaml", &text).is_ok();
            assert!(!(refused_by_schema && accepted), "the reader accepts {object}.{field}: {value}\n{text}");
        }
    }
}

#[test]
fn every_field_is_explained() {
    let schema = native::json_schema();
    for definition in definitions(&schema) {
        assert!(definition["description"].as_str().is_some_and(|text| text.ends_with('.')), "{definition}");
        for (name, field) in definition["properties"].as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {field}");
        }
    }
}

/// The manual's reference is the one that the code prints. `LENO_BLESS=1` rewrites it.
#[test]
fn the_manual_has_the_reference() {
    const BEGIN: &str = "<!-- reference: printed by the code, see crates/leno-config/tests/schema.rs -->\n";
    const END: &str = "<!-- end of reference -->";
    let file = root().join("docs/mesh-file.md");
    let manual = fs::read_to_string(&file).unwrap();
    let (before, rest) = manual.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = format!("\n{}", native::reference());
    if std::env::var_os("LENO_BLESS").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(found == expected, "docs/mesh-file.md is not up to date; run with LENO_BLESS=1");
    }
}

/// The examples in the manual are mesh files; a piece of one is completed.
#[test]
fn the_manuals_examples_parse() {
    if std::env::var_os("LENO_BLESS").is_some() {
        // The manual is being written by another test.
        return;
    }
    let manual = fs::read_to_string(root().join("docs/mesh-file.md")).unwrap();
    let blocks: Vec<&str> =
        manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 5);
    for block in blocks {
        let text = if block.contains("mesh: ") { block.to_owned() } else { format!("mesh: shop\n{block}") };
        match native::parse("mesh-file.md", &text) {
            Ok(mesh) => assert_eq!(mesh.warnings, [], "{text}"),
            Err(diagnostics) => panic!("{diagnostics}"),
        }
    }
}

/// A file for each kind of object in which `FIELD` stands where its fields do.
const PLACES: &[(&str, &str)] = &[
    ("mesh", "FIELD\n"),
    ("gateway", "mesh: m\ngateway: {FIELD}\nservices: {web: {run: ./web}}\n"),
    (
        "listener",
        "mesh: m\ngateway: {listeners: [{FIELD}], routes: [{to: web}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "certificate",
        "mesh: m\ngateway: {listeners: [{protocol: https, certificates: [{FIELD}]}], routes: [{to: web}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "sni-route",
        "mesh: m\ngateway: {listeners: [{protocol: tls, sni: [{FIELD}]}]}\nservices: {web: {run: ./web}}\n",
    ),
    ("gateway-route", "mesh: m\ngateway: {routes: [{FIELD}]}\nservices: {web: {run: ./web}}\n"),
    ("listed-route", "mesh: m\nroute_lists: {a: [{FIELD}]}\nservices: {web: {run: ./web}}\n"),
    ("egress", "mesh: m\negress: {FIELD}\nservices: {web: {run: ./web}}\n"),
    ("egress-rule", "mesh: m\negress: {rules: [{FIELD}]}\nservices: {web: {run: ./web}}\n"),
    ("via", "mesh: m\negress: {via: {FIELD}}\nservices: {web: {run: ./web}}\n"),
    ("tls", "mesh: m\nservices: {web: {endpoints: [1.2.3.4:5], tls: {FIELD}}}\n"),
    ("service", "mesh: m\nservices: {web: {FIELD}}\n"),
    ("service-route", "mesh: m\nservices: {web: {run: ./web, routes: [{FIELD}]}}\n"),
    ("path", "mesh: m\ngateway: {routes: [{to: web, path: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    (
        "value",
        "mesh: m\ngateway: {routes: [{to: web, headers: {x-a: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    ("grpc", "mesh: m\ngateway: {routes: [{to: web, grpc: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    (
        "rewrite",
        "mesh: m\ngateway: {routes: [{to: web, path: /a, rewrite: {FIELD}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "replacement",
        "mesh: m\ngateway: {routes: [{to: web, rewrite: {regex: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "header-changes",
        "mesh: m\ngateway: {routes: [{to: web, request_headers: {FIELD}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "redirect",
        "mesh: m\ngateway: {routes: [{path: /a, redirect: {FIELD}}]}\nservices: {web: {run: ./web}}\n",
    ),
    ("answer", "mesh: m\ngateway: {routes: [{path: /a, answer: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    ("fault", "mesh: m\ngateway: {routes: [{to: web, fault: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    (
        "delay",
        "mesh: m\ngateway: {routes: [{to: web, fault: {delay: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "abort",
        "mesh: m\ngateway: {routes: [{to: web, fault: {abort: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "reset",
        "mesh: m\ngateway: {routes: [{to: web, fault: {reset: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "slow",
        "mesh: m\ngateway: {routes: [{to: web, fault: {slow: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    (
        "stop",
        "mesh: m\ngateway: {routes: [{to: web, fault: {abort: 500, stop: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    ("cors", "mesh: m\ngateway: {routes: [{to: web, cors: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    (
        "origin",
        "mesh: m\ngateway: {routes: [{to: web, cors: {origins: {FIELD}}}]}\nservices: {web: {run: ./web}}\n",
    ),
    ("mirror", "mesh: m\ngateway: {routes: [{to: web, mirror: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    ("target", "mesh: m\ngateway: {routes: [{to: {FIELD}}]}\nservices: {web: {run: ./web}}\n"),
    ("locality", "mesh: m\nservices: {web: {run: ./web, locality: {FIELD}}}\n"),
    ("distribution", "mesh: m\nservices: {web: {run: ./web, locality: {distribute: [{FIELD}]}}}\n"),
    ("caller", "mesh: m\nservices: {web: {run: ./web, routes: [{to: {}, from: {FIELD}}]}}\n"),
    ("timeout", "mesh: m\nservices: {web: {run: ./web, timeout: {FIELD}}}\n"),
    ("retry", "mesh: m\nservices: {web: {run: ./web, retry: {FIELD}}}\n"),
    ("retry-budget", "mesh: m\nservices: {web: {run: ./web, retry_budget: {FIELD}}}\n"),
    ("hedge", "mesh: m\nservices: {web: {run: ./web, hedge: {FIELD}}}\n"),
    ("health", "mesh: m\nservices: {web: {run: ./web, health: {FIELD}}}\n"),
    ("balance", "mesh: m\nservices: {web: {run: ./web, balance: {FIELD}}}\n"),
    ("key", "mesh: m\nservices: {web: {run: ./web, balance: {policy: maglev, by: {FIELD}}}}\n"),
    ("concurrency", "mesh: m\nservices: {web: {run: ./web, concurrency: {FIELD}}}\n"),
    ("limits", "mesh: m\nservices: {web: {run: ./web, limits: {FIELD}}}\n"),
    ("rate-limit", "mesh: m\nservices: {web: {run: ./web, rate_limits: [{FIELD}]}}\n"),
    ("rate-key", "mesh: m\nservices: {web: {run: ./web, rate_limits: [{requests: 1, by: {FIELD}}]}}\n"),
    ("outliers", "mesh: m\nservices: {web: {run: ./web, outliers: {FIELD}}}\n"),
    ("instance", "mesh: m\nservices: {web: {instances: [{FIELD}]}}\n"),
    ("endpoint", "mesh: m\nservices: {web: {endpoints: [{FIELD}]}}\n"),
];

fn messages(text: &str) -> Vec<String> {
    match native::parse("fields.yaml", text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => {
            diagnostics.diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect()
        }
    }
}

/// Every object of the schema with its fields; the file itself is called `mesh`.
fn objects(schema: &Value) -> Vec<(String, Vec<String>)> {
    let fields = |object: &Value| object["properties"].as_object().unwrap().keys().cloned().collect();
    let named = schema["$defs"].as_object().unwrap().iter();
    std::iter::once(("mesh".to_owned(), fields(schema)))
        .chain(named.map(|(name, object)| (name.clone(), fields(object))))
        .collect()
}

fn definitions(schema: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(schema).chain(schema["$defs"].as_object().unwrap().values())
}

/// Checks `value` by the part of JSON Schema that ours uses; an unknown keyword is a failure of the test. The
/// names of fields that occur go into `used`.
fn fits(value: &Value, schema: &Value, root: &Value, used: &mut BTreeSet<String>) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: {value} by {schema}"));
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema"
            | "$defs"
            | "title"
            | "description"
            | "default"
            | "examples"
            | "required"
            | "additionalProperties" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                fits(value, &root["$defs"][name], root, used)?;
            }
            "anyOf" => {
                let all = rule.as_array().unwrap();
                let errors: Vec<String> =
                    all.iter().filter_map(|one| fits(value, one, root, used).err()).collect();
                if errors.len() == all.len() {
                    return Err(errors.join("\n"));
                }
            }
            "const" if value != rule => return wrong("another value"),
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !types.iter().any(|name| is(value, name.as_str().unwrap())) {
                    return wrong("another type");
                }
            }
            "minimum" if value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap()) => {
                return wrong("too small");
            }
            "maximum" if value.as_f64().is_some_and(|number| number > rule.as_f64().unwrap()) => {
                return wrong("too large");
            }
            "minItems" if value.as_array().is_some_and(Vec::is_empty) => return wrong("empty"),
            "minProperties" if value.as_object().is_some_and(Map::is_empty) => return wrong("empty"),
            "minLength" if value.as_str().is_some_and(str::is_empty) => return wrong("empty"),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(item, rule, root, used)?;
                }
            }
            "properties" => fields_fit(value, schema, root, used)?,
            // Patterns are for editors; the reader checks more than they say.
            "pattern" | "const" | "minimum" | "maximum" | "minItems" | "minProperties" | "minLength" => {}
            _ => panic!("unknown keyword {keyword}"),
        }
    }
    if let (None, Some(of_all), Some(fields)) =
        (schema.get("properties"), schema.get("additionalProperties"), value.as_object())
    {
        for field in fields.values() {
            fits(field, of_all, root, used)?;
        }
    }
    Ok(())
}

fn fields_fit(
    value: &Value,
    schema: &Value,
    root: &Value,
    used: &mut BTreeSet<String>,
) -> Result<(), String> {
    let Some(fields) = value.as_object() else { return Ok(()) };
    assert_eq!(schema["additionalProperties"], json!(false));
    for (name, field) in fields {
        let Some(rule) = schema["properties"].get(name) else { return Err(format!("unknown field {name}")) };
        used.insert(name.clone());
        fits(field, rule, root, used)?;
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("no {name}"));
        }
    }
    Ok(())
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => panic!("unknown type {name}"),
    }
}

/// YAML as an editor's schema check sees it.
fn yaml(text: &str) -> Value {
    let mut open: Vec<Vec<Value>> = vec![Vec::new()];
    for event in Parser::new_from_str(text) {
        let done = match event.unwrap().0 {
            Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                open.push(Vec::new());
                None
            }
            Event::SequenceEnd => open.pop().map(Value::Array),
            Event::MappingEnd => {
                let items = open.pop().unwrap();
                let pairs = items.chunks(2).map(|pair| (key(&pair[0]), pair[1].clone()));
                Some(Value::Object(pairs.collect()))
            }
            _ => None,
        };
        open.last_mut().unwrap().extend(done);
    }
    open.pop().and_then(|mut root| root.pop()).unwrap_or(Value::Null)
}

fn key(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return json!(text);
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => json!(true),
        "false" => json!(false),
        _ => text
            .parse::<i64>()
            .map(|number| json!(number))
            .or_else(|_| text.parse::<f64>().map(|number| json!(number)))
            .unwrap_or_else(|_| json!(text)),
    }
}

fn good_files() -> Vec<PathBuf> {
    let good = fs::read_dir(root().join("crates/leno-config/tests/good"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let examples =
        fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path().join("mesh.yaml"));
    good.chain(examples).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
