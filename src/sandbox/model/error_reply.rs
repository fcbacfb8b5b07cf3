//! The forms that go over the wire: error envelopes and lists, members in OpenAI's order.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::http::Response;

/// Why a call, or a line of a batch, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct ErrorReply {
    pub(in crate::sandbox) status: u16,
    pub(in crate::sandbox) kind: &'static str,
    pub(in crate::sandbox) code: Option<String>,
    pub(in crate::sandbox) param: Option<String>,
    pub(in crate::sandbox) message: String,
    /// The Files API says everything twice.
    pub(in crate::sandbox) detail: bool,
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
    pub(in crate::sandbox) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code: None,
            param: None,
            message: message.into(),
            detail: false,
        }
    }

    pub(in crate::sandbox) fn code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    pub(in crate::sandbox) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(in crate::sandbox) fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    pub(in crate::sandbox) fn with_detail(mut self) -> Self {
        self.detail = true;
        self
    }

    /// The envelope as it stands in an answer or in a line's `response.body`.
    pub(in crate::sandbox) fn raw(&self) -> Box<RawValue> {
        let code = self.code.as_deref();
        let envelope = ErrorEnvelope {
            error: ErrorMembers {
                message: &self.message,
                r#type: self.kind,
                param: self.param.as_deref(),
                code,
            },
            detail: self.detail.then_some(ErrorDetail {
                message: &self.message,
                code,
            }),
        };
        to_raw_value(&envelope).unwrap_or_default()
    }

    pub(in crate::sandbox) fn response(&self) -> Response {
        Response::bytes(
            self.status,
            "application/json",
            format!("{}\n", self.raw()).into_bytes(),
        )
    }

    /// As a fault's value tells it: a status alone, or an object with `status`, `code`, `param`,
    /// `message`.
    pub(in crate::sandbox) fn told(value: &Value, status: u16, code: &str) -> Self {
        let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let status = number(value)
            .or_else(|| value.get("status").and_then(number))
            .unwrap_or(status);
        let mut refusal = Self::new(
            status,
            text("message").unwrap_or("The sandbox was told to refuse this."),
        );
        if status >= 500 {
            refusal.kind = "server_error";
        }
        let code = text("code").unwrap_or(code);
        refusal.code = (!code.is_empty()).then(|| code.to_owned());
        refusal.param = text("param").map(str::to_owned);
        refusal
    }
}

impl From<io::Error> for ErrorReply {
    fn from(error: io::Error) -> Self {
        Self::new(500, format!("The sandbox itself failed: {error}"))
            .code("server_error")
            .kind("server_error")
    }
}

/// A page of a listing.
#[derive(Serialize)]
pub(in crate::sandbox) struct ListPage<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T: Serialize> ListPage<T> {
    pub(in crate::sandbox) fn new(items: Vec<(String, T)>, has_more: bool) -> Self {
        Self {
            object: "list",
            first_id: items.first().map(|(id, _)| id.clone()),
            last_id: items.last().map(|(id, _)| id.clone()),
            data: items.into_iter().map(|(_, item)| item).collect(),
            has_more,
        }
    }
}

/// 200 with a document whose members keep their order.
pub(in crate::sandbox) fn ok(document: &impl Serialize) -> Result<Response, ErrorReply> {
    let text = serde_json::to_vec(document).map_err(io::Error::from)?;
    Ok(Response::bytes(200, "application/json", text))
}

/// (De)serializes what is written as its text.
pub(in crate::sandbox) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::sandbox) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in crate::sandbox) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
