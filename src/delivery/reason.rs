//! The closed list of reasons why an attempt failed, shared by API, metrics and page.

use std::fmt;
use std::str::FromStr;

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// `http_<code>`: the sink answered with a code that is no success.
    Http(u16),
    /// No connection could be made: refused, or no route to the host.
    ConnectRefused,
    /// No connection (TCP and TLS) within the time for it.
    ConnectTimeout,
    /// No complete answer within the time for the attempt.
    AttemptTimeout,
    /// The connection ended before the answer did.
    ConnectionReset,
    /// The host name could not be resolved.
    Dns,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// What came back is not HTTP.
    InvalidResponse,
    /// The answer holds an event that is larger than the limit.
    BodyTooLarge,
    /// The address is one that must not be called.
    AddressBlocked,
    /// The attempt was cut by a drain or a rebalance; it counts as not made.
    Interrupted,
    /// The broker itself failed before or after the call.
    PipelineError,
}

/// Text that names no [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reason: use http_<code> or one of {list}", list = NAMES.map(|(_, name)| name).join(", "))]
pub struct UnknownReason(String);

const NAMES: [(Reason, &str); 11] = [
    (Reason::ConnectRefused, "connect_refused"),
    (Reason::ConnectTimeout, "connect_timeout"),
    (Reason::AttemptTimeout, "attempt_timeout"),
    (Reason::ConnectionReset, "connection_reset"),
    (Reason::Dns, "dns"),
    (Reason::Tls, "tls"),
    (Reason::InvalidResponse, "invalid_response"),
    (Reason::BodyTooLarge, "body_too_large"),
    (Reason::AddressBlocked, "address_blocked"),
    (Reason::Interrupted, "interrupted"),
    (Reason::PipelineError, "pipeline_error"),
];

impl Reason {
    /// The names, but for `http_<code>`.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(code) => write!(f, "http_{code}"),
            other => {
                let name = NAMES.iter().find(|(reason, _)| reason == other);
                f.write_str(name.map_or("", |(_, name)| name))
            }
        }
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let code = |digits: &str| {
            let three = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|code| three && *code >= 100)
        };
        NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(reason, _)| *reason)
            .or_else(|| text.strip_prefix("http_").and_then(code).map(Self::Http))
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_written_and_read_back() {
        let codes = (100..1000).map(Reason::Http);
        for reason in NAMES.iter().map(|(reason, _)| *reason).chain(codes) {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        assert_eq!(Reason::Http(503).to_string(), "http_503");
        for bad in [
            "",
            "http_",
            "http_5",
            "http_+50",
            "http_1000",
            "http_099",
            "DNS",
        ] {
            assert!(bad.parse::<Reason>().is_err(), "{bad:?}");
        }
    }
}
