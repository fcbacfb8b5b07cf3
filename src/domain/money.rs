//! Amounts of money, as whole numbers.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// Pico-dollars in a dollar.
const DOLLAR: i64 = 1_000_000_000_000;
/// The digits of a dollar after the point.
const FRACTION_DIGITS: usize = 12;
/// Pico-dollars in the last digit that is shown.
const SHOWN_UNIT: i64 = 1_000_000;

/// An amount in pico-dollars. A price of one dollar for a million tokens is a million pico-dollars for a
/// token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i64);

impl Money {
    /// Reads an amount in dollars, such as `12` or `0.0375`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_plain(whole) || !is_plain(part) || part.len() > FRACTION_DIGITS {
            return None;
        }
        let whole = whole.parse::<i64>().ok()?.checked_mul(DOLLAR)?;
        let part = format!("{part:0<FRACTION_DIGITS$}").parse::<i64>().ok()?;
        whole.checked_add(part).map(Self)
    }

    /// The amount, `number` times. It saturates.
    #[must_use]
    pub fn times(self, number: u64) -> Self {
        Self(self.0.saturating_mul(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    /// One of `parts` equal parts, rounded up.
    #[must_use]
    pub fn divided_by(self, parts: u64) -> Self {
        let parts = i64::try_from(parts).unwrap_or(i64::MAX).max(1);
        Self(self.0 / parts + i64::from(self.0 % parts != 0))
    }

    /// The number of amounts of `each` that fit into this amount.
    pub fn divided_into(self, each: Self) -> u32 {
        u32::try_from(self.0 / each.0.max(1)).unwrap_or(u32::MAX)
    }

    /// The difference; zero if `other` is greater.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Dollars with six digits after the point. Further digits are cut off.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0 / SHOWN_UNIT;
        write!(f, "{}.{:06}", shown / 1_000_000, shown % 1_000_000)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is not an amount; write dollars in quotes, such as \"0.05\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, pico, shown) in [
            ("0.0025", 2_500_000_000, "0.002500"),
            ("12", 12_000_000_000_000, "12.000000"),
            ("0.0000005", 500_000, "0.000000"),
        ] {
            let money = Money::parse(text).expect("an amount");
            assert_eq!((money.0, money.to_string().as_str()), (pico, shown));
        }
        for text in ["", ".5", "-1", "1e3", "1,5", "0.1234567890123"] {
            assert_eq!(Money::parse(text), None, "{text}");
        }
    }
}
