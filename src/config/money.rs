//! `[[prices]]` and `[budgets]`: what models cost, and what may be spent.

use serde::Deserialize;

use super::error::refuse;
use super::{Config, ConfigError};
use crate::domain::{
    budgets::{Budgets, SpendingLimits},
    prices::Price,
};

/// `[budgets]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetsConfig {
    /// What the jobs of all clients may cost together.
    pub total: SpendingLimits,
    /// What happens to a job that exceeds a budget.
    pub on_exceeded: BudgetPolicy,
    /// Whether clients see what their jobs cost.
    pub show_costs: bool,
}

/// `budgets.on_exceeded`: what happens to a job that exceeds a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPolicy {
    /// It is refused with 402.
    #[default]
    Refuse,
    /// It is accepted, and waits until the budget allows it.
    Wait,
}

impl Config {
    /// What models cost: as configured, and as shipped for models that the configuration does not name.
    pub fn prices(&self) -> Vec<Price> {
        crate::domain::prices::prices(&self.prices)
    }

    /// The budget of all clients together, and of each client that has one.
    pub fn spending_limits(&self) -> Budgets {
        let limited = self.clients.iter().filter(|it| !it.budget.is_unlimited());
        Budgets {
            total: self.budgets.total,
            clients: limited
                .map(|client| (client.name.clone(), client.budget))
                .collect(),
        }
    }

    pub(super) fn check_money(&self) -> Result<(), ConfigError> {
        if let Some(price) = self.prices.iter().find(|price| !price.is_valid()) {
            return refuse(format!(
                "prices: that of {:?} since {:?} must have a model, a day such as \"2026-11-24\", and \
                 dollars a million tokens with at most six digits behind the point",
                price.model, price.since
            ));
        }
        if self.spending_limits().is_unlimited() {
            return Ok(());
        }
        let prices = self.prices();
        let has_price = |model: &&String| {
            prices
                .iter()
                .any(|price| price.is_for(model) && price.is_of(&self.openai.base_url))
        };
        let mut models = [&self.vision.model, &self.translation.model].into_iter();
        match models.find(|model| !has_price(model)) {
            Some(model) => refuse(format!(
                "a budget needs a price of the model {model:?}: add it under [[prices]]"
            )),
            None => Ok(()),
        }
    }
}
