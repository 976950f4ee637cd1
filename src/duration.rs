//! ISO 8601 durations, as manifests and options write them: `PT0.5S`, `P1DT2H`, `P1W`.
//!
//! Years and months are refused: how long one lasts depends on the calendar, and a retention or a
//! back-off must not.

use std::time::Duration;

/// The longest duration that is taken, so that adding one to a point in time cannot overflow.
pub const MAX: Duration = Duration::from_secs(36_525 * 86_400);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form at all.
    #[error("not an ISO 8601 duration such as PT0.5S, PT5M, PT1H30M, P1DT2H or P1W")]
    Malformed,
    /// `-PT1S`
    #[error("must not be negative")]
    Negative,
    /// `P1Y`, `P3M`
    #[error("years and months have no fixed length: use weeks, days, hours, minutes or seconds")]
    Calendar,
    /// More than [`MAX`].
    #[error("longer than 100 years")]
    TooLong,
}

/// A unit's letter and its length in seconds, longest first; those behind `T` begin at `H`.
const UNITS: [(char, u128); 5] = [
    ('W', 604_800),
    ('D', 86_400),
    ('H', 3_600),
    ('M', 60),
    ('S', 1),
];
const FIRST_TIME_UNIT: usize = 2;

/// Reads an ISO 8601 duration: at least one of `W D`, then `T` and at least one of `H M S`, each
/// at most once and in this order, in capitals; the last one may have a fraction behind `.` or
/// `,`. What lies below a nanosecond is cut off.
///
/// # Errors
/// [`DurationError`] says what is wrong.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Some(rest) = text.strip_prefix('-') {
        return Err(match parse(rest) {
            Ok(_) => DurationError::Negative,
            Err(error) => error,
        });
    }
    let fields = text.strip_prefix('P').ok_or(DurationError::Malformed)?;
    let (date, time) = match fields.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (fields, None),
    };
    if time.is_some_and(str::is_empty) || (date.is_empty() && time.is_none()) {
        return Err(DurationError::Malformed);
    }
    let mut total = Total::default();
    total.add(date, &UNITS[..FIRST_TIME_UNIT], true)?;
    total.add(time.unwrap_or(""), &UNITS[FIRST_TIME_UNIT..], false)?;
    total.finish()
}

#[derive(Default)]
struct Total {
    nanos: u128,
    /// Seen a fraction: nothing may follow it.
    ended: bool,
}

impl Total {
    /// Adds a run of `<number><unit>` fields.
    fn add(
        &mut self,
        mut rest: &str,
        mut units: &[(char, u128)],
        date: bool,
    ) -> Result<(), DurationError> {
        while !rest.is_empty() {
            let unit_at = rest
                .find(|c: char| c.is_ascii_alphabetic())
                .ok_or(DurationError::Malformed)?;
            let (number, tail) = rest.split_at(unit_at);
            let letter = tail.chars().next().ok_or(DurationError::Malformed)?;
            if date && matches!(letter, 'Y' | 'M') && is_number(number) {
                return Err(DurationError::Calendar);
            }
            let place = units
                .iter()
                .position(|(unit, _)| *unit == letter)
                .ok_or(DurationError::Malformed)?;
            self.add_field(number, units[place].1)?;
            units = &units[place + 1..];
            rest = &tail[1..];
        }
        Ok(())
    }

    fn add_field(&mut self, number: &str, unit_seconds: u128) -> Result<(), DurationError> {
        if self.ended || !is_number(number) {
            return Err(DurationError::Malformed);
        }
        let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, ""));
        self.ended = number.len() > whole.len();
        // A number too long for the type is in any case too long a time.
        let whole: u128 = whole.parse().map_err(|_| DurationError::TooLong)?;
        let unit = unit_seconds * NANOS_PER_SECOND;
        self.nanos = whole
            .checked_mul(unit)
            .and_then(|nanos| nanos.checked_add(fraction_of(unit, fraction)))
            .and_then(|nanos| nanos.checked_add(self.nanos))
            .ok_or(DurationError::TooLong)?;
        Ok(())
    }

    fn finish(self) -> Result<Duration, DurationError> {
        let seconds = u64::try_from(self.nanos / NANOS_PER_SECOND);
        let nanos = u32::try_from(self.nanos % NANOS_PER_SECOND);
        match (seconds, nanos) {
            (Ok(seconds), Ok(nanos)) if Duration::new(seconds, nanos) <= MAX => {
                Ok(Duration::new(seconds, nanos))
            }
            _ => Err(DurationError::TooLong),
        }
    }
}

