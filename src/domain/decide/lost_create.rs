//! The answer of a create was lost: whether its batch is looked for again or created again.
//!
//! A batch is created a second time only after complete listings without it for `settling_time`, and only
//! under a key that can see its input file. A listing shows only what was made before its first page, so listings
//! count that began when the create could not take effect any more.

use std::time::Duration;

use super::backoff::backoff;

/// Complete listings without the batch that must come before the one that decides.
const LISTINGS_BEFORE: u32 = 2;
/// The settling time has at least this many looks.
const LOOKS: u32 = 4;

/// A create whose answer was lost. Times are on the steady clock.
#[derive(Clone, Copy, Debug)]
pub struct LostCreate {
    /// The create takes no effect after this time.
    deadline: Duration,
    /// When the first complete listing began that counts; `None` before that.
    first: Option<Duration>,
    /// When the latest complete listing began.
    latest: Duration,
    /// The number of complete listings that count.
    counted: u32,
    /// The number of all complete listings.
    listings: u32,
}

/// How creates are looked for.
#[derive(Clone, Copy, Debug)]
pub struct SearchRules {
    /// How long a batch that is not listed may still have been made.
    pub settling_time: Duration,
    /// The first wait between two listings.
    pub retry_interval: Duration,
}

/// What follows from a complete listing without the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCreateDecision {
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
    /// A create that takes no effect after `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            first: None,
            latest: Duration::ZERO,
            counted: 0,
            listings: 0,
        }
    }

    /// Records a complete listing without the batch, which began at `began`.
    pub fn record_absence(&mut self, began: Duration) {
        self.listings += 1;
        self.latest = began;
        if began >= self.deadline {
            self.first.get_or_insert(began);
            self.counted += 1;
        }
    }

    /// Decides what follows. `has_input`: whether OpenAI has its input file; `None` until that was asked.
    pub fn decide(&self, has_input: Option<bool>, rules: SearchRules) -> LostCreateDecision {
        let settled = match self.first {
            Some(first) => first + rules.settling_time,
            None => self.deadline,
        };
        let left = settled.saturating_sub(self.latest);
        if self.first.is_none() || !left.is_zero() || self.counted <= LISTINGS_BEFORE {
            let wait = backoff(rules.retry_interval, self.listings.saturating_sub(1), None)
                .min(rules.retry_interval.max(rules.settling_time / LOOKS));
            let wait = if left.is_zero() { wait } else { wait.min(left) };
            return LostCreateDecision::LookAgain { wait };
        }
        match has_input {
            None => LostCreateDecision::AskForInput,
            Some(true) => LostCreateDecision::CreateAgain,
            Some(false) => LostCreateDecision::OtherProject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A create with its deadline at 120 s, a settling time of 600 s, and complete listings that began then.
    fn decide(listings: &[u32], has_input: Option<bool>) -> LostCreateDecision {
        let mut lost = LostCreate::new(SECOND * 120);
        for began in listings {
            lost.record_absence(SECOND * *began);
        }
        let rules = SearchRules {
            settling_time: SECOND * 600,
            retry_interval: SECOND * 5,
        };
        lost.decide(has_input, rules)
    }

    #[test]
    fn a_batch_is_created_again_only_after_listings_for_the_settling_time() {
        use LostCreateDecision::{AskForInput, CreateAgain, OtherProject};
        let look = |seconds| LostCreateDecision::LookAgain {
            wait: SECOND * seconds,
        };
        for (listings, has_input, expected) in [
            // Listings before the deadline do not count; their waits double.
            (&[5][..], None, look(5)),
            (&[5, 10, 20], None, look(20)),
            (&[5, 10, 20, 40, 80], None, look(40)),
            // Only the first complete listing begins the settling time, however late it comes.
            (&[700], Some(true), look(5)),
            (&[5, 900], Some(true), look(10)),
            (&[120, 719], Some(true), look(1)),
            (&[120, 300, 500, 700], Some(true), look(20)),
            // Two listings alone do not decide.
            (&[120, 720], Some(true), look(10)),
            (&[5, 60, 720], Some(true), look(20)),
            (&[120, 719, 720], None, AskForInput),
            (&[120, 300, 720], None, AskForInput),
            (&[120, 300, 720], Some(true), CreateAgain),
            (&[120, 300, 720], Some(false), OtherProject),
        ] {
            assert_eq!(
                decide(listings, has_input),
                expected,
                "{listings:?} {has_input:?}"
            );
        }
    }
}
