//! A page of a list, as the query asks for it: `limit` and `offset`.

use serde_json::{Value, json};

use super::query;
use crate::domain::api_error::ApiError;
use crate::http::Request;

/// The most rows of a page.
pub(super) const MAX_LIMIT: u32 = 100;

/// A page of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// The most rows, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Rows before the first one.
    pub offset: u64,
}

impl Page {
    /// The page that the query asks for. A number out of range becomes the nearest one in range.
    pub(super) fn of_request(request: &Request, default_limit: u32) -> Result<Self, ApiError> {
        let limit = query::integer(request, "limit", default_limit.into())?.clamp(1, MAX_LIMIT.into());
        let offset = query::integer(request, "offset", 0)?.max(0).unsigned_abs();
        Ok(Self {
            limit: u32::try_from(limit).unwrap_or(MAX_LIMIT),
            offset,
        })
    }

    /// Whether rows follow, if this page shows `shown` of `total`.
    pub(super) fn has_more(self, shown: usize, total: u64) -> bool {
        self.offset
            .saturating_add(u64::try_from(shown).unwrap_or(u64::MAX))
            < total
    }

    /// The member `pagination` of an answer.
    pub(super) fn pagination(self, total: u64, has_more: bool) -> Value {
        json!({"limit": self.limit, "offset": self.offset, "total": total, "has_more": has_more})
    }
}
