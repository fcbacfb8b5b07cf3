//! Why OpenAI refuses a call or a line of a batch, and the JSON envelope of that.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// Why a call, or a line of a batch, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// The HTTP status.
    pub status: u16,
    /// The member `type`.
    pub kind: &'static str,
    /// The member `code`.
    pub code: Option<String>,
    /// The member `param`.
    pub param: Option<String>,
    /// The member `message`.
    pub message: String,
    /// Whether the envelope repeats message and code in `detail`, as the Files API does.
    pub has_detail: bool,
    /// The value of the header `Retry-After`.
    pub retry_after: Option<String>,
}

#[derive(Serialize)]
struct ErrorEnvelope<'a> {
    error: ErrorMembers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<ErrorDetail<'a>>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    code: Option<&'a str>,
}

impl ErrorReply {
    /// An `invalid_request_error` without code and param.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code: None,
            param: None,
            message: message.into(),
            has_detail: false,
            retry_after: None,
        }
    }

    /// A 400 with code and param.
    pub fn invalid(code: &str, param: &str, message: impl Into<String>) -> Self {
        Self::new(400, message).code(code).param(param)
    }

    /// A 400 for a value of the wrong JSON type.
    pub fn invalid_type(param: &str, expected: &str) -> Self {
        Self::invalid(
            "invalid_type",
            param,
            format!("Invalid type for '{param}': expected {expected}."),
        )
    }

    /// A 400 for a parameter that is not there.
    pub fn missing(name: &str) -> Self {
        Self::invalid(
            "missing_required_parameter",
            name,
            format!("Missing required parameter: '{name}'."),
        )
    }

    /// A 400 for a parameter that OpenAI does not know.
    pub fn unknown_parameter(name: &str) -> Self {
        Self::invalid("unknown_parameter", name, format!("Unknown parameter: '{name}'."))
    }

    /// A 400 for a body that is not JSON.
    pub fn unparsable_body() -> Self {
        Self::new(400, "We could not parse the JSON body of your request.")
    }

    /// A 400 for a body that is JSON, but no object.
    pub fn body_is_no_object() -> Self {
        Self::new(400, "The body of the request must be a JSON object.")
    }

    /// The temporary failure that OpenAI reports for its own errors.
    pub fn server_error() -> Self {
        Self::new(
            500,
            "The server had an error while processing your request. Sorry about that!",
        )
        .kind("server_error")
        .code("server_error")
    }

    /// A fault's value as a refusal: a status alone, or an object with `status`, `code`, `param`, `message`
    /// and `retry_after`. `status` and `code` are the defaults.
    pub fn from_fault_value(value: &Value, status: u16, code: &str) -> Self {
        let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let status = number(value)
            .or_else(|| value.get("status").and_then(number))
            .unwrap_or(status);
        let code = text("code").unwrap_or(code);
        Self {
            kind: if status >= 500 {
                "server_error"
            } else {
                "invalid_request_error"
            },
            code: (!code.is_empty()).then(|| code.to_owned()),
            param: text("param").map(str::to_owned),
            retry_after: value.get("retry_after").map(ToString::to_string),
            ..Self::new(
                status,
                text("message").unwrap_or("A fault of the sandbox refuses this."),
            )
        }
    }

    /// The same with a code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    /// The same with a param.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same with another type.
    #[must_use]
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// The same with the member `detail`.
    #[must_use]
    pub fn with_detail(mut self) -> Self {
        self.has_detail = true;
        self
    }

    /// The envelope, as a response's body and a line's `response.body` have it.
    pub fn envelope(&self) -> Box<RawValue> {
        let code = self.code.as_deref();
        let envelope = ErrorEnvelope {
            error: ErrorMembers {
                message: &self.message,
                r#type: self.kind,
                param: self.param.as_deref(),
                code,
            },
            detail: self.has_detail.then_some(ErrorDetail {
                message: &self.message,
                code,
            }),
        };
        to_raw_value(&envelope).unwrap_or_default()
    }
}

impl From<io::Error> for ErrorReply {
    fn from(error: io::Error) -> Self {
        Self::new(500, format!("The sandbox itself failed: {error}"))
            .code("server_error")
            .kind("server_error")
    }
}
