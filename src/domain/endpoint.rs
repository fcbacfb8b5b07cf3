//! The endpoint that a request is made for, and how its body names the cap of an answer.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::text_enum::text_enum;

text_enum! {
    /// An endpoint of OpenAI's API, for the lines of batches and for synchronous calls.
    Endpoint {
        /// OpenAI's own, and the default.
        Responses = "/v1/responses",
        /// What most compatible servers have.
        ChatCompletions = "/v1/chat/completions",
    }
}

text_enum! {
    /// The member of a chat request that caps an answer.
    TokenLimit {
        /// What OpenAI takes of every model.
        MaxCompletionTokens = "max_completion_tokens",
        /// What older servers take.
        MaxTokens = "max_tokens",
    }
}

/// The form of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestForm {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Used with [`Endpoint::ChatCompletions`] alone.
    pub token_limit: TokenLimit,
}

impl RequestForm {
    /// The member of a body that caps an answer.
    pub fn limit_name(self) -> &'static str {
        match self.endpoint {
            Endpoint::Responses => "max_output_tokens",
            Endpoint::ChatCompletions => self.token_limit.as_str(),
        }
    }
}

impl Endpoint {
    /// The path of a synchronous call below the base URL, which ends with the version.
    pub fn path(self) -> &'static str {
        match self {
            Self::Responses => "/responses",
            Self::ChatCompletions => "/chat/completions",
        }
    }
}

/// Gives an enum of texts its default, and its form in the configuration and in frozen parameters.
macro_rules! stored_text {
    ($name:ident, $default:ident) => {
        impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        }

        impl $name {
            /// Whether this is the default, which frozen parameters leave out.
            pub(crate) fn is_default(&self) -> bool {
                *self == Self::default()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(|_| {
                    let all: Vec<String> = Self::ALL
                        .iter()
                        .map(|it| format!("{:?}", it.as_str()))
                        .collect();
                    serde::de::Error::custom(format!("{text:?} is not one of {}", all.join(", ")))
                })
            }
        }
    };
}

stored_text!(Endpoint, Responses);
stored_text!(TokenLimit, MaxCompletionTokens);
