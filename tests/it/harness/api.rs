//! Holds every answer of the API that a test sees against the OpenAPI document.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::http::Message;

/// The document, made strict: an answer may say nothing that is not in it.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    close(&mut document);
    document
});

fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".into(), false.into());
            }
            members.values_mut().for_each(close);
        }
        _ => {}
    }
}

/// The address of the document that `path` is; words before names.
fn address(path: &str) -> Option<&'static str> {
    let fits = |template: &&String| {
        let (own, given) = (template.split('/'), path.split('/'));
        own.clone().count() == given.clone().count()
            && own
                .zip(given)
                .all(|(own, given)| own == given || own.starts_with('{'))
    };
    let templates = DOCUMENT["paths"].as_object().unwrap().keys();
    let found = templates
        .filter(fits)
        .min_by_key(|template| template.matches('{').count());
    found.map(String::as_str)
}

/// Fails unless the document says that a request may be answered like this.
pub(crate) fn check(method: &str, target: &str, answer: &Message) {
    let path = target.split('?').next().unwrap();
    if !path.starts_with("/v1/") {
        return;
    }
    let status = answer.status();
    let what = format!("{method} {target} answered {status}");
    let media = answer.header("content-type").unwrap_or_default();
    if status >= 400 {
        assert_eq!(media, "application/problem+json", "{what}");
        return valid(
            "problem",
            || json!({ "$ref": "#/components/schemas/Problem" }),
            answer,
            &what,
        );
    }
    let address =
        address(path).unwrap_or_else(|| panic!("{what}: the address is not in the document"));
    let operation = &DOCUMENT["paths"][address][method.to_lowercase()];
    let response = &operation["responses"][status.to_string()];
    assert!(
        response.is_object(),
        "{what}, which the document does not know"
    );
    let content = response["content"].as_object().unwrap();
    if let Some(shape) = content.get("application/json") {
        assert_eq!(media, "application/json", "{what}");
        valid(
            &format!("{method} {address} {status}"),
            || shape["schema"].clone(),
            answer,
            &what,
        );
    }
}

fn valid(name: &str, schema: impl Fn() -> Value, answer: &Message, what: &str) {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let make = || {
        let mut root = schema();
        root["components"] = DOCUMENT["components"].clone();
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Arc::new(options.build(&root).unwrap())
    };
    let validator = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(name.to_owned()).or_insert_with(make))
    };
    let body = answer.json();
    let errors: Vec<_> = validator
        .iter_errors(&body)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(
        errors.is_empty(),
        "{what}, which is no such shape: {errors:#?}\n{body:#}"
    );
}
