//! The simulated OpenAI in this process: the sandbox's model behind the traits that the workers use. It is
//! strict: what a real one might let pass is noted as a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, Moment, Timestamp};
use batchkeeper::domain::batch::Stage;
use batchkeeper::domain::endpoint::Endpoint;
use batchkeeper::domain::openai::BatchStatus;
use batchkeeper::openai::{
    Batch, BatchApi, CallError, CallResult, FileObject, Identity, NewBatch, OpenAiError, Page, ResponsesApi,
    ServerDate,
};
use batchkeeper::sandbox::model::{
    ApiCall, BatchListQuery, BatchView, CallingProject, ConnectionFault, ErrorReply, FileListQuery,
    FileUpload, LedgerEntry, SimulatedOpenAi,
};
use batchkeeper::sandbox::{
    Fault as Listed, FaultRule, Latencies, Pace, SandboxSettings, expected_description, expected_translation,
};
use serde_json::{Value, json};

use super::HandClock;
use super::chaos::Chaos;
use super::pairs::{Place, Plan, Strike};
pub use super::script::{Course, End, Fate, Fault, Ids, Op, Outage, Rule, WINDOW, error_entry, refusal};

/// OpenAI's clock at the beginning, seconds.
const EPOCH: u64 = 1_795_400_000;
/// The images of lots of the world, of which the first ones are used.
pub const IMAGES: [&str; 4] = [
    "https://images.test/1.jpg",
    "https://images.test/2.jpg",
    "https://images.test/3.jpg",
    "https://images.test/4.jpg",
];

/// Thrown through a worker to end the process there.
pub struct Crash;

/// The right description of a lot with one image.
pub fn described(info: &str) -> String {
    described_from(info, &IMAGES[..1])
}

/// The right description of a lot with these images.
pub fn described_from(info: &str, images: &[&str]) -> String {
    expected_description(info, images)
}

/// The right translation of a text.
pub fn translated(language: &str, text: &str) -> String {
    expected_translation(text, language)
}

/// One line of an input file.
#[derive(Clone, Debug)]
pub struct Line {
    pub custom_id: String,
    pub body: Value,
}

/// A batch at OpenAI.
pub struct HeldBatch {
    pub id: String,
    pub metadata: BTreeMap<String, String>,
    pub status: BatchStatus,
    pub lines: Vec<Line>,
    /// The second of a create that made two.
    pub is_twin: bool,
    /// Its answers cannot be had for good, so they are asked for again.
    is_unreadable: bool,
}

impl HeldBatch {
    /// Another program's, in the same project.
    pub fn is_theirs(&self) -> bool {
        self.lines.iter().all(|line| line.custom_id == "theirs")
    }
}

/// OpenAI's own clock.
struct RemoteClock(AtomicI64);

impl Clock for RemoteClock {
    fn now(&self) -> Moment {
        let millis = self.0.load(Ordering::Relaxed);
        Moment {
            wall: Timestamp::from_millis(millis),
            steady: Duration::from_millis(u64::try_from(millis).unwrap_or(0)),
        }
    }
}

/// What the world may look into and steer.
pub struct State {
    pub now: Duration,
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
    /// What every line goes through now.
    pub outage: Option<Outage>,
    /// Random faults, where on.
    pub chaos: Option<Chaos>,
    /// Answers that an operator accepts to pay a second time.
    pub billed_again: u64,
    /// The faults of a run of [`super::pairs`].
    pub plan: Option<Arc<Mutex<Plan>>>,
    /// What must never be asked of OpenAI.
    pub violations: Vec<String>,
    model: Arc<SimulatedOpenAi>,
    time: Arc<RemoteClock>,
    /// The program's clock.
    clock: Option<Arc<HandClock>>,
    newest_date: Option<ServerDate>,
    caller: CallingProject,
    /// Calls so far; their numbers decide their chance.
    made_calls: u64,
    /// Entries of the ledger that were read.
    read_entries: usize,
    /// The lines of each uploaded input, and what is wrong with them.
    inputs: BTreeMap<String, (Vec<Line>, Vec<String>)>,
    /// The rules that stand for `rules`, `list_lag` and the like: how they were written, and their ids.
    standing: (String, Vec<u64>),
    /// By custom id: the batches in which it was answered whole.
    answered: BTreeMap<String, Vec<String>>,
    /// By custom id: the newest batch that asks for it, as a number in `batches`.
    asked: BTreeMap<String, usize>,
}

