//! What the ingress counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Upper bounds in seconds, from 100 us to 10 s.
const BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The families of the ingress.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    pub(super) request_seconds: Histogram,
    pub(super) append_seconds: Histogram,
}

impl Metrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When `registry` has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new(
                "levada_ingress_requests_total",
                "Requests answered by the ingress; without a channel: for one that does not exist",
            ),
            &["namespace", "channel", "code"],
        )?;
        let seconds = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))
        };
        let request_seconds = seconds(
            "levada_ingress_request_seconds",
            "From a request's headers to its answer",
        )?;
        let append_seconds = seconds(
            "levada_log_append_seconds",
            "From handing the events of a request to the log until all are stored",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(request_seconds.clone()))?;
        registry.register(Box::new(append_seconds.clone()))?;
        Ok(Self {
            requests,
            request_seconds,
            append_seconds,
        })
    }

    pub(super) fn of_channel(&self, namespace: &str, channel: &str) -> Answers {
        Answers(CODES.map(|code| {
            self.requests
                .with_label_values(&[namespace, channel, code.to_string().as_str()])
        }))
    }
}

/// The codes that the ingress answers with.
const CODES: [u16; 9] = [200, 202, 400, 404, 405, 408, 413, 415, 500];

/// The counters of one channel, one a code.
#[derive(Clone, Debug)]
pub(super) struct Answers([IntCounter; CODES.len()]);

impl Answers {
    pub(super) fn count(&self, code: u16) {
        if let Some(at) = CODES.iter().position(|known| *known == code) {
            self.0[at].inc();
        }
    }
}
