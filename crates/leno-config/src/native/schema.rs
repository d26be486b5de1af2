//! The table of fields as JSON Schema, for editors, and as the reference of the manual.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::fields::{CONDITIONS, Field, Kind, SHAPES, Shape, WEIGHT_MAX, Without};
use super::value::{STATUS_MAX, STATUS_MIN};

/// The JSON Schema (2020-12) of a mesh file, with descriptions and defaults, so that editors complete and explain
/// it. It is made from the table that the reader checks fields with.
pub fn json_schema() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("Leno mesh file"));
    for (index, shape) in SHAPES.iter().enumerate() {
        let object = object_schema(shape);
        if index == 0 {
            schema.extend(object);
        } else {
            let definitions = schema.entry("$defs").or_insert_with(|| json!({}));
            if let Value::Object(definitions) = definitions {
                definitions.insert(definition(shape), Value::Object(object));
            }
        }
    }
    Value::Object(schema)
}

/// The reference of all fields, in Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for shape in SHAPES {
        let _ = writeln!(text, "### {}\n\n{}\n", title(shape.name), shape.doc);
        text.push_str("| field | holds | without it | |\n|---|---|---|---|\n");
        for field in shape.fields {
            let without = match field.without {
                Without::Required => "**required**".to_owned(),
                Without::Value(value) => format!("`{value}`"),
                Without::Means(meaning) => meaning.to_owned(),
            };
            let _ =
                writeln!(text, "| `{}` | {} | {without} | {} |", field.name, written(&field.kind), field.doc);
        }
        text.push('\n');
    }
    text
}

fn object_schema(shape: &Shape) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in shape.fields {
        properties.insert(field.name.into(), field_schema(field));
        if matches!(field.without, Without::Required) {
            required.push(field.name);
        }
    }
    let mut object = Map::new();
    object.insert("description".into(), json!(shape.doc));
    object.insert("type".into(), json!("object"));
    object.insert("additionalProperties".into(), json!(false));
    object.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".into(), json!(required));
    }
    object
}

fn field_schema(field: &Field) -> Value {
    let mut schema = kind_schema(&field.kind);
    if let Value::Object(schema) = &mut schema {
        let doc = match field.without {
            Without::Means(meaning) => format!("{} Without it: {meaning}.", field.doc),
            Without::Required | Without::Value(_) => field.doc.to_owned(),
        };
        schema.insert("description".into(), json!(doc));
        if let Without::Value(value) = field.without {
            let value = value.parse::<u32>().map_or_else(|_| json!(value), |number| json!(number));
            schema.insert("default".into(), value);
        }
    }
    schema
}

