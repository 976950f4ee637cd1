//! What a sample of a metric says.

use prometheus::proto::Metric;

pub(super) fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    let found = metric.get_label().iter().find(|label| label.name() == name);
    found.map_or("", |label| label.value())
}

pub(super) fn key(metric: &Metric, name: &str) -> (String, String) {
    (
        label(metric, "namespace").into(),
        label(metric, name).into(),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, which the registry hands out as f64; negative and huge ones saturate"
)]
pub(super) fn count(value: f64) -> u64 {
    value as u64
}
