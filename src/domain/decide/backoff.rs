//! How long to wait between failed attempts.

use std::time::Duration;

/// A wait is doubled this often at most.
const DOUBLINGS: u32 = 5;

/// The wait after `failures` failed calls in a row: `first`, doubled each time, at most 32 times `first`. A
/// longer wait that the other side asked for is kept.
pub fn backoff(first: Duration, failures: u32, asked: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(DOUBLINGS));
    doubled.max(asked.unwrap_or(Duration::ZERO))
}

/// The longest wait that [`backoff`] comes to by itself.
pub fn longest_backoff(first: Duration) -> Duration {
    backoff(first, DOUBLINGS, None)
}