fn kind_schema(kind: &Kind) -> Value {
    const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
    match kind {
        Kind::Name | Kind::Version => json!({"type": ["string", "number"], "pattern": LABEL}),
        Kind::Service => json!({"type": ["string", "number"], "pattern": "^([a-z0-9-]+/)?[a-z0-9-]+$"}),
        Kind::Domain => json!({"type": "string", "pattern": "^[a-z0-9.-]+$"}),
        Kind::Text => json!({"type": ["string", "number", "boolean"]}),
        Kind::Duration => json!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$"}),
        Kind::Limit => json!({
            "type": ["string", "integer"],
            "pattern": "^(0|([0-9]+(\\.[0-9]+)?(ms|s|m|h))+)$",
            "minimum": 0,
            "maximum": 0,
        }),
        Kind::Condition => {
            let mut forms = vec![
                json!({"type": "integer", "minimum": STATUS_MIN, "maximum": STATUS_MAX}),
                json!({"type": "string", "pattern": "^[345][0-9][0-9](-[345][0-9][0-9])?$"}),
            ];
            forms.extend(CONDITIONS.iter().map(|(word, doc)| json!({"const": word, "description": doc})));
            json!({"anyOf": forms})
        }
        Kind::Quantile => json!({"type": "string", "pattern": "^p[5-9][0-9]$"}),
        Kind::Size => json!({"type": ["string", "integer"], "pattern": "^[0-9]+(KiB|MiB)?$", "minimum": 0}),
        Kind::Port => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
        Kind::Address => json!({
            "type": ["string", "integer"],
            "pattern": "^(\\[[0-9a-fA-F:.]+\\]|[0-9.]+):[0-9]+$",
            "minimum": 1,
            "maximum": 65535,
        }),
        Kind::Place => json!({
            "type": ["string", "integer"],
            "pattern": "^(\\[[0-9a-fA-F:.]+\\]|[0-9A-Za-z._-]+):[0-9]+$",
            "minimum": 1,
            "maximum": 65535,
        }),
        Kind::Caller => json!({"type": ["string", "number"], "pattern": "^([a-z0-9-]+/)?([a-z0-9-]+|\\*)$"}),
        Kind::Zone => json!({
            "type": ["string", "number"],
            "pattern": "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}$",
        }),
        Kind::Range => json!({"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]+)?$"}),
        Kind::Moment => {
            json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T.*(Z|[+-][0-9:]+)$"})
        }
        Kind::Origin => json!({"type": "string", "pattern": "^([a-z0-9+.-]+://[^/A-Z]+|\\*)$"}),
        Kind::Spiffe => json!({"type": "string", "pattern": "^spiffe://"}),
        Kind::File => json!({"type": "string", "minLength": 1}),
        Kind::Path => json!({"type": "string", "pattern": "^/[^?#*]*$"}),
        Kind::Regex => json!({"type": "string", "minLength": 1}),
        Kind::Template => json!({"type": "string", "pattern": "^/[^?#]*$"}),
        Kind::Call => json!({"type": "string", "pattern": "^[^/ ]+(/[^/ ]+)?$"}),
        Kind::Host => json!({"type": "string", "pattern": "^(\\*\\.)?[^A-Z*/]+$"}),
        Kind::Method => json!({
            "type": "string",
            "pattern": "^[^a-z ]+$",
            "examples": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        }),
        Kind::Weight => json!({"type": "integer", "minimum": 0, "maximum": WEIGHT_MAX}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Count(max) => json!({"type": "integer", "minimum": 1, "maximum": max}),
        Kind::Percent => json!({"type": "number", "minimum": 0, "maximum": 100}),
        Kind::Between(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number(max) => json!({"type": "integer", "minimum": 0, "maximum": max}),
        Kind::Command => json!({"anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
        ]}),
        Kind::Folder => json!({"type": "string", "minLength": 1}),
        Kind::Choice(choices) => {
            let words: Vec<Value> =
                choices.iter().map(|(word, doc)| json!({"const": word, "description": doc})).collect();
            json!({"anyOf": words})
        }
        Kind::List(kind) => json!({"type": "array", "minItems": 1, "items": kind_schema(kind)}),
        Kind::OneOrMore(kind) => json!({"anyOf": [kind_schema(kind), kind_schema(&Kind::List(kind))]}),
        Kind::Map(_, kind @ Kind::Object(Shape { name: "service", .. })) => json!({
            "type": "object",
            "minProperties": 1,
            // A service of which only the name is known has nothing after its colon.
            "additionalProperties": {"anyOf": [kind_schema(kind), {"type": "null"}]},
        }),
        Kind::Map(_, kind) => {
            json!({"type": "object", "minProperties": 1, "additionalProperties": kind_schema(kind)})
        }
        Kind::Object(shape) => json!({"$ref": format!("#/$defs/{}", definition(shape))}),
        Kind::Either(kinds) => json!({"anyOf": kinds.iter().map(kind_schema).collect::<Vec<_>>()}),
    }
}

/// What a field holds, for the reference.
fn written(kind: &Kind) -> String {
    match kind {
        Kind::Name => "name".into(),
        Kind::Version => "version".into(),
        Kind::Service => "service".into(),
        Kind::Domain => "domain".into(),
        Kind::Text => "text".into(),
        Kind::Duration => "duration".into(),
        Kind::Limit => "duration or 0".into(),
        Kind::Condition => {
            let words: Vec<String> = CONDITIONS.iter().map(|(word, _)| format!("`{word}`")).collect();
            format!("status or range of statuses or {}", words.join(" or "))
        }
        Kind::Quantile => "`p50` to `p99`".into(),
        Kind::Size => "size".into(),
        Kind::Port => "port".into(),
        Kind::Address => "address".into(),
        Kind::Place => "address or host:port".into(),
        Kind::Caller => "service or namespace/*".into(),
        Kind::Zone => "zone".into(),
        Kind::Range => "range of addresses".into(),
        Kind::Moment => "time".into(),
        Kind::Origin => "origin".into(),
        Kind::Spiffe => "SPIFFE id".into(),
        Kind::File => "file".into(),
        Kind::Path => "path".into(),
        Kind::Regex => "regular expression".into(),
        Kind::Template => "path template".into(),
        Kind::Call => "service of gRPC, or service/method".into(),
        Kind::Host => "host".into(),
        Kind::Method => "method".into(),
        Kind::Weight => "weight".into(),
        Kind::Flag => "`true` or `false`".into(),
        Kind::Count(max) => format!("1 to {max}"),
        Kind::Percent => "percent".into(),
        Kind::Between(min, max) => format!("{min} to {max}"),
        Kind::Number(max) => format!("0 to {max}"),
        Kind::Command => "command".into(),
        Kind::Folder => "folder".into(),
        Kind::Choice(choices) => {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            words.join(" or ")
        }
        Kind::List(kind) => format!("list of {}", written(kind)),
        Kind::OneOrMore(kind) => format!("{0} or list of {0}", written(kind)),
        Kind::Map(key, kind) => format!("map: {key} → {}", written(kind)),
        Kind::Object(shape) => format!("[{}](#{})", shape.name, shape.name.replace(' ', "-")),
        Kind::Either(kinds) => {
            let forms: Vec<String> = kinds.iter().map(written).collect();
            forms.join(" or ")
        }
    }
}

fn title(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn definition(shape: &Shape) -> String {
    shape.name.replace(' ', "-")
}
