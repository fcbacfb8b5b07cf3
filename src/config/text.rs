//! How durations (`"30s"`, `"250ms"`, `"7d"`) and sizes (`"5MB"`, `190_000_000`) are written.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::invalid;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const DURATION: &str = "duration; write a whole number and ms, s, m, h or d, such as \"30s\", or 0";
const SIZES: [(&str, u64); 4] = [
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("", 1),
];
const SIZE: &str = "size; write bytes, or a whole number and kB, MB or GB, such as \"5MB\"";

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        Some(Duration::ZERO)
    } else {
        measure(text, &UNITS).map(Duration::from_millis)
    }
}

pub(super) mod duration {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a {DURATION}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Duration, E> {
                if number == 0 {
                    Ok(Duration::ZERO)
                } else {
                    Err(invalid(DURATION, &number.to_string()))
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
                parse_duration(text).ok_or_else(|| invalid(DURATION, text))
            }
        }
        from.deserialize_any(Text)
    }
}

pub(super) fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<Duration>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of durations such as [\"30s\", \"1m\"]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Duration>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                all.push(
                    parse_duration(&text).ok_or_else(|| invalid::<A::Error>(DURATION, &text))?,
                );
            }
            Ok(all)
        }
    }
    from.deserialize_seq(List)
}

pub(super) mod size {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Bytes(bytes) => Ok(bytes),
            Written::Text(text) => measure(&text, &SIZES).ok_or_else(|| invalid(SIZE, &text)),
        }
    }
}
