//! OpenAI does not find an input file: whether the same file is used again.
//!
//! | the file was uploaded | the create is refused | the create succeeds, and the batch ends as failed |
//! |---|---|---|
//! | less than ten minutes ago | the create is repeated with the same file | a new submission of the same file follows shortly |
//! | before, or that is not known | the input is uploaded again | the model pauses; the requests are packed again |
//!
//! A new upload would meet the same lag again.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// A file may be invisible for this long after its upload.
const FILE_LAG: Duration = Duration::from_mins(10);
/// The shortest and the longest wait of the next submission of a file. Each is as long as the file is old.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Whether a file that was uploaded at `since` may be invisible still.
pub fn is_fresh(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_some_and(|since| !(since + FILE_LAG).due_in(now, FILE_LAG).is_zero())
}

/// How long the next submission of a file waits; `None` if the file is not used again.
pub fn wait_for_file(since: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let age = now.since(since.filter(|_| is_fresh(since, now))?);
    Some(age.clamp(WAITS.0, WAITS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_file_is_used_again_after_a_short_wait() {
        let now = Timestamp::from_seconds(1_795_400_000);
        let second = Duration::from_secs(1);
        for (age, wait) in [
            (0, Some(1)),
            (7, Some(7)),
            (300, Some(60)),
            (599, Some(60)),
            (600, None),
            (100_000, None),
        ] {
            let since = Some(now.before(second * age));
            assert_eq!(wait_for_file(since, now), wait.map(|wait| second * wait), "{age}");
            assert_eq!(is_fresh(since, now), wait.is_some(), "{age}");
        }
        assert_eq!(wait_for_file(None, now), None);
    }
}
