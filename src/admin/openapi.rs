//! The OpenAPI document of the admin port, made of the table of addresses and the shapes.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::shapes::Problem;
use super::table::{Content, ENDPOINTS, Endpoint, Kind, MakeSchema, Parameter};
use crate::journal::Status;

const ABOUT: &str = "\
What a node of Levada tells of channels, subscriptions and messages, and what can be done about them. \
A list is a page of `items`, the newest first; `page_info.after` is the parameter `after` of the next one. \
A request that is refused is answered with `application/problem+json`. A parameter that is not listed here \
is refused. Where the port has a token, requests carry `Authorization: Bearer TOKEN`.";

/// The document as it is served and kept in `docs`, with a line's end.
#[must_use]
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", made()));
    &DOCUMENT
}

/// Schemas of what is answered, and of what is asked: a field with a default may be left out of
/// the second alone.
struct Makers {
    answers: SchemaGenerator,
    bodies: SchemaGenerator,
}

fn made() -> Value {
    let settings = |settings: SchemaSettings| {
        settings
            .with(|settings| settings.definitions_path = "/components/schemas".into())
            .with(|settings| settings.meta_schema = None)
    };
    let mut makers = Makers {
        answers: settings(SchemaSettings::draft2020_12().for_serialize()).into_generator(),
        bodies: settings(SchemaSettings::draft2020_12()).into_generator(),
    };
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let method = endpoint.method().to_lowercase();
        paths.insert(
            endpoint.path.into(),
            json!({ method: described(endpoint, &mut makers) }),
        );
    }
    let mut schemas = makers.answers.take_definitions(true);
    schemas.extend(makers.bodies.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Levada",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:8081" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn described(endpoint: &Endpoint, makers: &mut Makers) -> Value {
    let mut responses = Map::new();
    for (status, content) in endpoint.answers {
        let (media, schema) = match content {
            Content::Json(make) => ("application/json", make(&mut makers.answers)),
            Content::Other(media) => (*media, json_schema!({})),
        };
        let shown =
            json!({ "description": words(*status), "content": { media: { "schema": schema } } });
        responses.insert(status.to_string(), shown);
    }
    let problem = makers.answers.subschema_for::<Problem>();
    responses.insert(
        "default".into(),
        json!({
            "description": "It is refused, or cannot be answered",
            "content": { "application/problem+json": { "schema": problem } },
        }),
    );
    let named = endpoint.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        )
    });
    let asked = endpoint.parameters.iter().map(parameter);
    let mut shown = json!({
        "operationId": format!("{:?}", endpoint.operation),
        "summary": endpoint.summary,
        "parameters": named.chain(asked).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(body) = endpoint.body {
        shown["requestBody"] = request(body, makers);
    }
    shown
}

fn request(body: MakeSchema, makers: &mut Makers) -> Value {
    let schema = body(&mut makers.bodies);
    json!({ "content": { "application/json": { "schema": schema } } })
}

fn words(status: u16) -> &'static str {
    let status = http::StatusCode::from_u16(status).ok();
    status
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

fn parameter(parameter: &Parameter) -> Value {
    let value = match parameter.kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Status => json!({ "enum": Status::ALL.map(Status::name) }),
        Kind::Name => json!({ "type": "string", "pattern": "^[a-z0-9-]+/[a-z0-9-]+$" }),
        Kind::Number(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
    };
    let schema = if parameter.repeated {
        json!({ "type": "array", "items": value })
    } else {
        value
    };
    json!({ "name": parameter.name, "in": "query", "description": parameter.doc, "schema": schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_docs_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == document(),
            "write it anew: levada openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_described() {
        fn walk(value: &Value, document: &Value) {
            if let Some(to) = value["$ref"].as_str() {
                let to = to.strip_prefix('#').unwrap();
                assert!(document.pointer(to).is_some(), "{to}");
            }
            match value {
                Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
                Value::Object(members) => members.values().for_each(|one| walk(one, document)),
                _ => {}
            }
        }
        let document = made();
        walk(&document, &document);
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            if ["Resource", "ManifestProblem"].contains(&name.as_str()) {
                continue;
            }
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                let told = of["description"].is_string() || of["$ref"].is_string();
                assert!(told, "{name}.{field} is not described");
            }
        }
    }
}
