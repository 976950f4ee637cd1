//! Events as the commands write and read them in HTTP.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cloudevents::AttributesWriter as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use serde_json::value::RawValue;

use super::CliError;

/// How an event is put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Attributes in headers, data in the body.
    Binary,
    /// One JSON object.
    Structured,
}

/// An event to send. The data stand beside the SDK's event, since they go out byte for byte and
/// the SDK would parse and write them anew.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    attributes: cloudevents::Event,
    content_type: Option<String>,
    data: Option<Bytes>,
}

impl Outgoing {
    pub(super) fn new(
        attributes: cloudevents::Event,
        content_type: Option<String>,
        data: Option<Bytes>,
    ) -> Self {
        Self {
            attributes,
            content_type,
            data,
        }
    }

    /// The same event under another id.
    pub(super) fn with_id(&self, id: String) -> Self {
        let mut other = self.clone();
        other.attributes.set_id(id);
        other
    }

    pub(super) fn request(&self, uri: &Uri, mode: Mode) -> Result<Request<Full<Bytes>>, CliError> {
        let request = Request::builder().method(Method::POST).uri(uri);
        let made = match mode {
            Mode::Binary => {
                let mut request = request;
                for (name, value) in self.attributes.iter() {
                    request =
                        request.header(format!("ce-{name}"), percent_encoded(&value.to_string()));
                }
                if let Some(media) = &self.content_type {
                    request = request.header(CONTENT_TYPE, media);
                }
                request.body(Full::new(self.data.clone().unwrap_or_default()))
            }
            Mode::Structured => request
                .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
                .body(Full::new(self.structured()?)),
        };
        made.map_err(|error| CliError::Usage(format!("the event does not fit a request: {error}")))
    }

    /// The JSON format, with JSON data as they were given.
    fn structured(&self) -> Result<Bytes, CliError> {
        let unfit =
            |error: serde_json::Error| CliError::Usage(format!("the event is unfit: {error}"));
        let raw = |text: &str| serde_json::value::to_raw_value(text).map_err(unfit);
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::to_vec(&self.attributes)
            .and_then(|json| serde_json::from_slice(&json))
            .map_err(unfit)?;
        let media = self.content_type.as_deref();
        if let Some(media) = media {
            fields.insert("datacontenttype".into(), raw(media)?);
        }
        if let Some(data) = &self.data {
            if media.is_none_or(is_json) {
                let json = serde_json::from_slice(data)
                    .map_err(|error| CliError::Usage(format!("the data are not JSON: {error}")))?;
                fields.insert("data".into(), json);
            } else if let Ok(text) = std::str::from_utf8(data) {
                fields.insert("data".into(), raw(text)?);
            } else {
                fields.insert("data_base64".into(), raw(&BASE64.encode(data))?);
            }
        }
        serde_json::to_vec(&fields).map(Bytes::from).map_err(unfit)
    }
}

/// Whether `media` means that the body is JSON.
fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "text/json" || essence == "application/json" || essence.ends_with("+json")
}

/// What the HTTP binding asks for in `ce-` headers: everything outside 21 to 7E hex, `"` and `%`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn percent_decoded(bytes: &[u8]) -> String {
    let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What a subscriber got, read leniently: it is shown, not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Attributes by name, `datacontenttype` not among them.
    pub(crate) attributes: BTreeMap<String, String>,
    /// The media type of the data.
    pub(crate) content_type: Option<String>,
    /// The data.
    pub(crate) data: Bytes,
}

