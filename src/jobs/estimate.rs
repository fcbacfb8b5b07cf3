//! What a submission will take: requests, batches, tokens and money, learned from the last finished
//! jobs, or reckoned from its texts where there are none yet.

use crate::base::clock::Timestamp;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::job::{Mode, Submission, is_english};
use crate::domain::money::Money;
use crate::domain::parameters::Parameters;
use crate::domain::usage::TokenUsage;
use crate::store::money::{self, Learned};
use crate::store::{Stored, View};

/// Characters of English text that make a token, about.
const CHARACTERS_PER_TOKEN: u64 = 4;
/// Input tokens of one image in low detail, about.
const TOKENS_PER_IMAGE: u64 = 85;
/// The same in any other detail, at most: patches are capped.
const TOKENS_PER_DETAILED_IMAGE: u64 = 1_536;
/// Bytes of a line of an input file beside its texts and URLs, about.
const BYTES_PER_LINE: u64 = 500;
/// Tokens of an answer, where nothing is known yet.
const USUAL_ANSWER: u64 = 300;
/// Input tokens of a line beside its instructions, where nothing is known yet.
const USUAL_INPUT: u64 = 1_000;
/// A line is reserved a quarter more than it usually takes.
const MARGIN: (u64, u64) = (5, 4);

/// What a submission will take.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Descriptions to ask for.
    pub descriptions: u64,
    /// Translations to ask for.
    pub translations: u64,
    /// Batches of each stage, the fewest that hold them.
    pub batches: [u64; 2],
    /// Of all requests.
    pub tokens: TokenUsage,
    /// The most that may come out.
    pub output_at_most: u64,
    /// None: a model has no price.
    pub cost: Option<Money>,
    /// Answers of finished jobs that it was learned from; 0: none.
    pub learned_from: u64,
}

/// What a submission will take, by the prices of that time.
///
/// # Errors
/// The store's.
pub fn of(
    view: &View,
    config: &Config,
    submission: &Submission<'_>,
    mode: Mode,
    now: Timestamp,
) -> Stored<Estimate> {
    let (vision, translation) = (&config.vision, &config.translation);
    let sent = submission.lots.iter().filter(|lot| !lot.images.is_empty());
    let languages: Vec<&String> = submission
        .languages
        .iter()
        .filter(|tag| !is_english(tag))
        .collect();
    let (mut descriptions, mut images, mut text, mut urls) = (0, 0, 0, 0);
    for lot in sent {
        descriptions += 1;
        images += count(lot.images.len());
        text += count(lot.additional_info.len());
        urls += lot.images.iter().map(|url| count(url.len())).sum::<u64>();
    }
    let translations = descriptions * count(languages.len());
    let prompt = count(vision.prompt.len());
    let answer = USUAL_ANSWER.min(u64::from(vision.max_output_tokens));
    let vision_text = text + descriptions * prompt;
    let reckoned = TokenUsage {
        input: vision_text.div_ceil(CHARACTERS_PER_TOKEN) + images * per_image(&vision.detail),
        cached: 0,
        output: descriptions * answer,
        reasoning: 0,
    };
    let learned = money::learned(view, Stage::Vision, &vision.model)?;
    let mut learned_from = answers(&learned);
    let seen = average(&learned, descriptions).unwrap_or(reckoned);

    let learned = money::learned(view, Stage::Translation, &translation.model)?;
    learned_from += answers(&learned);
    let translation_prompt = count(translation.prompt.len());
    let mut translated = TokenUsage::ZERO;
    for language in languages {
        let own: Vec<Learned> = learned
            .iter()
            .filter(|it| it.language == *language)
            .cloned()
            .collect();
        let of_language = average(&own, descriptions)
            .or_else(|| average(&learned, descriptions))
            .unwrap_or(TokenUsage {
                input: descriptions * (translation_prompt.div_ceil(CHARACTERS_PER_TOKEN) + answer),
                cached: 0,
                output: descriptions * USUAL_ANSWER.min(u64::from(translation.max_output_tokens)),
                reasoning: 0,
            });
        translated = translated + of_language;
    }
    let day = now.to_day_text();
    let mut cost = Some(Money::default());
    for (model, tokens) in [(&vision.model, seen), (&translation.model, translated)] {
        let rates = money::rates(view, model, mode.as_str(), &day)?;
        if tokens != TokenUsage::ZERO {
            let of_stage = rates.map(|it| it.cost(tokens));
            cost = cost.zip(of_stage).map(|(all, one)| all + one);
        }
    }
    let batches = |requests: u64, bytes: u64| {
        if mode == Mode::Synchronous {
            return 0;
        }
        let by_lines = requests.div_ceil(u64::from(config.batch.max_requests));
        by_lines.max((bytes + requests * BYTES_PER_LINE).div_ceil(config.batch.max_bytes))
    };
    let description = answer * CHARACTERS_PER_TOKEN;
    Ok(Estimate {
        descriptions,
        translations,
        batches: [
            batches(descriptions, vision_text + urls),
            batches(
                translations,
                translations * (translation_prompt + description),
            ),
        ],
        tokens: seen + translated,
        output_at_most: descriptions * u64::from(vision.max_output_tokens)
            + translations * u64::from(translation.max_output_tokens),
        cost,
        learned_from,
    })
}

