//! The member `usage` of responses and batches.

use serde::{Deserialize, Serialize};

/// The tokens of a response or a batch, with OpenAI's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageObject {
    /// All of the input.
    pub input_tokens: u64,
    /// The cached part of the input.
    pub input_tokens_details: InputTokenDetails,
    /// All of the output, reasoning included.
    pub output_tokens: u64,
    /// The reasoning part of the output.
    pub output_tokens_details: OutputTokenDetails,
    /// Input and output.
    pub total_tokens: u64,
}

/// Details of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputTokenDetails {
    /// Always 0.
    pub cached_tokens: u64,
    /// 0 in a response, where OpenAI's own SDK requires it. A batch does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
}

/// Details of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTokenDetails {
    /// Tokens of the reasoning item.
    pub reasoning_tokens: u64,
}

impl UsageObject {
    /// Adds the tokens of a response to those of its batch.
    pub fn add(&mut self, other: UsageObject) {
        let add = |sum: &mut u64, tokens: u64| *sum = sum.saturating_add(tokens);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        let reasoning = &mut self.output_tokens_details.reasoning_tokens;
        add(reasoning, other.output_tokens_details.reasoning_tokens);
        add(&mut self.total_tokens, other.total_tokens);
    }
}
