//! Prices of models, and the cost of tokens.

use serde::Deserialize;

use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;

/// The prices of tokens in pico-dollars for one token. This is the same number as micro-dollars for a million
/// tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// An input token.
    pub input: i64,
    /// An input token from the prompt cache.
    pub cached: i64,
    /// An output token, including reasoning.
    pub output: i64,
}

impl Rates {
    /// Converts prices in dollars for a million tokens.
    fn from_dollars([input, cached, output]: [Money; 3]) -> Self {
        let per_token = |money: Money| money.0 / 1_000_000;
        Self {
            input: per_token(input),
            cached: per_token(cached),
            output: per_token(output),
        }
    }

    /// The cost of these tokens.
    pub fn cost(self, tokens: TokenUsage) -> Money {
        Money(self.input).times(tokens.input.saturating_sub(tokens.cached))
            + Money(self.cached).times(tokens.cached)
            + Money(self.output).times(tokens.output)
    }
}

/// `[[prices]]`: the prices of a model from a day on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The model. Its dated names have the same prices.
    pub model: String,
    /// The first day (UTC), such as 2026-11-24.
    pub since: String,
    /// The prices in a batch, in dollars for a million tokens: input, cached input, output.
    pub batch: [Money; 3],
    /// The prices in a synchronous call.
    pub synchronous: [Money; 3],
    /// The `openai.base_url` of the provider that has these prices. `None`: any provider that has no price of its own for
    /// this model.
    #[serde(default)]
    pub provider: Option<String>,
}

impl Price {
    /// Whether `since` has the form of a day, and each price is a whole number of pico-dollars for a token.
    pub fn is_valid(&self) -> bool {
        let day = self.since.as_bytes();
        let is_day = day.len() == 10
            && day.iter().enumerate().all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let are_whole = |all: &[Money; 3]| all.iter().all(|it| it.0 % 1_000_000 == 0);
        is_day && !self.model.is_empty() && are_whole(&self.batch) && are_whole(&self.synchronous)
    }

    /// Whether a model has this price, by its own name or by a dated name.
    pub fn is_for(&self, model: &str) -> bool {
        is_named(model, &self.model)
    }

    /// Whether it may be a price of the provider with that base URL.
    pub fn is_of(&self, base_url: &str) -> bool {
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        self.provider
            .as_deref()
            .is_none_or(|it| bare(it) == bare(base_url))
    }

    /// The rates of each mode: `batch` and `synchronous`.
    pub fn rates(&self) -> [(&'static str, Rates); 2] {
        [
            ("batch", Rates::from_dollars(self.batch)),
            ("synchronous", Rates::from_dollars(self.synchronous)),
        ]
    }
}

/// The dated names of a model, which have its price, as a GLOB pattern of SQLite.
pub fn dated_models(model: &str) -> String {
    format!("{model}{DATE_SUFFIX}")
}

/// Whether a name is that of `model`, or a dated name of it.
pub fn is_named(name: &str, model: &str) -> bool {
    let rest = name.strip_prefix(model);
    rest.is_some_and(|rest| rest.is_empty() || is_date_suffix(rest))
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

/// OpenAI's published prices in dollars for a million tokens: model, day, then input, cached input and output
/// in a batch. A synchronous call costs twice as much. If OpenAI published no price of cached input, it is
/// that of input.
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

/// The prices in force: those of the configuration, and the shipped ones of the models that it names for no provider
/// or for single ones.
pub fn prices(configured: &[Price]) -> Vec<Price> {
    let is_for_all = |price: &Price| price.provider.is_none();
    let is_configured = |model: &str| configured.iter().any(|it| it.model == model && is_for_all(it));
    let shipped = SHIPPED.lines().filter_map(parse_shipped);
    let mut all: Vec<Price> = shipped.filter(|price| !is_configured(&price.model)).collect();
    all.extend_from_slice(configured);
    all
}

fn parse_shipped(line: &str) -> Option<Price> {
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
        provider: None,
    })
}

/// From which day on (UTC) a provider was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderDay {
    /// The day; the first one of a list counts for all days before it, too.
    pub since: String,
    /// Its `openai.base_url`.
    pub base_url: String,
}

/// The price of a model from a day on; `None`: it has none.
pub type PriceDay<'a> = (&'a str, &'a str, Option<&'a Price>);

