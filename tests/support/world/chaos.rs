//! Faults by chance, and the list of what can go wrong with a call, a batch and a line.

use std::time::Duration;

use batchkeeper::sandbox::{Fault as Listed, FaultRule};
use serde_json::{Value, json};

use super::random::Random;
use super::script::{Course, End, Fate, Fault, Ids, Op, error_entry, refusal};

/// Faults that the program does not survive yet, by name. Each goes when its fix is there.
pub const NOT_SURVIVED_YET: &[&str] = &["clock_year"];

/// Whether a fault is used.
pub fn is_on(name: &str) -> bool {
    !NOT_SURVIVED_YET.contains(&name)
}

/// Faults by chance.
pub struct Chaos {
    pub random: Random,
    /// Calls that go wrong, of a thousand.
    pub calls: u64,
    /// Lines that go wrong, of a thousand.
    pub lines: u64,
    /// Batches that go wrong, of a thousand.
    pub batches: u64,
}

/// What becomes of lines.
pub const FATES: [Fate; 18] = [
    Fate::Missing,
    Fate::Repeated,
    Fate::InBoth,
    Fate::Garbled,
    Fate::Torn,
    Fate::Reasoned,
    Fate::Refused,
    Fate::Incomplete,
    Fate::Endless,
    Fate::ImageGone,
    Fate::ImageNamed,
    Fate::ImagePlaced,
    Fate::ImageUnnamed,
    Fate::Status(400),
    Fate::Status(429),
    Fate::Status(500),
    Fate::FailedInside,
    Fate::AbsurdUsage,
];

/// An error whose text is another each time.
fn with_id(status: u16) -> Value {
    json!({"status": status, "code": "server_error", "message": "Sorry about that (request {request_id})."})
}

/// What can go wrong with a call of that kind, each with its name.
pub fn call_faults(op: Op) -> Vec<(&'static str, Fault)> {
    let minute = 60_000;
    let mut faults = vec![
        ("not_sent", Fault::NotSent),
        ("lost", Fault::Lost),
        ("reply_lost", Fault::ReplyLost),
        ("429", Fault::Refused(429, "rate_limit_exceeded", "")),
        ("500", Fault::Listed(Listed::Refuse, with_id(500))),
        ("401", Fault::Refused(401, "invalid_api_key", "")),
        ("html", Fault::Html(502)),
        ("crash_before", Fault::CrashBefore),
        ("crash_after", Fault::CrashAfter),
        ("late_500", Fault::Listed(Listed::RefuseLate, with_id(500))),
        ("late_html", Fault::Listed(Listed::CutReply, Value::Null)),
        ("403", Fault::Refused(403, "", "")),
        ("quota", Fault::Listed(Listed::InsufficientQuota, Value::Null)),
        ("slow", Fault::Listed(Listed::LateReply, json!(2 * minute))),
        ("slow_start", Fault::Listed(Listed::Delay, json!(minute))),
    ];
    match op {
        Op::Download => faults.extend([
            ("cut", Fault::Cut),
            ("quiet_cut", Fault::QuietCut),
            ("404_file", Fault::Refused(404, "", "id")),
            (
                "partial_content",
                Fault::Listed(Listed::PartialContent, json!(10 * minute)),
            ),
        ]),
        Op::Create => faults.extend([
            ("twice", Fault::Twice),
            ("known_id", Fault::Listed(Listed::CreateKnownId, Value::Null)),
            ("no_file", Fault::Refused(400, "", "file_id")),
            (
                "file_lag",
                Fault::Listed(Listed::FileLagCreate, json!(10 * minute)),
            ),
            (
                "file_lag_fail",
                Fault::Listed(Listed::FileLagFail, json!(10 * minute)),
            ),
            (
                "late_create",
                Fault::Listed(Listed::LateCreate, json!(5 * minute)),
            ),
        ]),
        Op::Batch => faults.extend([
            ("404_batch", Fault::Refused(404, "", "")),
            ("409", Fault::Refused(409, "", "")),
        ]),
        Op::File => faults.extend([
            ("404_file", Fault::Refused(404, "", "id")),
            (
                "partial_file",
                Fault::Listed(Listed::PartialFile, json!(10 * minute)),
            ),
        ]),
        Op::Cancel => faults.push(("409", Fault::Refused(409, "", ""))),
        _ => {}
    }
    faults.retain(|(name, _)| is_on(name));
    faults
}

