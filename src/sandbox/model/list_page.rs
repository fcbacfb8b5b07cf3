//! One page of a listing.

use super::error_reply::ErrorReply;

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The page's objects.
    pub items: Vec<T>,
    /// Whether objects follow this page.
    pub has_more: bool,
}

/// Reads the query value `limit`: a number from 1 to `highest`, or `default` if it is absent.
pub fn page_limit(
    value: Option<&str>,
    default: usize,
    highest: usize,
    error: impl FnOnce() -> ErrorReply,
) -> Result<usize, ErrorReply> {
    let Some(text) = value else {
        return Ok(default);
    };
    text.parse::<usize>()
        .ok()
        .filter(|limit| (1..=highest).contains(limit))
        .ok_or_else(error)
}
