//! Dates and waits in HTTP header fields.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

use super::clock::Timestamp;

/// The two obsolete forms of a date, which recipients must read (RFC 9110, 5.6.7): those of RFC 850 and of C's
/// `asctime`. Both mean UTC.
const OBSOLETE_FORMS: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Reads an HTTP date in any of its three forms. A date before 1970 becomes its begin.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let current = || {
        rfc2822::DateTimeParser::new()
            .relaxed_weekday(true)
            .parse_timestamp(text)
            .ok()
    };
    let obsolete = |form: &&str| {
        let time: DateTime = strtime::parse(form, text).ok()?.to_datetime().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let time = current().or_else(|| OBSOLETE_FORMS.iter().find_map(obsolete))?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

/// The wait that a `Retry-After` asks for, at most `most` (RFC 9110, 10.2.3): seconds, with or without a fraction, or a
/// date. A date is compared with `date`, the response's own `Date`, as the clocks may differ; with `now` if that
/// cannot be read.
pub fn retry_after(value: &str, date: Option<&str>, now: Timestamp, most: Duration) -> Option<Duration> {
    let wait = || {
        Some(
            http_date(value)?
                .since(date.and_then(http_date).unwrap_or(now))
                .min(most),
        )
    };
    seconds(value, most).or_else(wait)
}

/// A number of seconds, with or without a fraction, at most `most`; `None` if the text is no number, or less than 0.
pub fn seconds(text: &str, most: Duration) -> Option<Duration> {
    let number = text
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|it| it.is_finite() && *it >= 0.0)?;
    Duration::try_from_secs_f64(number.min(most.as_secs_f64())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_its_three_forms() {
        let read = |text| http_date(text).map(Timestamp::to_seconds_text);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(read(text).as_deref(), Some("1994-11-06T08:49:37Z"), "{text}");
        }
        assert_eq!(
            read("Tuesday, 24-Nov-26 02:25:30 GMT").as_deref(),
            Some("2026-11-24T02:25:30Z")
        );
        for text in [
            "",
            "soon",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun Nov  6 08:49 1994",
            "1994",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_wait_is_read_in_every_form_and_capped() {
        let day = Duration::from_hours(24);
        let now = "2026-11-24T02:24:00Z".parse().unwrap();
        let dated = Some("Tue, 24 Nov 2026 02:25:00 GMT");
        for (value, date, seconds) in [
            ("120", dated, Some(120.0)),
            (" 40.0 ", None, Some(40.0)),
            ("0.5", None, Some(0.5)),
            ("0", None, Some(0.0)),
            ("99999999", None, Some(86_400.0)),
            ("1e300", None, Some(86_400.0)),
            ("Tue, 24 Nov 2026 02:25:30 GMT", dated, Some(30.0)),
            ("Tuesday, 24-Nov-26 02:25:30 GMT", dated, Some(30.0)),
            ("Tue Nov 24 02:25:30 2026", dated, Some(30.0)),
            ("Tue, 24 Nov 2026 02:25:30 GMT", None, Some(90.0)),
            ("Tue, 24 Nov 2026 02:25:30 GMT", Some("yesterday"), Some(90.0)),
            ("Tue, 24 Nov 2026 02:00:00 GMT", dated, Some(0.0)),
            ("Tue, 24 Nov 2126 02:00:00 GMT", dated, Some(86_400.0)),
            ("-1", dated, None),
            ("NaN", None, None),
            ("inf", None, None),
            ("soon", dated, None),
            ("", None, None),
        ] {
            let expected = seconds.map(Duration::from_secs_f64);
            assert_eq!(retry_after(value, date, now, day), expected, "{value:?} {date:?}");
        }
    }
}
