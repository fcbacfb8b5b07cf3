//! The interface between the server and its users.

use super::message::{Request, Response};

/// Answers requests: the client API, the operators' pages and the sandbox implement it.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Several threads call this at once.
    fn handle(&self, request: Request) -> Response;

    /// The response for a request that the server itself refuses (malformed, too large, too slow, too many),
    /// in the handler's own form. `code` is one of the contract's error codes.
    fn refuse(&self, status: u16, code: &str, message: &str) -> Response;
}
