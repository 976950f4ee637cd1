//! Destinations: `uri`, `ref`, or both.

use std::sync::Arc;

use fluent_uri::{Uri as StrictUri, UriRef};
use http::Uri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::document::ChannelKind;
use super::fields::{Context, Fields, Others};
use super::yaml::{Node, Value};
use crate::channel::{ResourceName, label_problem};

/// Where events can be sent, as a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address, or what to ask for it.
    pub target: Target,
    /// PEM certificates to trust (`CACerts`).
    pub ca_certs: Option<Arc<str>>,
    /// The line it stands on.
    pub line: usize,
}

/// An address, or a resource that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An absolute `uri`.
    Url(HttpUrl),
    /// A `ref`, with a relative `uri` to append.
    Ref {
        /// What it points to.
        reference: Reference,
        /// The relative `uri` beside it; never with a scheme or host.
        path: Option<String>,
    },
}

/// A `ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The kind of what it points to.
    pub kind: RefKind,
    /// Its name, in the namespace of the document.
    pub name: ResourceName,
}

/// What a `ref` can point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefKind {
    /// `v1 Service` and `serving.knative.dev/v1 Service`: `http://<name>.<namespace>.svc/`.
    Service,
    /// A channel: events are appended to its topic.
    Channel,
    /// `levada.dev/v1 Sink`
    Sink,
}

/// The kinds of channels by their `apiVersion` and `kind`.
pub(super) const CHANNEL_KINDS: [(&str, &str, ChannelKind); 2] = [
    (
        "messaging.knative.dev/v1beta1",
        "KafkaChannel",
        ChannelKind::KafkaChannel,
    ),
    ("messaging.knative.dev/v1", "Channel", ChannelKind::Channel),
];

const REF_KINDS: [(&str, &str, RefKind); 5] = [
    ("v1", "Service", RefKind::Service),
    ("serving.knative.dev/v1", "Service", RefKind::Service),
    (
        "messaging.knative.dev/v1beta1",
        "KafkaChannel",
        RefKind::Channel,
    ),
    ("messaging.knative.dev/v1", "Channel", RefKind::Channel),
    ("levada.dev/v1", "Sink", RefKind::Sink),
];

/// An absolute `http` or `https` URL with a host and without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// As it was written.
    pub text: Arc<str>,
    /// The same, parsed.
    pub uri: Uri,
}

impl HttpUrl {
    /// Checks an address.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn try_new(text: &str) -> Result<Self, String> {
        let parsed = UriRef::parse(text)
            .map_err(|error| format!("invalid value {text:?}: no URL (RFC 3986): {error}"))?;
        let Some(scheme) = parsed.scheme() else {
            return Err(format!(
                "invalid value {text:?}: a relative URI needs a ref; without one write http://host/..."
            ));
        };
        let scheme = scheme.as_str().to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(format!(
                "invalid value {text:?}: the scheme must be http or https, not {scheme}"
            ));
        }
        let authority = parsed
            .authority()
            .filter(|authority| !authority.host().is_empty());
        let Some(authority) = authority else {
            return Err(format!("invalid value {text:?}: the URL has no host"));
        };
        if authority.userinfo().is_some() {
            // Addresses are shown in the status and put into dead letters. So not shown here either.
            return Err("credentials do not belong in a URL: use request headers".to_owned());
        }
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("invalid value {text:?}: {error}"))?;
        Ok(Self {
            text: text.into(),
            uri,
        })
    }

    /// This address with a relative reference resolved against it (RFC 3986 5.2).
    ///
    /// # Errors
    /// What is wrong with the result, as a sentence.
    pub fn join(&self, relative: &str) -> Result<Self, String> {
        let base = StrictUri::parse(&*self.text).map_err(|error| error.to_string())?;
        // A base with a fragment cannot be resolved against.
        let base = base.strip_fragment();
        let joined = UriRef::parse(relative)
            .map_err(|error| error.to_string())?
            .resolve_against(&base)
            .map_err(|error| error.to_string())?;
        Self::try_new(joined.as_str())
    }
}

/// Reads `node` as a destination that is there; problems are reported at `path`.
pub(super) fn read(
    node: &Node,
    path: &str,
    namespace: &str,
    cx: &mut Context<'_>,
) -> Option<Destination> {
    let known = ["ref", "uri", "CACerts", "audience"];
    let fields = Fields::open(node, path, &known, Others::Refused, cx)?;
    let reference = fields.get("ref");
    let uri = fields.text("uri", cx);
    let ca_certs = certificates(&fields, cx);
    if fields.get("audience").is_some() {
        fields.problem("audience", "not supported yet: use request headers", cx);
        return None;
    }
    let target = match (reference, uri) {
        (None, None) => {
            if fields.get("uri").is_none() {
                cx.problem(node.line, path, "expected at least one of ref, uri");
            }
            return None;
        }
        (None, Some(uri)) => match HttpUrl::try_new(uri) {
            Ok(url) => Target::Url(url),
            Err(message) => {
                fields.problem("uri", message, cx);
                return None;
            }
        },
        (Some(reference), uri) => {
            let reference = read_ref(reference, &fields.path_of("ref"), namespace, cx);
            let path = uri.map(|uri| relative(&fields, uri, cx));
            let (reference, path) = (reference?, path.map_or(Some(None), |path| path.map(Some))?);
            if reference.kind == RefKind::Channel && path.as_deref().is_some_and(|p| p != "/") {
                let message = "a channel takes events at its root: leave uri out beside this ref";
                fields.problem("uri", message, cx);
                return None;
            }
            Target::Ref { reference, path }
        }
    };
    Some(Destination {
        target,
        ca_certs: ca_certs?,
        line: node.line,
    })
}