/// OpenAI under one account.
pub struct OpenAi {
    identity: Identity,
    seed: u64,
    state: Mutex<State>,
}

/// The pace at which a batch without a [`Course`] of its own would run; every batch gets one.
fn settings(seed: u64) -> SandboxSettings {
    SandboxSettings {
        pace: Pace::Fixed(Latencies {
            validating: 1_000,
            in_progress: 120_000,
            finalizing: 0,
            cancel: 605_000,
            expire: 605_000,
        }),
        // No life is this long, and OpenAI keeps result files for ever.
        file_lifetime_seconds: 10_000_000_000,
        creates_per_hour: usize::MAX,
        // So that a test can tell what its lines cost.
        answer_tokens: Some([100, 10]),
        seed: format!("world {seed}"),
        ..SandboxSettings::default()
    }
}

impl OpenAi {
    pub fn new(base_url: &str) -> Self {
        Self::seeded(base_url, 0)
    }

    /// The same with other ids, and other chance.
    pub fn seeded(base_url: &str, seed: u64) -> Self {
        let time = Arc::new(RemoteClock(AtomicI64::new(0)));
        let model = SimulatedOpenAi::in_memory(settings(seed), time.clone()).expect("no folder");
        let caller = model.authenticate("sk-sandbox", None, "").expect("a key");
        Self {
            identity: Identity {
                base_url: base_url.into(),
                organization: String::new(),
                project: String::new(),
            },
            seed,
            state: Mutex::new(State {
                now: Duration::from_secs(EPOCH),
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
                outage: None,
                chaos: None,
                billed_again: 0,
                plan: None,
                violations: Vec::new(),
                model: Arc::new(model),
                time,
                clock: None,
                newest_date: None,
                caller,
                made_calls: 0,
                read_entries: 0,
                inputs: BTreeMap::new(),
                standing: Default::default(),
                answered: BTreeMap::new(),
                asked: BTreeMap::new(),
            }),
        }
    }

    /// To look into it and to steer it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process with that clock begins, and has no answer yet.
    pub fn begin_process(&self, clock: Arc<HandClock>) {
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
        let line = json!({"custom_id": "theirs", "method": "POST", "url": Endpoint::Responses.as_str(),
                          "body": {"model": "gpt-4.1-mini", "input": "theirs"}});
        let mut state = self.state();
        state.advance();
        let id = state.add_file("theirs.jsonl", format!("{line}\n").as_bytes());
        id.expect("taken").id
    }

    /// The ids of all files that are there, oldest first.
    pub fn files(&self) -> Vec<String> {
        let state = self.state();
        let oldest_first = FileListQuery {
            order: Some("asc".into()),
            ..FileListQuery::default()
        };
        let page = state.model.list_files(&state.caller, &oldest_first);
        page.expect("a list")
            .items
            .into_iter()
            .map(|file| file.id)
            .collect()
    }

    /// Makes a call with the fault that is due; `effect` asks the model, `arrive` reads the answer.
    fn call<T>(
        &self,
        op: Op,
        sent: &Sent,
        effect: impl FnOnce(&mut State, &ApiCall<'_>) -> Result<T, ErrorReply>,
        arrive: impl FnOnce(T, Option<ConnectionFault>) -> CallResult<T>,
    ) -> CallResult<T> {
        let mut state = self.state();
        state.advance();
        let fault = state.fault(op, &sent.object);
        state.calls.push((op, fault.clone()));
        state.made_calls += 1;
        match fault {
            Some(Fault::NotSent) => {
                return Err(CallError::NotSent {
                    message: "connection refused".into(),
                });
            }
            Some(Fault::CrashBefore) => {
                drop(state);
                resume_unwind(Box::new(Crash));
            }
            _ => {}
        }
        let rules = fault.as_ref().and_then(Fault::rule).into_iter().collect();
        let rules = state.model.add_fault_rules(rules).expect("in memory");
        let id = format!("{} {}", self.seed, state.made_calls);
        let done = state.make(&sent.call(&id), effect, arrive);
        state.model.remove_fault_rules(&rules);
        state.read_ledger();
        if let (Ok(_), Some(clock)) = (&done, &state.clock) {
            let date = Timestamp::from_seconds(seconds(state.now));
            let received = clock.now();
            state.newest_date = Some(ServerDate { date, received });
        }
        drop(state);
        if fault == Some(Fault::CrashAfter) {
            resume_unwind(Box::new(Crash));
        }
        done
    }
}

/// A call as HTTP would carry it.
struct Sent {
    method: &'static str,
    path: String,
    target: String,
    body: Vec<u8>,
    /// The id or name that the call is about; empty if there is none.
    object: String,
}

impl Sent {
    fn new(method: &'static str, path: impl Into<String>) -> Self {
        let path = path.into();
        Self {
            method,
            target: path.clone(),
            path,
            body: Vec::new(),
            object: String::new(),
        }
    }

