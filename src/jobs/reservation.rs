//! What a line of a batch reserves: money of the budgets, and tokens of the model's queue.

use super::learned::{CHARACTERS_PER_TOKEN, average, to_u64, tokens_per_image};
use crate::base::clock::Timestamp;
use crate::config::Config;
use crate::domain::batch::Stage;
use crate::domain::decide::queue_limit::QueueTokens;
use crate::domain::job::Mode;
use crate::domain::money::Money;
use crate::domain::parameters::Parameters;
use crate::domain::usage::TokenUsage;
use crate::store::{Stored, View, money};

/// Input tokens of a line without its instructions, before any was answered.
const ASSUMED_INPUT: u64 = 1_000;
/// A line reserves a quarter more than it usually takes.
const MARGIN: (u64, u64) = (5, 4);
/// The cost of this many lines is divided by their number, so that no fraction is lost.
const MANY: u64 = 1_000;

/// The money that one line of a batch reserves, or one synchronous call: what such lines took and a quarter more, or
/// its output cap before any was answered. `None` if its model has no price.
///
/// # Errors
/// The store's.
pub fn cost_of_line(
    view: &View,
    stage: Stage,
    mode: Mode,
    parameters: &Parameters,
    now: Timestamp,
) -> Stored<Option<Money>> {
    let model = parameters.model();
    let Some(rates) = money::rates(view, model, mode.as_str(), &now.to_day_text())? else {
        return Ok(None);
    };
    let learned = money::learned(view, stage, model)?;
    let tokens = average(&learned, MANY).map_or_else(
        || {
            let prompt = to_u64(parameters.prompt().len()).div_ceil(CHARACTERS_PER_TOKEN);
            TokenUsage {
                input: prompt + ASSUMED_INPUT,
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
    Ok(Some(rates.cost(tokens).divided_by(MANY)))
}

/// The money that more requests of each stage reserve. `None` if a model has no price.
///
/// # Errors
/// The store's.
pub fn cost_of_requests(
    view: &View,
    config: &Config,
    requests: [(Stage, u64); 2],
    now: Timestamp,
) -> Stored<Option<Money>> {
    let mut cost = Some(Money::default());
    for (stage, number) in requests.into_iter().filter(|(_, number)| *number > 0) {
        let line = cost_of_line(view, stage, Mode::Batch, &config.parameters(stage), now)?;
        cost = cost.zip(line).map(|(cost, line)| cost + line.times(number));
    }
    Ok(cost)
}

/// The tokens that a line takes of the model's queue, rather too many than too few.
pub fn queue_tokens_of_line(
    line_bytes: u64,
    images: usize,
    parameters: &Parameters,
    output_cap: u64,
) -> QueueTokens {
    const BYTES_PER_TOKEN: u64 = 3;
    let images = match parameters {
        Parameters::Vision(vision) => to_u64(images) * tokens_per_image(&vision.detail),
        Parameters::Translation(_) => 0,
    };
    QueueTokens {
        input: line_bytes / BYTES_PER_TOKEN + images,
        caps: output_cap,
    }
}
