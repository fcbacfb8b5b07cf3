//! The words in which tests say what goes wrong. Each stands for faults of the sandbox's list
//! (`batchkeeper::sandbox::Fault`), which the model carries out.

use std::time::Duration;

use batchkeeper::domain::batch::Stage;
use batchkeeper::openai::BatchError;
use batchkeeper::sandbox::{Fault as Listed, FaultRule};
use serde_json::{Value, json};

/// A batch's window.
pub const WINDOW: Duration = Duration::from_hours(24);
/// A line that no program sent.
const STRANGER: &str = "v_00000000000000000000000000000000_7";
/// The cap from which on a line with [`Fate::Incomplete`] is complete.
const ENOUGH: u64 = 2049;
/// The message of a scripted refusal.
const SCRIPTED: &str = "so it was scripted";

/// The calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Upload,
    File,
    Files,
    Delete,
    Download,
    Create,
    Batch,
    List,
    Cancel,
    Respond,
}

/// The fault of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails before a byte is sent.
    NotSent,
    /// Never arrives; the caller cannot know.
    Lost,
    /// Arrives and takes effect; its answer is lost.
    ReplyLost,
    /// Refused with that status, code and param.
    Refused(u16, &'static str, &'static str),
    /// An HTML page with that status.
    Html(u16),
    /// The process ends before the call is sent.
    CrashBefore,
    /// The process ends when the call has had its effect.
    CrashAfter,
    /// A create makes two batches.
    Twice,
    /// A download breaks off after half of the bytes.
    Cut,
    /// A download ends after half of the bytes as if that were all.
    QuietCut,
    /// A fault of the sandbox's list, with its value.
    Listed(Listed, Value),
}

impl Fault {
    /// The rule by which the model carries it out once; `None` for what only the caller can do.
    pub(super) fn rule(&self) -> Option<FaultRule> {
        let (fault, value) = match self {
            Self::NotSent | Self::CrashBefore | Self::CrashAfter => return None,
            Self::Lost => (Listed::LostCall, Value::Null),
            Self::ReplyLost => (Listed::LostReply, Value::Null),
            Self::Refused(status, code, param) => (Listed::Refuse, refusal(*status, code, param)),
            Self::Html(status) => (Listed::HtmlPage, json!(status)),
            Self::Twice => (Listed::CreateTwice, Value::Null),
            Self::Cut => (Listed::ContentTruncated, Value::Null),
            Self::QuietCut => (Listed::ContentCut, Value::Null),
            Self::Listed(fault, value) => (*fault, value.clone()),
        };
        Some(FaultRule::new(fault).value(value).times(1))
    }
}

/// The value of a refusal.
pub fn refusal(status: u16, code: &str, param: &str) -> Value {
    json!({"status": status, "code": code, "param": param, "message": SCRIPTED})
}

/// What becomes of one line when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In neither file, though OpenAI counts it.
    Missing,
    /// Twice in the output.
    Repeated,
    /// In both files.
    InBoth,
    /// Its bytes are no UTF-8.
    Garbled,
    /// Cut in the middle.
    Torn,
    /// A reasoning item comes first.
    Reasoned,
    /// The model refuses.
    Refused,
    /// The cap is too low; with a higher one it is well.
    Incomplete,
    /// The cap is always too low.
    Endless,
    /// OpenAI cannot fetch an image.
    ImageGone,
    /// OpenAI cannot use the last image, and names it by its URL.
    ImageNamed,
    /// The same, by its place in the request.
    ImagePlaced,
    /// The same, without saying which.
    ImageUnnamed,
    /// An HTTP error.
    Status(u16),
    /// HTTP 200 around a failed answer.
    FailedInside,
    /// It states tokens that no line can have.
    AbsurdUsage,
    /// HTTP 400: the model does not take that reasoning effort.
    Unsupported,
}

