//! The cases of `tests/vectors/kafka.json`, and records that other producers could write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::channel::Format;
use crate::event::{Event, EventErrorKind};
use crate::log::{Headers, Record};

fn record(key: Option<&str>, headers: &[(&str, &str)], value: Option<&str>) -> Record {
    let mut builder = Headers::builder(headers.len(), 64);
    for (name, value) in headers {
        builder.push(name.as_bytes(), value.as_bytes());
    }
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: builder.finish(),
    }
}

const BASE: [(&str, &str); 4] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "i"),
    ("ce_source", "/s"),
    ("ce_type", "t"),
];

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&BASE, more].concat()
}

fn read(headers: &[(&str, &str)], value: Option<&str>) -> Result<Event, String> {
    Event::from_record(record(None, headers, value)).map_err(|error| error.to_string())
}

fn strings(object: &Map<String, Value>) -> Vec<(&str, &str)> {
    object
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect()
}

fn bytes(data: &Value) -> Option<Vec<u8>> {
    match (data["text"].as_str(), data["b64"].as_str()) {
        (Some(text), _) => Some(text.as_bytes().to_vec()),
        (None, Some(text)) => Some(STANDARD.decode(text).unwrap()),
        (None, None) => None,
    }
}

fn all_attributes(event: &Event) -> Map<String, Value> {
    let content_type = event.content_type().map(|value| ("datacontenttype", value));
    event
        .attributes()
        .chain(content_type)
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn check_written(case: &Value) {
    let attributes = strings(case["event"]["attributes"].as_object().unwrap());
    let data = bytes(&case["event"]["data"]);
    let mut request = http::HeaderMap::new();
    for (name, value) in attributes {
        let name = match name {
            "datacontenttype" => "content-type".to_owned(),
            name => format!("ce-{name}"),
        };
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.insert(name, value.parse().unwrap());
    }
    let body = data.unwrap_or_default().into();
    let Ok(crate::event::Decoded::One(event)) = Event::from_http(&request, body) else {
        panic!("{case}");
    };
    let expected = &case["expect_record"];
    if case["content_mode"] == "structured" {
        let json: Value = serde_json::from_slice(&event.to_structured_json()).unwrap();
        assert_eq!(json, expected["value"]["json"], "{case}");
        return;
    }
    let record = event.to_record();
    let headers: Map<String, Value> = record
        .headers
        .iter()
        .map(|(name, value)| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(name), text(value).into())
        })
        .collect();
    assert_eq!(Value::from(headers), expected["headers"], "{case}");
    assert_eq!(
        record.key.as_deref(),
        expected["key"].as_str().map(str::as_bytes),
        "{case}"
    );
    assert_eq!(
        record.value.map(Vec::from),
        bytes(&expected["value"]),
        "{case}"
    );
}

fn check_read(case: &Value) {
    let headers = strings(case["record"]["headers"].as_object().unwrap());
    let mut record = record(None, &headers, None);
    record.value = bytes(&case["record"]["value"]).map(Bytes::from);
    let event = Event::from_record(record);
    if case["expect"]["discard"] == true {
        assert!(event.is_err(), "{case}");
        return;
    }
    let event = event.unwrap();
    let expected = &case["expect"]["event"];
    assert_eq!(
        Value::from(all_attributes(&event)),
        expected["attributes"],
        "{case}"
    );
    assert_eq!(
        event.data().map(|data| data.to_vec()),
        bytes(&expected["data"]),
        "{case}"
    );
}