/// The price of each model on each day: that of the provider of the day. So a new provider changes no cost of an earlier
/// day. `providers` is in the order of the days.
pub fn price_days<'a>(prices: &'a [Price], providers: &'a [ProviderDay]) -> Vec<PriceDay<'a>> {
    let mut models: Vec<&str> = prices.iter().map(|price| price.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let mut days = Vec::new();
    for model in models {
        for (at, provider) in providers.iter().enumerate() {
            let end = providers.get(at + 1).map(|next| next.since.as_str());
            let mut own: Vec<&Price> = prices
                .iter()
                .filter(|price| price.model == model && price.is_of(&provider.base_url))
                .collect();
            if own.iter().any(|price| price.provider.is_some()) {
                own.retain(|price| price.provider.is_some());
            }
            own.sort_by(|a, b| a.since.cmp(&b.since));
            let start = if at == 0 { "" } else { provider.since.as_str() };
            if at > 0 {
                let in_force = own.iter().rfind(|price| price.since.as_str() <= start);
                days.push((model, start, in_force.copied()));
            }
            let later = own.into_iter().filter(|price| price.since.as_str() > start);
            let within = later.filter(|price| end.is_none_or(|end| price.since.as_str() < end));
            days.extend(within.map(|price| (model, price.since.as_str(), Some(price))));
        }
    }
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_price_is_read_and_exact() {
        let all = prices(&[]);
        assert_eq!(all.len(), SHIPPED.lines().count());
        assert!(all.iter().all(Price::is_valid));
        let luna = all.iter().find(|price| price.model == "gpt-6-luna");
        let [(_, batch), (_, synchronous)] = luna.expect("there").rates();
        // A million input tokens, half of them cached, and a million output tokens.
        let tokens = |input, cached, output| TokenUsage {
            input,
            cached,
            output,
            reasoning: 0,
        };
        let cost = batch.cost(tokens(1_000_000, 500_000, 1_000_000));
        assert_eq!(cost.to_string(), "0.277500");
        let cost = synchronous.cost(tokens(1_000_000, 0, 0));
        assert_eq!(cost.to_string(), "0.100000");
    }

    #[test]
    fn a_dated_name_has_the_price_of_its_model() {
        let price = prices(&[]).remove(0);
        let is_for = |suffix: &str| price.is_for(&format!("{}{suffix}", price.model));
        assert!(is_for("") && is_for("-2026-09-22"));
        for suffix in [
            "-mini",
            "-2026-09-2",
            "-2026-09-220",
            "-20xx-09-22",
            "-2026-29-22",
        ] {
            assert!(!is_for(suffix), "{suffix}");
        }
        assert!(!price.is_for("gpt-6"));
    }

    #[test]
    fn a_day_has_the_prices_of_its_provider() {
        let price = |since: &str, provider: Option<&str>| Price {
            since: since.into(),
            provider: provider.map(str::to_owned),
            ..prices(&[]).remove(0)
        };
        let used = |days: &[(&str, &str)]| -> Vec<ProviderDay> {
            days.iter()
                .map(|(since, base_url)| ProviderDay {
                    since: (*since).to_owned(),
                    base_url: (*base_url).to_owned(),
                })
                .collect()
        };
        let all = [
            price("2026-01-01", Some("https://a/v1")),
            price("2026-03-01", Some("https://a/v1/")),
            price("2026-02-01", Some("https://b/v1")),
            price("2026-01-15", None),
        ];
        let found = |days: &[(&str, &str)]| -> Vec<(String, Option<String>)> {
            let providers = used(days);
            price_days(&all, &providers)
                .into_iter()
                .map(|(_, since, price)| (since.to_owned(), price.map(|it| it.since.clone())))
                .collect()
        };
        let row = |since: &str, price: &str| (since.to_owned(), Some(price.to_owned()));
        assert_eq!(
            found(&[("2026-01-10", "https://a/v1")]),
            [row("2026-01-01", "2026-01-01"), row("2026-03-01", "2026-03-01")]
        );
        // The days of the first provider keep their prices.
        assert_eq!(
            found(&[("2026-01-10", "https://a/v1"), ("2026-02-10", "https://b/v1/")]),
            [row("2026-01-01", "2026-01-01"), row("2026-02-10", "2026-02-01")]
        );
        // This provider has no price of its own, and the price for all is in force.
        assert_eq!(
            found(&[("2026-01-10", "https://a/v1"), ("2026-02-10", "https://c/v1")])[1],
            row("2026-02-10", "2026-01-15")
        );
        // Before its own first price, a provider has none.
        assert_eq!(
            found(&[("2026-01-10", "https://c/v1"), ("2026-01-20", "https://b/v1")]),
            [
                row("2026-01-15", "2026-01-15"),
                ("2026-01-20".to_owned(), None),
                row("2026-02-01", "2026-02-01")
            ]
        );
    }

    #[test]
    fn a_configured_model_has_only_its_configured_prices() {
        let mut own = prices(&[]).remove(0);
        own.since = "2026-01-01".into();
        let all = prices(std::slice::from_ref(&own));
        let of_it: Vec<_> = all.iter().filter(|it| it.model == own.model).collect();
        assert_eq!(of_it, [&own]);
    }
}
