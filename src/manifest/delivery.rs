//! `spec.delivery`: what is written, and what it comes to.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::destination::{self, Destination};
use super::fields::{Context, Fields, Others};
use super::headers::read_headers;
use super::status_check;
use super::yaml::{Node, Value};
use crate::channel::{
    Accepted, Backoff, BackoffPolicy, DeliverySpec, Format, Ordering, RetryCodes, StatusCheck,
};

/// What a document says about delivery; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryOptions {
    /// `deadLetterSink`
    pub dead_letter: Option<Destination>,
    /// `retry`
    pub retry: Option<u32>,
    /// `timeout`
    pub timeout: Option<Duration>,
    /// `backoffPolicy`
    pub policy: Option<BackoffPolicy>,
    /// `backoffDelay`
    pub delay: Option<Duration>,
    /// `retryAfterMax`
    pub retry_after_max: Option<Duration>,
    /// `format`
    pub format: Option<Format>,
    /// `ordering`, or the annotation
    pub ordering: Option<Ordering>,
    /// `maxInFlight`
    pub max_in_flight: Option<usize>,
    /// `maxWindow`
    pub max_window: Option<usize>,
    /// `jitter`
    pub jitter: Option<f64>,
    /// `backoffMax`
    pub backoff_max: Option<Duration>,
    /// `retryWindow`
    pub retry_window: Option<Duration>,
    /// `retryStatusCodes`
    pub retry_codes: Option<RetryCodes>,
    /// `deadLetterTopic`
    pub dead_letter_topic: Option<bool>,
    /// `rateLimit`
    pub rate_limit: Option<f64>,
    /// `accepted`
    pub accepted: Option<Accepted>,
    /// `sandbox`
    pub sandbox: Option<bool>,
    /// `statusCheck`
    pub status_check: Option<Arc<StatusCheck>>,
}

impl DeliveryOptions {
    /// `preset: notification`: up to 8 retries within 30 minutes, spread by jitter.
    #[must_use]
    pub fn notification() -> Self {
        Self {
            retry: Some(8),
            policy: Some(BackoffPolicy::Exponential),
            delay: Some(Duration::from_millis(3_500)),
            jitter: Some(0.5),
            retry_window: Some(Duration::from_secs(30 * 60)),
            retry_codes: Some(RetryCodes::Listed(
                [(408, 408), (425, 425), (429, 429), (500, 599)].into(),
            )),
            ..Self::default()
        }
    }

    /// These, and where they say nothing, `below`.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        Self {
            dead_letter: self.dead_letter.or(below.dead_letter),
            retry: self.retry.or(below.retry),
            timeout: self.timeout.or(below.timeout),
            policy: self.policy.or(below.policy),
            delay: self.delay.or(below.delay),
            retry_after_max: self.retry_after_max.or(below.retry_after_max),
            format: self.format.or(below.format),
            ordering: self.ordering.or(below.ordering),
            max_in_flight: self.max_in_flight.or(below.max_in_flight),
            max_window: self.max_window.or(below.max_window),
            jitter: self.jitter.or(below.jitter),
            backoff_max: self.backoff_max.or(below.backoff_max),
            retry_window: self.retry_window.or(below.retry_window),
            retry_codes: self.retry_codes.or(below.retry_codes),
            dead_letter_topic: self.dead_letter_topic.or(below.dead_letter_topic),
            rate_limit: self.rate_limit.or(below.rate_limit),
            accepted: self.accepted.or(below.accepted),
            sandbox: self.sandbox.or(below.sandbox),
            status_check: self.status_check.or(below.status_check),
        }
    }
}

