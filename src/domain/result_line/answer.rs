//! The data of a result line.

use super::json::cut;
use crate::domain::batch::Outcome;
use crate::domain::parameters::Setting;
use crate::domain::usage::TokenUsage;

/// One line of an output or error file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    /// The key that the request was sent under.
    pub custom_id: String,
    /// The answer.
    pub answer: Answer,
    /// Its tokens; zeros where the line does not say.
    pub usage: TokenUsage,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole text.
    Text {
        /// Trimmed, not empty, without NUL.
        text: String,
        /// The dated model that wrote it.
        model: Option<String>,
    },
    /// The model declined, and would decline again if it were asked the same.
    Refusal {
        /// In the model's words.
        message: String,
    },
    /// The output limit was reached: the text is not whole.
    Truncated,
    /// The content filter held it back.
    Filtered,
    /// OpenAI could not fetch an image, or cannot use it.
    ImageUnreachable {
        /// In OpenAI's words, after the parameter that names the image, if one does.
        message: String,
    },
    /// The request is not to blame: it may succeed at another time.
    Retry {
        /// OpenAI's code or type, or one of ours if it has none (`http_<status>`, `failed`, …).
        code: String,
        /// For people.
        message: String,
    },
    /// The answer cannot be read, and may have been billed.
    Malformed {
        /// One of ours: `no_answer`, `malformed_body`, `empty_text`, or the answer's odd status.
        code: String,
        /// For people.
        message: String,
    },
    /// A setting is wrong: every request of the stage will fail until it is changed.
    Misconfigured {
        /// The setting.
        setting: Setting,
        /// OpenAI's code or type, or `http_<status>`.
        code: String,
        /// For people.
        message: String,
    },
    /// The same request will fail again.
    Fail {
        /// OpenAI's code or type, or `http_<status>`.
        code: String,
        /// For people.
        message: String,
    },
}

impl Answer {
    /// The setting that is to blame; `None` if none is.
    pub fn setting(&self) -> Option<Setting> {
        match self {
            Self::Misconfigured { setting, .. } => Some(*setting),
            _ => None,
        }
    }

    /// The outcome for its request, with the text of an answer and OpenAI's words on a failure.
    pub fn outcome(&self) -> (Outcome, &str, String) {
        let with_code = |code: &str, message: &str| {
            if code.is_empty() {
                message.to_owned()
            } else {
                format!("{code}: {message}")
            }
        };
        match self {
            Self::Text { text, .. } => (Outcome::Answered, text, String::new()),
            Self::Refusal { message } => (Outcome::Refused, "", message.clone()),
            Self::Truncated => (Outcome::Truncated, "", String::new()),
            Self::Filtered => (Outcome::Filtered, "", String::new()),
            Self::ImageUnreachable { message } => (Outcome::ImageUnreachable, "", message.clone()),
            Self::Retry { code, message } => (Outcome::Passing, "", with_code(code, message)),
            Self::Malformed { code, message } => (Outcome::Unreadable, "", with_code(code, message)),
            Self::Misconfigured { code, message, .. } => {
                (Outcome::Misconfigured, "", with_code(code, message))
            }
            Self::Fail { code, message } => (Outcome::Wrong, "", with_code(code, message)),
        }
    }
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenLine {
    /// A text for people about the fault.
    pub message: String,
    /// The custom id of the line; `None` if it cannot be found.
    pub custom_id: Option<String>,
}

impl std::fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BrokenLine {}

impl Answer {
    /// An answer that cannot be read.
    pub(super) fn malformed(code: &str, message: &str) -> Self {
        Self::Malformed {
            code: cut(code),
            message: cut(message),
        }
    }
}
