//! What each form of an event looks like, and what is refused.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::channel::Format;
use crate::event::{Decoded, Event, EventError, Mode, Place};

const JSON: &str = "application/cloudevents+json";

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

fn binary(more: &[(&'static str, &str)], body: &'static str) -> Result<Event, EventError> {
    let base = [
        ("ce-specversion", "1.0"),
        ("ce-id", "i"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ];
    let mut all = headers(&base);
    for (name, value) in &headers(more) {
        all.append(name, value.clone());
    }
    one(Event::from_http(&all, Bytes::from_static(body.as_bytes())))
}

fn json(members: &str) -> Result<Event, EventError> {
    let body = format!(r#"{{"specversion":"1.0","id":"i","source":"/s","type":"t",{members}}}"#);
    one(Event::from_http(
        &headers(&[("content-type", JSON)]),
        body.into(),
    ))
}

fn one(decoded: Result<Decoded, EventError>) -> Result<Event, EventError> {
    decoded.map(|decoded| match decoded {
        Decoded::One(event) => event,
        Decoded::Batch(events) => panic!("a batch: {events:?}"),
    })
}

#[test]
fn whether_a_message_is_an_event_is_seen_by_its_headers() {
    let mode = |list: &[(&'static str, &str)]| Mode::of_event(&headers(list));
    assert_eq!(mode(&[]), None);
    assert_eq!(mode(&[("content-type", "application/json")]), None);
    assert_eq!(mode(&[("ce-id", "i")]), Some(Mode::Binary));
    assert_eq!(mode(&[("ce-specversion", "1.0")]), Some(Mode::Binary));
    assert_eq!(
        mode(&[("content-type", "Application/CloudEvents+JSON;a=b")]),
        Some(Mode::Structured)
    );
    assert_eq!(
        mode(&[("content-type", "application/cloudevents-batch+json")]),
        Some(Mode::Batch)
    );
    assert_eq!(
        mode(&[("content-type", "application/cloudevents")]),
        Some(Mode::Unsupported)
    );
}

#[test]
fn header_values_are_decoded_and_encoded() {
    for (sent, value, encoded) in [
        ("plain", "plain", "plain"),
        ("Euro%20%e2%82%ac", "Euro €", "Euro%20%E2%82%AC"),
        ("hello world", "hello world", "hello%20world"),
        ("\"x%20y \\\"z\\\\\"", "x y \"z\\", "x%20y%20%22z\\"),
        (
            "\"a\" and \"b\"",
            "\"a\" and \"b\"",
            "%22a%22%20and%20%22b%22",
        ),
        ("\"", "\"", "%22"),
        ("%2541", "%41", "%2541"),
        ("café", "café", "caf%C3%A9"),
        ("", "", ""),
    ] {
        let event = binary(&[("ce-x", sent)], "").unwrap();
        assert_eq!(event.attribute("x"), Some(value), "{sent}");
        assert_eq!(event.to_http_binary().0["ce-x"], encoded, "{sent}");
    }
    for bad in [
        "%",
        "%4",
        "%GG",
        "%+1",
        "%C0%A0",
        "%ED%A0%80",
        "%00",
        "a\tb",
        "%C2%85",
        "%EF%BF%BE",
    ] {
        assert!(binary(&[("ce-x", bad)], "").is_err(), "{bad}");
    }
}

#[test]
fn attributes_follow_the_rules() {
    let long = "9".repeat(300);
    for (name, value) in [
        ("source", "//host/x"),
        ("source", "mailto:a@b.c"),
        ("source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
        ("dataschema", "urn:schema:one"),
        ("dataschema", "https://x.y/s#f"),
        ("time", "2016-12-31T23:59:60Z"),
        ("myext", &long),
        ("partitionkey", "k"),
    ] {
        let event = json("\"data\":1")
            .unwrap()
            .with_attributes(&[(name, value)])
            .unwrap();
        assert_eq!(event.attribute(name), Some(value));
    }
    for (name, value) in [
        ("source", "/a b"),
        ("source", ":foo/bar"),
        ("source", "http://[::1/x"),
        ("source", "/é"),
        ("source", "/%zz"),
        ("dataschema", "/schema/1"),
        ("dataschema", "schema.json"),
        ("time", "2019-02-28"),
        ("specversion", "1"),
        ("specversion", "1.0.2"),
        ("my-ext", "v"),
        ("Upper", "v"),
        ("data", "v"),
        ("x", "a\nb"),
        ("x", "\u{fdd0}"),
        ("x", "\u{1ffff}"),
        ("datacontenttype", "json"),
    ] {
        let error = json("\"data\":1")
            .unwrap()
            .with_attributes(&[(name, value)])
            .unwrap_err();
        assert_eq!(error.place(), &Place::Attribute(name.into()), "{value}");
    }
}

#[test]
fn json_attributes_are_canonical_text() {
    let event = json(r#""i":-0,"j":-2147483648,"t":true,"s":"a\u20ac","n":null"#).unwrap();
    let value = |name| event.attribute(name);
    assert_eq!(value("i"), Some("0"));
    assert_eq!(value("j"), Some("-2147483648"));
    assert_eq!(value("t"), Some("true"));
    assert_eq!(value("s"), Some("a€"));
    assert_eq!(value("n"), None);
    for bad in [
        r#""i":2147483648"#,
        r#""i":5.0"#,
        r#""i":1e2"#,
        r#""o":{}"#,
        r#""a":[]"#,
        r#""subject":1"#,
        r#""datacontenttype":1"#,
        r#""s":"\uDEAD""#,
        r#""s":"\ud83d""#,
        r#""s":"a\u0000""#,
        r#""A":"x""#,
        r#""n":null,"n":"x""#,
        r#""data":1,"data":1"#,
        r#""data":1,"data_base64":null"#,
        r#""data_base64":"e30""#,
        r#""data_base64":5"#,
        r#""datacontenttype":"text/plain","data":{}"#,
        r#""data":"\ud83d""#,
        r#""data":["\udc00\ud800"]"#,
        r#""data":NaN"#,
        r#""data":{"a":1,}"#,
    ] {
        assert!(json(bad).is_err(), "{bad}");
    }
}

#[test]
fn json_data_is_kept_byte_for_byte() {
    for data in [
        r#"{ "b" : 1.10 , "a":1e2, "b":123456789012345678901234567890 }"#,
        r#""\ud83d\ude00 \u0000 \\ud800""#,
        "null",
        "[]",
    ] {
        let event = json(&format!("\"data\": {data} ")).unwrap();
        assert_eq!(event.data().unwrap(), data);
        assert_eq!(event.content_type(), Some("application/json"));
        let sent = String::from_utf8(event.to_structured_json().to_vec()).unwrap();
        assert!(sent.contains(&format!("\"data\":{data}}}")), "{sent}");
    }
}

#[test]
fn deep_data_is_refused_without_a_stack_overflow() {
    let nested = |depth: usize| format!("\"data\":{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(json(&nested(1000)).is_ok());
    assert!(json(&nested(1001)).is_err());
    assert!(json(&nested(500_000)).is_err());
    let flat = format!("\"data\":[{}[]]", "[],".repeat(2000));
    assert!(json(&flat).is_ok());
    let text = format!("\"data\":\"\\\"{}\"", "[".repeat(2000));
    assert!(json(&text).is_ok());
}

#[test]
fn data_takes_the_shape_that_loses_nothing() {
    let shape = |content_type: &'static str, data: &'static str| {
        let event = binary(&[("content-type", content_type)], data).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&event.to_structured_json()).unwrap();
        (json["data"].clone(), json["data_base64"].clone())
    };
    let null = serde_json::Value::Null;
    assert_eq!(
        shape("text/plain", "a\u{0}"),
        ("a\u{0}".into(), null.clone())
    );
    assert_eq!(
        shape("application/json", "{not json"),
        (null.clone(), "e25vdCBqc29u".into())
    );
    assert_eq!(
        shape("application/json", "\"\\ud800\""),
        (null.clone(), "Ilx1ZDgwMCI=".into())
    );
    assert_eq!(shape("image/png", "x"), (null.clone(), "eA==".into()));
    assert_eq!(
        shape("text/plain; charset=latin1", "x"),
        (null, "eA==".into())
    );
}

#[test]
fn attributes_can_be_set_replaced_and_taken_away() {
    let event = json(r#""knativeerrorcode":"1","partitionkey":"k","data":1"#).unwrap();
    let changed = event
        .with_attributes(&[
            ("knativeerrordest", "http://x/"),
            ("knativeerrorcode", ""),
            ("datacontenttype", "text/plain"),
            ("partitionkey", "l"),
        ])
        .unwrap();
    assert_eq!(changed.attribute("knativeerrordest"), Some("http://x/"));
    assert_eq!(changed.attribute("knativeerrorcode"), None);
    assert_eq!(changed.content_type(), Some("text/plain"));
    assert_eq!(changed.key().unwrap(), "l");
    assert_eq!(changed.data(), event.data());
    assert_eq!(event.attribute("knativeerrorcode"), Some("1"));
    assert_eq!(
        changed
            .with_attributes(&[("partitionkey", "")])
            .unwrap()
            .key(),
        None
    );
    assert!(event.with_attributes(&[("id", "")]).is_err());
}

#[test]
fn an_event_knows_the_mode_it_came_in() {
    let from_json = json("\"data\":1").unwrap();
    let from_headers = binary(&[("levada-mode", "structured")], "1").unwrap();
    let batch = r#"[{"specversion":"1.0","id":"i","source":"/s","type":"t"}]"#;
    let media_type = headers(&[("content-type", "application/cloudevents-batch+json")]);
    let Ok(Decoded::Batch(of_batch)) = Event::from_http(&media_type, batch.into()) else {
        panic!("no batch");
    };
    for (event, mode) in [
        (&from_json, Format::Json),
        (&of_batch[0], Format::Json),
        (&from_headers, Format::Binary),
    ] {
        assert_eq!(event.received_as(), mode, "{event:?}");
        let stored = Event::from_record(event.to_record()).unwrap();
        assert_eq!(stored.received_as(), mode, "{event:?}");
        let changed = event.with_attributes(&[("x", "y")]).unwrap();
        assert_eq!(changed.received_as(), mode, "{event:?}");
        let (headers, _) = event.to_http_binary();
        assert!(!headers.contains_key("levada-mode"), "{headers:?}");
    }
    // Nothing is stored for an event of binary mode.
    assert_eq!(from_headers.headers().len(), 4);
    let as_json = from_headers.clone().as_received(Format::Json);
    assert_eq!(as_json.received_as(), Format::Json);
    assert_eq!(as_json.as_received(Format::Binary), from_headers);
}

#[test]
fn one_bad_event_refuses_a_batch_and_is_named() {
    let good = r#"{"specversion":"1.0","id":"i","source":"/s","type":"t"}"#;
    let bad = r#"{"specversion":"1.0","id":"i","source":"/s"}"#;
    let decode = |body: String| {
        let headers = headers(&[("content-type", "application/cloudevents-batch+json")]);
        Event::from_http(&headers, body.into())
    };
    assert_eq!(decode("[]".into()), Ok(Decoded::Batch(Vec::new())));
    assert!(
        matches!(decode(format!(" [{good},{good}] ")), Ok(Decoded::Batch(all)) if all.len() == 2)
    );
    let error = decode(format!("[{good},{bad},{good}]")).unwrap_err();
    assert_eq!(error.element(), Some(1));
    assert_eq!(
        error.to_string(),
        "event 1 of the batch: attribute \"type\": missing; every event needs one"
    );
    for broken in ["", "{}", "[1]", "[{}", "[]x", "[null]"] {
        assert!(decode(broken.into()).is_err(), "{broken}");
    }
}

#[test]
fn headers_that_travel_along_are_part_of_the_event_and_others_are_not() {
    let event = binary(
        &[
            ("traceparent", "00-a-b-01"),
            ("ce-traceparent", "attribute"),
            ("x-b3-traceid", "1"),
            ("knative-thing", "2"),
            ("x-other", "3"),
            ("levada-kind", "retry"),
            ("authorization", "secret"),
        ],
        "",
    )
    .unwrap();
    let names: Vec<_> = event.forwarded_headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["traceparent", "x-b3-traceid", "knative-thing"]);
    assert_eq!(event.attribute("traceparent"), Some("attribute"));
    let (headers, _) = event.to_http_binary();
    assert_eq!(headers["traceparent"], "00-a-b-01");
    assert_eq!(headers.len(), 8);
}