/// How a subscription delivers: its own options over its channel's, field by field, over the
/// node's `defaults`.
#[must_use]
pub fn effective(
    own: &DeliveryOptions,
    channel: Option<&DeliveryOptions>,
    defaults: &DeliveryOptions,
) -> DeliverySpec {
    let options = own
        .clone()
        .or(channel.cloned().unwrap_or_default())
        .or(defaults.clone());
    DeliverySpec {
        retry: options.retry.unwrap_or(0),
        backoff: Backoff {
            policy: options.policy.unwrap_or(BackoffPolicy::Exponential),
            delay: options.delay.unwrap_or(Duration::from_millis(200)),
            max: options.backoff_max,
            jitter: options.jitter.unwrap_or(0.0),
        },
        retry_window: options.retry_window,
        timeout: options.timeout.unwrap_or(Duration::from_secs(30)),
        retry_after_max: options.retry_after_max.unwrap_or(Duration::from_secs(600)),
        retry_codes: options.retry_codes.unwrap_or(RetryCodes::Standard),
        format: options.format,
        ordering: options.ordering.unwrap_or(Ordering::Key),
        max_in_flight: options.max_in_flight.unwrap_or(64),
        max_window: options.max_window.unwrap_or(10_000),
        dead_letter_topic: options.dead_letter_topic.unwrap_or(true),
        rate_limit: options.rate_limit,
        accepted: options.accepted.unwrap_or_default(),
        sandbox: options.sandbox.unwrap_or(false),
        status_check: options.status_check,
    }
}

/// Whose fields `spec.delivery` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Knative's.
    Knative,
    /// Knative's and our own.
    Levada,
}

const KNATIVE_FIELDS: [&str; 7] = [
    "deadLetterSink",
    "retry",
    "timeout",
    "backoffPolicy",
    "backoffDelay",
    "retryAfterMax",
    "format",
];
const OWN_FIELDS: [&str; 14] = [
    "ordering",
    "maxInFlight",
    "maxWindow",
    "jitter",
    "backoffMax",
    "retryWindow",
    "retryStatusCodes",
    "deadLetterTopic",
    "preset",
    "rateLimit",
    "headers",
    "accepted",
    "sandbox",
    "statusCheck",
];

/// The upper bound of `maxInFlight` and `maxWindow`.
const MOST_EVENTS: i64 = 1_000_000;

/// What `spec.delivery` holds: the options, and the subscriber's request headers.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) options: DeliveryOptions,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Reads `spec.delivery`; what is wrong is reported and left out.
pub(super) fn read(
    node: Option<&Node>,
    dialect: Dialect,
    namespace: &str,
    cx: &mut Context<'_>,
) -> Delivery {
    let mut delivery = Delivery {
        options: DeliveryOptions::default(),
        headers: Vec::new(),
    };
    let path = "spec.delivery";
    let fields = node.and_then(|node| Fields::open(node, path, &[], Others::Ignored, cx));
    let Some(fields) = fields else {
        return delivery;
    };
    report_unknown(&fields, dialect, cx);
    delivery.options = read_knative(&fields, namespace, cx);
    if dialect == Dialect::Levada {
        delivery.options = read_own(&fields, delivery.options, cx);
        delivery.headers = fields
            .get("headers")
            .map(|node| read_headers(node, &fields.path_of("headers"), cx))
            .unwrap_or_default();
    }
    delivery
}

fn report_unknown(fields: &Fields<'_>, dialect: Dialect, cx: &mut Context<'_>) {
    let own = dialect == Dialect::Levada;
    let known: Vec<&str> = KNATIVE_FIELDS
        .iter()
        .chain(OWN_FIELDS.iter().filter(|_| own))
        .copied()
        .collect();
    for entry in fields.entries() {
        let key = entry.key.as_str();
        let field = fields.path_of(key);
        if known.contains(&key) {
        } else if OWN_FIELDS.contains(&key) {
            let message =
                "unknown field: only a levada.dev/v1 Subscription has it (change apiVersion)";
            cx.problem(entry.line, &field, message);
        } else {
            cx.problem(entry.line, &field, super::fields::unknown(key, &known));
        }
    }
}

