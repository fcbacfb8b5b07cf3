//! `/api/ops/costs`: what was spent, the state of budgets, and OpenAI's queue limits.

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::config::Config;
use crate::jobs::budget_waits::budget_waits;
use crate::store::{Store, Stored, money, queue};

/// The answer.
pub(super) fn answer(store: &Store, config: &Config, now: Timestamp) -> Stored<Value> {
    store.read(|view| {
        let budgets: Value = budget_waits(view, config, now)?
            .budgets
            .iter()
            .map(|wait| {
                let it = &wait.budget;
                json!({
                    "client": it.client,
                    "period": it.period,
                    "limit_usd": it.limit.to_string(),
                    "spent_usd": it.spent.to_string(),
                    "reserved_usd": it.reserved.to_string(),
                    "left_usd": it.left().to_string(),
                    "waiting_requests": wait.requests,
                })
            })
            .collect();
        let queues: Value = queue::list(view)?
            .iter()
            .map(|it| {
                json!({
                    "model": it.model,
                    "limit_tokens": it.limit,
                    "held_tokens": it.held,
                    "cap_percent": it.cap_percent,
                    "learned_at": it.learned_at.to_seconds_text(),
                })
            })
            .collect();
        Ok(json!({
            "spending": money::spending(view, now)?.objects(),
            "jobs": money::newest_jobs(view)?.objects(),
            "batches": money::newest_batches(view)?.objects(),
            "budgets": budgets,
            "queues": queues,
        }))
    })
}
