//! What a listing of batches proves, page by page.
//!
//! OpenAI's document promises no order, and a compatible server may list the oldest batch first. So a listing
//! that stops at a time proves something only if its own times fall, and one full page lies beyond that time. Any
//! other listing is read to its end.

use std::time::Duration;

/// The most batches on one page.
pub const LARGEST_PAGE: u32 = 100;

/// The part of a listing that was read. All times are OpenAI's, in seconds.
#[derive(Clone, Debug)]
pub struct ListingProof {
    /// The listing goes back to this time.
    until: i64,
    /// Whether no batch is newer than the one before it.
    is_falling: bool,
    /// The time of the last batch.
    last: Option<i64>,
    /// Batches in a row, up to the last one, that are older than `until`.
    older: usize,
    /// Batches on the longest page.
    longest_page: usize,
    has_end: bool,
    /// When OpenAI sent the first page.
    date: Option<i64>,
    /// The newest batch that is not newer than the first page.
    newest: Option<i64>,
}

impl ListingProof {
    /// A listing that goes back to `until`, before its first page.
    pub fn new(until: i64) -> Self {
        Self {
            until,
            is_falling: true,
            last: None,
            older: 0,
            longest_page: 0,
            has_end: false,
            date: None,
            newest: None,
        }
    }

    /// The time that the listing goes back to.
    pub fn until(&self) -> i64 {
        self.until
    }

    /// Records a page: when OpenAI sent it, when its batches were made, and whether more follow. A time of 0 is not
    /// known: a listing with one is read to its end.
    pub fn record(&mut self, date: i64, times: &[i64], has_more: bool) {
        let date = *self.date.get_or_insert(date);
        for &time in times {
            self.is_falling &= time > 0 && self.last.is_none_or(|last| time <= last);
            self.last = Some(time);
            self.older = if time < self.until { self.older + 1 } else { 0 };
            if 0 < time && time <= date {
                self.newest = self.newest.max(Some(time));
            }
        }
        self.longest_page = self.longest_page.max(times.len());
        self.has_end = !has_more;
    }

    /// Whether the listing proves that a batch which it lacks did not exist: of batches that were made between
    /// `until` and its first page, less the time by which a listing lags.
    pub fn is_complete(&self) -> bool {
        self.has_end || self.is_falling && self.longest_page > 0 && self.older >= self.longest_page
    }

    /// The time up to which a later listing need not look, if this one is complete. A time in the future is
    /// ignored: it would hide the batches that are made before it. `None` if no batch was listed.
    pub fn mark(&self, margin: Duration) -> Option<i64> {
        let margin = i64::try_from(margin.as_secs()).unwrap_or(i64::MAX);
        self.newest.map(|newest| newest.saturating_sub(margin))
    }
}

/// The size of the next page after a page of `size` broke off.
pub fn smaller_page(size: u32) -> u32 {
    (size / 4).max(1)
}

/// The size of the next page after a page of `size` was read.
pub fn larger_page(size: u32) -> u32 {
    size.saturating_mul(2).min(LARGEST_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_complete_at_its_end_or_a_full_page_beyond_its_limit_if_its_times_fall() {
        let no_page: &[i64] = &[];
        for (pages, has_more, expected) in [
            (vec![], true, false),
            (vec![no_page], true, false),
            (vec![no_page], false, true),
            (vec![&[130, 120, 110][..]], true, false),
            (vec![&[130, 120, 110]], false, true),
            // The page that crosses the limit proves nothing yet.
            (vec![&[130, 120, 90]], true, false),
            (vec![&[130, 120, 90], &[90, 90, 80]], true, true),
            (vec![&[130, 120, 110], &[90, 80]], true, false),
            (vec![&[130, 120, 110], &[90, 80], &[70]], true, true),
            (vec![&[99, 98, 97]], true, true),
            // Oldest first, and one batch out of order.
            (vec![&[70, 80, 90], &[91, 92, 93]], true, false),
            (vec![&[70, 80, 90], &[91, 92, 130]], false, true),
            (vec![&[130, 90, 110], &[90, 80, 70]], true, false),
            // A time in the future, and one in the far past.
            (vec![&[900, 120, 90], &[90, 80, 70]], true, true),
            (vec![&[120, 1, 110], &[90, 80, 70]], true, false),
            // Times that are not known.
            (vec![&[0, 0, 0], &[0, 0, 0]], true, false),
            (vec![&[120, 90, 80], &[70, 60, 0]], true, false),
            (vec![&[0, 0, 0]], false, true),
        ] {
            let mut proof = ListingProof::new(100);
            for (number, page) in pages.iter().enumerate() {
                proof.record(200, page, has_more || number + 1 < pages.len());
            }
            assert_eq!(proof.is_complete(), expected, "{pages:?} {has_more}");
        }
    }

    #[test]
    fn the_mark_is_the_newest_time_before_the_first_page_less_the_margin() {
        for (pages, expected) in [
            (vec![], None),
            (vec![(500, &[][..])], None),
            (vec![(500, &[450, 400][..])], Some(440)),
            (vec![(500, &[500, 400][..])], Some(490)),
            // A hostile time does not move it past the batches that are still to be made.
            (vec![(500, &[9_999, 450][..])], Some(440)),
            (vec![(500, &[9_999][..])], None),
            (vec![(500, &[0, 0][..])], None),
            // Only the date of the first page counts.
            (vec![(500, &[450][..]), (600, &[550, 400][..])], Some(440)),
        ] {
            let mut proof = ListingProof::new(100);
            for (date, times) in &pages {
                proof.record(*date, times, true);
            }
            assert_eq!(proof.mark(Duration::from_secs(10)), expected, "{pages:?}");
        }
    }

    #[test]
    fn pages_shrink_to_one_batch_and_grow_again() {
        let shrunk: Vec<u32> = std::iter::successors(Some(LARGEST_PAGE), |size| Some(smaller_page(*size)))
            .take(5)
            .collect();
        assert_eq!(shrunk, [100, 25, 6, 1, 1]);
        assert_eq!([1, 6, 64, 100].map(larger_page), [2, 12, 100, 100]);
    }
}
