//! What can go wrong on demand: the menu, and the book of what was ordered.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::text_enum::text_enum;
use crate::sandbox::model::disk::{self, StateFolderError};
use crate::sandbox::model::error_reply;
use crate::sandbox::model::ids;

text_enum! {
    /// The menu. Grouped by the one place where each applies; what a fault's `value` means stands
    /// with it, "ms" are milliseconds.
    Fault {
        // door.rs: instead of, or after, the real answer. Match: method and path, file name, and
        // of small bodies the text.
        /// The answer is held back for value ms.
        Delay = "delay",
        /// 401 `invalid_api_key`.
        Unauthorized = "unauthorized",
        /// 429 `insufficient_quota`.
        InsufficientQuota = "insufficient_quota",
        /// Any call under `/v1`: value is a status or `{status, code, param, message, retry_after}`; 503.
        Refuse = "refuse",
        /// A poll of a batch is answered with 502 and HTML.
        Html502OnPoll = "html_502_on_poll",
        /// A create is refused: value as in `refuse`; 400 `invalid_request`.
        RejectCreate = "reject_create",
        /// A create is refused with 400, param `file_id`; with a value, only for value ms after the upload.
        FileLagCreate = "file_lag_create",
        /// `GET /files/{id}` says 404; with a value, only for value ms after the upload.
        FileLag = "file_lag",
        /// The connection breaks off during an upload: no file, no answer.
        BrokenUpload = "broken_upload",
        /// 413 for an upload.
        FileTooLarge = "file_too_large",
        /// The upload is done, its answer is lost.
        LostUploadReply = "lost_upload_reply",
        /// The create is done, its answer is lost.
        LostCreateReply = "lost_create_reply",
        /// Any call under `/v1` is done, its answer is lost.
        LostReply = "lost_reply",
        /// Any call under `/v1` is done, its answer is held back for value ms (1000).
        LateReply = "late_reply",
        /// A file's content is answered with 502 and HTML.
        Content502 = "content_502",
        /// The connection breaks off after half of a file's content.
        ContentTruncated = "content_truncated",
        /// A delivery to the webhook sink is answered with the status value (500).
        HookStatus = "hook_status",

        // batches.rs: what a batch, or a listing, looks like. Match: batch id, input file's id and
        // name, metadata values.
        /// The create makes a second batch of the same, which the answer does not mention.
        CreateTwice = "create_twice",
        /// The batch is in no listing for value ms (1000).
        ListLag = "list_lag",
        /// A listing ignores `after` and always says that there is more. Match: the path and query.
        ListLoop = "list_loop",
        /// The batch is gone for good: 404, and in no listing.
        BatchGone = "batch_gone",
        /// File ids that are not there are empty strings.
        EmptyStringIds = "empty_string_ids",
        /// Members that are not set are absent instead of null.
        NullVsAbsent = "null_vs_absent",
        /// `request_counts.completed` is off by value (-1) in final states.
        CountsMismatch = "counts_mismatch",
        /// Counts stay 0 until the batch is final.
        ZeroCounts = "zero_counts",
        /// File ids are missing for value ms (1000) after the final state is reached.
        LateFileIds = "late_file_ids",
        /// Answers name the dated model, which they always do: value false makes them name the alias.
        SnapshotModel = "snapshot_model",

        // progress.rs: how a batch advances. Match as before.
        /// It runs value ms longer; without a value until the faults are deleted or its window closes.
        StallInProgress = "stall_in_progress",
        /// It stays `finalizing` value ms longer; without a value until the faults are deleted.
        StallFinalizing = "stall_finalizing",
        /// From `validating` to `completed` at the first look.
        FastBatch = "fast_batch",
        /// `cancelling` lasts value ms (606,000).
        SlowCancel = "slow_cancel",
        /// The window stays open for value ms longer (24 hours), whatever `expires_at` says.
        LateExpiry = "late_expiry",
        /// `expired` after value (0.5) of the lines.
        ExpirePartial = "expire_partial",
        /// `expired` although all lines were answered and are in the output; counts say that none was.
        ExpireWithOutput = "expire_with_output",
        /// As `expire_partial`; the other lines hold a 500 `server_error` instead of `batch_expired`.
        ExpireServerError = "expire_server_error",
        /// Validation fails for line value (1).
        FailedValidationLine = "failed_validation_line",
        /// `failed` with `token_limit_exceeded`, limit value (5,000,000).
        TokenLimitAsync = "token_limit_async",
        /// Each line of the batch fails: value as in `refuse`; 500 `server_error`.
        AllFailed = "all_failed",
        /// Each line of the batch fails with 404 `model_not_found`.
        All404 = "all_404",
        /// Value false: result lines come in the input's order.
        ShuffleOutput = "shuffle_output",

        // lines.rs: what one request gets, in a batch or synchronously. Match: custom id, batch
        // id, input file's name; synchronously `/v1/responses` and the input's text.
        /// 400 `invalid_value`, param `url`: the image did not come in time.
        ImageTimeout = "image_timeout",
        /// 429 `rate_limit_exceeded`.
        Line429 = "line_429",
        /// 500 `server_error`.
        Line500 = "line_500",
        /// 403.
        Line403 = "line_403",
        /// 400 `unsupported_parameter`.
        BadParam = "bad_param",
        /// 200 and `incomplete` for `max_output_tokens`; value "empty": without any text.
        TruncatedLine = "truncated_line",
        /// 200 with a refusal instead of a text.
        RefusalLine = "refusal_line",
        /// 200 with a commentary message first, and the text in three parts.
        NestedParts = "nested_parts",
        /// U+2028, U+2029 and U+0085 unescaped at the text's end ([`crate::sandbox::ODD_UNICODE`]).
        OddUnicode = "odd_unicode",
        /// A text of value bytes (5,000,000).
        HugeLine = "huge_line",

        // written.rs: how a batch's line is written. Match: custom id, batch id, input file's name.
        /// `status_code` 0 without a body, in the output file and counted as completed.
        StatusZeroLines = "status_zero_lines",
        /// In neither file, though answered.
        MissingLines = "missing_lines",
        /// Written twice.
        DuplicateLines = "duplicate_lines",
        /// Another line after it, with a custom id that nobody sent (`<id>-extra`).
        ExtraLines = "extra_lines",
        /// A byte in its text that is no UTF-8.
        InvalidUtf8Line = "invalid_utf8_line",
        /// Cut in its middle.
        CutLine = "cut_line",
    }
}

