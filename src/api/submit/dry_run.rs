//! `?dry_run=true`: checks a submission and estimates its cost, without storing it.

use serde_json::json;

use crate::api::Api;
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::job::{Mode, Submission};
use crate::http::Response;
use crate::jobs::estimate;
use crate::ops::answers::RequestError;
use crate::store::money;

/// How the numbers were made before any job has finished.
const ASSUMED: &str = "Requests are exact unless lots fail. Batches are the fewest that hold them. No job has finished \
    yet: a token per 4 characters of text, 85 per image (low detail), 300 per answer. Money: those tokens at the \
    prices of today.";
/// How the numbers were made from finished jobs.
const LEARNED: &str = "Requests are exact unless lots fail. Batches are the fewest that hold them. Tokens: what a request \
    of each language took in the last 20 finished jobs. Money: those tokens at the prices of today.";

impl Api {
    /// The answer to a dry run of a checked submission.
    pub(super) fn dry_run(
        &self,
        client: &ClientConfig,
        submission: &Submission<'_>,
        mode: Mode,
        warnings: &[String],
        now: Timestamp,
    ) -> Result<Response, RequestError> {
        let budgets = self.config.spending_limits();
        let (estimate, exceeded) = self.store.read(|view| {
            let estimate = estimate::estimate_submission(view, &self.config, submission, mode, now)?;
            let exceeded = match estimate.cost {
                Some(cost) => money::exceeded_budget(view, &budgets, &client.name, cost, now)?,
                None => None,
            };
            Ok((estimate, exceeded))
        })?;
        let is_limited = !budgets.is_unlimited() && estimate.cost.is_some();
        let lots = submission.lots.iter();
        let without_images = lots.clone().filter(|lot| lot.images.is_empty()).count();
        let unusable: usize = lots.map(|lot| lot.unusable_images.len()).sum();
        let [vision, translation] = estimate.batches;
        let answer = json!({
            "dry_run": true,
            "status": "valid",
            "total_lots": submission.lots.len(),
            "lots_without_images": without_images,
            "unusable_images": unusable,
            "languages": submission.languages,
            "processing_mode": mode.as_str(),
            "webhook_configured": !submission.webhooks().is_empty(),
            "requests": {
                "vision": estimate.descriptions,
                "translation": estimate.translations,
                "total": estimate.descriptions + estimate.translations,
            },
            "batches": {"vision": vision, "translation": translation},
            "tokens": {
                "input": estimate.tokens.input,
                "cached": estimate.tokens.cached,
                "output": estimate.tokens.output,
                "output_at_most": estimate.output_at_most,
            },
            "estimated_cost": estimate.cost.map(|cost| json!({"usd": cost.to_string()})),
            "within_budget": is_limited.then_some(exceeded.is_none()),
            "warnings": warnings,
            "learned_from_answers": estimate.learned_from,
            "estimate": if estimate.learned_from == 0 { ASSUMED } else { LEARNED },
        });
        Ok(Response::json(200, &answer))
    }
}
