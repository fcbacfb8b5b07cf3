//! The faults of one response.

/// The faults of one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFaults {
    /// The response is `failed` with this error code.
    pub failure: Option<String>,
    /// The failure is not billed.
    pub unbilled: bool,
    /// A reasoning item comes first.
    pub reasoning: bool,
    /// A refusal takes the place of the text.
    pub refusal: bool,
    /// The text is cut off.
    pub truncation: Option<Truncation>,
    /// A commentary message comes first, and the text has three parts.
    pub nested: bool,
    /// The text ends with [`super::ODD_UNICODE`].
    pub odd_unicode: bool,
    /// The least bytes of the text.
    pub huge: Option<usize>,
    /// The tokens of input and of output that `usage` says.
    pub absurd_usage: Option<u64>,
    /// The response names the model's alias instead of the dated model.
    pub names_alias: bool,
}

/// How much of a truncated text is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Nothing.
    Empty,
    /// Half of the tokens, or what the request's limit allows.
    Partial,
}
