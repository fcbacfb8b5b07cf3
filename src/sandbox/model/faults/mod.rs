//! What can go wrong on demand. [`Fault`] is the whole list; every front end takes its faults from here.

mod api_call;
mod rules;

pub use api_call::{ApiCall, ConnectionFault};
pub use rules::{FaultRule, FaultRules, FaultTarget, NameParts, RequestTarget};

use crate::base::text_enum::text_enum;

text_enum! {
    /// A fault. The list is grouped by the place that applies the faults. The documentation says what a
    /// rule's `value` means, with the default in parentheses; ms are milliseconds.
    Fault {
        // call_faults.rs: before or after a call. `match` is compared with method and path, the file's name,
        // and the start of the body.
        /// The call starts after value ms (1,000).
        Delay = "delay",
        /// 401 `invalid_api_key`.
        Unauthorized = "unauthorized",
        /// 429 `insufficient_quota`.
        InsufficientQuota = "insufficient_quota",
        /// Any call under `/v1` is refused: value is a status (503) or
        /// `{status, code, param, message, retry_after}`.
        Refuse = "refuse",
        /// Any call under `/v1` takes effect, its answer is a refusal: value as in `refuse` (500 `server_error`).
        RefuseLate = "refuse_late",
        /// Any call under `/v1` is answered with status value (502) and HTML, and has no effect.
        HtmlPage = "html_page",
        /// A poll of a batch is answered with 502 and HTML.
        Html502OnPoll = "html_502_on_poll",
        /// A create is refused: value as in `refuse` (400 `invalid_request`).
        RejectCreate = "reject_create",
        /// A create is refused with 400, param `file_id`; with a value, only for value ms after the upload.
        FileLagCreate = "file_lag_create",
        /// `GET /files/{id}` is answered with 404; with a value, only for value ms after the upload.
        FileLag = "file_lag",
        /// The connection breaks before any call under `/v1` arrives.
        LostCall = "lost_call",
        /// The connection of a create breaks; the create takes effect value ms (60,000) later.
        LateCreate = "late_create",
        /// The connection breaks during an upload: no file, no answer.
        BrokenUpload = "broken_upload",
        /// An upload is refused with 413.
        FileTooLarge = "file_too_large",
        /// The upload takes effect, its answer is lost.
        LostUploadReply = "lost_upload_reply",
        /// The create takes effect, its answer is lost.
        LostCreateReply = "lost_create_reply",
        /// Any call under `/v1` takes effect, its answer is lost.
        LostReply = "lost_reply",
        /// Any call under `/v1` takes effect, its answer breaks off after value bytes (20).
        CutReply = "cut_reply",
        /// Any call under `/v1` takes effect, its answer comes after value ms (1,000).
        LateReply = "late_reply",
        /// A download of a file is answered with 502 and HTML.
        Content502 = "content_502",
        /// The connection breaks after half of a file's content.
        ContentTruncated = "content_truncated",
        /// A download ends after half of a file's content, as if that were all.
        ContentCut = "content_cut",
        /// A file has only the first half of its content until value ms (60,000) after its creation, and says its
        /// whole size.
        PartialContent = "partial_content",
        /// As `partial_content`, but the file says the size of that half.
        PartialFile = "partial_file",
        /// A delivery to the webhook sink is answered with status value (500).
        HookStatus = "hook_status",

        // batches/operations.rs, create.rs, view.rs, execution.rs: a batch and its listing. `match` is
        // compared with the batch's id, the input file's id and name, and the values of the metadata.
        /// The create makes a second, equal batch, which the answer does not mention.
        CreateTwice = "create_twice",
        /// The create takes effect, and its answer has the id of the project's oldest batch.
        CreateKnownId = "create_known_id",
        /// The create succeeds, and the validation does not find the input file (`invalid_request`, param
        /// `file_id`); with a value, only for creates within value ms after the upload.
        FileLagFail = "file_lag_fail",
        /// Listings leave out the batch for value ms (1,000) after its creation.
        ListLag = "list_lag",
        /// A listing ignores `after` and always reports more pages. `match` is compared with path and query.
        ListLoop = "list_loop",
        /// A page of a listing holds at most value batches (2). `match` as in `list_loop`.
        ShortPages = "short_pages",
        /// A listing shows 0 as the time of every batch's creation. `match` as in `list_loop`.
        NoCreatedAt = "no_created_at",
        /// The batch shows the status value ("paused") until it is final; with the value
        /// `{"final": STATUS}`, also then; with `{"ended": STATUS}`, only then.
        UnknownStatus = "unknown_status",
        /// The batch is gone: calls for it are answered with 404, listings leave it out.
        BatchGone = "batch_gone",
        /// File ids that are not set are empty strings.
        EmptyStringIds = "empty_string_ids",
        /// Members that are not set are absent instead of null.
        NullVsAbsent = "null_vs_absent",
        /// `request_counts.completed` is wrong by value (-1) in final states; with an object, each member by its
        /// own difference.
        CountsMismatch = "counts_mismatch",
        /// The counts stay 0 until the batch is final.
        ZeroCounts = "zero_counts",
        /// File ids are missing for value ms (1,000) after the batch became final.
        LateFileIds = "late_file_ids",
        /// The output file's id is missing for value ms (1,000) after the batch became final.
        LateOutputId = "late_output_id",
        /// `usage` says value input tokens (1) more than the lines; with the value "none" it says nothing.
        UsageDiffers = "usage_differs",
        /// The last line of the output file has no line feed.
        UnendedFile = "unended_file",
        /// Value false: responses name the model's alias instead of the dated model.
        SnapshotModel = "snapshot_model",
        /// Value false: result lines come in the input's order.
        ShuffleOutput = "shuffle_output",
        /// Each line of the batch fails: value as in `refuse` (500 `server_error`).
        AllFailed = "all_failed",
        /// Each line of the batch fails with 404 `model_not_found`.
        All404 = "all_404",

        // batches/progress.rs and validation.rs: the states of a batch. `match` as for a batch.
        /// The batch runs value ms (0), whatever the pace.
        RunTime = "run_time",
        /// The batch runs value ms longer; without a value until the faults are deleted or its window closes.
        StallInProgress = "stall_in_progress",
        /// The batch stays `finalizing` value ms longer; without a value until the faults are deleted.
        StallFinalizing = "stall_finalizing",
        /// The batch is `completed` at the first poll.
        FastBatch = "fast_batch",
        /// `cancelling` lasts value ms (606,000).
        SlowCancel = "slow_cancel",
        /// The window closes value ms (86,400,000) after `expires_at`.
        LateExpiry = "late_expiry",
        /// The batch is `expired` after the fraction value (0.5) of its lines; a whole number counts lines.
        ExpirePartial = "expire_partial",
        /// The batch is `expired` although the output holds all lines; the counts report no completed line.
        ExpireWithOutput = "expire_with_output",
        /// As `expire_partial`, but the other lines hold a 500 `server_error` instead of `batch_expired`.
        ExpireServerError = "expire_server_error",
        /// Another program cancels the batch after the fraction or number value (0.5) of its lines.
        CancelledElsewhere = "cancelled_elsewhere",
        /// The validation fails with the `errors` value: null, or a list of `{code, message, param, line}`.
        FailedValidation = "failed_validation",
        /// The validation fails for line value (1).
        FailedValidationLine = "failed_validation_line",
        /// The batch is `failed` with `token_limit_exceeded` and the limit value (5,000,000).
        TokenLimitAsync = "token_limit_async",
        /// The queue of the batch's model holds value tokens (5,000,000), whatever the settings say. With
        /// `{"inputs": TOKENS}` only input tokens count, and no output limits.
        QueueTokens = "queue_tokens",
        /// A batch of more than value lines (1) is `failed` with `token_limit_exceeded`.
        QueueLines = "queue_lines",

        // batches/validation.rs: one line of an input. `match` as for a request.
        /// The validation fails and names no line.
        PoisonLine = "poison_line",
        /// The validation fails and names this line.
        BlameLine = "blame_line",

        // responses/execution.rs: one request. `match` is compared with custom id, batch id, the input file's
        // name, `kind:description` or `kind:translation`, and `text:` with the request's text; for a synchronous
        // request with `/v1/responses` instead of the first three.
        /// value as in `refuse` (500 `server_error`).
        LineError = "line_error",
        /// 200 around a response of status `failed`, with the error code value ("server_error"); with the value
        /// `{code, usage}` and usage false, it has no tokens.
        FailedInside = "failed_inside",
        /// 400 `invalid_value`, param `url`: the download of an image timed out.
        ImageTimeout = "image_timeout",
        /// 400 for one image of the request. The value is `{image, named}`: the image is the first one whose URL has
        /// the text `image`, or without it the last one; `named` says how the error names it: `url` (the
        /// default), `index` or `none`. A request without that image passes.
        BadImage = "bad_image",
        /// 429 `rate_limit_exceeded`.
        Line429 = "line_429",
        /// 500 `server_error`.
        Line500 = "line_500",
        /// 403.
        Line403 = "line_403",
        /// 400 `unsupported_parameter`.
        BadParam = "bad_param",
        /// 200 with a reasoning item first.
        ReasoningItem = "reasoning_item",
        /// 200 and `incomplete` for `max_output_tokens`; value "empty": without any text; a number: only for
        /// requests whose limit is below it.
        TruncatedLine = "truncated_line",
        /// 200 with a refusal instead of a text.
        RefusalLine = "refusal_line",
        /// 200 with a commentary message first, and the text in three parts.
        NestedParts = "nested_parts",
        /// U+2028, U+2029 and U+0085, unescaped, at the end of the text ([`super::ODD_UNICODE`]).
        OddUnicode = "odd_unicode",
        /// A text of value bytes (5,000,000).
        HugeLine = "huge_line",
        /// `usage` says value tokens (9,000,000,000,000,000,000) of input and of output.
        AbsurdUsage = "absurd_usage",

        // batches/result_lines.rs: one result line. `match` is compared with custom id, batch id and the
        // input file's name.
        /// The line has `status_code` 0 and no body, is in the output file and counts as completed.
        StatusZeroLines = "status_zero_lines",
        /// The line is in neither file, although the request was answered.
        MissingLines = "missing_lines",
        /// The line is written twice.
        DuplicateLines = "duplicate_lines",
        /// The line is in the output file, and a failure of it in the error file.
        BothFiles = "both_files",
        /// A line with the unknown custom id value (`<id>-extra`) follows.
        ExtraLines = "extra_lines",
        /// The line holds a byte that is not UTF-8.
        InvalidUtf8Line = "invalid_utf8_line",
        /// The line ends in its middle.
        CutLine = "cut_line",
    }
}