    fn on(method: &'static str, path: impl Into<String>, object: &str) -> Self {
        Self {
            object: object.to_owned(),
            ..Self::new(method, path)
        }
    }

    fn call<'a>(&'a self, id: &'a str) -> ApiCall<'a> {
        ApiCall {
            method: self.method,
            path: &self.path,
            target: &self.target,
            body: &self.body,
            id,
        }
    }
}

impl State {
    /// The next call of that kind goes wrong so.
    pub fn fail(&mut self, op: Op, fault: Fault) {
        self.faults.push_back((op, fault));
    }

    /// The model, for faults of its list that last.
    pub fn model(&self) -> &SimulatedOpenAi {
        &self.model
    }

    fn fault(&mut self, op: Op, object: &str) -> Option<Fault> {
        let mut of_objects = self.of_objects.iter();
        if let Some((.., fault)) = of_objects.find(|(of, id, _)| *of == op && id == object) {
            return Some(fault.clone());
        }
        if let Some(at) = self.faults.iter().position(|(call, _)| *call == op) {
            return self.faults.remove(at).map(|(_, fault)| fault);
        }
        if let Some((_, fault)) = self.always.iter().find(|(call, _)| *call == op) {
            return Some(fault.clone());
        }
        if let Some(plan) = self.plan.clone() {
            return self.strike(plan.lock().unwrap().reach(Place::Call(op))?);
        }
        self.chaos.as_mut()?.fault(op)
    }

    /// Lets a strike of a plan come; gives what goes wrong with the call itself.
    fn strike(&mut self, strike: Strike) -> Option<Fault> {
        match strike {
            Strike::Call(fault) => return Some(fault),
            Strike::Crash => return Some(Fault::CrashBefore),
            Strike::Batch(course) => self.courses.push_front(course),
            Strike::Line(fate) => {
                let rules = vec![fate.rule().times(1)];
                self.model.add_fault_rules(rules).expect("in memory");
            }
        }
        None
    }

