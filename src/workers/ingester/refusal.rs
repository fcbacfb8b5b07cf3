//! A batch that OpenAI refused before any line ran: why, which lines are to blame, and whether it
//! passes.

use std::collections::BTreeSet;

use crate::domain::openai::BatchStatus;
use crate::store::batches::BatchRow;

/// Why OpenAI refused a batch, in one line.
pub fn refusal(row: &BatchRow) -> String {
    let said: BTreeSet<String> = row
        .errors
        .iter()
        .take(5)
        .map(|error| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}", part(&error.code), part(&error.message))
                .trim()
                .to_owned()
        })
        .collect();
    let said = said.into_iter().collect::<Vec<_>>().join("; ");
    if said.is_empty() {
        "OpenAI refused the batch and did not say why".to_owned()
    } else {
        said
    }
}

/// The lines that OpenAI blames for refusing a batch, with what is wrong with each. The only line
/// of a batch is to blame for it. Of a batch that was not sealed here (a recovery took it up) nobody
/// is: which of its lines are here, and in which order they were sent, no row says.
pub fn blamed(row: &BatchRow) -> Vec<(u64, String)> {
    let refused = row.openai_status.as_deref() == Some(BatchStatus::Failed.as_str());
    if !refused || is_passing(row) || row.input_sha256.is_none() {
        return Vec::new();
    }
    let lines = row.errors.iter().filter_map(|error| {
        let message = format!(
            "{}: {}",
            error.code.as_deref().unwrap_or(""),
            error.message.as_deref().unwrap_or("")
        );
        Some((error.line?, message))
    });
    let blamed: Vec<_> = lines
        .filter(|(line, _)| (1..=u64::from(row.lines)).contains(line))
        .collect();
    if blamed.is_empty() && row.lines == 1 {
        vec![(1, refusal(row))]
    } else {
        blamed
    }
}

/// OpenAI's queue of the model is full: it is waited for, and smaller batches are tried.
pub fn is_queue_full(row: &BatchRow) -> bool {
    row.errors.iter().any(|error| {
        error.code.as_deref() == Some("token_limit_exceeded")
            || error
                .message
                .as_deref()
                .is_some_and(|message| message.contains("nqueued"))
    })
}

/// Whether the refusal says nothing of the lines, and passes: with time, or once a person has mended
/// the model's name or the account.
pub fn is_passing(row: &BatchRow) -> bool {
    let passing = [
        "server_error",
        "billing_hard_limit_reached",
        "insufficient_quota",
        // Said of each line, but all have the same model.
        "model_not_found",
        "mismatched_model",
    ];
    is_queue_full(row)
        || row.errors.iter().any(|error| {
            let code = error.code.as_deref().unwrap_or("");
            let no_input = error.line.is_none()
                && matches!(error.param.as_deref(), Some("file_id" | "input_file_id"));
            passing.contains(&code) || no_input
        })
}

/// The limit that OpenAI names when its queue of a model is full: `Limit: 900,000 enqueued tokens`.
pub fn queue_limit(row: &BatchRow) -> Option<u64> {
    let messages = row.errors.iter().filter_map(|it| it.message.as_deref());
    messages
        .filter(|message| message.contains("oken"))
        .find_map(limit_in)
}

fn limit_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("Limit:")?;
    let digits: String = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_out_of_the_message() {
        let said = "Enqueued token limit reached for m in organization org-…. Limit: 2,000,000 enqueued tokens. Please";
        assert_eq!(limit_in(said), Some(2_000_000));
        assert_eq!(limit_in("Limit: 90000."), Some(90_000));
        assert_eq!(limit_in("the limit is 5"), None);
        assert_eq!(limit_in("Limit: none"), None);
    }
}