fn read_knative(fields: &Fields<'_>, namespace: &str, cx: &mut Context<'_>) -> DeliveryOptions {
    let policies = [
        ("linear", BackoffPolicy::Linear),
        ("exponential", BackoffPolicy::Exponential),
    ];
    let formats = [("json", Format::Json), ("binary", Format::Binary)];
    let dead_letter = fields
        .get("deadLetterSink")
        .and_then(|node| destination::read(node, &fields.path_of("deadLetterSink"), namespace, cx));
    DeliveryOptions {
        dead_letter,
        retry: fields.int("retry", 0..=i32::MAX.into(), cx),
        timeout: fields.positive_duration("timeout", cx),
        policy: fields.choice("backoffPolicy", &policies, cx),
        delay: fields.duration("backoffDelay", cx),
        retry_after_max: fields.duration("retryAfterMax", cx),
        format: fields.choice("format", &formats, cx),
        ..DeliveryOptions::default()
    }
}

fn read_own(
    fields: &Fields<'_>,
    knative: DeliveryOptions,
    cx: &mut Context<'_>,
) -> DeliveryOptions {
    let orderings = [
        ("key", Ordering::Key),
        ("partition", Ordering::Partition),
        ("none", Ordering::None),
    ];
    let accepted = [("delivered", Accepted::Delivered), ("sent", Accepted::Sent)];
    let preset = fields.choice("preset", &[("notification", ())], cx);
    let positive = |rate: f64| rate.is_finite() && rate > 0.0;
    let share = |jitter: f64| (0.0..=1.0).contains(&jitter);
    let explicit = DeliveryOptions {
        ordering: fields.choice("ordering", &orderings, cx),
        max_in_flight: fields.int("maxInFlight", 1..=MOST_EVENTS, cx),
        max_window: fields.int("maxWindow", 1..=MOST_EVENTS, cx),
        jitter: fields.number("jitter", "from 0 to 1", share, cx),
        backoff_max: fields.positive_duration("backoffMax", cx),
        retry_window: fields.positive_duration("retryWindow", cx),
        retry_codes: fields
            .get("retryStatusCodes")
            .and_then(|node| read_codes(node, fields, cx)),
        dead_letter_topic: fields.flag("deadLetterTopic", cx),
        rate_limit: fields.number("rateLimit", "greater than 0", positive, cx),
        accepted: fields.choice("accepted", &accepted, cx),
        sandbox: fields.flag("sandbox", cx),
        status_check: fields
            .get("statusCheck")
            .and_then(|node| status_check::read(node, &fields.path_of("statusCheck"), cx))
            .map(Arc::new),
        ..knative
    };
    match preset {
        Some(()) => explicit.or(DeliveryOptions::notification()),
        None => explicit,
    }
}

fn read_codes(node: &Node, fields: &Fields<'_>, cx: &mut Context<'_>) -> Option<RetryCodes> {
    let Value::List(items) = &node.value else {
        let message = format!(
            "must be a list such as [429, \"500-599\"], not {}",
            node.kind()
        );
        fields.problem("retryStatusCodes", message, cx);
        return None;
    };
    let ranges: Vec<Option<(u16, u16)>> = items
        .iter()
        .enumerate()
        .map(|(place, item)| {
            let range = match &item.value {
                Value::Int(code) => u16::try_from(*code).ok().map(|code| (code, code)),
                Value::Text(text) => code_range(text),
                _ => None,
            };
            // 1xx is never final and 2xx is success: neither can be retried.
            let range = range.filter(|(low, high)| (300..=*high).contains(low) && *high <= 599);
            if range.is_none() {
                let field = format!("{}[{place}]", fields.path_of("retryStatusCodes"));
                let message = "must be a code from 300 to 599, or a range such as \"500-599\"";
                cx.problem(item.line, &field, message);
            }
            range
        })
        .collect();
    let ranges: Option<Arc<[_]>> = ranges.into_iter().collect();
    ranges.map(RetryCodes::Listed)
}

/// `500-599`, or `500` in quotes.
fn code_range(text: &str) -> Option<(u16, u16)> {
    let code = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    match text.split_once('-') {
        Some((low, high)) => code(low).zip(code(high)),
        None => code(text).map(|code| (code, code)),
    }
}
