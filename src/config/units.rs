//! The notation of durations (`"30s"`, `"250ms"`, `"7d"`) and sizes (`"5MB"`, `190_000_000`).

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::error::invalid;

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const DURATION: &str = "duration; write a whole number and ms, s, m, h or d, such as \"30s\", or 0";
const SIZE_UNITS: [(&str, u64); 4] = [("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("", 1)];
const SIZE: &str = "size; write bytes, or a whole number and kB, MB or GB, such as \"5MB\"";

/// A whole number times its unit, or `None` if the text is something else.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn parse_duration(text: &str) -> Option<Duration> {
    match text {
        "0" => Some(Duration::ZERO),
        _ => parse_quantity(text, &TIME_UNITS).map(Duration::from_millis),
    }
}

pub(super) mod duration {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {DURATION}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        match number {
            0 => Ok(Duration::ZERO),
            _ => Err(invalid(number, DURATION)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).ok_or_else(|| invalid(text, DURATION))
    }
}

pub(super) fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    from.deserialize_seq(DurationsVisitor)
}

struct DurationsVisitor;

impl<'de> Visitor<'de> for DurationsVisitor {
    type Value = Vec<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of durations such as [\"30s\", \"1m\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Duration>, A::Error> {
        let mut durations = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            durations.push(parse_duration(&text).ok_or_else(|| invalid(&text, DURATION))?);
        }
        Ok(durations)
    }
}

pub(super) mod size {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        from.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {SIZE}")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| invalid(bytes, SIZE))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_quantity(text, &SIZE_UNITS).ok_or_else(|| invalid(text, SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_hours(7 * 24)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        assert_eq!(parse_quantity("5MB", &SIZE_UNITS), Some(5_000_000));
        assert_eq!(parse_quantity("17", &SIZE_UNITS), Some(17));
        for wrong in ["5", "s", "-1s", "1.5s", "1 s", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_quantity("5 MB", &SIZE_UNITS), None);
    }
}
