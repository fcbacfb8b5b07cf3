//! `?dry_run=true`: what a submission would be, without storing it.

use serde_json::{Value, json};

use super::Api;
use crate::job::{Submission, is_english};

/// Characters of English text that make a token, about.
const CHARACTERS_PER_TOKEN: u64 = 4;
/// Input tokens of one image in low detail, about; other details can take many times as much.
const TOKENS_PER_IMAGE: u64 = 85;
/// Bytes of a line of an input file beside its texts and URLs, about.
const BYTES_PER_LINE: u64 = 500;
/// How the numbers were made, for people.
const METHOD: &str = "Requests are exact unless lots fail. Batches are the fewest that hold them. Input tokens: \
    a token per 4 characters of text, 85 per image (low detail), a description taken to be as long as its prompt. \
    Output tokens: the most that the configuration allows. No prices are configured, so the cost is not estimated.";

impl Api {
    /// The answer to a dry run of a submission that is well.
    pub(super) fn estimate(&self, submission: &Submission<'_>) -> Value {
        let (vision, translation) = (&self.config.vision, &self.config.translation);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let sent: Vec<_> = submission
            .lots
            .iter()
            .filter(|lot| !lot.images.is_empty())
            .collect();
        let others = submission
            .languages
            .iter()
            .filter(|tag| !is_english(tag))
            .count();
        let descriptions = count(sent.len());
        let translations = descriptions * count(others);
        let images: u64 = sent.iter().map(|lot| count(lot.images.len())).sum();
        let info: u64 = sent
            .iter()
            .map(|lot| count(lot.additional_info.len()))
            .sum();
        let urls: u64 = sent
            .iter()
            .flat_map(|lot| &lot.images)
            .map(|url| count(url.len()))
            .sum();
        let vision_text = info + descriptions * count(vision.prompt.len());
        let description = count(vision.prompt.len());
        let translation_text = translations * (count(translation.prompt.len()) + description);
        let batches = |requests: u64, bytes: u64| {
            let bytes = bytes + requests * BYTES_PER_LINE;
            let by_lines = requests.div_ceil(u64::from(self.config.batch.max_requests));
            by_lines.max(bytes.div_ceil(self.config.batch.max_bytes))
        };
        let input = vision_text.div_ceil(CHARACTERS_PER_TOKEN)
            + images * TOKENS_PER_IMAGE
            + translation_text.div_ceil(CHARACTERS_PER_TOKEN);
        let output = descriptions * u64::from(vision.max_output_tokens)
            + translations * u64::from(translation.max_output_tokens);
        json!({
            "dry_run": true,
            "status": "valid",
            "total_lots": submission.lots.len(),
            "lots_without_images": submission.lots.len() - sent.len(),
            "languages": submission.languages,
            "processing_mode": "batch",
            "webhook_configured": !submission.webhooks().is_empty(),
            "requests": {
                "vision": descriptions,
                "translation": translations,
                "total": descriptions + translations,
            },
            "batches": {
                "vision": batches(descriptions, vision_text + urls),
                "translation": batches(translations, translation_text),
            },
            "tokens": {"input": input, "output_at_most": output},
            "estimated_cost": null,
            "estimate": METHOD,
        })
    }
}