/// What can go wrong with a whole batch, each with its name.
pub fn batch_faults() -> Vec<(&'static str, Course)> {
    let refused = |errors| Course::ends(End::Refused(errors));
    let listed = |fault, value: Value| Course {
        faults: vec![(fault, value)],
        ..Course::default()
    };
    let late = Duration::from_mins(5);
    let ids = |ids| Course {
        ids,
        ..Course::default()
    };
    let mut faults = vec![
        ("expires", Course::ends(End::Expires(1))),
        ("cancelled_elsewhere", Course::ends(End::Cancelled(1))),
        ("refused", refused(vec![error_entry("server_error", None)])),
        (
            "queue_full",
            refused(vec![error_entry("token_limit_exceeded", None)]),
        ),
        (
            "model_unknown",
            refused(vec![error_entry("model_not_found", Some(1))]),
        ),
        ("errors_null", listed(Listed::FailedValidation, Value::Null)),
        ("errors_empty", refused(Vec::new())),
        ("errors_odd", refused(vec![error_entry("never_seen", None)])),
        (
            "failed_with_files",
            listed(Listed::UnknownStatus, json!({"ended": "failed"})),
        ),
        (
            "expires_without_files",
            Course {
                ids: Ids::Never,
                ..Course::ends(End::Expires(0))
            },
        ),
        ("ids_late", ids(Ids::Late(late))),
        ("output_late", ids(Ids::OutputLate(late))),
        ("counts_low", listed(Listed::CountsMismatch, json!(-1))),
        (
            "counts_high",
            listed(Listed::CountsMismatch, json!({"completed": 1, "failed": 1})),
        ),
        ("zero_counts", listed(Listed::ZeroCounts, Value::Null)),
        ("unknown_status", listed(Listed::UnknownStatus, json!("paused"))),
        ("empty_ids", listed(Listed::EmptyStringIds, Value::Null)),
        ("absent", listed(Listed::NullVsAbsent, Value::Null)),
        ("expire_server_error", listed(Listed::ExpireServerError, json!(1))),
        (
            "expire_with_output",
            listed(Listed::ExpireWithOutput, Value::Null),
        ),
        ("all_500", listed(Listed::AllFailed, with_id(500))),
        (
            "bad_parameter",
            listed(
                Listed::AllFailed,
                refusal(400, "unsupported_parameter", "reasoning.effort"),
            ),
        ),
        ("all_404", listed(Listed::All404, Value::Null)),
        ("list_lag", listed(Listed::ListLag, json!(600_000))),
    ];
    faults.retain(|(name, _)| is_on(name));
    faults
}

impl Chaos {
    /// The fault of a call.
    pub(super) fn fault(&mut self, op: Op) -> Option<Fault> {
        if !self.random.chance(self.calls) {
            return None;
        }
        // What leaves a create in doubt is what the protocol is for, so half of the faults of creates do.
        if op == Op::Create && self.random.chance(500) {
            return Some(self.random.pick(&[Fault::Lost, Fault::ReplyLost]));
        }
        Some(self.random.pick(&call_faults(op)).1)
    }

    /// The rules for lines.
    pub(super) fn line_rules(&self) -> Vec<FaultRule> {
        if self.lines == 0 {
            return Vec::new();
        }
        let each = self.lines as f64 / 1000.0 / FATES.len() as f64;
        let rules = FATES.iter().map(|fate| fate.rule().probability(each));
        rules.collect()
    }

    /// What a batch goes through.
    pub(super) fn change(&mut self, course: &mut Course, lines: usize) {
        let random = &mut self.random;
        let goes_wrong = random.chance(self.batches);
        if goes_wrong {
            // Batches that end early have the most outcomes, so half of the faults are such ends.
            *course = match random.below(4) {
                0 => Course::ends(End::Expires(0)),
                1 => Course::ends(End::Cancelled(0)),
                _ => random.pick(&batch_faults()).1,
            };
            let some = usize::try_from(random.below(lines as u64 + 1)).unwrap_or(0);
            match &mut course.end {
                End::Expires(lines) | End::Cancelled(lines) => *lines = some,
                _ => {}
            }
            course.stranger = random.chance(200);
            course.unended = random.chance(200);
        }
        course.latency = Duration::from_secs(random.below(1200));
    }
}

/// A time in which one thing is broken while all else works.
pub fn outage(random: &mut Random, batch: Option<&str>) -> Option<FaultRule> {
    let minutes = 5 + random.below(115);
    let (name, mut rule) = match random.below(5) {
        0 => ("lines_500", FaultRule::new(Listed::LineError).value(with_id(500))),
        1 => ("lines_inside", FaultRule::new(Listed::FailedInside)),
        2 => (
            "half_the_lines",
            FaultRule::new(Listed::LineError)
                .value(with_id(503))
                .probability(0.5),
        ),
        3 => {
            let status = random.pick(&[401, 403, 404, 409]);
            let rule = FaultRule::new(Listed::Refuse).value(refusal(status, "", ""));
            (
                "refused_batch",
                rule.matching(&[&format!("/v1/batches/{}", batch?)]),
            )
        }
        _ => {
            let rule = FaultRule::new(Listed::Refuse).value(refusal(429, "rate_limit_exceeded", ""));
            ("429_in_listing", rule.matching(&["GET /v1/batches?", "after="]))
        }
    };
    rule.for_ms = Some(minutes * 60_000);
    is_on(name).then_some(rule)
}
