//! Properties: an event survives every form, and no input makes a decoder panic.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::channel::Format;
use crate::event::{Decoded, Event};
use crate::log::{Headers, Record};

/// Any text that an attribute may have.
fn text() -> impl Strategy<Value = String> {
    let legal = |c: &char| {
        let code = u32::from(*c);
        !c.is_control() && code & 0xfffe != 0xfffe && !(0xfdd0..=0xfdef).contains(&code)
    };
    prop::collection::vec(any::<char>().prop_filter("legal", legal), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn content_type() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec![
        "application/json",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/vnd.x+json",
    ]))
}

fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
    let json = prop::sample::select(vec![
        "{\"a\":[1.50,\"\\u00e9\"]}",
        "null",
        "\"x\"",
        "{bad",
        "[]x",
    ]);
    prop::option::of(prop_oneof![
        prop::collection::vec(any::<u8>(), 1..50),
        text().prop_map(String::into_bytes),
        json.prop_map(|text| text.as_bytes().to_vec()),
    ])
}

prop_compose! {
    fn event()(
        id in text(),
        kind in text(),
        extensions in prop::collection::btree_map("[a-z0-9]{1,8}x", text(), 0..6),
        key in prop::option::of(text()),
        content_type in content_type(),
        data in data(),
        structured in any::<bool>(),
    ) -> Event {
        let mut headers = Headers::builder(8, 256);
        let mut push = |name: &str, value: &str| headers.push(name.as_bytes(), value.as_bytes());
        push("ce_specversion", "1.0");
        push("ce_id", &id);
        push("ce_source", "/s");
        push("ce_type", &kind);
        for (name, value) in &extensions {
            push(&format!("ce_{name}"), value);
        }
        if let Some(key) = &key {
            push("ce_partitionkey", key);
        }
        if let Some(content_type) = content_type {
            push("content-type", content_type);
        }
        if structured {
            push("levada-mode", "structured");
        }
        let record = Record { key: None, value: data.map(Bytes::from), headers: headers.finish() };
        Event::from_record(record).unwrap()
    }
}

fn decode(headers: &HeaderMap, body: Bytes) -> Event {
    match Event::from_http(headers, body).unwrap() {
        Decoded::One(event) => event,
        Decoded::Batch(_) => panic!("a batch"),
    }
}

/// Attributes, content type, data and key: all of an event but how it came.
type Parts<'a> = (
    Vec<(&'a str, &'a str)>,
    Option<&'a str>,
    Option<&'a Bytes>,
    Option<&'a Bytes>,
);

fn parts(event: &Event) -> Parts<'_> {
    let attributes = event.attributes().collect();
    (attributes, event.content_type(), event.data(), event.key())
}

fn structured() -> HeaderMap {
    let value = HeaderValue::from_static("application/cloudevents+json");
    [(http::header::CONTENT_TYPE, value)].into_iter().collect()
}

/// Any headers, most of them near to those of events.
fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let names = prop::sample::select(vec![
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-specversion",
        "ce-time",
        "ce-dataschema",
        "ce-",
        "ce-x",
        "ce-my-ext",
        "content-type",
        "traceparent",
        "ce-data",
    ]);
    let values = prop_oneof![
        prop::sample::select(vec![
            "1.0",
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
            "/s",
            "2018-04-05T17:31:00Z",
            "\"",
            "%",
            "\"\\\"",
            "%e2%82",
            "text/plain;a=\"\\",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..24),
    ];
    prop::collection::vec((names, values), 0..12).prop_map(|list| {
        list.into_iter()
            .filter_map(|(name, value)| {
                let value = HeaderValue::from_bytes(&value).ok()?;
                Some((HeaderName::from_static(name), value))
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    })
}

proptest! {
    #[test]
    fn binary_http(event in event()) {
        let (headers, body) = event.to_http_binary();
        prop_assert!(!headers.contains_key("levada-mode"));
        let decoded = decode(&headers, body);
        prop_assert_eq!(parts(&decoded), parts(&event));
        prop_assert_eq!(decoded.received_as(), Format::Binary);
    }

    #[test]
    fn structured_http(event in event()) {
        let decoded = decode(&structured(), event.to_structured_json());
        prop_assert_eq!(parts(&decoded), parts(&event));
        prop_assert_eq!(decoded.received_as(), Format::Json);
    }

    #[test]
    fn records(event in event()) {
        prop_assert_eq!(Event::from_record(event.to_record()).unwrap(), event);
    }

    #[test]
    fn no_message_makes_the_decoder_panic(headers in any_headers(), body in any::<Vec<u8>>()) {
        if let Ok(Decoded::One(event)) = Event::from_http(&headers, body.into()) {
            prop_assert!(Event::from_record(event.to_record()).is_ok());
        }
    }

    #[test]
    fn no_json_makes_the_decoder_panic(body in "[\\[\\]{}\",:\\\\u0-9a-f\"ntrs ]{0,60}") {
        let _ = Event::from_http(&structured(), body.clone().into());
        let members = format!(r#"{{"specversion":"1.0","id":"i","source":"s","type":"t","data":{body}}}"#);
        let _ = Event::from_http(&structured(), members.into());
    }

    #[test]
    fn no_record_makes_the_decoder_panic(
        headers in prop::collection::vec(("(ce_|ce_id|content-type|x|\\PC)?", any::<Vec<u8>>()), 0..6),
        value in prop::option::of(any::<Vec<u8>>()),
    ) {
        let mut builder = Headers::builder(6, 64);
        for (name, value) in &headers {
            builder.push(name.as_bytes(), value);
        }
        let record = Record { key: None, value: value.map(Bytes::from), headers: builder.finish() };
        let _ = Event::from_record(record);
    }
}
