//! The memory that the bodies of all requests may use together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bodies up to this size are not counted. They need no more memory than a connection does, and a client that
/// uses up the budget cannot keep small requests out.
const UNCOUNTED_BYTES: u64 = 64 * 1024;

/// The bytes that are left for bodies. The budget counts bytes as they arrive, not `Content-Length`, so a
/// client that announces much and sends little uses little.
#[derive(Debug)]
pub struct MemoryBudget {
    left: AtomicU64,
}

impl MemoryBudget {
    /// Creates a budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
        }
    }

    /// Begins a reservation for a body of `length` bytes; `None` if the budget has fewer bytes left.
    pub fn begin(&self, length: u64) -> Option<BodyReservation<'_>> {
        let is_counted = length > UNCOUNTED_BYTES;
        if is_counted && length > self.left.load(Ordering::Relaxed) {
            return None;
        }
        Some(BodyReservation {
            budget: self,
            is_counted,
            bytes: 0,
        })
    }
}

/// The memory that one body uses. Dropping it gives the memory back.
#[derive(Debug)]
pub struct BodyReservation<'a> {
    budget: &'a MemoryBudget,
    is_counted: bool,
    bytes: u64,
}

impl BodyReservation<'_> {
    /// Reserves `bytes` more. Returns false if other bodies have used up the budget meanwhile.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let counted = if self.is_counted { bytes } else { 0 };
        let grown = self
            .budget
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(counted)
            })
            .is_ok();
        if grown {
            self.bytes += counted;
        }
        grown
    }
}

impl Drop for BodyReservation<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_counts_what_has_arrived_and_spares_small_bodies() {
        let budget = MemoryBudget::new(UNCOUNTED_BYTES + 5);
        let mut reservation = budget.begin(UNCOUNTED_BYTES + 1).unwrap();
        let mut idle = budget.begin(UNCOUNTED_BYTES + 1).unwrap();
        assert!(reservation.grow(UNCOUNTED_BYTES));
        assert!(!idle.grow(6) && idle.grow(5));
        assert!(budget.begin(UNCOUNTED_BYTES + 1).is_none());
        assert!(
            budget
                .begin(UNCOUNTED_BYTES)
                .is_some_and(|mut it| it.grow(UNCOUNTED_BYTES))
        );
        drop((reservation, idle));
        assert!(
            budget
                .begin(UNCOUNTED_BYTES + 5)
                .is_some_and(|mut it| it.grow(UNCOUNTED_BYTES + 5))
        );
        assert!(budget.begin(u64::MAX).is_none());
    }
}
