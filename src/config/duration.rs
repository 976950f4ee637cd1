//! ISO 8601 durations.

use std::time::Duration;

/// Reads `PT20S`, `PT1H30M`, `PT0.5S`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .filter(|_| text.starts_with('P'))
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("{text:?} is not an ISO 8601 duration such as PT20S or PT1H30M"))
}

/// Writes it the same way.
pub(crate) fn format(duration: Duration) -> String {
    jiff::SignedDuration::try_from(duration).map_or_else(|_| "PT0S".into(), |d| d.to_string())
}
