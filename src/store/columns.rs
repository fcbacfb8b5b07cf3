//! The text form of times and enums in columns.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertChange, AlertKind, AlertSubject, PauseScope};
use crate::domain::alert_words::Severity;
use crate::domain::batch::{BatchState, Outcome, Scheme, Stage};
use crate::domain::decide::batch_verdict::BatchVerdict;
use crate::domain::decide::failed_call::CallKind;
use crate::domain::job::{JobChange, JobStatus, LotStatus, Mode, RequestState};
use crate::domain::operator_action::ActionKind;
use crate::domain::parameters::Setting;
use crate::domain::usage::TokenUsage;

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.to_string()))
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

/// Reads the four columns of tokens whose names begin with `prefix`.
pub(super) fn token_usage(row: &Row<'_>, prefix: &str) -> rusqlite::Result<TokenUsage> {
    let column = |name: &str| row.get(format!("{prefix}{name}_tokens").as_str());
    Ok(TokenUsage {
        input: column("input")?,
        cached: column("cached")?,
        output: column("output")?,
        reasoning: column("reasoning")?,
    })
}

macro_rules! text_columns {
    ($($name:ident),+) => {
        $(
            impl ToSql for $name {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    Ok(ToSqlOutput::from(self.as_str()))
                }
            }

            impl FromSql for $name {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    value.as_str()?.parse().map_err(FromSqlError::other)
                }
            }
        )+
    };
}

text_columns!(
    ActionKind,
    AlertChange,
    AlertKind,
    BatchState,
    BatchVerdict,
    CallKind,
    JobStatus,
    LotStatus,
    Mode,
    Outcome,
    RequestState,
    JobChange,
    Scheme,
    Setting,
    Severity,
    Stage
);

macro_rules! formatted_columns {
    ($($name:ident),+) => {
        $(
            impl ToSql for $name {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    Ok(ToSqlOutput::from(self.to_string()))
                }
            }

            impl FromSql for $name {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    value.as_str()?.parse().map_err(FromSqlError::other)
                }
            }
        )+
    };
}

formatted_columns!(AlertSubject, PauseScope);
