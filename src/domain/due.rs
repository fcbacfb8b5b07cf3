//! When a piece of work may be done.

use crate::base::clock::Timestamp;

/// A piece of work that is due now, or the time at which the next one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due<T> {
    /// This piece of work is due.
    Now(T),
    /// Nothing is due before that time.
    At(Timestamp),
    /// No work is planned.
    Never,
}

impl<T> Due<T> {
    /// The work that is due, or else the time of the next.
    pub fn new(due: Option<T>, next: Option<Timestamp>) -> Self {
        match (due, next) {
            (Some(work), _) => Self::Now(work),
            (None, Some(at)) => Self::At(at),
            (None, None) => Self::Never,
        }
    }
}
