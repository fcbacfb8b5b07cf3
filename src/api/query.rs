//! Query parameters of a request.

use std::num::{IntErrorKind, ParseIntError};

use crate::base::clock::{NotATime, Timestamp};
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::http::Request;

/// A query parameter. It may appear once.
pub(super) fn parameter(request: &Request, name: &str) -> Result<Option<String>, ApiError> {
    let mut all = request.parameters(name);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("`{name}` stands twice in the query."),
        )),
        (first, None) => Ok(first),
    }
}

/// A query parameter, parsed; `None` if it is absent or empty. `expected` describes a good value.
pub(super) fn parsed<T, E>(
    request: &Request,
    name: &str,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ApiError> {
    let text = parameter(request, name)?.filter(|text| !text.is_empty());
    text.map(|text| parse(&text)).transpose().map_err(|_| {
        let message = format!("`{name}` must be {expected}.");
        ApiError::new(ErrorCode::InvalidParameter, message)
    })
}

/// Whether a query parameter is true; false if it is absent or empty.
pub(super) fn flag(request: &Request, name: &str) -> Result<bool, ApiError> {
    let flag = parsed(request, name, "true or false", parse_flag)?;
    Ok(flag.unwrap_or(false))
}

/// The same, but an empty value is refused: it might be a mistake that costs money.
pub(super) fn flag_with_value(request: &Request, name: &str) -> Result<bool, ApiError> {
    match parameter(request, name)?.as_deref() {
        Some("") => {
            let message = format!("`{name}` must be true or false.");
            Err(ApiError::new(ErrorCode::InvalidParameter, message))
        }
        _ => flag(request, name),
    }
}

/// An integer of the query.
pub(super) fn integer(request: &Request, name: &str, default: i64) -> Result<i64, ApiError> {
    let number = parsed(request, name, "a whole number", parse_integer)?;
    Ok(number.unwrap_or(default))
}

/// A time of the query.
pub(super) fn time(request: &Request, name: &str) -> Result<Option<Timestamp>, ApiError> {
    parsed(request, name, "a time such as 2026-11-24T02:24:00Z", parse_time)
}

fn parse_flag(text: &str) -> Result<bool, ()> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(()),
    }
}

/// A number out of range becomes the nearest one in range.
fn parse_integer(text: &str) -> Result<i64, ParseIntError> {
    text.parse().or_else(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => Ok(i64::MAX),
        IntErrorKind::NegOverflow => Ok(i64::MIN),
        _ => Err(error),
    })
}

/// RFC 3339, also without an offset (UTC is meant), or a date alone.
fn parse_time(text: &str) -> Result<Timestamp, NotATime> {
    // The plus of an offset arrives as a space if the client did not percent-encode it.
    let text = match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains('T') => format!("{time}+{offset}"),
        _ => text.to_owned(),
    };
    text.parse()
        .or_else(|_| format!("{text}Z").parse())
        .or_else(|_| format!("{text}T00:00:00Z").parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_as_clients_write_them() {
        let seconds = |text| parse_time(text).map(Timestamp::to_seconds_text);
        for text in [
            "2026-11-24T02:24:00Z",
            "2026-11-24T02:24:00",
            "2026-11-24T04:24:00+02:00",
            "2026-11-24T04:24:00 02:00",
            "2026-11-24 02:24:00",
            "2026-11-24T02:24:00.000Z",
        ] {
            assert_eq!(seconds(text).as_deref(), Ok("2026-11-24T02:24:00Z"), "{text}");
        }
        assert_eq!(seconds("2026-11-24").as_deref(), Ok("2026-11-24T00:00:00Z"));
        for text in ["yesterday", "1795400000", "2026-13-01"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
