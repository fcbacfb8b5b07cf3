//! The time at which a presigned URL expires, as its own parameters say.
//!
//! | store | parameters |
//! |---|---|
//! | Amazon S3 and compatible, signature version 4 | `X-Amz-Date` and `X-Amz-Expires` (seconds) |
//! | Google Cloud Storage, version 4 | `X-Goog-Date` and `X-Goog-Expires` |
//! | Azure, shared access signature | `se` (a time, or a day) |
//! | Amazon S3 version 2, CloudFront, Google version 2, Alibaba | `Expires` (Unix time) |

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::percent;

/// When a URL expires; `None` if it does not say.
pub fn expires_at(url: &str) -> Option<Timestamp> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next()?;
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(percent::decode(value))
    };
    let signed = |date: &str, length: &str| {
        let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", value(date)?).ok()?;
        let seconds = value(length)?.parse::<u32>().ok()?;
        Some(at_utc(date)? + Duration::from_secs(seconds.into()))
    };
    signed("X-Amz-Date", "X-Amz-Expires")
        .or_else(|| signed("X-Goog-Date", "X-Goog-Expires"))
        .or_else(|| value("se").and_then(|text| azure_time(&text)))
        .or_else(|| {
            let seconds = value("Expires")?.parse::<u32>().ok()?;
            Some(Timestamp::from_seconds(seconds.into()))
        })
}

/// A time of Azure: `2026-12-01T08:00:00Z`, also without seconds, or a day.
fn azure_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_millis(time.as_millisecond()));
    }
    if let Ok(time) = jiff::civil::DateTime::strptime("%Y-%m-%dT%H:%MZ", text) {
        return at_utc(time);
    }
    at_utc(text.parse::<jiff::civil::Date>().ok()?.into())
}

fn at_utc(time: jiff::civil::DateTime) -> Option<Timestamp> {
    let time = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

/// The reason for which an image is missing, with the time at which its URL expired, if it did before `now`.
pub fn with_expiry(reason: &str, url: &str, now: Timestamp) -> String {
    match expires_at(url).filter(|expiry| *expiry <= now) {
        Some(expiry) => format!("{reason}; its URL expired at {}", expiry.to_seconds_text()),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_a_url_say_when_it_expires() {
        for (query, expected) in [
            (
                "X-Amz-Date=20261201T040000Z&X-Amz-Expires=3600",
                Some("2026-12-01T05:00:00Z"),
            ),
            (
                "x-amz-expires=60&a=b&x-amz-date=20261201T040000Z#c",
                Some("2026-12-01T04:01:00Z"),
            ),
            (
                "X-Goog-Date=20261201T040000Z&X-Goog-Expires=604800",
                Some("2026-12-08T04:00:00Z"),
            ),
            (
                "sv=2024-11-04&se=2026-12-01T05%3A00%3A00Z&sig=x",
                Some("2026-12-01T05:00:00Z"),
            ),
            ("se=2026-12-01T05:00Z", Some("2026-12-01T05:00:00Z")),
            ("se=2026-12-01", Some("2026-12-01T00:00:00Z")),
            ("Expires=1796101200&Signature=x", Some("2026-12-01T05:00:00Z")),
            ("X-Amz-Date=20261301T040000Z&X-Amz-Expires=3600", None),
            ("X-Amz-Expires=3600", None),
            ("X-Amz-Date=20261201T040000Z&X-Amz-Expires=-1", None),
            ("se=north", None),
            ("Expires=never", None),
            ("Expires=99999999999999999999", None),
            ("", None),
        ] {
            let expires = expires_at(&format!("https://a.example/1.jpg?{query}"));
            assert_eq!(
                expires.map(Timestamp::to_seconds_text).as_deref(),
                expected,
                "{query}"
            );
        }
        assert_eq!(expires_at("https://a.example/Expires=1"), None);
    }

    #[test]
    fn a_reason_names_an_expiry_that_is_over() {
        let url = "https://a.example/1.jpg?Expires=1796101200";
        let at = |seconds| with_expiry("status 403", url, Timestamp::from_seconds(seconds));
        assert_eq!(at(1_796_101_199), "status 403");
        assert_eq!(
            at(1_796_101_200),
            "status 403; its URL expired at 2026-12-01T05:00:00Z"
        );
    }
}
