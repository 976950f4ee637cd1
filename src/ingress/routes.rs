//! From a request's target to a channel.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::Uri;
use http::header::{HOST, HeaderMap};

use super::metrics::{Answers, Metrics};
use crate::channel::ResourceName;
use crate::log::TopicName;

/// A DNS label has at most so many characters.
const LABEL: usize = 63;
const SUFFIX: &[u8] = b"-kn-channel";

/// A channel that takes events.
#[derive(Debug)]
pub struct Route {
    name: ResourceName,
    topic: TopicName,
    answers: OnceLock<Answers>,
}

impl Route {
    /// The channel.
    #[must_use]
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// Where its events go.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub(super) fn answers(&self, metrics: &Metrics) -> &Answers {
        self.answers
            .get_or_init(|| metrics.of_channel(self.name.namespace(), self.name.name()))
    }
}

/// The channels that take events, found by host or path.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// By `<namespace>/<name>`.
    routes: HashMap<Box<[u8]>, Arc<Route>>,
}

impl FromIterator<(ResourceName, TopicName)> for RouteTable {
    fn from_iter<I: IntoIterator<Item = (ResourceName, TopicName)>>(channels: I) -> Self {
        let routes = channels.into_iter().map(|(name, topic)| {
            let route = Route {
                name,
                topic,
                answers: OnceLock::new(),
            };
            let key = route.name.to_string().into_bytes().into_boxed_slice();
            (key, Arc::new(route))
        });
        Self {
            routes: routes.collect(),
        }
    }
}

/// A request's target names no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// It breaks HTTP's rules, for the reason given.
    Malformed(&'static str),
    /// There is no such channel.
    Unknown,
}

impl RouteTable {
    /// The channel that a request is for: by path `/<namespace>/<channel>`, else, at the root, by
    /// host.
    pub(super) fn find(&self, uri: &Uri, headers: &HeaderMap) -> Result<&Arc<Route>, NoRoute> {
        let host = host(uri, headers).map_err(NoRoute::Malformed)?;
        match uri.path() {
            "/" | "*" | "" => self.by_host(host),
            path => self.by_path(path),
        }
        .ok_or(NoRoute::Unknown)
    }

    fn by_path(&self, path: &str) -> Option<&Arc<Route>> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        // Anything but two segments is not the name of a channel, so it is not found.
        self.routes.get(path.as_bytes())
    }

    fn by_host(&self, host: &[u8]) -> Option<&Arc<Route>> {
        let mut labels = host.split(|byte| *byte == b'.');
        let channel = labels.next()?;
        let namespace = labels.next()?;
        let channel = match channel.len().checked_sub(SUFFIX.len()) {
            Some(at) if channel[at..].eq_ignore_ascii_case(SUFFIX) => &channel[..at],
            _ => channel,
        };
        let mut key = [b'/'; 2 * LABEL + 1];
        let end = namespace.len() + 1 + channel.len();
        if namespace.len() > LABEL || channel.len() > LABEL {
            return None;
        }
        key[..namespace.len()].copy_from_slice(namespace);
        key[namespace.len() + 1..end].copy_from_slice(channel);
        key[..end].make_ascii_lowercase();
        self.routes.get(&key[..end])
    }
}

/// The host that a request is for, without the port: of its absolute target or `:authority`,
/// else of the one `Host` header.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a [u8], &'static str> {
    let mut values = headers.get_all(HOST).iter();
    let header = values.next();
    if values.next().is_some() {
        return Err("there are two Host headers; send one");
    }
    let authority = match (uri.authority(), header) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(header)) => header.as_bytes(),
        (None, None) => return Err("there is no Host header; send the channel's host in it"),
    };
    without_port(authority).ok_or("the host is not <channel>.<namespace>[.domain][:port]")
}

fn without_port(authority: &[u8]) -> Option<&[u8]> {
    let (host, port) = match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if authority.last() != Some(&b']') => (&authority[..at], &authority[at + 1..]),
        _ => (authority, &b""[..]),
    };
    let legal = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'[' | b']' | b':')
    };
    let is_good = !host.is_empty() && host.iter().all(legal) && port.iter().all(u8::is_ascii_digit);
    is_good.then_some(host)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn table() -> RouteTable {
        [("prod", "orders"), ("default", "a")]
            .into_iter()
            .map(|(namespace, name)| {
                let name = ResourceName::try_new(namespace, name).unwrap();
                let topic = TopicName::try_new(&format!("t.{namespace}.{}", name.name())).unwrap();
                (name, topic)
            })
            .collect()
    }

    fn find(target: &str, hosts: &[&str]) -> Result<String, NoRoute> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        table()
            .find(&target.parse().unwrap(), &headers)
            .map(|route| route.name().to_string())
    }

    #[test]
    fn hosts_that_name_a_channel() {
        for host in [
            "orders.prod",
            "orders.prod:8080",
            "orders.prod.",
            "orders.prod.svc",
            "ORDERS.Prod.svc.cluster.local:80",
            "orders-kn-channel.prod.svc.cluster.local",
            "orders-KN-Channel.prod.svc.k8s.example.org.",
            "orders.prod.localhost:",
        ] {
            assert_eq!(find("/", &[host]), Ok("prod/orders".into()), "{host}");
            assert_eq!(find("/?a=b", &[host]), Ok("prod/orders".into()), "{host}");
        }
    }

    #[test]
    fn hosts_that_name_none() {
        let long = format!("orders.{}", "p".repeat(100));
        for host in [
            "orders",
            "orders.",
            ".prod",
            "orders..prod",
            "xorders.prod",
            "order.prod",
            "orders.prod2",
            "orders-kn-channel-kn-channel.prod",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "localhost:8080",
            &long,
        ] {
            assert_eq!(find("/", &[host]), Err(NoRoute::Unknown), "{host}");
        }
    }

    #[test]
    fn hosts_that_break_the_rules() {
        let all: [&[&str]; 7] = [
            &[],
            &[""],
            &[":80"],
            &["orders.prod", "other.example.org"],
            &["user@orders.prod"],
            &["orders.prod:http"],
            &["orders.prod, x.y"],
        ];
        for hosts in all {
            for target in ["/", "/prod/orders"] {
                let found = find(target, hosts);
                assert!(matches!(found, Err(NoRoute::Malformed(_))), "{hosts:?}");
            }
        }
    }

    #[test]
    fn paths() {
        for path in ["/prod/orders", "/prod/orders/", "/prod/orders?x=%20"] {
            assert_eq!(find(path, &["localhost"]), Ok("prod/orders".into()));
        }
        for path in [
            "/prod",
            "/prod/",
            "/prod/nosuch",
            "/prod/orders//",
            "//prod/orders",
            "/prod/orders/hello",
            "/orders/prod",
            "/PROD/orders",
            "/prod/orders-kn-channel",
            "/something",
        ] {
            assert_eq!(
                find(path, &["orders.prod"]),
                Err(NoRoute::Unknown),
                "{path}"
            );
        }
    }

    #[test]
    fn an_absolute_target_outweighs_the_host_header() {
        assert_eq!(
            find("http://orders.prod:80/", &["a.default"]),
            Ok("prod/orders".into())
        );
        assert_eq!(find("http://orders.prod", &[]), Ok("prod/orders".into()));
        assert!(find("http://u@orders.prod/", &["a.default"]).is_err());
    }
}
