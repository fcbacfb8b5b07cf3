//! The answer of a create was lost: whether its batch is looked for again or created again.
//!
//! A batch is created a second time only after complete listings without it for `settling_time`, and only
//! under a key that can see its input file.

use std::time::Duration;

/// A create whose answer was lost.
#[derive(Clone, Copy, Debug)]
pub struct LostCreate {
    /// Whether the latest listing had its batch.
    pub is_found: bool,
    /// How long the batch has been looked for.
    pub waited: Duration,
    /// Whether OpenAI has its input file; `None` until that was asked.
    pub has_input: Option<bool>,
    /// How long a batch that is not listed may still have been made.
    pub settling_time: Duration,
    /// The wait between two listings.
    pub retry_interval: Duration,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCreateDecision {
    /// The batch has its row.
    Found,
    /// The batch is looked for again.
    LookAgain {
        /// How long until then.
        wait: Duration,
    },
    /// OpenAI is asked for the input file.
    AskForInput,
    /// No batch was made: it is created again.
    CreateAgain,
    /// The key seems to be another project's: no listing under it proves anything.
    OtherProject,
}

impl LostCreate {
    /// Decides what follows.
    pub fn decide(&self) -> LostCreateDecision {
        if self.is_found {
            return LostCreateDecision::Found;
        }
        if self.waited < self.settling_time {
            return LostCreateDecision::LookAgain {
                wait: self.retry_interval.min(self.settling_time),
            };
        }
        match self.has_input {
            None => LostCreateDecision::AskForInput,
            Some(true) => LostCreateDecision::CreateAgain,
            Some(false) => LostCreateDecision::OtherProject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_created_again_only_after_the_settling_time() {
        let second = Duration::from_secs(1);
        let look_again = LostCreateDecision::LookAgain { wait: second * 5 };
        for (is_found, waited, has_input, expected) in [
            (true, 0, None, LostCreateDecision::Found),
            (true, 99, None, LostCreateDecision::Found),
            (false, 0, None, look_again),
            (false, 59, Some(true), look_again),
            (false, 60, None, LostCreateDecision::AskForInput),
            (false, 60, Some(true), LostCreateDecision::CreateAgain),
            (false, 60, Some(false), LostCreateDecision::OtherProject),
        ] {
            let lost = LostCreate {
                is_found,
                waited: second * waited,
                has_input,
                settling_time: second * 60,
                retry_interval: second * 5,
            };
            assert_eq!(lost.decide(), expected, "{lost:?}");
        }
    }
}