    /// Asks the model, with the faults before and after the effect.
    fn make<T>(
        &mut self,
        call: &ApiCall<'_>,
        effect: impl FnOnce(&mut State, &ApiCall<'_>) -> Result<T, ErrorReply>,
        arrive: impl FnOnce(T, Option<ConnectionFault>) -> CallResult<T>,
    ) -> CallResult<T> {
        let model = self.model.clone();
        let failed = |error: ErrorReply| refused(error, call.id);
        if let Some(delay) = model.trigger_delay(call).expect("in memory") {
            self.pass(delay);
        }
        match model.trigger_fault_before(call).map_err(failed)? {
            None => {}
            Some(ConnectionFault::HtmlPage(status)) => {
                let page = ErrorReply::new(status, "<html>Bad gateway</html>");
                return Err(refused(page, call.id));
            }
            Some(fault) => {
                if let ConnectionFault::LateEffect(delay) = fault {
                    model.create_later(&self.caller, call.body, delay);
                }
                return Err(lost());
            }
        }
        let done = effect(self, call).map_err(failed)?;
        match model.trigger_fault_after(call).map_err(failed)? {
            Some(ConnectionFault::Late(delay)) => {
                self.pass(delay);
                arrive(done, None)
            }
            fault => arrive(done, fault),
        }
    }

    /// Time goes on within a call, for both sides.
    fn pass(&mut self, time: Duration) {
        if let Some(clock) = &self.clock {
            clock.advance(time);
        }
        self.now += time;
        self.advance();
    }

    fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<FileObject, ErrorReply> {
        let upload = FileUpload {
            purpose: Some("batch"),
            filename: Some(name),
            content: Some(bytes),
            ..FileUpload::default()
        };
        let file = self.model.upload_file(&self.caller, &upload)?;
        let text = String::from_utf8(bytes.to_vec()).expect("an input file is UTF-8");
        self.inputs.insert(file.id.clone(), parse_lines(&text));
        Ok(FileObject::from_json(&json!(file)).expect("a file"))
    }

    /// A batch that this program did not make.
    pub fn add_batch(
        &mut self,
        input: &str,
        metadata: BTreeMap<String, String>,
        is_twin: bool,
    ) -> CallResult<Batch> {
        self.advance();
        let body = create_body(input, &metadata);
        let made = self.model.create_batch(&self.caller, &body);
        self.read_ledger();
        if let Some(batch) = self.batches.last_mut() {
            batch.is_twin |= is_twin;
        }
        made.map(|view| to_batch(&view))
            .map_err(|error| refused(error, ""))
    }

    /// Moves the batches to where they stand now.
    pub fn advance(&mut self) {
        let millis = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        self.time.0.store(millis, Ordering::Relaxed);
        for (text, stage, fate, times) in self.fates.split_off(0) {
            let rules = vec![fate.rule_for(text, stage, times)];
            self.model.add_fault_rules(rules).expect("in memory");
        }
        self.set_standing_rules();
        self.model.advance_all().expect("in memory");
        self.read_ledger();
    }

    fn set_standing_rules(&mut self) {
        let mut rules: Vec<FaultRule> = self.rules.iter().map(Rule::rule).collect();
        if !self.list_lag.is_zero() {
            let lag = u64::try_from(self.list_lag.as_millis()).unwrap_or(u64::MAX);
            rules.push(FaultRule::new(Listed::ListLag).value(lag));
        }
        if self.page < 100 {
            rules.push(FaultRule::new(Listed::ShortPages).value(self.page));
        }
        if self.without_times {
            rules.push(FaultRule::new(Listed::NoCreatedAt));
        }
        rules.extend(self.outage.iter().flat_map(|outage| outage.rules()));
        rules.extend(self.chaos.iter().flat_map(Chaos::line_rules));
        let written = format!("{rules:?}");
        if self.standing.0 != written {
            self.model.remove_fault_rules(&self.standing.1);
            self.standing = (written, self.model.add_fault_rules(rules).expect("in memory"));
        }
    }

    /// The model has no rules any more; those that stand are added again.
    pub fn forget_standing_rules(&mut self) {
        self.standing = Default::default();
    }

    /// Takes note of what OpenAI has done.
    fn read_ledger(&mut self) {
        let entries = self.model.ledger_from(self.read_entries);
        self.read_entries += entries.len();
        for entry in entries {
            match entry {
                LedgerEntry::Create {
                    batch,
                    input_file,
                    by_fault,
                    ..
                } => self.hold(batch, &input_file, by_fault),
                LedgerEntry::Status { batch, status } => {
                    let held = self.batches.iter_mut().rev().find(|held| held.id == batch);
                    held.expect("held").status = status.parse().expect("a status");
                }
                LedgerEntry::Executed {
                    batch: Some(batch),
                    custom_id,
                    answered: true,
                    ..
                } => {
                    let held = self.batches.iter().rev().find(|held| held.id == batch);
                    let counts = held.is_some_and(|it| !it.is_twin && !it.is_unreadable && !it.is_theirs());
                    if counts {
                        self.note_answer(&custom_id, &batch);
                    }
                }
                LedgerEntry::Flag { flag, detail, .. } => {
                    self.violations.push(format!("{flag}: {detail}"));
                }
                _ => {}
            }
        }
    }

    /// A batch was made: it gets its course.
    fn hold(&mut self, id: String, input: &str, is_twin: bool) {
        let (lines, wrong) = self.inputs.get(input).cloned().unwrap_or_default();
        self.violations.extend(wrong);
        let mut course = self.courses.pop_front().unwrap_or_default();
        if let Some(chaos) = &mut self.chaos {
            chaos.change(&mut course, lines.len());
        }
        self.model.put_faults_on(&id, &course.faults()).expect("there");
        let rules = course.line_rule(&id).into_iter().collect();
        self.model.add_fault_rules(rules).expect("in memory");
        self.batches.push(HeldBatch {
            metadata: self.model.batch_metadata(&id),
            status: BatchStatus::Validating,
            lines,
            is_twin,
            is_unreadable: course.ids == Ids::Never,
            id,
        });
        if !is_twin {
            self.note_lines(self.batches.len() - 1);
        }
    }

    /// No line is sent while another batch may still answer it.
    fn note_lines(&mut self, number: usize) {
        if self.batches[number].is_theirs() {
            return;
        }
        let ids = self.batches[number]
            .lines
            .iter()
            .map(|line| line.custom_id.clone());
        for id in ids.collect::<Vec<_>>() {
            let Some(before) = self.asked.insert(id.clone(), number) else {
                continue;
            };
            let before = &self.batches[before];
            if !before.status.is_final() && self.billed_again == 0 {
                let twice = format!("{id} was sent again while {} is {}", before.id, before.status);
                self.violations.push(twice);
            }
        }
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
}

fn create_body(input: &str, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    json!({"input_file_id": input, "endpoint": Endpoint::Responses.as_str(), "completion_window": "24h", "metadata": metadata})
        .to_string()
        .into_bytes()
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn lost() -> CallError {
    CallError::Unknown {
        message: "the connection broke".into(),
    }
}

/// A refusal as the client reads it.
fn refused(error: ErrorReply, call: &str) -> CallError {
    let kind = (!error.kind.ends_with("_error")).then(|| error.kind.to_owned());
    let seconds = error.retry_after.and_then(|text| text.parse().ok());
    CallError::Refused(OpenAiError {
        call: Box::default(),
        status: error.status,
        code: error.code.or(kind).unwrap_or_default(),
        param: error.param.unwrap_or_default().into(),
        message: error.message,
        retry_after: seconds.map(Duration::from_secs),
        request_id: batchkeeper::sandbox::model::request_id(call).into(),
    })
}

fn to_batch(view: &BatchView) -> Batch {
    let mut value = json!(view);
    if view.omits_nulls {
        let members = value.as_object_mut().expect("an object");
        members.retain(|_, member| !member.is_null());
    }
    Batch::from_json(&value).expect("a batch")
}

/// An answer that is whole, or not there at all.
fn whole<T>(done: T, fault: Option<ConnectionFault>) -> CallResult<T> {
    match fault {
        None => Ok(done),
        Some(_) => Err(lost()),
    }
}

/// The lines of an input file, each of which must be as OpenAI wants it, and what is wrong.
fn parse_lines(text: &str) -> (Vec<Line>, Vec<String>) {
    let (mut lines, mut violations) = (Vec::new(), Vec::new());
    let (mut ids, mut models) = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        let custom_id = value["custom_id"].as_str().unwrap_or_default().to_owned();
        models.insert(value["body"]["model"].to_string());
        let is_well = value["method"] == "POST"
            && value["url"] == Endpoint::Responses.as_str()
            && (1..=64).contains(&custom_id.len())
            && ids.insert(custom_id.clone())
            && !value["body"]["input"].is_null();
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
    (lines, violations)
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
        let mut sent = Sent::on("POST", "/v1/files", name);
        sent.body = format!("filename=\"{name}\"").into_bytes();
        self.call(Op::Upload, &sent, |state, _| state.add_file(name, &bytes), whole)
    }

    fn file(&self, id: &str) -> CallResult<FileObject> {
        let sent = Sent::on("GET", format!("/v1/files/{id}"), id);
        let file = |state: &mut State, _: &ApiCall<'_>| {
            let file = state.model.file(&state.caller, id)?;
            Ok(FileObject::from_json(&json!(file)).expect("a file"))
        };
        self.call(Op::File, &sent, file, whole)
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>> {
        let sent = Sent::new("GET", "/v1/files");
        let files = |state: &mut State, _: &ApiCall<'_>| {
            let query = FileListQuery {
                after: after.map(str::to_owned),
                limit: Some(limit.to_string()),
                order: Some("desc".into()),
                purpose: Some("batch".into()),
            };
            let page = state.model.list_files(&state.caller, &query)?;
            let data = page.items.iter().map(|file| FileObject::from_json(&json!(file)));
            Ok(Page {
                data: data.map(|file| file.expect("a file")).collect(),
                has_more: Some(page.has_more),
                date: None,
            })
        };
        self.call(Op::Files, &sent, files, whole)
    }

    fn delete_file(&self, id: &str) -> CallResult<()> {
        let sent = Sent::new("DELETE", format!("/v1/files/{id}"));
        let delete = |state: &mut State, _: &ApiCall<'_>| state.model.delete_file(&state.caller, id);
        self.call(Op::Delete, &sent, delete, whole)
    }

    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64> {
        let sent = Sent::on("GET", format!("/v1/files/{id}/content"), id);
        let read = |state: &mut State, _: &ApiCall<'_>| {
            let mut bytes = Vec::new();
            let mut file = state.model.file_content(&state.caller, id)?;
            file.content.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let write = |mut bytes: Vec<u8>, fault: Option<ConnectionFault>| {
            let kept = match fault {
                Some(ConnectionFault::Cut { bytes } | ConnectionFault::QuietCut { bytes }) => bytes,
                Some(_) => 0,
                None => u64::MAX,
            };
            bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
            into.write_all(&bytes).map_err(|_| lost())?;
            match fault {
                None | Some(ConnectionFault::QuietCut { .. }) => Ok(bytes),
                Some(_) => Err(lost()),
            }
        };
        self.call(Op::Download, &sent, read, write)
            .map(|bytes| bytes.len() as u64)
    }

    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch> {
        let mut sent = Sent::on("POST", "/v1/batches", &new.input_file_id);
        sent.body = create_body(&new.input_file_id, &new.metadata);
        let create = |state: &mut State, call: &ApiCall<'_>| {
            let view = state.model.create_batch(&state.caller, call.body)?;
            Ok(to_batch(&view))
        };
        self.call(Op::Create, &sent, create, whole)
    }

