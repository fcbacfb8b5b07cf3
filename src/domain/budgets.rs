//! Spending limits.

use serde::Deserialize;

use crate::domain::money::Money;

/// The most that may be spent. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpendingLimits {
    /// In a day (UTC).
    pub per_day: Option<Money>,
    /// In a calendar month (UTC).
    pub per_month: Option<Money>,
}

impl SpendingLimits {
    /// Whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// The spending limits of all clients together and of single clients.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// The limits of all clients together.
    pub total: SpendingLimits,
    /// The limits of the clients that have their own.
    pub clients: Vec<(String, SpendingLimits)>,
}

impl Budgets {
    /// Whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        self.total.is_unlimited() && self.clients.is_empty()
    }
}
