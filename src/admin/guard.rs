//! Who may ask: names the port answers to, requests that a foreign page made, the token.
//!
//! A page on another site can make a browser send requests to localhost, and by DNS rebinding
//! even read the answers under its own name. The first carry a foreign `Origin` or
//! `Sec-Fetch-Site`, the second a foreign `Host`. An IP address as `Host` cannot be rebound.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::Settings;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

pub(super) fn refuse(status: StatusCode, detail: impl Into<String>) -> Refusal {
    Refusal {
        status,
        detail: detail.into(),
    }
}

/// Checks a request before anything else is done for it.
pub(super) fn check(
    settings: &Settings,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let authority = authority(uri, headers)?;
    check_host(settings, &authority)?;
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        check_origin(&authority, headers)?;
        check_change(settings, uri.path())?;
    }
    let probe = matches!(uri.path(), "/healthz" | "/readyz");
    if settings.token.is_empty() || probe {
        return Ok(());
    }
    check_token(settings.token.reveal(), headers)
}

/// `host:port` that was asked for, in lower case.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => host.to_str().unwrap_or_default(),
        _ => "",
    };
    if host.is_empty() {
        let detail = "the request needs one Host header";
        return Err(refuse(StatusCode::BAD_REQUEST, detail));
    }
    Ok(host.to_ascii_lowercase())
}

fn check_host(settings: &Settings, authority: &str) -> Result<(), Refusal> {
    let name = host_name(authority);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let known = address.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || settings
            .allowed_hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name));
    if known {
        return Ok(());
    }
    Err(refuse(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "this port does not answer to {name:?}; add it to admin.allowed-hosts if it should"
        ),
    ))
}

/// The authority without its port and a last dot.
fn host_name(authority: &str) -> &str {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    name.strip_suffix('.').unwrap_or(name)
}

fn check_origin(authority: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(|v| v.as_bytes());
    let site_is_ours = site.is_none_or(|site| matches!(site, b"same-origin" | b"none"));
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin_is_ours = origins.all(|origin| {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        origin
            .split_once("://")
            .is_some_and(|(_, at)| at == authority)
    });
    if site_is_ours && origin_is_ours {
        return Ok(());
    }
    let detail = "another site's page made this request (Origin, Sec-Fetch-Site); it may only read";
    Err(refuse(StatusCode::FORBIDDEN, detail))
}

/// Signing in changes nothing but who is asking.
fn check_change(settings: &Settings, path: &str) -> Result<(), Refusal> {
    if settings.read_only && path != super::page::SIGN_IN {
        let detail = "this port only shows (admin.read-only): ask a node that may change something";
        return Err(refuse(StatusCode::FORBIDDEN, detail));
    }
    Ok(())
}

fn check_token(token: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    if given.is_some_and(|given| equal(given, token.as_bytes())) {
        return Ok(());
    }
    let detail = "the request needs the header Authorization: Bearer TOKEN with this port's token";
    Err(refuse(StatusCode::UNAUTHORIZED, detail))
}

/// Compares in a time that tells nothing of where the two differ.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::Secret;

    fn status(settings: &Settings, request: http::request::Builder) -> Option<u16> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(settings, &parts.method, &parts.uri, &parts.headers)
            .err()
            .map(|refusal| refusal.status.as_u16())
    }

    fn get(host: &str) -> http::request::Builder {
        Request::get("/v1/channels").header("host", host)
    }

    fn post(host: &str) -> http::request::Builder {
        Request::post("/v1/channels").header("host", host)
    }

    #[test]
    fn only_known_names_are_answered() {
        let settings = Settings {
            allowed_hosts: vec!["Levada.internal".into()],
            ..Settings::default()
        };
        for host in [
            "localhost",
            "LOCALHOST:8081",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]",
            "10.0.0.7:80",
            "levada.internal:8081",
            "levada.internal.",
            "a.localhost:1",
        ] {
            assert_eq!(status(&settings, get(host)), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "internal",
        ] {
            assert_eq!(status(&settings, get(host)), Some(421), "{host}");
        }
        assert_eq!(status(&settings, Request::get("/healthz")), Some(400));
        let two = get("localhost").header("host", "evil.example");
        assert_eq!(status(&settings, two), Some(400));
    }

    #[test]
    fn a_foreign_page_changes_nothing() {
        let settings = Settings::default();
        let host = "localhost:8081";
        let with = |name, value| status(&settings, post(host).header(name, value));
        assert_eq!(status(&settings, post(host)), None);
        assert_eq!(with("origin", "http://localhost:8081"), None);
        assert_eq!(with("sec-fetch-site", "same-origin"), None);
        assert_eq!(with("sec-fetch-site", "none"), None);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:8080",
            "http://localhost",
        ] {
            assert_eq!(with("origin", origin), Some(403), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "cross-site"), Some(403));
        assert_eq!(with("sec-fetch-site", "same-site"), Some(403));
        let read = get(host).header("origin", "http://evil.example");
        assert_eq!(status(&settings, read), None);
    }

    #[test]
    fn a_port_that_only_shows_changes_nothing() {
        let settings = Settings {
            read_only: true,
            ..Settings::default()
        };
        assert_eq!(status(&settings, get("localhost")), None);
        assert_eq!(status(&settings, post("localhost")), Some(403));
        let sign_in = Request::post("/sign-in").header("host", "localhost");
        assert_eq!(status(&settings, sign_in), None);
    }

    #[test]
    fn the_token_is_asked_for_except_by_probes() {
        let settings = Settings {
            token: Secret::new("s3cret"),
            ..Settings::default()
        };
        let with = |value| status(&settings, get("localhost").header("authorization", value));
        assert_eq!(status(&settings, get("localhost")), Some(401));
        assert_eq!(with("Bearer s3cret"), None);
        assert_eq!(with("bearer s3cret"), None);
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer ",
            "Basic s3cret",
            "s3cret",
        ] {
            assert_eq!(with(wrong), Some(401), "{wrong}");
        }
        for probe in ["/healthz", "/readyz"] {
            let request = Request::get(probe).header("host", "localhost");
            assert_eq!(status(&settings, request), None);
        }
    }
}
