//! Money and prices: whole numbers throughout, never a float.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::domain::usage::TokenUsage;

/// Pico-dollars in a dollar.
const DOLLAR: i64 = 1_000_000_000_000;
/// Digits behind the point of a dollar.
const DIGITS: usize = 12;
/// Digits that are shown.
const SHOWN: i64 = 1_000_000;

/// An amount in pico-dollars: a price of a dollar a million tokens is a million of them a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i64);

impl Money {
    /// From dollars as they are written: `12`, `0.0375`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > DIGITS {
            return None;
        }
        let whole = whole.parse::<i64>().ok()?.checked_mul(DOLLAR)?;
        let part = format!("{part:0<DIGITS$}").parse::<i64>().ok()?;
        whole.checked_add(part).map(Self)
    }

    /// So many of it, as much as can be counted.
    #[must_use]
    pub fn times(self, number: u64) -> Self {
        Self(
            self.0
                .saturating_mul(i64::try_from(number).unwrap_or(i64::MAX)),
        )
    }

    /// A part of it, rounded up.
    #[must_use]
    pub fn divided_by(self, parts: u64) -> Self {
        let parts = i64::try_from(parts).unwrap_or(i64::MAX).max(1);
        Self(self.0 / parts + i64::from(self.0 % parts != 0))
    }

    /// How many amounts of `each` it holds.
    pub fn holds(self, each: Self) -> u32 {
        u32::try_from(self.0 / each.0.max(1)).unwrap_or(u32::MAX)
    }

    /// What is left of it; nothing where more is taken than there is.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
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

/// Dollars, six digits behind the point, the rest cut off.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0 / SHOWN;
        write!(f, "{}.{:06}", shown / 1_000_000, shown % 1_000_000)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no amount; write dollars in quotes, such as \"0.05\""
            ))
        })
    }
}

/// A price in pico-dollars a token, which is micro-dollars a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of a token in.
    pub input: i64,
    /// Of one that the prompt cache served.
    pub cached: i64,
    /// Of a token out, reasoning included.
    pub output: i64,
}

impl Rates {
    /// From dollars a million tokens.
    fn of([input, cached, output]: [Money; 3]) -> Self {
        let per_token = |money: Money| money.0 / 1_000_000;
        Self {
            input: per_token(input),
            cached: per_token(cached),
            output: per_token(output),
        }
    }

    /// What tokens cost.
    pub fn cost(self, tokens: TokenUsage) -> Money {
        Money(self.input).times(tokens.input.saturating_sub(tokens.cached))
            + Money(self.cached).times(tokens.cached)
            + Money(self.output).times(tokens.output)
    }
}

/// `[[prices]]`: what a model costs from a day on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The model; its dated names cost the same.
    pub model: String,
    /// The first day (UTC), as 2026-11-24.
    pub since: String,
    /// Dollars a million tokens in a batch: input, cached input, output.
    pub batch: [Money; 3],
    /// The same of a direct call.
    pub synchronous: [Money; 3],
}

impl Price {
    /// Whether its day is one, and each price a whole number of pico-dollars a token.
    pub fn is_well(&self) -> bool {
        let day = self.since.as_bytes();
        let is_day = day.len() == 10
            && day.iter().enumerate().all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let whole = |all: &[Money; 3]| all.iter().all(|it| it.0 % 1_000_000 == 0);
        is_day && !self.model.is_empty() && whole(&self.batch) && whole(&self.synchronous)
    }

    /// Whether a model has this price: by its own name or by a dated name.
    pub fn is_of(&self, model: &str) -> bool {
        let rest = model.strip_prefix(&self.model);
        rest.is_some_and(|rest| rest.is_empty() || is_date_suffix(rest))
    }

    /// The dated names that have this price, as a GLOB pattern of SQLite.
    pub fn dated_models(&self) -> String {
        format!("{}{DATE_SUFFIX}", self.model)
    }