/// What one line of a batch is reserved: what such lines have taken, and a quarter more; before any
/// was answered, its cap. None: its model has no price.
///
/// # Errors
/// The store's.
pub fn of_line(
    view: &View,
    stage: Stage,
    parameters: &Parameters,
    now: Timestamp,
) -> Stored<Option<Money>> {
    let model = parameters.model();
    let Some(rates) = money::rates(view, model, Mode::Batch.as_str(), &now.to_day_text())? else {
        return Ok(None);
    };
    let learned = money::learned(view, stage, model)?;
    // Of many, so that no fraction is lost.
    const MANY: u64 = 1_000;
    let tokens = average(&learned, MANY).map_or_else(
        || {
            let prompt = count(parameters.prompt().len()).div_ceil(CHARACTERS_PER_TOKEN);
            TokenUsage {
                input: prompt + USUAL_INPUT,
                cached: 0,
                output: u64::from(parameters.max_output_tokens()),
                reasoning: 0,
            }
            .times(MANY)
        },
        |tokens| TokenUsage {
            input: tokens.input * MARGIN.0 / MARGIN.1,
            cached: 0,
            output: tokens.output * MARGIN.0 / MARGIN.1,
            reasoning: 0,
        },
    );
    let cost = rates.cost(tokens);
    Ok(Some(cost.divided_by(MANY)))
}

/// What so many more requests of each stage will cost, as their lines are reserved. None: a model has
/// no price.
///
/// # Errors
/// The store's.
pub fn of_requests(
    view: &View,
    config: &Config,
    requests: [(Stage, u64); 2],
    now: Timestamp,
) -> Stored<Option<Money>> {
    let mut cost = Some(Money::default());
    for (stage, number) in requests.into_iter().filter(|(_, number)| *number > 0) {
        let line = of_line(view, stage, &config.parameters(stage), now)?;
        cost = cost.zip(line).map(|(cost, line)| cost + line.times(number));
    }
    Ok(cost)
}

/// What a line of an input file takes of the model's queue at most, about: OpenAI counts input tokens
/// and the cap of the answer.
pub fn of_queue(line_bytes: u64, images: usize, parameters: &Parameters, output_cap: u64) -> u64 {
    let images = match parameters {
        Parameters::Vision(vision) => count(images) * per_image(&vision.detail),
        Parameters::Translation(_) => 0,
    };
    // Three bytes a token: rather too many tokens than too few.
    line_bytes / 3 + images + output_cap
}

fn per_image(detail: &str) -> u64 {
    match detail {
        "low" => TOKENS_PER_IMAGE,
        _ => TOKENS_PER_DETAILED_IMAGE,
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn answers(learned: &[Learned]) -> u64 {
    learned.iter().map(|it| it.answers).sum()
}

/// What so many requests take, by what those took; none where there were none.
fn average(learned: &[Learned], requests: u64) -> Option<TokenUsage> {
    let answers = answers(learned);
    let all = learned.iter().map(|it| it.tokens).sum::<TokenUsage>();
    let share = |tokens: u64| {
        let whole = u128::from(tokens) * u128::from(requests) / u128::from(answers.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    };
    (answers > 0).then(|| all.map(share))
}
