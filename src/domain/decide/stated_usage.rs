//! Token counts that OpenAI states: whether a request, or a whole batch, can have them.
//!
//! A count that no request can have means nothing. Added to others it would spoil every sum, so it is stored as
//! unknown.

use crate::domain::prices::is_named;
use crate::domain::usage::{AttemptUsage, TokenUsage};

/// The context window of a model that [`WINDOWS`] does not list.
const UNLISTED_WINDOW: u64 = 2_000_000;

/// Context windows in tokens, as OpenAI publishes them. A dated name has the window of its model.
const WINDOWS: [(&str, u64); 12] = [
    ("gpt-4.1", 1_047_576),
    ("gpt-4.1-mini", 1_047_576),
    ("gpt-4.1-nano", 1_047_576),
    ("gpt-4o", 128_000),
    ("gpt-4o-mini", 128_000),
    ("gpt-5", 400_000),
    ("gpt-5-mini", 400_000),
    ("gpt-5-nano", 400_000),
    ("gpt-5.1", 400_000),
    ("gpt-5.2", 400_000),
    ("o3", 200_000),
    ("o4-mini", 200_000),
];

/// The most tokens that a request, or a batch of requests, can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// Of input: the model's context window.
    pub input: u64,
    /// Of output: the cap of an answer, or the window if the cap is not known.
    pub output: u64,
}

impl UsageLimits {
    /// The limits of one request to a model.
    pub fn of_request(model: &str, output_cap: Option<u64>) -> Self {
        let listed = WINDOWS.iter().find(|(name, _)| is_named(model, name));
        let window = listed.map_or(UNLISTED_WINDOW, |(_, window)| *window);
        Self {
            input: window,
            output: output_cap.unwrap_or(window),
        }
    }

    /// The limits of that many such requests together.
    #[must_use]
    pub fn times(self, requests: u64) -> Self {
        Self {
            input: self.input.saturating_mul(requests),
            output: self.output.saturating_mul(requests),
        }
    }

    /// The stated tokens of a request, unless it cannot have them.
    pub fn usage(self, stated: TokenUsage) -> AttemptUsage {
        match self.allow(stated) {
            true => AttemptUsage::Known(stated),
            false => AttemptUsage::Unknown,
        }
    }

    /// The stated tokens and the limits, for people.
    pub fn describe(self, stated: TokenUsage) -> String {
        format!(
            "{:?} tokens (in, cached, out, reasoning) were stated, and at most {} in and {} out are possible",
            stated.to_array(),
            self.input,
            self.output
        )
    }

    /// Whether requests with these limits can have these tokens. Some compatible servers do not count reasoning as
    /// output.
    pub fn allow(self, stated: TokenUsage) -> bool {
        stated.input <= self.input
            && stated.output <= self.output
            && stated.cached <= stated.input
            && stated.reasoning <= self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_at_most_its_window_and_its_cap() {
        let limits = UsageLimits::of_request("of-our-own", Some(100));
        for (input, cached, output, reasoning, expected) in [
            (0, 0, 0, 0, true),
            (10, 4, 7, 5, true),
            (UNLISTED_WINDOW, UNLISTED_WINDOW, 100, 100, true),
            (UNLISTED_WINDOW + 1, 0, 0, 0, false),
            (u64::MAX, 0, 0, 0, false),
            (10, 11, 0, 0, false),
            (10, 0, 101, 0, false),
            (10, 0, 7, 8, true),
            (10, 0, 7, 101, false),
        ] {
            let stated = TokenUsage {
                input,
                cached,
                output,
                reasoning,
            };
            assert_eq!(limits.allow(stated), expected, "{stated:?}");
            assert_eq!(limits.usage(stated).is_unknown(), !expected, "{stated:?}");
        }
    }

    #[test]
    fn the_window_is_that_of_the_model() {
        for (model, cap, expected) in [
            ("gpt-4o", None, [128_000, 128_000]),
            ("gpt-4o-2024-11-20", Some(10), [128_000, 10]),
            ("gpt-4o-audio", None, [UNLISTED_WINDOW; 2]),
            ("", None, [UNLISTED_WINDOW; 2]),
        ] {
            let limits = UsageLimits::of_request(model, cap);
            assert_eq!([limits.input, limits.output], expected, "{model}");
        }
        let batch = UsageLimits::of_request("gpt-4o", Some(10)).times(3);
        assert_eq!([batch.input, batch.output], [384_000, 30]);
        assert_eq!(batch.times(u64::MAX).input, u64::MAX);
    }
}
