//! `check-config`: checks the configuration, as a start of the daemon would.

use clap::Args;
use serde_json::{Value, json};

use super::batch_probe::BatchProbe;
use super::context::{Context, now, wait};
use super::{CommandError, Outcome, Verdict};
use crate::config::Config;
use crate::daemon::{check_outgoing, openai_client};
use crate::domain::batch::Stage;
use crate::domain::decide::synchronous_failure::as_answer;
use crate::domain::money::Money;
use crate::domain::parameters::Parameters;
use crate::domain::prices::Price;
use crate::domain::result_line::{Answer, read_body};
use crate::domain::usage::TokenUsage;
use crate::openai::ResponsesApi;

/// What the model is asked about.
const TEXT: &str = "A dent in the left front door, as wide as a hand.";
/// A grey image of 64 by 64 pixels.
const IMAGE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKklEQVR42u3MQREAAAwCIPsn\
                     M5Yh9ttBANKjCAQCgUAgEAgEAoFAIPgeDAQKgLWRjkNPAAAAAElFTkSuQmCC";

/// Options of `check-config`.
#[derive(Args)]
pub(super) struct CheckOptions {
    /// Make one call for each stage with its parameters; OpenAI bills it, a fraction of a cent. Exit status 1
    /// if OpenAI refuses one
    #[arg(long)]
    probe: bool,
    /// Make a batch of one line, cancel it, and print what the server offers; at most this line is billed, and the
    /// files are deleted. Exit status 1 if a call that is needed is refused
    #[arg(long)]
    probe_batch: bool,
}

/// What a call with the parameters of a stage has shown.
struct Probe {
    stage: Stage,
    /// Why OpenAI does not answer; `None` if it does.
    problem: Option<String>,
    /// `None` if the model has no price.
    cost: Option<Money>,
}

pub(super) fn run(context: &Context, options: &CheckOptions) -> Outcome {
    let mut config = context.config()?;
    let missing = config.missing_credentials();
    if missing.is_empty() {
        config = context.config_with_keys()?;
    }
    check_outgoing(&config)?;
    let mut warnings = config.exposed_files(&context.config_path());
    warnings.extend(missing.iter().map(|path| {
        let path = path.display();
        format!("{path} exists only while the service runs: no key was checked")
    }));
    warnings.extend(config.unusable_alert_programs());
    if !config.has_openai_key() {
        warnings.push(
            "no OpenAI key here: set openai.api_key_file, or the service needs OPENAI_API_KEY".to_owned(),
        );
    }
    if !config.openai.lists_batches() {
        warnings.push(
            "openai.batch_listing is \"none\": a create that is not answered waits for an operator, and a restored \
             database is recognized by the file beside it alone (docs/how-to/providers.md)"
                .to_owned(),
        );
    }
    let probes = match options.probe {
        true => probe_stages(&config)?,
        false => Vec::new(),
    };
    let offered = match options.probe_batch {
        true => Some(BatchProbe::run(&config, &openai_client(&config)?, wait)?),
        false => None,
    };
    let is_good = probes.iter().all(|probe| probe.problem.is_none())
        && offered.as_ref().is_none_or(BatchProbe::is_good);
    let mut text: String = warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    text.extend(probes.iter().map(|probe| probe.describe(&config)));
    text.extend(offered.iter().map(BatchProbe::describe));
    text.push_str(match is_good {
        true => "the configuration is good\n",
        false => {
            "the configuration is well-formed, and the server does not take what would be sent with it\n"
        }
    });
    let mut value = json!({"good": is_good, "warnings": warnings});
    if options.probe {
        value["probes"] = probes.iter().map(Probe::to_json).collect();
    }
    if let Some(offered) = &offered {
        value["batch_probe"] = offered.to_json();
    }
    context.output.report(&value, &text)?;
    Ok(Verdict::clean_if(is_good))
}

fn probe_stages(config: &Config) -> Result<Vec<Probe>, CommandError> {
    let client = openai_client(config)?;
    let stages = [Stage::Vision, Stage::Translation].into_iter();
    Ok(stages.map(|stage| probe(config, &client, stage)).collect())
}

/// Makes a call with the very parameters of a stage's lines.
fn probe(config: &Config, client: &impl ResponsesApi, stage: Stage) -> Probe {
    let parameters = config.parameters(stage);
    let body = parameters.body(false, TEXT, &[IMAGE.to_owned()], TEXT, "de");
    let (answer, tokens) = match client.respond(parameters.form().endpoint, &body) {
        Ok(body) => read_body(200, &body),
        Err(error) => (as_answer(&error), TokenUsage::ZERO),
    };
    Probe {
        stage,
        problem: problem(&answer, &parameters),
        cost: cost(config, parameters.model(), tokens),
    }
}

/// The fault of the parameters, by an answer to them. A model that has run takes them.
fn problem(answer: &Answer, parameters: &Parameters) -> Option<String> {
    let (_, _, error) = answer.outcome();
    match answer {
        Answer::Text { .. } | Answer::Refusal { .. } | Answer::Truncated | Answer::Filtered => None,
        Answer::Misconfigured { setting, .. } => {
            Some(format!("{} is wrong: {error}", parameters.setting_text(*setting)))
        }
        _ => Some(error),
    }
}

/// The cost of a synchronous call now; `None` if the model has no price.
fn cost(config: &Config, model: &str, tokens: TokenUsage) -> Option<Money> {
    let [_, (_, synchronous)] = price_of(config, model)?.rates();
    Some(synchronous.cost(tokens))
}

/// The price of a model now; `None` if it has none.
pub(super) fn price_of(config: &Config, model: &str) -> Option<Price> {
    let today = now().to_day_text();
    let prices = config.prices().into_iter();
    let base_url = &config.openai.base_url;
    let in_force =
        prices.filter(|price| price.is_for(model) && price.is_of(base_url) && price.since <= today);
    in_force.max_by(|a, b| (a.provider.is_some(), &a.since).cmp(&(b.provider.is_some(), &b.since)))
}

impl Probe {
    fn describe(&self, config: &Config) -> String {
        let (stage, model) = (self.stage, config.parameters(self.stage).model().to_owned());
        let cost = match self.cost {
            Some(cost) => format!("{cost} USD"),
            None => "an unknown amount, as the model has no price".to_owned(),
        };
        match &self.problem {
            None => format!("{stage}: {model} answers with these parameters; it cost {cost}\n"),
            Some(problem) => format!("{stage}: {model} does not answer: {problem}\n"),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "stage": self.stage.as_str(), "good": self.problem.is_none(), "problem": self.problem,
            "cost": self.cost.map(|cost| json!({"usd": cost.to_string()})),
        })
    }
}
