//! `version`: what was built.

use serde_json::json;

use super::Outcome;
use super::context::Context;
use crate::store::{schema_version, sqlite_version};

/// The commit, where the build names it (`contrib/debian/build`).
const COMMIT: Option<&str> = option_env!("BATCHKEEPER_COMMIT");

pub(super) fn run(context: &Context) -> Outcome {
    let (version, schema, sqlite) = (env!("CARGO_PKG_VERSION"), schema_version(), sqlite_version());
    let value = json!({"version": version, "commit": COMMIT, "schema": schema, "sqlite": sqlite});
    let commit = COMMIT.unwrap_or("unknown");
    let text = format!("batchkeeper {version}\ncommit {commit}\nschema {schema}\nSQLite {sqlite}\n");
    context.output.report(&value, &text)
}
