//! An OpenAI in memory: files with their bytes, batches that move with the simulated time, and
//! faults where the script says so. It is strict: what a real one might let pass is noted as a
//! violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, Timestamp};
use batchkeeper::domain::batch::Stage;
use batchkeeper::domain::openai::BatchStatus;
use batchkeeper::domain::usage::TokenUsage;
use batchkeeper::openai::{
    Batch, BatchApi, BatchError, CallError, CallResult, ENDPOINT, FileObject, Identity, NewBatch,
    OpenAiError, Page, RequestCounts, ResponsesApi, ServerDate,
};
use serde_json::{Value, json};

use super::random::Random;

/// OpenAI's clock at the beginning, seconds.
const EPOCH: u64 = 1_795_400_000;
/// How long a cancel takes.
const CANCEL: Duration = Duration::from_secs(605);
/// A batch's window.
pub const WINDOW: Duration = Duration::from_hours(24);

/// Thrown through a worker to end the process there.
pub struct Crash;

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

/// What goes wrong with a call.
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
}

impl Fault {
    fn error(&self) -> Option<CallError> {
        let refused = |status, code: &str, param: &str, message: &str| {
            CallError::Refused(OpenAiError {
                status,
                code: code.into(),
                param: param.into(),
                message: message.into(),
                ..OpenAiError::default()
            })
        };
        match self {
            Self::NotSent => Some(CallError::NotSent {
                message: "connection refused".into(),
            }),
            Self::Lost => Some(CallError::Unknown {
                message: "timed out".into(),
            }),
            Self::Refused(status, code, param) => Some(refused(*status, code, param, "so it was scripted")),
            Self::Html(status) => Some(refused(*status, "", "", "<html>Bad gateway</html>")),
            _ => None,
        }
    }
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
    /// An HTTP error.
    Status(u16),
    /// HTTP 200 around a failed answer.
    FailedInside,
}

/// How a batch ends.
#[derive(Clone, Debug)]
pub enum End {
    Completes,
    /// The window closes when so many lines are answered.
    Expires(usize),
    /// Somebody cancels it when so many lines are answered.
    Cancelled(usize),
    /// Validation fails.
    Refused(Vec<BatchError>),
}

/// When the ids of the result files are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    AtOnce,
    Never,
    /// Both so long after the end.
    Late(Duration),
    /// That of the output so long after the end.
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
    /// What OpenAI says of the tokens of the whole is so much more than its lines say; none: it says
    /// nothing.
    pub usage_beyond: Option<u64>,
    /// The output's last line has no LF.
    pub unended: bool,
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
}

/// One line of an input file.
#[derive(Clone, Debug)]
pub struct Line {
    pub custom_id: String,
    pub body: Value,
}

