//! The circumstances of one request.

use std::net::IpAddr;

/// What the server knows of a request beside its text.
pub struct RequestContext {
    /// The request's id.
    pub id: String,
    /// The client's address; behind a trusted proxy, the address that the proxy names.
    pub peer: IpAddr,
    /// Whether the method is `HEAD`, whose response has no content.
    pub is_head: bool,
    /// Whether this is the last request that the connection may serve.
    pub is_last: bool,
}
