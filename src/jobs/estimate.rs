//! What a submission will take: requests, batches, tokens and money. The averages of the last finished jobs
//! count, or the lengths of its texts if there are none yet.

use super::learned::{CHARACTERS_PER_TOKEN, average, count_answers, to_u64, tokens_per_image};
use crate::base::clock::Timestamp;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::decide::missing_images::has_too_few_images;
use crate::domain::job::{Mode, Submission, is_english};
use crate::domain::money::Money;
use crate::domain::usage::TokenUsage;
use crate::store::money::{self, Learned};
use crate::store::{Stored, View};

/// Bytes of a line of an input file without its texts and URLs, about.
const BYTES_PER_LINE: u64 = 500;
/// Output tokens of an answer, before any was answered.
const ASSUMED_OUTPUT: u64 = 300;

/// What a submission will take.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Number of descriptions.
    pub descriptions: u64,
    /// Number of translations.
    pub translations: u64,
    /// The fewest batches that hold the requests of each stage.
    pub batches: [u64; 2],
    /// Tokens of all requests.
    pub tokens: TokenUsage,
    /// The output caps of all requests together.
    pub output_at_most: u64,
    /// The price of `tokens`; `None` if a model has no price.
    pub cost: Option<Money>,
    /// Number of answers of finished jobs that the averages are made from.
    pub learned_from: u64,
}

/// The sizes of a submission.
#[derive(Clone, Copy, Debug, Default)]
struct SubmissionSize {
    descriptions: u64,
    images: u64,
    text_bytes: u64,
    url_bytes: u64,
}

impl SubmissionSize {
    fn of(submission: &Submission<'_>) -> Self {
        let mut size = Self::default();
        let lots = submission.lots.iter();
        for lot in lots.filter(|lot| !has_too_few_images(lot.images.len(), 0)) {
            size.descriptions += 1;
            size.images += to_u64(lot.images.len());
            size.text_bytes += to_u64(lot.additional_info.len());
            size.url_bytes += lot.images.iter().map(|it| to_u64(it.len())).sum::<u64>();
        }
        size
    }
}

/// Estimates what a submission will take, at the prices of `now`.
///
/// # Errors
/// The store's.
pub fn estimate_submission(
    view: &View,
    config: &Config,
    submission: &Submission<'_>,
    mode: Mode,
    now: Timestamp,
) -> Stored<Estimate> {
    let size = SubmissionSize::of(submission);
    let languages = submission.languages.iter().filter(|tag| !is_english(tag));
    let languages: Vec<&str> = languages.map(String::as_str).collect();
    let translations = size.descriptions * to_u64(languages.len());
    let (vision, translation) = (&config.vision, &config.translation);

    let described = money::learned(view, Stage::Vision, &vision.model)?;
    let translated = money::learned(view, Stage::Translation, &translation.model)?;
    let vision_tokens = estimate_vision(config, &described, size);
    let translation_tokens = estimate_translations(config, &translated, size, &languages);
    let vision_bytes = size.text_bytes + size.url_bytes + size.descriptions * to_u64(vision.prompt.len());
    let translation_bytes = translations
        * (to_u64(translation.prompt.len()) + assumed_description(config) * CHARACTERS_PER_TOKEN);
    Ok(Estimate {
        descriptions: size.descriptions,
        translations,
        batches: [
            count_batches(config, mode, size.descriptions, vision_bytes),
            count_batches(config, mode, translations, translation_bytes),
        ],
        tokens: vision_tokens + translation_tokens,
        output_at_most: size.descriptions * u64::from(vision.max_output_tokens)
            + translations * u64::from(translation.max_output_tokens),
        cost: cost(
            view,
            mode,
            [
                (&vision.model, vision_tokens),
                (&translation.model, translation_tokens),
            ],
            now,
        )?,
        learned_from: count_answers(&described) + count_answers(&translated),
    })
}

/// Output tokens of a description, before any was answered.
fn assumed_description(config: &Config) -> u64 {
    ASSUMED_OUTPUT.min(u64::from(config.vision.max_output_tokens))
}

fn estimate_vision(config: &Config, learned: &[Learned], size: SubmissionSize) -> TokenUsage {
    let vision = &config.vision;
    let text = size.text_bytes + size.descriptions * to_u64(vision.prompt.len());
    average(learned, size.descriptions).unwrap_or_else(|| TokenUsage {
        input: text.div_ceil(CHARACTERS_PER_TOKEN) + size.images * tokens_per_image(&vision.detail),
        cached: 0,
        output: size.descriptions * assumed_description(config),
        reasoning: 0,
    })
}

/// The tokens of the translations: those of a language by its own average, or else by that of all languages.
fn estimate_translations(
    config: &Config,
    learned: &[Learned],
    size: SubmissionSize,
    languages: &[&str],
) -> TokenUsage {
    let translation = &config.translation;
    let prompt = to_u64(translation.prompt.len()).div_ceil(CHARACTERS_PER_TOKEN);
    let output = ASSUMED_OUTPUT.min(u64::from(translation.max_output_tokens));
    let of_language = |language: &&str| {
        let own = learned.iter().filter(|it| it.language == *language);
        let own: Vec<Learned> = own.cloned().collect();
        average(&own, size.descriptions)
            .or_else(|| average(learned, size.descriptions))
            .unwrap_or_else(|| TokenUsage {
                input: size.descriptions * (prompt + assumed_description(config)),
                cached: 0,
                output: size.descriptions * output,
                reasoning: 0,
            })
    };
    languages.iter().map(of_language).sum()
}

/// The price of the tokens of each model; `None` if a model that is used has no price.
fn cost(
    view: &View,
    mode: Mode,
    tokens_by_model: [(&String, TokenUsage); 2],
    now: Timestamp,
) -> Stored<Option<Money>> {
    let day = now.to_day_text();
    let mut cost = Some(Money::default());
    for (model, tokens) in tokens_by_model {
        if tokens != TokenUsage::ZERO {
            let rates = money::rates(view, model, mode.as_str(), &day)?;
            let of_model = rates.map(|rates| rates.cost(tokens));
            cost = cost.zip(of_model).map(|(all, one)| all + one);
        }
    }
    Ok(cost)
}

/// The fewest batches that hold the requests.
fn count_batches(config: &Config, mode: Mode, requests: u64, bytes: u64) -> u64 {
    if mode == Mode::Synchronous {
        return 0;
    }
    let by_lines = requests.div_ceil(u64::from(config.batch.max_requests));
    by_lines.max((bytes + requests * BYTES_PER_LINE).div_ceil(config.batch.max_bytes))
}
