//! What the pages put together for their tables from several places.

use crate::domain::money::Money;
use crate::store::lots::LotRow;
use crate::store::money::BudgetUse;
use crate::store::status::LotDetails;

/// A budget and what is used or promised of it.
pub(super) struct BudgetRow {
    pub(super) budget: BudgetUse,
    /// The part of the estimates of jobs that are not final which is not spent yet.
    pub(super) promised: Money,
}

/// What the facts of a lot are made from.
pub(super) struct LotFacts {
    pub(super) job: String,
    pub(super) client: String,
    pub(super) lot: LotRow,
    pub(super) details: LotDetails,
}

/// An image of a lot.
pub(super) struct Image {
    pub(super) url: String,
    /// Why it cannot be used.
    pub(super) problem: Option<String>,
}

/// The program and its database.
pub(super) struct Running {
    pub(super) schema: String,
    pub(super) sqlite: &'static str,
    pub(super) database: String,
    pub(super) bytes: u64,
    pub(super) wal_bytes: u64,
    pub(super) free_bytes: u64,
}
