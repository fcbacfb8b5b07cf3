//! When an image that could not be checked is probed again later, and does not count as missing.
//!
//! | why the probe failed | the image |
//! |---|---|
//! | its host asks for patience (429, or 503 with `Retry-After`), for less than ten minutes | its host gets no probe for a while |
//! | the same, for longer | counts as missing |
//! | no name can be looked up here, OpenAI's host neither | its host gets no probe for a while, however often |

use std::time::Duration;

use super::backoff::backoff;

/// The first pause of a host; the next ones are twice as long each, up to 32 times.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// A host's own wish counts up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// After this time of asking for patience, a host is taken for one that gives no images.
const PATIENCE: Duration = Duration::from_mins(10);

/// A reason why a probe failed that says nothing about the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassingProblem {
    /// The host asks for patience, for this time if it names one.
    HostAsksToWait(Option<Duration>),
    /// No name can be looked up here.
    NoNames,
}

/// How long the host of an image gets no probe; `None`: the image counts as missing.
///
/// `pauses`: the pauses that the host had in a row before. `waited`: the time since the first of them began.
pub fn decide(problem: PassingProblem, pauses: u32, waited: Duration) -> Option<Duration> {
    let asked = match problem {
        PassingProblem::HostAsksToWait(_) if waited >= PATIENCE => return None,
        PassingProblem::HostAsksToWait(asked) => asked,
        PassingProblem::NoNames => None,
    };
    Some(backoff(FIRST_PAUSE, pauses, asked).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::PassingProblem::{HostAsksToWait, NoNames};
    use super::*;

    #[test]
    fn a_host_that_asks_for_patience_gets_ten_minutes_and_an_outage_here_any_time() {
        let seconds = Duration::from_secs;
        for (problem, pauses, waited, expected) in [
            (HostAsksToWait(None), 0, 0, Some(2)),
            (HostAsksToWait(None), 3, 14, Some(16)),
            (HostAsksToWait(None), 9, 500, Some(64)),
            (HostAsksToWait(Some(seconds(30))), 0, 0, Some(30)),
            // A date that is long past, or a wish for no time at all.
            (HostAsksToWait(Some(seconds(0))), 0, 0, Some(2)),
            (HostAsksToWait(Some(seconds(86_400))), 0, 0, Some(120)),
            (HostAsksToWait(None), 12, 600, None),
            (HostAsksToWait(Some(seconds(1))), 12, 600, None),
            (NoNames, 0, 0, Some(2)),
            (NoNames, 99, 86_400, Some(64)),
        ] {
            let decision = decide(problem, pauses, seconds(waited));
            assert_eq!(decision, expected.map(seconds), "{problem:?} {pauses} {waited}");
        }
    }
}