impl Fate {
    /// The rule by which the model carries it out for every line.
    pub(super) fn rule(self) -> FaultRule {
        let (fault, value) = match self {
            Self::Missing => (Listed::MissingLines, Value::Null),
            Self::Repeated => (Listed::DuplicateLines, Value::Null),
            Self::InBoth => (Listed::BothFiles, Value::Null),
            Self::Garbled => (Listed::InvalidUtf8Line, Value::Null),
            Self::Torn => (Listed::CutLine, Value::Null),
            Self::Reasoned => (Listed::ReasoningItem, Value::Null),
            Self::Refused => (Listed::RefusalLine, Value::Null),
            Self::Incomplete => (Listed::TruncatedLine, json!(ENOUGH)),
            Self::Endless => (Listed::TruncatedLine, Value::Null),
            Self::ImageGone => (Listed::ImageTimeout, Value::Null),
            Self::ImageNamed => (Listed::BadImage, json!({"named": "url"})),
            Self::ImagePlaced => (Listed::BadImage, json!({"named": "index"})),
            Self::ImageUnnamed => (Listed::BadImage, json!({"named": "none"})),
            Self::Status(status) => (
                Listed::LineError,
                json!({"status": status, "code": "", "message": SCRIPTED}),
            ),
            Self::FailedInside => (Listed::FailedInside, Value::Null),
            Self::AbsurdUsage => (Listed::AbsurdUsage, Value::Null),
            Self::Unsupported => (
                Listed::LineError,
                refusal(400, "unsupported_value", "reasoning.effort"),
            ),
        };
        FaultRule::new(fault).value(value)
    }

    /// The same for lines of a stage whose text holds this, `times` times.
    pub(super) fn rule_for(self, text: &str, stage: Stage, times: u32) -> FaultRule {
        let kind = match stage {
            Stage::Vision => "kind:description",
            Stage::Translation => "kind:translation",
        };
        self.rule().matching(&[kind, text]).times(times.into())
    }
}

/// How lines fail while OpenAI is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// All with HTTP 500 and one text.
    Alike,
    /// All with HTTP 500, each with a text of its own.
    WithIds,
    /// One half with HTTP 500, the other with HTTP 200 around a failed answer that is not billed.
    Half,
    /// Three of five lines with HTTP 503.
    ThreeOfFive,
    /// All with HTTP 400 and `unsupported_value` of `reasoning.effort`.
    Misconfigured,
}

impl Outage {
    /// The rules by which the model carries it out.
    pub(super) fn rules(self) -> Vec<FaultRule> {
        let failed = |status, message: &str| {
            let value = json!({"status": status, "code": "server_error", "message": message});
            FaultRule::new(Listed::LineError).value(value)
        };
        let with_id = |status| failed(status, "sorry, request {request_id}");
        match self {
            Self::Alike => vec![failed(500, SCRIPTED)],
            Self::WithIds => vec![with_id(500)],
            Self::Half => {
                let unbilled = json!({"code": "server_error", "usage": false});
                vec![
                    with_id(500).probability(0.5),
                    FaultRule::new(Listed::FailedInside).value(unbilled),
                ]
            }
            Self::ThreeOfFive => vec![with_id(503).probability(0.6)],
            Self::Misconfigured => vec![Fate::Unsupported.rule()],
        }
    }
}

/// How a batch ends.
#[derive(Clone, Debug)]
pub enum End {
    Completes,
    /// The window closes after this number of answered lines.
    Expires(usize),
    /// Another program cancels it after this number of answered lines.
    Cancelled(usize),
    /// Validation fails.
    Refused(Vec<BatchError>),
}

/// When the ids of the result files are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    AtOnce,
    Never,
    /// Both this time after the end.
    Late(Duration),
    /// That of the output this time after the end.
    OutputLate(Duration),
}

