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

/// A wait that is up to a fifth shorter or longer, by a seed: what failed at the same time for different
/// reasons does not come back at the same time. The mixing is SplitMix64 by Steele, Lea and Flood.
pub fn jitter(wait: Duration, seed: i64) -> Duration {
    let mut mixed = seed
        .unsigned_abs()
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let percent = u32::try_from((mixed ^ (mixed >> 31)) % 41).unwrap_or(0);
    wait / 100 * (80 + percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_varied_by_a_fifth_at_most() {
        let waits: Vec<Duration> = (0..100)
            .map(|seed| jitter(Duration::from_secs(100), seed))
            .collect();
        assert_eq!(waits.iter().min(), Some(&Duration::from_secs(80)));
        assert_eq!(waits.iter().max(), Some(&Duration::from_secs(120)));
        assert_eq!(waits[7], jitter(Duration::from_secs(100), 7));
    }
}
