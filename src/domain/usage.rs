//! Tokens, by which requests are billed.

use std::iter::Sum;
use std::ops::Add;

/// Tokens of one request, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// All of the input, cached or not.
    pub input: u64,
    /// The part of the input that the prompt cache served.
    pub cached: u64,
    /// All of the output, reasoning included.
    pub output: u64,
    /// The part of the output that was reasoning.
    pub reasoning: u64,
}

impl TokenUsage {
    /// No tokens.
    pub const ZERO: Self = Self {
        input: 0,
        cached: 0,
        output: 0,
        reasoning: 0,
    };

    /// Input, cached, output, reasoning: the order of tables and messages.
    pub fn to_array(self) -> [u64; 4] {
        [self.input, self.cached, self.output, self.reasoning]
    }

    /// The tokens after `change` of each number.
    #[must_use]
    pub fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            input: change(self.input),
            cached: change(self.cached),
            output: change(self.output),
            reasoning: change(self.reasoning),
        }
    }

    /// The tokens of `number` such requests.
    #[must_use]
    pub fn times(self, number: u64) -> Self {
        self.map(|tokens| tokens.saturating_mul(number))
    }
}

/// The tokens of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptUsage {
    /// These tokens.
    Known(TokenUsage),
    /// OpenAI stated tokens that no request can have.
    Unknown,
}

impl AttemptUsage {
    /// The tokens that are stored; none if they are unknown.
    pub fn tokens(self) -> TokenUsage {
        match self {
            Self::Known(tokens) => tokens,
            Self::Unknown => TokenUsage::ZERO,
        }
    }

    /// Whether the tokens are unknown.
    pub fn is_unknown(self) -> bool {
        self == Self::Unknown
    }

    /// Whether OpenAI may bill the attempt.
    pub fn may_be_billed(self) -> bool {
        self != Self::Known(TokenUsage::ZERO)
    }
}

impl Add for TokenUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

impl Sum for TokenUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}