impl Received {
    pub(super) fn read(headers: &HeaderMap, body: Bytes) -> Self {
        let media = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if media.is_some_and(|media| media.starts_with("application/cloudevents+json")) {
            return Self::structured(&body);
        }
        let attributes = headers
            .iter()
            .filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix("ce-")?;
                Some((name.to_owned(), percent_decoded(value.as_bytes())))
            })
            .collect();
        Self {
            attributes,
            content_type: media.map(str::to_owned),
            data: body,
        }
    }

    fn structured(body: &[u8]) -> Self {
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(body).unwrap_or_default();
        let plain = |raw: &RawValue| {
            serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
        };
        let mut received = Self::default();
        for (name, raw) in fields {
            match name.as_str() {
                "data" => received.data = raw.get().to_owned().into(),
                "data_base64" => {
                    received.data = BASE64.decode(plain(&raw)).unwrap_or_default().into();
                }
                "datacontenttype" => received.content_type = Some(plain(&raw)),
                _ => {
                    received.attributes.insert(name, plain(&raw));
                }
            }
        }
        received
    }

    /// An attribute, empty if it is not there.
    #[must_use]
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Reads `NAME=VALUE`, where NAME can be an extension attribute.
pub(super) fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("{text:?} is not NAME=VALUE"));
    };
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || !name.chars().all(legal) {
        return Err(format!(
            "{name:?} cannot be an attribute: only a-z and 0-9 are allowed in a name"
        ));
    }
    match name {
        "id" | "type" | "source" | "subject" => Err(format!("{name} is set with --{name}")),
        "datacontenttype" => Err("datacontenttype is set with --content-type".into()),
        "specversion" | "data" => Err(format!("{name} cannot be set this way")),
        _ => Ok((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloudevents::{EventBuilder as _, EventBuilderV10};

    fn outgoing(media: Option<&str>, data: &[u8]) -> Outgoing {
        let mut event = EventBuilderV10::new()
            .id("7")
            .ty("order.created")
            .source("/shop")
            .subject("Euro \u{20ac} \"50%\"")
            .build()
            .unwrap();
        // As text, so that it goes out as it was given: the SDK would write another zone.
        event.set_extension("time", "2026-01-31T12:00:00+02:00");
        Outgoing::new(
            event,
            media.map(str::to_owned),
            Some(Bytes::copy_from_slice(data)),
        )
    }

    async fn sent(outgoing: &Outgoing, mode: Mode) -> (HeaderMap, Bytes) {
        use http_body_util::BodyExt as _;
        let uri = Uri::from_static("http://localhost/a/b");
        let (parts, body) = outgoing.request(&uri, mode).unwrap().into_parts();
        (parts.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_read_in_both_modes() {
        for (media, data) in [
            (
                Some("application/json"),
                &b"{ \"n\": 1.0, \"big\": 123456789012345678901234567890 }"[..],
            ),
            (Some("text/plain"), "f\u{fc}nf".as_bytes()),
            (Some("application/octet-stream"), &[0, 255, 7][..]),
        ] {
            let outgoing = outgoing(media, data);
            let (headers, body) = sent(&outgoing, Mode::Binary).await;
            assert_eq!(headers["ce-subject"], "Euro%20%E2%82%AC%20%2250%25%22");
            assert_eq!(headers["ce-specversion"], "1.0");
            assert_eq!(body, data);
            let binary = Received::read(&headers, body);
            assert_eq!(binary.attribute("subject"), "Euro \u{20ac} \"50%\"");
            assert_eq!(binary.attribute("time"), "2026-01-31T12:00:00+02:00");
            let (headers, body) = sent(&outgoing, Mode::Structured).await;
            let mut structured = Received::read(&headers, body);
            if media == Some("text/plain") {
                structured.data = serde_json::from_slice::<String>(&structured.data)
                    .unwrap()
                    .into();
            }
            assert_eq!(structured, binary, "{media:?}");
        }
    }

    #[tokio::test]
    async fn json_that_is_none_is_refused_before_it_is_sent() {
        let uri = Uri::from_static("http://localhost/a/b");
        let outgoing = outgoing(Some("application/json"), b"{");
        let error = outgoing.request(&uri, Mode::Structured).unwrap_err();
        assert!(error.to_string().contains("not JSON"), "{error}");
    }

    #[test]
    fn attribute_names_are_checked() {
        assert_eq!(
            parse_attribute("a=b=c").unwrap(),
            ("a".into(), "b=c".into())
        );
        for bad in [
            "a",
            "=b",
            "A=b",
            "a-b=c",
            "id=7",
            "datacontenttype=x",
            "data=x",
        ] {
            assert!(parse_attribute(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_decoding_leaves_what_is_not_encoded() {
        assert_eq!(percent_decoded(b"%41%2541 %G1 %4"), "A%41 %G1 %4");
    }
}