/// One order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sandbox) struct FaultRule {
    /// Given by the book.
    #[serde(default)]
    id: u64,
    #[serde(with = "error_reply::text")]
    fault: Fault,
    /// How often it still strikes; none: always.
    #[serde(default)]
    times: Option<u64>,
    /// How likely it strikes a target; the same target always has the same luck.
    #[serde(default)]
    probability: Option<f64>,
    /// Strikes only where one of the target's names contains this; with a `$` at its end, where one
    /// ends with what stands before that.
    #[serde(default, rename = "match")]
    target: Option<String>,
    #[serde(default)]
    value: Value,
}

impl FaultRule {
    fn strikes(&self, fault: Fault, names: &[&str], seed: &str) -> bool {
        self.fault == fault
            && self.times != Some(0)
            && self
                .target
                .as_deref()
                .is_none_or(|part| names.iter().any(|name| is_meant(name, part)))
            && self.probability.is_none_or(|chance| {
                let luck = ids::number(&[&self.id.to_string(), seed]) % 1_000_000;
                (luck as f64) < chance * 1e6
            })
    }
}

fn is_meant(name: &str, part: &str) -> bool {
    match part.strip_suffix('$') {
        Some(end) => name.ends_with(end),
        None => name.contains(part),
    }
}

#[derive(Default)]
struct RuleList {
    list: Vec<FaultRule>,
    changed: bool,
}