/// Whether a destination is written but says nothing, as `{}`.
pub(super) fn is_blank(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => entries.iter().all(|entry| entry.value.is_null()),
        _ => false,
    }
}

/// A `uri` beside a `ref`: a path, a query, or both.
fn relative(fields: &Fields<'_>, uri: &str, cx: &mut Context<'_>) -> Option<String> {
    match UriRef::parse(uri) {
        Err(error) => {
            fields.problem("uri", format!("invalid value {uri:?}: {error}"), cx);
            None
        }
        Ok(parsed) if parsed.has_scheme() || parsed.has_authority() => {
            let message =
                "an absolute URI next to a ref: give a relative one, or leave the ref out";
            cx.problem(fields.line_of("uri"), &fields.path, message);
            None
        }
        Ok(_) => Some(uri.to_owned()),
    }
}

fn read_ref(node: &Node, path: &str, namespace: &str, cx: &mut Context<'_>) -> Option<Reference> {
    let known = [
        "apiVersion",
        "kind",
        "name",
        "namespace",
        "group",
        "address",
    ];
    let fields = Fields::open(node, path, &known, Others::Refused, cx)?;
    for (field, instead) in [("group", "write apiVersion"), ("address", "write uri")] {
        if fields.get(field).is_some() {
            fields.problem(field, format!("not supported: {instead} instead"), cx);
        }
    }
    if let Some(other) = fields
        .text("namespace", cx)
        .filter(|other| *other != namespace)
    {
        let message = format!(
            "parent namespace does not match: it is {namespace:?}, and {other:?} is out of reach"
        );
        fields.problem("namespace", message, cx);
    }
    let kind = read_kind(&fields, &REF_KINDS, cx);
    let name = read_name(&fields, namespace, cx);
    Some(Reference {
        kind: kind?,
        name: name?,
    })
}

/// `apiVersion` and `kind` together, out of a list.
pub(super) fn read_kind<T: Copy>(
    fields: &Fields<'_>,
    kinds: &[(&str, &str, T)],
    cx: &mut Context<'_>,
) -> Option<T> {
    let version = fields.required_text("apiVersion", cx);
    let kind = fields.required_text("kind", cx);
    let (version, kind) = (version?, kind?);
    let found = kinds.iter().find(|(v, k, _)| (*v, *k) == (version, kind));
    if found.is_none() {
        let known: Vec<_> = kinds.iter().map(|(v, k, _)| format!("{v} {k}")).collect();
        let field = if kinds.iter().any(|(_, k, _)| *k == kind) {
            "apiVersion"
        } else {
            "kind"
        };
        let message = format!(
            "{version} {kind} is not known here, only {}",
            known.join(", ")
        );
        fields.problem(field, message, cx);
    }
    found.map(|(_, _, value)| *value)
}

/// `name`, a DNS label.
pub(super) fn read_name(
    fields: &Fields<'_>,
    namespace: &str,
    cx: &mut Context<'_>,
) -> Option<ResourceName> {
    let name = fields.required_text("name", cx)?;
    if let Some(problem) = label_problem(name) {
        fields.problem(
            "name",
            format!("{name:?} is not a DNS label: {problem}"),
            cx,
        );
        return None;
    }
    ResourceName::try_new(namespace, name).ok()
}

/// `CACerts`: `Some(None)` when absent, `None` when it is wrong.
fn certificates(fields: &Fields<'_>, cx: &mut Context<'_>) -> Option<Option<Arc<str>>> {
    if fields.get("CACerts").is_none() {
        return Some(None);
    }
    let pem = fields.text("CACerts", cx)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let message = match found {
        Ok(certificates) if !certificates.is_empty() => return Some(Some(pem.into())),
        Ok(_) => "no certificate in it: give PEM text, BEGIN and END lines included".to_owned(),
        Err(error) => format!("not PEM: {error}"),
    };
    fields.problem("CACerts", message, cx);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in [
            "http://sub.example.com/",
            "https://sub.example.com:8443/p/a?q=1",
            "HTTP://a",
            "http://[::1]:80/x",
            "http://a/#frag",
        ] {
            assert_eq!(&*HttpUrl::try_new(good).unwrap().text, good);
        }
        for (bad, reason) in [
            ("", "relative"),
            ("/only/a/path", "relative"),
            ("//host/x", "relative"),
            ("ftp://example.com/x", "scheme"),
            ("mailto:a@b", "scheme"),
            ("http:///x", "no host"),
            ("http:x", "no host"),
            ("http://a b/", "RFC 3986"),
            ("http://a/ü", "RFC 3986"),
            ("http://me:secret@a/", "credentials"),
            ("http://a:99999/", "invalid"),
        ] {
            let message = HttpUrl::try_new(bad).unwrap_err();
            assert!(message.contains(reason), "{bad:?}: {message}");
            assert!(!message.contains("secret"));
        }
    }

    #[test]
    fn relative_addresses_are_resolved() {
        for (base, relative, joined) in [
            ("http://a/", "/update", "http://a/update"),
            ("http://a/", "update?x=1", "http://a/update?x=1"),
            ("http://a/b/c", "d", "http://a/b/d"),
            ("http://a/b/c", "?q", "http://a/b/c?q"),
            ("http://a/b#f", "/", "http://a/"),
            ("http://a", "x/../../y", "http://a/y"),
        ] {
            let base = HttpUrl::try_new(base).unwrap();
            assert_eq!(&*base.join(relative).unwrap().text, joined);
        }
    }
}