    /// By mode: `batch`, `synchronous`.
    pub fn rates(&self) -> [(&'static str, Rates); 2] {
        [
            ("batch", Rates::of(self.batch)),
            ("synchronous", Rates::of(self.synchronous)),
        ]
    }
}

/// The end of a model's dated name, as a GLOB pattern of SQLite. A dated name has the price of its model.
const DATE_SUFFIX: &str = "-20[0-9][0-9]-[0-1][0-9]-[0-3][0-9]";

/// Whether a text matches [`DATE_SUFFIX`].
fn is_date_suffix(text: &str) -> bool {
    let (mut text, mut pattern) = (text.chars(), DATE_SUFFIX.chars());
    while let Some(wanted) = pattern.next() {
        let range = match wanted {
            '[' => pattern.next().zip(pattern.nth(1)),
            literal => Some((literal, literal)),
        };
        if wanted == '[' {
            pattern.next();
        }
        let fits = |found| range.is_some_and(|(low, high)| (low..=high).contains(&found));
        if !text.next().is_some_and(fits) {
            return false;
        }
    }
    text.next().is_none()
}

/// OpenAI's prices as they were published, in dollars a million tokens: model, day, then batch input,
/// cached input and output. A direct call costs twice that. Where no price of cached input was
/// published, it is that of input.
const SHIPPED: &str = "\
gpt-6-luna     2026-09-22 0.05   0.005  0.25
gpt-6.1-terra  2026-10-04 0.50   0.025  2.50
gpt-6.1-sol    2026-10-04 1.00   1.00   5.00
gpt-6-sol      2026-09-22 1.00   0.10   5.00
gpt-6-astra    2026-09-03 5.00   5.00   25.00
gpt-5.6-luna   2026-06-27 0.10   0.01   0.60
gpt-5.6-terra  2026-06-27 1.00   1.00   6.00
gpt-5.6-sol    2026-06-27 2.00   2.00   10.00
gpt-5.5        2026-06-27 2.50   0.25   15.00
gpt-5.4        2026-06-27 1.25   0.13   7.50
gpt-5.4-mini   2026-06-27 0.375  0.0375 2.25
gpt-5.4-nano   2026-06-27 0.10   0.01   0.625
gpt-5.2        2026-06-27 0.875  0.0875 7.00
gpt-5.1        2026-06-27 0.625  0.0625 5.00
gpt-5          2026-06-27 0.625  0.0625 5.00
gpt-5-mini     2026-06-27 0.125  0.0125 1.00
gpt-5-nano     2026-06-27 0.025  0.0025 0.20
gpt-4.1        2026-06-27 1.00   1.00   4.00
gpt-4.1-mini   2026-06-27 0.20   0.20   0.80
gpt-4.1-nano   2026-06-27 0.05   0.05   0.20
gpt-4o         2026-06-27 1.25   1.25   5.00
gpt-4o-mini    2026-06-27 0.075  0.075  0.30
o3             2026-06-27 1.00   1.00   4.00
o4-mini        2026-06-27 0.55   0.55   2.20
";

/// The prices in force: those of the configuration, and for models that it does not name the shipped.
pub fn prices(configured: &[Price]) -> Vec<Price> {
    let named = |model: &str| configured.iter().any(|price| price.model == model);
    let shipped = SHIPPED.lines().filter_map(shipped);
    let mut all: Vec<Price> = shipped.filter(|price| !named(&price.model)).collect();
    all.extend_from_slice(configured);
    all
}

fn shipped(line: &str) -> Option<Price> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [model, since, prices @ ..] = words.as_slice() else {
        return None;
    };
    let batch: Vec<Money> = prices
        .iter()
        .map(|text| Money::parse(text))
        .collect::<Option<_>>()?;
    let batch: [Money; 3] = batch.try_into().ok()?;
    Some(Price {
        model: (*model).to_owned(),
        since: (*since).to_owned(),
        batch,
        synchronous: batch.map(|price| price.times(2)),
    })
}

/// How much may be spent; none: as much as it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// In a day (UTC).
    pub per_day: Option<Money>,
    /// In a calendar month (UTC).
    pub per_month: Option<Money>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Who may spend how much.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// All together.
    pub total: Limits,
    /// By client: those that have one.
    pub clients: Vec<(String, Limits)>,
}

impl Budgets {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.total.is_none() && self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_written_as_they_are_read() {
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

    #[test]
    fn every_shipped_price_is_read_and_exact() {
        let all = prices(&[]);
        assert_eq!(all.len(), SHIPPED.lines().count());
        assert!(all.iter().all(Price::is_well));
        let luna = all.iter().find(|price| price.model == "gpt-6-luna");
        let [(_, batch), (_, direct)] = luna.expect("there").rates();
        // A million tokens in, of which half are cached, and a million out.
        let tokens = |input, cached, output| TokenUsage {
            input,
            cached,
            output,
            reasoning: 0,
        };
        let cost = batch.cost(tokens(1_000_000, 500_000, 1_000_000));
        assert_eq!(cost.to_string(), "0.277500");
        let cost = direct.cost(tokens(1_000_000, 0, 0));
        assert_eq!(cost.to_string(), "0.100000");
    }

    #[test]
    fn a_dated_name_has_the_price_of_its_model() {
        let price = prices(&[]).remove(0);
        let is_of = |suffix: &str| price.is_of(&format!("{}{suffix}", price.model));
        assert!(is_of("") && is_of("-2026-09-22"));
        for suffix in [
            "-mini",
            "-2026-09-2",
            "-2026-09-220",
            "-20xx-09-22",
            "-2026-29-22",
        ] {
            assert!(!is_of(suffix), "{suffix}");
        }
        assert!(!price.is_of("gpt-6"));
    }

    #[test]
    fn a_model_that_the_configuration_names_has_its_prices_alone() {
        let mut own = prices(&[]).remove(0);
        own.since = "2026-01-01".into();
        let all = prices(std::slice::from_ref(&own));
        let of_it: Vec<_> = all.iter().filter(|it| it.model == own.model).collect();
        assert_eq!(of_it, [&own]);
    }
}