/// What was ordered; on disk as well.
pub(in crate::sandbox) struct FaultRules {
    path: PathBuf,
    orders: Mutex<RuleList>,
    empty: AtomicBool,
}

impl FaultRules {
    pub(in crate::sandbox) fn open(folder: &Path) -> Result<Self, StateFolderError> {
        let path = folder.join("faults.json");
        let list: Vec<FaultRule> = if path.exists() {
            disk::read_json(&path)?
        } else {
            Vec::new()
        };
        Ok(Self {
            path,
            empty: AtomicBool::new(list.is_empty()),
            orders: Mutex::new(RuleList {
                list,
                changed: false,
            }),
        })
    }

    /// Whether nothing was ordered.
    pub(in crate::sandbox) fn is_empty(&self) -> bool {
        self.empty.load(Ordering::Relaxed)
    }

    /// Takes a fault that strikes a target of these names, and gives its value.
    pub(in crate::sandbox) fn take(
        &self,
        fault: Fault,
        names: &[&str],
        seed: &str,
    ) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut orders = self.lock();
        let order = orders
            .list
            .iter_mut()
            .find(|order| order.strikes(fault, names, seed))?;
        let value = order.value.clone();
        if let Some(left) = &mut order.times {
            *left -= 1;
            orders.changed = true;
        }
        Some(value)
    }

    /// Adds orders: one object, or a list of them.
    pub(in crate::sandbox) fn add(&self, body: &[u8]) -> Result<usize, String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let list = match body {
            Value::Array(list) => list,
            one => vec![one],
        };
        let new = list
            .into_iter()
            .map(serde_json::from_value::<FaultRule>)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let count = new.len();
        let mut orders = self.lock();
        for mut order in new {
            order.id = orders.list.iter().map(|order| order.id).max().unwrap_or(0) + 1;
            orders.list.push(order);
        }
        orders.changed = true;
        self.empty.store(orders.list.is_empty(), Ordering::Relaxed);
        Ok(count)
    }

    /// Forgets every order.
    pub(in crate::sandbox) fn clear(&self) {
        let mut orders = self.lock();
        orders.list.clear();
        orders.changed = true;
        self.empty.store(true, Ordering::Relaxed);
    }

    /// The orders with what is left of them.
    pub(in crate::sandbox) fn list(&self) -> Vec<FaultRule> {
        self.lock().list.clone()
    }

    /// Writes the orders down where they changed.
    pub(in crate::sandbox) fn save(&self) -> io::Result<()> {
        let mut orders = self.lock();
        if orders.changed {
            disk::write_json(&self.path, &orders.list)?;
            orders.changed = false;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, RuleList> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_strike_as_often_as_told_and_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let book = FaultRules::open(folder.path()).unwrap();
        assert_eq!(
            book.add(br#"[{"fault":"line_429","times":2,"match":"v_1"},{"fault":"cut_line","probability":0.3}]"#),
            Ok(2)
        );
        assert_eq!(book.take(Fault::Line429, &["v_2"], "a"), None);
        assert!(is_meant("v_1a_1", "a_1$") && !is_meant("v_1a_12", "a_1$"));
        assert_eq!(
            book.take(Fault::Line429, &["x", "v_12"], "a"),
            Some(Value::Null)
        );
        book.save().unwrap();
        let book = FaultRules::open(folder.path()).unwrap();
        assert!(book.take(Fault::Line429, &["v_1"], "a").is_some());
        assert!(book.take(Fault::Line429, &["v_1"], "a").is_none());
        let struck = (0..1000)
            .filter(|seed| book.take(Fault::CutLine, &[], &seed.to_string()).is_some())
            .count();
        assert!((230..370).contains(&struck), "{struck}");
        assert!(book.add(br#"{"fault":"no_such"}"#).is_err());
        assert!(book.add(br#"{"fault":"delay","tmes":1}"#).is_err());
        book.clear();
        assert!(book.is_empty());
    }
}
