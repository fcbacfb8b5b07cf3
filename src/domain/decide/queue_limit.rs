//! How our batches count in a model's queue at OpenAI.
//!
//! OpenAI limits the prompt tokens that are queued. Whether it also counts the caps of the answers is not documented
//! and was seen both ways. So each model has a part of the caps, in percent, that counts.
//!
//! | a batch is refused for the limit, and our batches | the part | the refusal is ours |
//! |---|---|---|
//! | exceed the usable limit by the present part | stays | yes |
//! | exceed it if the caps count in full | becomes 100 % at once | yes |
//! | do not exceed it | stays | no: others use the queue |
//!
//! A batch that ran lowers the part by five points, at most once an hour. So in a project where OpenAI counts the caps,
//! a batch is refused once in some hours.

use std::time::Duration;

/// Percent of the limit that are used. OpenAI counts differently from our estimate, and frees tokens late.
const USED: u64 = 85;
/// By how much a batch that ran lowers the part, in points.
const LOWERED: u32 = 5;
/// The part is lowered at most once in this time.
const LOWERED_EVERY: Duration = Duration::from_hours(1);
/// The whole, in percent.
const WHOLE: u32 = 100;

/// The estimated tokens of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTokens {
    /// Tokens of their input.
    pub input: u64,
    /// The caps of their answers.
    pub caps: u64,
}

impl QueueTokens {
    /// The tokens that count if `cap_percent` of the caps do.
    pub fn counted(self, cap_percent: u32) -> u64 {
        let caps = self.caps.saturating_mul(cap_percent.into()) / u64::from(WHOLE);
        self.input.saturating_add(caps)
    }
}

impl std::ops::Add for QueueTokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            caps: self.caps.saturating_add(other.caps),
        }
    }
}

/// The part of a limit that our batches use.
pub fn usable(limit: u64) -> u64 {
    limit.saturating_mul(USED) / 100
}

/// A batch that was refused because the queue is full.
#[derive(Clone, Copy, Debug)]
pub struct QueueRefusal {
    /// The limit that OpenAI named.
    pub limit: u64,
    /// The tokens of the batch and of our others.
    pub tokens: QueueTokens,
    /// Lines of the batch.
    pub lines: u32,
    /// The part of the caps that counts now.
    pub cap_percent: u32,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRefusalDecision {
    /// Whether it is enough to wait for the end of our batches and to make smaller ones.
    pub is_our_own: bool,
    /// The part of the caps that counts from now on.
    pub cap_percent: u32,
}

impl QueueRefusal {
    /// Decides what follows.
    pub fn decide(&self) -> QueueRefusalDecision {
        let explains = |percent| self.tokens.counted(percent) > usable(self.limit);
        let cap_percent = match explains(self.cap_percent) {
            false if explains(WHOLE) => WHOLE,
            _ => self.cap_percent,
        };
        QueueRefusalDecision {
            // A batch of one line cannot be made smaller.
            is_our_own: self.lines > 1 && explains(cap_percent),
            cap_percent,
        }
    }
}

/// The part of the caps that counts after a batch ran. The part was changed that long ago.
pub fn after_success(cap_percent: u32, unchanged: Duration) -> u32 {
    match unchanged >= LOWERED_EVERY {
        true => cap_percent.saturating_sub(LOWERED),
        false => cap_percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_only_the_caps_explain_raises_their_part_at_once() {
        // 850 tokens of 1,000 are used.
        for (input, caps, lines, cap_percent, is_our_own, expected) in [
            (851, 0, 2, 0, true, 0),
            (850, 0, 2, 0, false, 0),
            (800, 51, 2, 0, true, 100),
            (800, 50, 2, 0, false, 0),
            (100, 5_000, 9, 0, true, 100),
            (100, 5_000, 9, 10, true, 100),
            (100, 5_000, 9, 20, true, 20),
            (100, 5_000, 9, 100, true, 100),
            (851, 0, 1, 0, false, 0),
            (100, 5_000, 1, 0, false, 100),
            // A batch of an earlier version, or one that was recovered.
            (0, 0, 9, 0, false, 0),
        ] {
            let refusal = QueueRefusal {
                limit: 1_000,
                tokens: QueueTokens { input, caps },
                lines,
                cap_percent,
            };
            let decision = QueueRefusalDecision {
                is_our_own,
                cap_percent: expected,
            };
            assert_eq!(refusal.decide(), decision, "{refusal:?}");
        }
    }

    #[test]
    fn success_lowers_the_part_slowly() {
        let hour = Duration::from_hours(1);
        for (cap_percent, unchanged, expected) in [
            (100, hour, 95),
            (100, hour - Duration::from_secs(1), 100),
            (3, hour * 24, 0),
            (0, hour, 0),
        ] {
            assert_eq!(after_success(cap_percent, unchanged), expected);
        }
    }

    #[test]
    fn the_caps_count_in_part() {
        let tokens = QueueTokens { input: 100, caps: 50 };
        assert_eq!(
            [0, 50, 100].map(|percent| tokens.counted(percent)),
            [100, 125, 150]
        );
        assert_eq!((tokens + tokens).counted(100), 300);
    }
}