/// What a batch goes through.
#[derive(Clone, Debug)]
pub struct Course {
    pub latency: Duration,
    pub end: End,
    pub ids: Ids,
    /// A line that nobody sent is in the output.
    pub stranger: bool,
    /// By how much the tokens that OpenAI states for the whole exceed those of its lines; `None` if it states
    /// nothing.
    pub usage_beyond: Option<u64>,
    /// The output's last line has no LF.
    pub unended: bool,
    /// Other faults of the sandbox's list.
    pub faults: Vec<(Listed, Value)>,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            latency: Duration::from_mins(2),
            end: End::Completes,
            ids: Ids::AtOnce,
            stranger: false,
            usage_beyond: None,
            unended: false,
            faults: Vec::new(),
        }
    }
}

impl Course {
    pub fn ends(end: End) -> Self {
        Self {
            end,
            ..Self::default()
        }
    }

    /// The faults that the model puts on the batch.
    pub(super) fn faults(&self) -> Vec<(Listed, Value)> {
        let mut faults = self.faults.clone();
        let mut run = self.latency;
        match &self.end {
            // OpenAI closes the window late.
            End::Completes if run > WINDOW => faults.push((Listed::LateExpiry, json!(millis(run)))),
            End::Completes => {}
            End::Expires(lines) => {
                // It is final ten minutes after the window.
                run = WINDOW.saturating_sub(Duration::from_secs(2));
                faults.push((Listed::ExpirePartial, json!(lines)));
                faults.push((Listed::ShuffleOutput, json!(false)));
            }
            End::Cancelled(lines) => {
                faults.push((Listed::CancelledElsewhere, json!(lines)));
                faults.push((Listed::ShuffleOutput, json!(false)));
            }
            End::Refused(errors) => faults.push((Listed::FailedValidation, json!(errors))),
        }
        faults.push((Listed::RunTime, json!(millis(run))));
        match self.ids {
            Ids::AtOnce => {}
            Ids::Never => faults.push((Listed::LateFileIds, json!(i64::MAX))),
            Ids::Late(lag) => faults.push((Listed::LateFileIds, json!(millis(lag)))),
            Ids::OutputLate(lag) => faults.push((Listed::LateOutputId, json!(millis(lag)))),
        }
        let usage = self.usage_beyond.map_or(json!("none"), |more| json!(more));
        faults.push((Listed::UsageDiffers, usage));
        if self.unended {
            faults.push((Listed::UnendedFile, Value::Null));
        }
        faults
    }

    /// The rule for one of its lines.
    pub(super) fn line_rule(&self, batch: &str) -> Option<FaultRule> {
        self.stranger.then(|| {
            FaultRule::new(Listed::ExtraLines)
                .value(STRANGER)
                .matching(&[batch])
                .times(1)
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A rule that a batch is checked against when it is validated.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Refused without saying which line, when a line's text holds this.
    Poison(&'static str),
    /// Refused, naming the line whose text holds this.
    Blame(&'static str),
    /// More lines than this are more than the queue takes.
    QueueOf(usize),
    /// Batches that have not ended hold this number of tokens together at most: a quarter of each line's
    /// bytes, and the cap of its answer.
    TokensOf(u64),
    /// The same, and only the lines' bytes count.
    InputTokensOf(u64),
}

impl Rule {
    pub(super) fn rule(&self) -> FaultRule {
        match self {
            Self::Poison(text) => FaultRule::new(Listed::PoisonLine).matching(&[text]),
            Self::Blame(text) => FaultRule::new(Listed::BlameLine).matching(&[text]),
            Self::QueueOf(lines) => FaultRule::new(Listed::QueueLines).value(*lines),
            Self::TokensOf(tokens) => FaultRule::new(Listed::QueueTokens).value(*tokens),
            Self::InputTokensOf(tokens) => {
                FaultRule::new(Listed::QueueTokens).value(json!({"inputs": tokens}))
            }
        }
    }
}

/// One entry of `errors.data`.
pub fn error_entry(code: &str, line: Option<u64>) -> BatchError {
    BatchError {
        code: Some(code.into()),
        message: Some(SCRIPTED.into()),
        param: None,
        line,
    }
}