/// `0.<digits>` of `unit` nanoseconds.
fn fraction_of(unit: u128, digits: &str) -> u128 {
    // Twenty digits are below a nanosecond of any unit, and their product fits.
    let digits = &digits[..digits.len().min(20)];
    let scale = digits.bytes().fold(1_u128, |scale, _| scale * 10);
    digits.parse::<u128>().unwrap_or(0) * unit / scale
}

/// Digits, with a fraction behind `.` or `,` or without.
fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once(['.', ',']) {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

/// The duration in ISO 8601: `PT0.5S`, `PT1H30M`, `PT168H`, `PT0S`. What [`parse`] reads back.
#[must_use]
pub fn iso(duration: Duration) -> String {
    let (hours, minutes, seconds) = (
        duration.as_secs() / 3_600,
        duration.as_secs() / 60 % 60,
        duration.as_secs() % 60,
    );
    let mut text = String::from("PT");
    for (count, unit) in [(hours, 'H'), (minutes, 'M')] {
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if duration.subsec_nanos() > 0 {
        let fraction = format!("{:09}", duration.subsec_nanos());
        text.push_str(&format!("{seconds}.{}S", fraction.trim_end_matches('0')));
    } else if seconds > 0 || text == "PT" {
        text.push_str(&format!("{seconds}S"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("PT1S", 1_000),
            ("PT0S", 0),
            ("PT0.05S", 50),
            ("PT0,05S", 50),
            ("PT0.005M", 300),
            ("PT1.5H", 5_400_000),
            ("PT5M", 300_000),
            ("PT1H30M", 5_400_000),
            ("PT1H1M1.001S", 3_661_001),
            ("P1D", 86_400_000),
            ("P0.5D", 43_200_000),
            ("P1DT2H", 93_600_000),
            ("P1W", 604_800_000),
            ("P1W1DT1S", 691_201_000),
            ("PT168H", 604_800_000),
            ("PT0000000000000000000000000001S", 1_000),
            ("PT0.00100000000000000000000000000000009S", 1),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("PT0.000000001S"), Ok(Duration::from_nanos(1)));
        assert_eq!(parse("P36525D"), Ok(MAX));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        use DurationError::{Calendar, Malformed, Negative, TooLong};
        for (text, error) in [
            ("", Malformed),
            ("P", Malformed),
            ("PT", Malformed),
            ("P1DT", Malformed),
            ("5", Malformed),
            ("500ms", Malformed),
            ("pt1s", Malformed),
            ("PT1s", Malformed),
            ("PT1Sx", Malformed),
            ("PT1S ", Malformed),
            (" PT1S", Malformed),
            ("+PT1S", Malformed),
            ("PT-1S", Malformed),
            ("PT.5S", Malformed),
            ("PT5.S", Malformed),
            ("PT1.5.5S", Malformed),
            ("PT0.5H1S", Malformed),
            ("P0.5DT1H", Malformed),
            ("PT1S1S", Malformed),
            ("PT1S1M", Malformed),
            ("P1H", Malformed),
            ("PT1D", Malformed),
            ("P1D1W", Malformed),
            ("PT1HT1S", Malformed),
            ("PT\u{661}S", Malformed),
            ("PT1\u{17f}", Malformed),
            ("1985-04-12T23:20:50.52Z", Malformed),
            ("invalid-delay", Malformed),
            ("--PT1S", Malformed),
            ("-pt1s", Malformed),
            ("-PT1S", Negative),
            ("-PT0.5S", Negative),
            ("P1Y", Calendar),
            ("P1M", Calendar),
            ("P1Y2M3D", Calendar),
            ("P36526D", TooLong),
            ("PT99999999999999999999S", TooLong),
            ("PT9999999999999999999999999999999999999999999S", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn durations_are_written() {
        for (millis, text) in [
            (0, "PT0S"),
            (500, "PT0.5S"),
            (50, "PT0.05S"),
            (60_000, "PT1M"),
            (5_400_000, "PT1H30M"),
            (604_800_000, "PT168H"),
            (3_600_250, "PT1H0.25S"),
        ] {
            assert_eq!(iso(Duration::from_millis(millis)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..36_525_u64 * 86_400, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&iso(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "-?P?[0-9.,WDTHMSY\\PC]{0,40}") {
            let _ = parse(&text);
        }
    }
}