    fn batch(&self, id: &str) -> CallResult<Batch> {
        let sent = Sent::on("GET", format!("/v1/batches/{id}"), id);
        let poll = |state: &mut State, _: &ApiCall<'_>| {
            let view = state.model.poll_batch(&state.caller, id)?;
            Ok(to_batch(&view))
        };
        self.call(Op::Batch, &sent, poll, whole)
    }

    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>> {
        let mut sent = Sent::new("GET", "/v1/batches");
        sent.target = match after {
            Some(after) => format!("/v1/batches?limit={limit}&after={after}"),
            None => format!("/v1/batches?limit={limit}"),
        };
        let list = |state: &mut State, call: &ApiCall<'_>| {
            let query = BatchListQuery {
                after: after.map(str::to_owned),
                limit: Some(limit.to_string()),
            };
            let page = state.model.list_batches(&state.caller, &query, call)?;
            Ok(Page {
                data: page.items.iter().map(to_batch).collect(),
                has_more: Some(page.has_more),
                date: Some(Timestamp::from_seconds(seconds(state.now))),
            })
        };
        self.call(Op::List, &sent, list, whole)
    }

    fn cancel_batch(&self, id: &str) -> CallResult<Batch> {
        let sent = Sent::on("POST", format!("/v1/batches/{id}/cancel"), id);
        let cancel = |state: &mut State, _: &ApiCall<'_>| {
            let view = state.model.cancel_batch(&state.caller, id)?;
            Ok(to_batch(&view))
        };
        self.call(Op::Cancel, &sent, cancel, whole)
    }
}

impl ResponsesApi for OpenAi {
    fn respond(&self, endpoint: Endpoint, body: &Value) -> CallResult<Value> {
        let mut sent = Sent::new("POST", "/v1/responses");
        sent.body = body.to_string().into_bytes();
        let mut is_complete = false;
        let respond = |state: &mut State, call: &ApiCall<'_>| {
            let result = state.model.respond(endpoint, call.body)?;
            is_complete = result.is_complete;
            let body: Value = serde_json::from_str(result.body.get()).expect("JSON");
            if result.status == 200 {
                return Ok(body);
            }
            Err(ErrorReply {
                code: body["error"]["code"].as_str().map(str::to_owned),
                param: body["error"]["param"].as_str().map(str::to_owned),
                ..ErrorReply::new(result.status, body["error"]["message"].as_str().unwrap_or(""))
            })
        };
        let answer = self.call(Op::Respond, &sent, respond, whole);
        // An answer that is lost is asked for again; no other is.
        if answer.is_ok() && is_complete {
            let language = &body["metadata"]["language"];
            let name = format!("directly {} {language}", body["input"]);
            self.state().note_answer(&name, "an answer that arrived");
        }
        answer
    }
}