#[test]
fn the_cases_are_written_and_read_as_they_say() {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/kafka.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        match case["direction"].as_str().unwrap() {
            "event-to-record" => check_written(case),
            "record-to-event" => check_read(case),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_record_of_our_own_is_taken_as_it_is() {
    let headers = with(&[
        ("ce_partitionkey", "k"),
        ("content-type", "text/plain"),
        ("traceparent", "00-x"),
        ("levada-mode", "structured"),
    ]);
    let record = record(Some("k"), &headers, Some("data"));
    assert_eq!(
        Event::from_record(record.clone()).unwrap().to_record(),
        record
    );
}

#[test]
fn foreign_headers_are_left_out_and_the_key_is_kept() {
    let headers = with(&[
        ("foo", "bar"),
        ("levada-kind", "retry"),
        ("levada-mode", "other"),
        ("x-b3-traceid", "1"),
        ("X-Request-Id", "upper"),
        ("x-request-id", "a\nb"),
    ]);
    let event = Event::from_record(record(Some("k"), &headers, None)).unwrap();
    let names: Vec<_> = event
        .headers()
        .iter()
        .map(|(name, _)| name.to_vec())
        .collect();
    assert_eq!(names[4..], [b"x-b3-traceid".to_vec()]);
    assert_eq!(event.received_as(), Format::Binary);
    assert_eq!(event.key().unwrap(), "k");

    let event = read(&with(&[("ce_partitionkey", "p"), ("foo", "")]), None).unwrap();
    assert_eq!(event.key().unwrap(), "p");
    let event = read(&with(&[("ce_partitionkey", "p")]), None).unwrap();
    assert_eq!(event.key().unwrap(), "p");
}

#[test]
fn null_values_of_optional_attributes_mean_that_there_is_none() {
    let event = read(
        &with(&[("ce_subject", ""), ("ce_ext", ""), ("content-type", "")]),
        None,
    );
    let event = event.unwrap();
    assert_eq!(event.attribute("subject"), None);
    assert_eq!(event.attribute("ext"), Some(""));
    assert_eq!(event.content_type(), None);
    assert!(read(&[&BASE[..3], &[("ce_type", "")]].concat(), None).is_err());
}

#[test]
fn structured_records_become_binary_ones_that_say_how_they_came() {
    let json = r#"{"specversion":"1.0","id":"i","source":"/s","type":"t","partitionkey":"k",
                   "data":{"n":1.0}}"#;
    let headers = [
        (
            "content-type",
            "APPLICATION/CloudEvents+JSON; charset=utf-8",
        ),
        ("ce_id", "ignored"),
        ("tracestate", "a=b"),
        ("foo", "bar"),
    ];
    let event = read(&headers, Some(json)).unwrap();
    assert_eq!(event.attribute("id"), Some("i"));
    assert_eq!(event.key().unwrap(), "k");
    assert_eq!(event.content_type(), Some("application/json"));
    assert_eq!(event.data().unwrap(), r#"{"n":1.0}"#);
    assert_eq!(event.forwarded_headers().count(), 1);
    assert_eq!(event.received_as(), Format::Json);
    assert_eq!(Event::from_record(event.to_record()).unwrap(), event);
    assert!(read(&headers, None).is_err());
    assert!(read(&headers, Some("not an event")).is_err());
}

#[test]
fn records_that_are_no_events_say_why() {
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("x", "y")], "\"specversion\": missing"),
        (&[("ce_id", "second")], "\"ce_id\": it is there twice"),
        (&[("ce_Upper", "x")], "a-z and 0-9"),
        (&[("ce_", "x")], "needs a name"),
        (&[("ce_data", "x")], "reserved"),
        (&[("ce_datacontenttype", "text/plain")], "content type"),
        (&[("ce_x", "a\u{85}b")], "U+0085"),
        (&[("content-type", "bogus ;=")], "media type"),
        (&[("content-type", "a/b"), ("Content-Type", "a/b")], "twice"),
    ];
    for (more, problem) in cases {
        let headers = if more[0].0 == "x" {
            more.to_vec()
        } else {
            [&BASE, more].concat()
        };
        let error = read(&headers, None).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let avro = record(
        None,
        &[("content-type", "application/cloudevents+avro")],
        Some("x"),
    );
    let error = Event::from_record(avro).unwrap_err();
    assert_eq!(error.kind(), EventErrorKind::UnsupportedFormat);
}

#[test]
fn many_repeated_attributes_are_found_too() {
    let names: Vec<String> = (0..100).map(|n| format!("ce_x{n}")).collect();
    let mut headers = BASE.to_vec();
    headers.extend(names.iter().map(|name| (name.as_str(), "v")));
    assert!(read(&headers, None).is_ok());
    headers.push(("ce_x50", "again"));
    assert!(read(&headers, None).unwrap_err().contains("twice"));
}
