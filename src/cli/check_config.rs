//! `check-config`: checks the configuration, as a start of the daemon would.

use serde_json::json;

use super::Outcome;
use super::context::Context;
use crate::daemon::check_outgoing;

pub(super) fn run(context: &Context) -> Outcome {
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
    if !config.has_openai_key() {
        warnings.push(
            "no OpenAI key here: set openai.api_key_file, or the service needs OPENAI_API_KEY".to_owned(),
        );
    }
    let text: String = warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    context.output.report(
        &json!({"good": true, "warnings": warnings}),
        &format!("{text}the configuration is good\n"),
    )
}
