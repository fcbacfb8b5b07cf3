//! The answers that both listeners give alike: errors, the OpenAPI document, no such path or method.

use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::Response;
use crate::store::StoreError;

/// How long a client is asked to wait after a 503, in seconds.
pub(crate) const RETRY_AFTER: &str = "30";

/// Why a request is answered with an error.
pub(crate) enum RequestError {
    /// The request is refused. The header fields belong to the answer.
    Refused(ApiError, Vec<(&'static str, String)>),
    /// The store failed.
    Store(StoreError),
}

impl From<ApiError> for RequestError {
    fn from(error: ApiError) -> Self {
        Self::Refused(error, Vec::new())
    }
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl RequestError {
    /// The answer in the contract's form. A failure of the store is logged; its text stays here.
    pub(crate) fn into_response(self) -> Response {
        match self {
            Self::Refused(error, headers) => {
                let response = Response::json(error.code.status(), &error.body());
                headers.iter().fold(response, |response, (name, value)| {
                    response.with_header(name, value)
                })
            }
            Self::Store(error) => {
                log::error!(event = "unanswered", error:%; "");
                let message =
                    "Nothing can be stored or read now; nothing of this request was. Send it again later.";
                let error = ApiError::new(ErrorCode::StorageUnavailable, message);
                Response::json(503, &error.body()).with_header("Retry-After", RETRY_AFTER)
            }
        }
    }
}

/// The answer to a request that the HTTP server itself refuses. The server decides the status.
pub(crate) fn server_refusal(status: u16, code: &str, message: &str) -> Response {
    let code = code.parse().unwrap_or(ErrorCode::InvalidParameter);
    Response::json(status, &ApiError::new(code, message).body())
}

/// 404 for a path that the listener does not have.
pub(crate) fn no_such_path(path: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("There is nothing at {path}."))
}

/// 405 with the methods that the path allows.
pub(crate) fn method_not_allowed(allow: &str) -> RequestError {
    let error = ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("This path takes {allow} only."),
    );
    RequestError::Refused(error, vec![("Allow", allow.to_owned())])
}

/// A listener's OpenAPI document.
pub(crate) fn openapi_document(text: &'static str) -> Response {
    Response::bytes(200, "application/json", text.as_bytes().to_vec())
}