impl Line {
    fn text(&self) -> String {
        let content = self.body["input"][0]["content"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        content.iter().filter_map(|part| part["text"].as_str()).collect()
    }

    fn language(&self) -> Option<&str> {
        self.body["metadata"]["language"].as_str()
    }

    fn stage(&self) -> Stage {
        if self.language().is_some() {
            Stage::Translation
        } else {
            Stage::Vision
        }
    }

    fn answer(&self) -> String {
        match self.language() {
            Some(language) => translated(language, &self.text()),
            None => described(&self.text()),
        }
    }
}

/// The right description of a lot.
pub fn described(info: &str) -> String {
    format!("Seen: {info}")
}

/// The right translation of a text.
pub fn translated(language: &str, text: &str) -> String {
    format!("[{language}] {text}")
}

struct File {
    id: String,
    name: String,
    bytes: Vec<u8>,
    created: Duration,
}

/// A batch at OpenAI.
pub struct HeldBatch {
    pub id: String,
    pub metadata: BTreeMap<String, String>,
    pub status: BatchStatus,
    pub lines: Vec<Line>,
    /// The second of a create that made two.
    pub is_twin: bool,
    model: Option<String>,
    input: String,
    created: Duration,
    course: Course,
    cancelling_since: Option<Duration>,
    ended: Option<Duration>,
    output: Option<String>,
    error: Option<String>,
    counts: RequestCounts,
    usage: Option<TokenUsage>,
    errors: Vec<BatchError>,
}

/// A rule that a batch is held against when it is validated.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Refused without saying which line, when a line's text holds this.
    Poison(&'static str),
    /// Refused, naming the line whose text holds this.
    Blame(&'static str),
    /// More lines than this are more than the queue takes.
    QueueOf(usize),
    /// Batches that have not ended hold so many tokens together at most: a quarter of each line's
    /// bytes, and the cap of its answer.
    TokensOf(u64),
}

/// What the world may look into and steer.
pub struct State {
    pub now: Duration,
    /// The program's clock, for [`BatchApi::newest_date`].
    clock: Option<Arc<dyn Clock>>,
    newest_date: Option<ServerDate>,
    pub batches: Vec<HeldBatch>,
    /// How each call went, in order.
    pub calls: Vec<(Op, Option<Fault>)>,
    /// Faults of the next calls.
    pub faults: VecDeque<(Op, Fault)>,
    /// Faults of every call.
    pub always: Vec<(Op, Fault)>,
    /// Faults of every call for one object: a batch's id, a file's id or name.
    pub of_objects: Vec<(Op, String, Fault)>,
    /// Courses of the next batches.
    pub courses: VecDeque<Course>,
    /// A text that a line holds, its stage, what becomes of it, and how often still.
    pub fates: Vec<(&'static str, Stage, Fate, u32)>,
    pub rules: Vec<Rule>,
    /// How long a new batch is not listed.
    pub list_lag: Duration,
    /// Batches on a page at most.
    pub page: usize,
    /// The listing does not say when a batch was made.
    pub without_times: bool,
    /// Random faults, where on.
    pub chaos: Option<Chaos>,
    /// Answers that an operator accepts to pay a second time.
    pub billed_again: u64,
    /// What must never be asked of OpenAI.
    pub violations: Vec<String>,
    files: Vec<File>,
    /// Files ever made: an id is never given twice.
    made_files: u32,
    /// By custom id: the batches in which it was answered whole.
    answered: BTreeMap<String, Vec<String>>,
}

/// Faults by chance.
pub struct Chaos {
    pub random: Random,
    /// Of a thousand calls so many go wrong.
    pub calls: u64,
    /// Of a thousand lines so many go wrong.
    pub lines: u64,
    /// Of a thousand batches so many go wrong.
    pub batches: u64,
}

/// OpenAI under one account.
pub struct OpenAi {
    identity: Identity,
    state: Mutex<State>,
}

impl OpenAi {
    pub fn new(base_url: &str) -> Self {
        Self {
            identity: Identity {
                base_url: base_url.into(),
                organization: String::new(),
                project: String::new(),
            },
            state: Mutex::new(State {
                now: Duration::from_secs(EPOCH),
                clock: None,
                newest_date: None,
                batches: Vec::new(),
                calls: Vec::new(),
                faults: VecDeque::new(),
                always: Vec::new(),
                of_objects: Vec::new(),
                courses: VecDeque::new(),
                fates: Vec::new(),
                rules: Vec::new(),
                list_lag: Duration::ZERO,
                page: 100,
                without_times: false,
                chaos: None,
                billed_again: 0,
                violations: Vec::new(),
                files: Vec::new(),
                made_files: 0,
                answered: BTreeMap::new(),
            }),
        }
    }

    /// To look into it and to steer it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process with that clock begins, and has no answer yet.
    pub fn begin_process(&self, clock: Arc<dyn Clock>) {
        let mut state = self.state();
        (state.clock, state.newest_date) = (Some(clock), None);
    }

    /// How often a call was made.
    pub fn count(&self, op: Op) -> usize {
        let state = self.state();
        state.calls.iter().filter(|(call, _)| *call == op).count()
    }

    /// An input file that another program uploaded.
    pub fn upload_theirs(&self) -> String {
        let line = json!({"custom_id": "theirs", "method": "POST", "url": ENDPOINT,
                          "body": {"model": "m", "input": []}});
        self.state()
            .add_file("theirs.jsonl", format!("{line}\n").into_bytes())
    }

    fn call<T>(
        &self,
        op: Op,
        effect: impl FnOnce(&mut State, Option<&Fault>) -> CallResult<T>,
    ) -> CallResult<T> {
        self.call_on(op, "", effect)
    }

    /// A call for that object.
    fn call_on<T>(
        &self,
        op: Op,
        object: &str,
        effect: impl FnOnce(&mut State, Option<&Fault>) -> CallResult<T>,
    ) -> CallResult<T> {
        let mut state = self.state();
        state.advance();
        let of_object = state
            .of_objects
            .iter()
            .find(|(of, id, _)| *of == op && id == object);
        let fault = match of_object {
            Some((.., fault)) => Some(fault.clone()),
            None => state.fault(op),
        };
        state.calls.push((op, fault.clone()));
        if let Some(error) = fault.as_ref().and_then(Fault::error) {
            return Err(error);
        }
        if fault == Some(Fault::CrashBefore) {
            drop(state);
            resume_unwind(Box::new(Crash));
        }
        let done = effect(&mut state, fault.as_ref());
        let received = state.clock.as_ref().map(|clock| clock.now());
        if let Some(received) = received.filter(|_| done.is_ok() && fault.is_none()) {
            let date = Timestamp::from_seconds(seconds(state.now));
            state.newest_date = Some(ServerDate { date, received });
        }
        drop(state);
        match fault {
            Some(Fault::CrashAfter) => resume_unwind(Box::new(Crash)),
            Some(Fault::ReplyLost) => Err(CallError::Unknown {
                message: "the connection broke".into(),
            }),
            _ => done,
        }
    }
}

impl State {
    /// The next call of that kind goes wrong so.
    pub fn fail(&mut self, op: Op, fault: Fault) {
        self.faults.push_back((op, fault));
    }

    fn fault(&mut self, op: Op) -> Option<Fault> {
        if let Some(at) = self.faults.iter().position(|(call, _)| *call == op) {
            return self.faults.remove(at).map(|(_, fault)| fault);
        }
        if let Some((_, fault)) = self.always.iter().find(|(call, _)| *call == op) {
            return Some(fault.clone());
        }
        let chaos = self.chaos.as_mut()?;
        if !chaos.random.chance(chaos.calls) {
            return None;
        }
        let mut faults = vec![
            Fault::NotSent,
            Fault::Lost,
            Fault::ReplyLost,
            Fault::ReplyLost,
            Fault::Refused(429, "rate_limit_exceeded", ""),
            Fault::Refused(500, "server_error", ""),
            Fault::Refused(401, "invalid_api_key", ""),
            Fault::Html(502),
            Fault::CrashBefore,
            Fault::CrashAfter,
        ];
        match op {
            Op::Download => faults.extend([Fault::Cut, Fault::QuietCut]),
            Op::Create => faults.extend([Fault::Twice, Fault::Refused(400, "", "file_id")]),
            _ => {}
        }
        Some(chaos.random.pick(&faults))
    }

    fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> String {
        self.made_files += 1;
        let id = format!("file-{:04}", self.made_files);
        self.files.push(File {
            id: id.clone(),
            name: name.into(),
            bytes,
            created: self.now,
        });
        id
    }

    fn find_file(&self, id: &str) -> CallResult<&File> {
        let found = self.files.iter().find(|file| file.id == id);
        found.ok_or_else(|| not_found("No such File object"))
    }

    fn find_batch(&mut self, id: &str) -> CallResult<&mut HeldBatch> {
        let found = self.batches.iter_mut().find(|batch| batch.id == id);
        found.ok_or_else(|| not_found("No such Batch"))
    }

    /// A batch that this program did not make.
    pub fn add_batch(
        &mut self,
        input: &str,
        metadata: BTreeMap<String, String>,
        is_twin: bool,
    ) -> CallResult<Batch> {
        let file = self.find_file(input)?;
        let text = String::from_utf8(file.bytes.clone()).expect("an input file is UTF-8");
        let lines = parse_lines(&text, &mut self.violations);
        let course = self.courses.pop_front().unwrap_or_default();
        let course = self.chaotic(course, lines.len());
        let batch = HeldBatch {
            id: format!("batch_{:04}", self.batches.len() + 1),
            metadata,
            status: BatchStatus::Validating,
            lines,
            is_twin,
            model: model_of(&text),
            input: input.into(),
            created: self.now,
            course,
            cancelling_since: None,
            ended: None,
            output: None,
            error: None,
            counts: RequestCounts::default(),
            usage: None,
            errors: Vec::new(),
        };
        let remote = batch.remote(self.now);
        self.batches.push(batch);
        Ok(remote)
    }

    fn chaotic(&mut self, mut course: Course, lines: usize) -> Course {
        let Some(chaos) = &mut self.chaos else {
            return course;
        };
        let random = &mut chaos.random;
        course.latency = Duration::from_secs(random.below(1200));
        if random.chance(chaos.batches) {
            let some = usize::try_from(random.below(lines as u64 + 1)).unwrap_or(0);
            course.end = match random.below(5) {
                0 => End::Expires(some),
                1 => End::Cancelled(some),
                2 => End::Refused(vec![error_entry("server_error", None)]),
                3 => End::Refused(vec![error_entry("token_limit_exceeded", None)]),
                _ => End::Completes,
            };
            course.ids = random.pick(&[
                Ids::AtOnce,
                Ids::AtOnce,
                Ids::Late(Duration::from_mins(5)),
                Ids::OutputLate(Duration::from_mins(5)),
            ]);
            course.stranger = random.chance(200);
            course.unended = random.chance(200);
        }
        course
    }

    /// Moves the batches to where they stand now.
    pub fn advance(&mut self) {
        for at in 0..self.batches.len() {
            self.advance_one(at);
        }
    }

    fn advance_one(&mut self, at: usize) {
        let now = self.now;
        let batch = &mut self.batches[at];
        if batch.status.is_final() {
            return;
        }
        if let Some(since) = batch.cancelling_since {
            if now >= since + CANCEL {
                self.finish(at, BatchStatus::Cancelled, 0, since + CANCEL);
            }
            return;
        }
        let begins = batch.created + Duration::from_secs(1);
        if now < begins {
            return;
        }
        if batch.status == BatchStatus::Validating {
            let refused = match &batch.course.end {
                End::Refused(errors) => Some(errors.clone()),
                _ => self.judge(at),
            };
            let batch = &mut self.batches[at];
            if let Some(errors) = refused {
                batch.status = BatchStatus::Failed;
                batch.ended = Some(begins);
                batch.errors = errors;
                return;
            }
            batch.status = BatchStatus::InProgress;
            batch.counts.total = batch.lines.len() as u64;
        }
        let batch = &self.batches[at];
        let course = &batch.course;
        let all = batch.lines.len();
        let (ends, status, lines) = match course.end {
            End::Completes | End::Refused(_) => (course.latency, BatchStatus::Completed, all),
            End::Expires(lines) => (WINDOW + Duration::from_mins(10), BatchStatus::Expired, lines),
            End::Cancelled(lines) => (course.latency + CANCEL, BatchStatus::Cancelled, lines),
        };
        let ends = begins + ends;
        if now >= ends {
            self.finish(at, status, lines.min(all), ends);
        }
    }

    /// Why validation refuses a batch.
    fn judge(&self, at: usize) -> Option<Vec<BatchError>> {
        let lines = &self.batches[at].lines;
        let find = |needle: &str| lines.iter().position(|line| line.text().contains(needle));
        self.rules.iter().find_map(|rule| match rule {
            Rule::Poison(needle) => find(needle).map(|_| vec![error_entry("invalid_request", None)]),
            Rule::Blame(needle) => {
                find(needle).map(|line| vec![error_entry("invalid_json_line", Some(line as u64 + 1))])
            }
            Rule::TokensOf(most) => (self.queued(at) > *most).then(|| {
                let mut error = error_entry("token_limit_exceeded", None);
                error.message = Some(format!(
                    "Enqueued token limit reached. Limit: {most} enqueued tokens."
                ));
                vec![error]
            }),
            Rule::QueueOf(most) => (lines.len() > *most).then(|| {
                let mut error = error_entry("token_limit_exceeded", None);
                error.message = Some("Enqueued token limit reached. Limit: 900,000".into());
                vec![error]
            }),
        })
    }

    /// The tokens of a batch and of those that run beside it.
    fn queued(&self, at: usize) -> u64 {
        let all = self.batches.iter().enumerate();
        let held = all.filter(|(number, batch)| {
            *number == at || matches!(batch.status, BatchStatus::InProgress | BatchStatus::Cancelling)
        });
        let lines = held.flat_map(|(_, batch)| &batch.lines);
        lines
            .map(|line| {
                let cap = line.body["max_output_tokens"].as_u64().unwrap_or(0);
                line.body.to_string().len() as u64 / 4 + cap
            })
            .sum()
    }

    fn fate(&mut self, line: &Line) -> Option<Fate> {
        let text = line.text();
        for (needle, stage, fate, times) in &mut self.fates {
            if *times > 0 && *stage == line.stage() && text.contains(*needle) {
                *times -= 1;
                return Some(*fate);
            }
        }
        let chaos = self.chaos.as_mut()?;
        let fates = [
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
            Fate::Status(400),
            Fate::Status(429),
            Fate::Status(500),
            Fate::FailedInside,
        ];
        let goes_wrong = chaos.random.chance(chaos.lines);
        goes_wrong.then(|| chaos.random.pick(&fates))
    }

    /// A whole answer is paid: there is one of each.
    fn note_answer(&mut self, custom_id: &str, batch: &str) {
        let batches = self.answered.entry(custom_id.to_owned()).or_default();
        batches.push(batch.to_owned());
        if batches.len() > 1 && self.billed_again > 0 {
            self.billed_again -= 1;
        } else if batches.len() > 1 {
            let twice = format!("{custom_id} was answered whole in {batches:?}");
            self.violations.push(twice);
        }
    }

    /// Runs the first lines of a batch, writes its files and ends it.
    fn finish(&mut self, at: usize, status: BatchStatus, run: usize, ended: Duration) {
        let lines = self.batches[at].lines.clone();
        let is_twin = self.batches[at].is_twin;
        let never = self.batches[at].course.ids == Ids::Never;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut counts = RequestCounts {
            total: lines.len() as u64,
            ..RequestCounts::default()
        };
        for (number, line) in lines.iter().enumerate() {
            if number >= run {
                let code = match status {
                    BatchStatus::Expired => "batch_expired",
                    _ => "batch_cancelled",
                };
                errors.push(result(
                    line,
                    Value::Null,
                    json!({"code": code, "message": "not run"}),
                ));
                continue;
            }
            let fate = self.fate(line);
            let files = run_line(line, fate);
            if files.is_whole && !never && !is_twin && line.custom_id != "theirs" {
                let id = self.batches[at].id.clone();
                self.note_answer(&line.custom_id, &id);
            }
            if files.counts_as_completed {
                counts.completed += 1;
            } else {
                counts.failed += 1;
            }
            output.extend(files.output);
            errors.extend(files.error);
        }
        let course = self.batches[at].course.clone();
        if course.stranger {
            let mut line = lines[0].clone();
            line.custom_id = "v_00000000000000000000000000000000_7".into();
            output.extend(run_line(&line, None).output);
        }
        let mut random = Random::new(at as u64);
        random.shuffle(&mut output);
        random.shuffle(&mut errors);
        let file = |mut lines: Vec<Vec<u8>>, unended: bool| {
            if unended && let Some(last) = lines.last_mut() {
                last.pop();
            }
            lines.concat()
        };
        let output = file(output, course.unended);
        let errors = file(errors, false);
        let output = (!output.is_empty()).then(|| self.add_file("output.jsonl", output));
        let error = (!errors.is_empty()).then(|| self.add_file("error.jsonl", errors));
        let batch = &mut self.batches[at];
        batch.status = status;
        batch.ended = Some(ended);
        batch.counts = counts;
        // As every answer of this world says.
        batch.usage = course.usage_beyond.map(|more| TokenUsage {
            input: 100 * counts.completed + more,
            output: 10 * counts.completed,
            ..TokenUsage::ZERO
        });
        batch.output = output;
        batch.error = error;
    }
}

impl HeldBatch {
    /// Another program's, in the same project.
    pub fn is_theirs(&self) -> bool {
        self.lines.iter().all(|line| line.custom_id == "theirs")
    }

    fn remote(&self, now: Duration) -> Batch {
        let since_end = self.ended.map(|ended| now.saturating_sub(ended));
        let shown = |late: bool| {
            since_end.is_some_and(|since| match self.course.ids {
                Ids::AtOnce => true,
                Ids::Never => false,
                Ids::Late(lag) => since >= lag,
                Ids::OutputLate(lag) => !late || since >= lag,
            })
        };
        Batch {
            id: self.id.clone(),
            status_text: self.status.as_str().into(),
            status: Some(self.status),
            input_file_id: self.input.clone(),
            output_file_id: self.output.clone().filter(|_| shown(true)),
            error_file_id: self.error.clone().filter(|_| shown(false)),
            created_at: seconds(self.created),
            expires_at: Some(seconds(self.created + WINDOW)),
            model: self
                .model
                .clone()
                .filter(|_| self.status != BatchStatus::Validating),
            counts: self.counts,
            usage: self.usage,
            errors: self.errors.clone(),
            metadata: self.metadata.clone(),
        }
    }
}

/// The model that an input's first line asks.
fn model_of(input: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(input.lines().next()?).ok()?;
    Some(line["body"]["model"].as_str()?.to_owned())
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn not_found(message: &str) -> CallError {
    CallError::Refused(OpenAiError {
        status: 404,
        message: message.into(),
        ..OpenAiError::default()
    })
}

/// One entry of `errors.data`.
pub fn error_entry(code: &str, line: Option<u64>) -> BatchError {
    BatchError {
        code: Some(code.into()),
        message: Some("so it was scripted".into()),
        param: None,
        line,
    }
}

/// The lines of an input file, each of which must be as OpenAI wants it.
fn parse_lines(text: &str, violations: &mut Vec<String>) -> Vec<Line> {
    let mut lines = Vec::new();
    let (mut ids, mut models) = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        let custom_id = value["custom_id"].as_str().unwrap_or_default().to_owned();
        models.insert(value["body"]["model"].to_string());
        let is_well = value["method"] == "POST"
            && value["url"] == ENDPOINT
            && (1..=64).contains(&custom_id.len())
            && ids.insert(custom_id.clone())
            && value["body"]["input"].is_array();
        if !is_well {
            violations.push(format!("line {number} of an input is wrong: {line}"));
        }
        lines.push(Line {
            custom_id,
            body: value["body"].clone(),
        });
    }
    if lines.is_empty() || models.len() != 1 || !text.ends_with('\n') {
        violations.push("an input is empty, unended, or names several models".into());
    }
    lines
}

struct Files {
    output: Vec<Vec<u8>>,
    error: Vec<Vec<u8>>,
    /// The text can be had from what is written.
    is_whole: bool,
    counts_as_completed: bool,
}

fn result(line: &Line, response: Value, error: Value) -> Vec<u8> {
    let result =
        json!({"id": "batch_req_1", "custom_id": line.custom_id, "response": response, "error": error});
    // As OpenAI orders them: the custom id before the answer.
    let mut text = format!(
        r#"{{"id":"batch_req_1","custom_id":{},"response":{},"error":{}}}"#,
        result["custom_id"], result["response"], result["error"]
    );
    text.push('\n');
    text.into_bytes()
}

fn answered(line: &Line, output: Value) -> Value {
    json!({"status_code": 200, "request_id": "r", "body": {
        "id": "resp_1", "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": line.body["model"], "output": output,
        "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}}})
}

fn run_line(line: &Line, fate: Option<Fate>) -> Files {
    let message = |part: Value| json!({"type": "message", "role": "assistant", "status": "completed", "content": [part]});
    let text = message(json!({"type": "output_text", "text": line.answer(), "annotations": []}));
    let good = result(line, answered(line, json!([text])), Value::Null);
    let out = |output: Vec<Vec<u8>>, is_whole| Files {
        output,
        error: Vec::new(),
        is_whole,
        counts_as_completed: true,
    };
    let failed = |status: u16, error: Value| {
        let response = json!({"status_code": status, "request_id": "r", "body": {"error": error}});
        Files {
            output: Vec::new(),
            error: vec![result(line, response, Value::Null)],
            is_whole: false,
            counts_as_completed: false,
        }
    };
    let cut_short = |text: Value| {
        let mut response = answered(line, json!([text]));
        response["body"]["status"] = json!("incomplete");
        response["body"]["incomplete_details"] = json!({"reason": "max_output_tokens"});
        result(line, response, Value::Null)
    };
    match fate {
        None => out(vec![good], true),
        Some(Fate::Missing) => out(Vec::new(), false),
        Some(Fate::Repeated) => out(vec![good.clone(), good], true),
        Some(Fate::InBoth) => {
            let mut files = failed(500, json!({"message": "oops", "code": "server_error"}));
            files.output.push(good);
            files.is_whole = true;
            // Counted by its text: were it not, nobody could know of an output file that is named late.
            files.counts_as_completed = true;
            files
        }
        Some(Fate::Garbled) => {
            let mut bytes = good;
            let at = bytes.len() - 30;
            bytes[at] = 0xff;
            out(vec![bytes], false)
        }
        Some(Fate::Torn) => {
            let mut bytes = good;
            bytes.truncate(bytes.len() / 2);
            bytes.push(b'\n');
            out(vec![bytes], false)
        }
        Some(Fate::Reasoned) => {
            let output = json!([{"type": "reasoning", "id": "rs_1", "summary": []}, text]);
            out(vec![result(line, answered(line, output), Value::Null)], true)
        }
        Some(Fate::Refused) => {
            let refusal = message(json!({"type": "refusal", "refusal": "I will not"}));
            out(
                vec![result(line, answered(line, json!([refusal])), Value::Null)],
                false,
            )
        }
        Some(Fate::Incomplete) if line.body["max_output_tokens"].as_u64() > Some(2048) => {
            out(vec![good], true)
        }
        Some(Fate::Incomplete | Fate::Endless) => out(vec![cut_short(text)], false),
        Some(Fate::ImageGone) => failed(
            400,
            json!({"message": "Timeout while downloading the image", "type": "invalid_request_error",
                   "param": "url", "code": "invalid_value"}),
        ),
        Some(Fate::Status(status)) => failed(
            status,
            json!({"message": "so it was scripted", "type": "some_error", "param": null, "code": null}),
        ),
        Some(Fate::FailedInside) => {
            let mut response = answered(line, json!([]));
            response["body"]["status"] = json!("failed");
            response["body"]["error"] = json!({"code": "server_error", "message": "oops"});
            out(vec![result(line, response, Value::Null)], false)
        }
    }
}

impl BatchApi for OpenAi {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn newest_date(&self) -> Option<ServerDate> {
        self.state().newest_date
    }

    fn upload(&self, name: &str, path: &Path) -> CallResult<FileObject> {
        let bytes = std::fs::read(path).expect("the input file is there");
        self.call_on(Op::Upload, name, |state, _| {
            if !name.ends_with(".jsonl") {
                state.violations.push(format!("{name} is no .jsonl"));
            }
            let id = state.add_file(name, bytes);
            state.find_file(&id).map(File::remote)
        })
    }

    fn file(&self, id: &str) -> CallResult<FileObject> {
        self.call_on(Op::File, id, |state, _| state.find_file(id).map(File::remote))
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>> {
        self.call(Op::Files, |state, _| {
            let newest_first = state.files.iter().rev().map(File::remote);
            Ok(page(newest_first, |file| &file.id, after, limit as usize))
        })
    }

    fn delete_file(&self, id: &str) -> CallResult<()> {
        self.call(Op::Delete, |state, _| {
            state.find_file(id)?;
            state.files.retain(|file| file.id != id);
            Ok(())
        })
    }

    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64> {
        self.call_on(Op::Download, id, |state, fault| {
            let bytes = &state.find_file(id)?.bytes;
            let half = &bytes[..bytes.len() / 2];
            let (bytes, cut) = match fault {
                Some(Fault::Cut) => (half, true),
                Some(Fault::QuietCut) => (half, false),
                _ => (bytes.as_slice(), false),
            };
            let lost = |message: &str| CallError::Unknown {
                message: message.into(),
            };
            into.write_all(bytes).map_err(|_| lost("the disk failed"))?;
            if cut {
                return Err(lost("the connection broke"));
            }
            Ok(bytes.len() as u64)
        })
    }

    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch> {
        self.call_on(Op::Create, &new.input_file_id, |state, fault| {
            if state.find_file(&new.input_file_id).is_err() {
                return Err(CallError::Refused(OpenAiError {
                    status: 400,
                    param: "file_id".into(),
                    message: "cannot find the file".into(),
                    ..OpenAiError::default()
                }));
            }
            let made = state.add_batch(&new.input_file_id, new.metadata.clone(), false)?;
            if fault == Some(&Fault::Twice) {
                state.add_batch(&new.input_file_id, new.metadata.clone(), true)?;
            }
            Ok(made)
        })
    }

    fn batch(&self, id: &str) -> CallResult<Batch> {
        self.call_on(Op::Batch, id, |state, _| {
            let now = state.now;
            Ok(state.find_batch(id)?.remote(now))
        })
    }

    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>> {
        self.call(Op::List, |state, _| {
            let now = state.now;
            let shown = |batch: &&HeldBatch| batch.created + state.list_lag <= now;
            let newest_first = state
                .batches
                .iter()
                .rev()
                .filter(shown)
                .map(|batch| batch.remote(now));
            let limit = state.page.min(limit as usize);
            let mut page = page(newest_first, |batch| &batch.id, after, limit);
            for batch in page.data.iter_mut().filter(|_| state.without_times) {
                batch.created_at = 0;
            }
            page.date = Some(Timestamp::from_seconds(seconds(now)));
            Ok(page)
        })
    }

    fn cancel_batch(&self, id: &str) -> CallResult<Batch> {
        self.call_on(Op::Cancel, id, |state, _| {
            let now = state.now;
            let batch = state.find_batch(id)?;
            if batch.status.is_final() && batch.status != BatchStatus::Cancelled {
                return Err(CallError::Refused(OpenAiError {
                    status: 409,
                    message: "cannot cancel".into(),
                    ..OpenAiError::default()
                }));
            }
            if !batch.status.is_final() {
                batch.status = BatchStatus::Cancelling;
                batch.cancelling_since.get_or_insert(now);
            }
            Ok(batch.remote(now))
        })
    }
}

impl ResponsesApi for OpenAi {
    fn respond(&self, body: &Value) -> CallResult<Value> {
        self.call(Op::Respond, |state, fault| {
            let mut line = Line {
                custom_id: String::new(),
                body: body.clone(),
            };
            line.custom_id = format!("directly {} {:?}", line.text(), line.language());
            let fate = state.fate(&line);
            let files = run_line(&line, fate);
            // Whose answer is lost is asked for again; no other is.
            if files.is_whole && fault.is_none() {
                state.note_answer(&line.custom_id, "an answer that arrived");
            }
            let written = files.output.into_iter().chain(files.error).next();
            let written = serde_json::from_slice::<Value>(&written.unwrap_or_default());
            let response = written.map(|mut line| line["response"].take());
            let response = response.map_err(|_| CallError::Unknown {
                message: "the answer is no JSON".into(),
            })?;
            match response["status_code"].as_u64() {
                Some(200) => Ok(response["body"].clone()),
                status => Err(CallError::Refused(OpenAiError {
                    status: u16::try_from(status.unwrap_or(0)).expect("a status"),
                    param: text_of(&response["body"]["error"]["param"]),
                    code: text_of(&response["body"]["error"]["code"]),
                    message: text_of(&response["body"]["error"]["message"]),
                    ..OpenAiError::default()
                })),
            }
        })
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl File {
    fn remote(&self) -> FileObject {
        FileObject {
            id: self.id.clone(),
            bytes: Some(self.bytes.len() as u64),
            created_at: seconds(self.created),
            filename: self.name.clone(),
        }
    }
}

fn page<T>(
    newest_first: impl Iterator<Item = T>,
    id: impl Fn(&T) -> &str,
    after: Option<&str>,
    limit: usize,
) -> Page<T> {
    let mut rest: Vec<T> = newest_first.collect();
    if let Some(after) = after {
        let at = rest.iter().position(|one| id(one) == after);
        rest.drain(..at.map_or(rest.len(), |at| at + 1));
    }
    let has_more = rest.len() > limit;
    rest.truncate(limit);
    Page {
        data: rest,
        has_more,
        date: None,
    }
}
