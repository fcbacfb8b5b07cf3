//! What a person uses on a page: filters, and the links between the pages of a list. All of it is in the address.

use maud::{Markup, html};

use super::components::number;
use crate::base::clock::Timestamp;
use crate::base::percent;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::Request;
use crate::ops::answers::RequestError;
use crate::store::status::listing::{Cursor, Page};

/// The query of a page's address.
pub(super) struct Query<'r> {
    request: &'r Request,
}

impl<'r> Query<'r> {
    pub(super) fn new(request: &'r Request) -> Self {
        Self { request }
    }

    /// A parameter that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = self.request.parameter(name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A parameter of a type; `expected` describes a good value.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        match parse(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::new(
                ErrorCode::InvalidParameter,
                format!("`{name}` must be {expected}."),
            )
            .into()),
        }
    }

    /// The beginning of a day, UTC.
    pub(super) fn day(&self, name: &str) -> Result<Option<Timestamp>, RequestError> {
        self.parsed(name, "a day such as 2026-11-24", |day| {
            format!("{day}T00:00:00Z").parse().ok()
        })
    }

    /// Where the page begins.
    pub(super) fn cursor(&self) -> Result<Cursor, RequestError> {
        let key = |name| {
            self.parsed(name, "a number from a link of this page", |text| {
                text.parse().ok()
            })
        };
        Ok(match (key("after")?, key("before")?) {
            (Some(after), _) => Cursor::After(after),
            (None, Some(before)) => Cursor::Before(before),
            (None, None) => Cursor::Start,
        })
    }
}

/// A filter of a list.
pub(super) struct Filter {
    name: &'static str,
    label: &'static str,
    control: Control,
}

enum Control {
    /// One of these values, or none.
    Choice(Vec<String>, Option<String>),
    /// A day.
    Day(Option<String>),
    /// A text.
    Text(Option<String>),
}

impl Filter {
    /// A choice of texts.
    pub(super) fn choice<T: ToString>(
        name: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = T>,
        chosen: Option<&str>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.to_string()).collect();
        let control = Control::Choice(values, chosen.map(str::to_owned));
        Self { name, label, control }
    }

    /// A day from which on rows are shown.
    pub(super) fn since(query: &Query<'_>) -> Self {
        Self {
            name: "since",
            label: "since",
            control: Control::Day(query.text("since")),
        }
    }

    /// A text that must match.
    pub(super) fn text(name: &'static str, label: &'static str, value: Option<String>) -> Self {
        Self {
            name,
            label,
            control: Control::Text(value),
        }
    }

    fn value(&self) -> Option<&str> {
        match &self.control {
            Control::Choice(_, value) | Control::Day(value) | Control::Text(value) => value.as_deref(),
        }
    }

    fn render(&self) -> Markup {
        let value = self.value().unwrap_or("");
        html! {
            label {
                span { (self.label) }
                @match &self.control {
                    Control::Choice(values, chosen) => {
                        select name=(self.name) {
                            option value="" { "any" }
                            @for value in values {
                                option value=(value) selected[chosen.as_ref() == Some(value)] { (value) }
                            }
                        }
                    }
                    Control::Day(_) => { input type="date" name=(self.name) value=(value); }
                    Control::Text(_) => { input type="text" name=(self.name) value=(value) size="18"; }
                }
            }
        }
    }
}

/// The filters of a list as a form that leads to the same path.
pub(super) fn filter_form(path: &str, filters: &[Filter]) -> Markup {
    let is_filtered = filters.iter().any(|filter| filter.value().is_some());
    html! {
        form class="filters" method="get" action=(path) role="search" aria-label="Filter" {
            @for filter in filters { (filter.render()) }
            button { "Filter" }
            @if is_filtered { " " a href=(path) { "Show all" } }
        }
    }
}

/// A path with the filters that are set, and more parameters.
pub(super) fn address(path: &str, filters: &[Filter], more: &[(&str, String)]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    let set = filters
        .iter()
        .filter_map(|filter| Some((filter.name, filter.value()?.to_owned())));
    let more = more.iter().map(|(name, value)| (*name, value.clone()));
    let pairs: Vec<String> = set
        .chain(more)
        .map(|(name, value)| format!("{name}={}", percent::encode(&value, is_plain)))
        .collect();
    match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    }
}

/// The links to the pages before and after. `None` if all rows are on this page.
pub(super) fn pager<T>(path: &str, filters: &[Filter], page: &Page<T>) -> Option<Markup> {
    if page.previous.is_none() && page.next.is_none() {
        return None;
    }
    let link = |name, key: i64| address(path, filters, &[(name, key.to_string())]);
    Some(html! {
        nav class="pager" aria-label="Pages of the list" {
            @if page.previous.is_some() { a href=(address(path, filters, &[])) { "First" } }
            @if let Some(key) = page.previous { a rel="prev" href=(link("before", key)) { "Previous" } }
            span { (number(page.rows.len() as u64)) " rows" }
            @if let Some(key) = page.next { a rel="next" href=(link("after", key)) { "Next" } }
        }
    })
}
