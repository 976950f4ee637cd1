//! RFC 3339 date and time, checked without being converted: the text is kept as it was sent.

/// Whether `text` is an RFC 3339 date-time with values that a calendar knows.
///
/// `T` and `Z` may be in lower case; a leap second must end a day in UTC.
pub(super) fn is_rfc3339(text: &str) -> bool {
    check(text.as_bytes()).is_some()
}

fn check(text: &[u8]) -> Option<()> {
    let (moment, rest) = text.split_at_checked(19)?;
    let separators = [moment[4], moment[7], moment[13], moment[16]] == *b"--::"
        && moment[10].eq_ignore_ascii_case(&b'T');
    if !separators {
        return None;
    }
    let year = number(&moment[0..4])?;
    let month = number(&moment[5..7])?;
    let day = number(&moment[8..10])?;
    let hour = number(&moment[11..13])?;
    let minute = number(&moment[14..16])?;
    let second = number(&moment[17..19])?;
    let minutes_east = zone(fraction(rest)?)?;
    let real = (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60;
    let leap_second = || (hour * 60 + minute - minutes_east).rem_euclid(1440) == 1439;
    (real && (second < 60 || (second == 60 && leap_second()))).then_some(())
}

/// What follows an optional fraction of a second.
fn fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(digits) = rest.strip_prefix(b".") else {
        return Some(rest);
    };
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    (end > 0).then(|| &digits[end..])
}

/// Minutes east of UTC.
fn zone(text: &[u8]) -> Option<i32> {
    match text {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let (hours, minutes) = (number(hours)?, number(&[*m1, *m2])?);
            let all = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -all } else { all })
        }
        _ => None,
    }
}

fn days_in(year: i32, month: i32) -> i32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 0,
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + i32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_times_with_a_zone_pass() {
        for good in [
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00z",
            "2018-04-05T17:31:00.5+02:00",
            "1984-02-28T15:04:05.999999999999Z",
            "2018-04-05T17:31:00-00:00",
            "2024-02-29T00:00:00Z",
            "2000-02-29T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "2017-01-01T00:59:60+01:00",
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
    }

    #[test]
    fn everything_else_does_not() {
        for bad in [
            "",
            "yesterday",
            "1522949460",
            "2019-02-28",
            "2018-04-05 17:31:00Z",
            "2018-02-30T17:31:00Z",
            "2018-00-01T00:00:00Z",
            "2018-13-01T00:00:00Z",
            "2018-01-00T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T23:60:00Z",
            "2018-04-05T12:00:60Z",
            "2018-04-05T12:00:61Z",
            "2018-04-05T17:31:00",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00,5Z",
            "2018-04-05T17:31:00+0200",
            "2018-04-05T17:31:00+24:00",
            "2018-04-05T17:31:00+02:60",
            "2018-04-05T17:31:00Z ",
            "2018-04-05T17:31Z",
            "+2018-04-05T17:31:00Z",
            "2018-4-05T17:31:00Z",
            "2018-04-05T17:31:0é",
            "Thu, 05 Apr 2018 17:31:00 GMT",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
