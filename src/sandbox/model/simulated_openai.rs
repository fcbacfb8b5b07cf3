//! The state of the simulated OpenAI, its clock, and its callers.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::batches::LateCreate;
use super::error_reply::ErrorReply;
use super::faults::{Fault, FaultRule, FaultRules, FaultTarget};
use super::ledger::{Ledger, LedgerEntry};
use super::records::{BatchRecords, FileRecords, TokenQueue};
use super::settings::SandboxSettings;
use super::storage::{Content, StateFolderError, Storage};
use crate::base::clock::{Clock, Timestamp};

/// The simulated OpenAI.
pub struct SimulatedOpenAi {
    pub(super) settings: SandboxSettings,
    pub(super) storage: Storage,
    clock: Arc<dyn Clock>,
    next_seq: AtomicU64,
    pub(super) fault_rules: FaultRules,
    pub(super) ledger: Ledger,
    pub(super) files: FileRecords,
    pub(super) batches: BatchRecords,
    pub(super) token_queue: TokenQueue,
    /// Creates that take effect later. They do not outlive the process.
    pub(super) late_creates: Mutex<Vec<LateCreate>>,
    /// Held for as long as the folder is in use.
    _folder_lock: Option<File>,
}

/// The project, and the organization, that a call is made for.
pub struct CallingProject {
    /// The id of the key's project.
    pub project: String,
    /// The organization as the caller names it; only the ledger shows it.
    pub organization: String,
}

impl SimulatedOpenAi {
    /// Opens the state in a folder, which it creates where needed.
    ///
    /// # Errors
    /// If the folder cannot be used, or holds something else.
    pub fn open(
        state_folder: &Path,
        settings: SandboxSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StateFolderError> {
        let failed = |error: io::Error| StateFolderError::new(state_folder, &error);
        let storage = Storage::Folder(state_folder.to_owned());
        storage.create_folder("").map_err(failed)?;
        let lock = Storage::lock_folder(state_folder)?;
        let mut openai = Self::on(storage, settings, clock)?;
        openai._folder_lock = Some(lock);
        openai.complete_interrupted_writes().map_err(failed)?;
        Ok(openai)
    }

    /// An OpenAI whose state is in memory and ends with it.
    ///
    /// # Errors
    /// Never, as no folder is used.
    pub fn in_memory(settings: SandboxSettings, clock: Arc<dyn Clock>) -> Result<Self, StateFolderError> {
        Self::on(Storage::Memory(Arc::default()), settings, clock)
    }

    fn on(
        storage: Storage,
        settings: SandboxSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StateFolderError> {
        let files = FileRecords::open(storage.clone())?;
        let batches = BatchRecords::open(storage.clone())?;
        let newest = files.newest_seq().max(batches.newest_seq());
        Ok(Self {
            settings,
            clock,
            next_seq: AtomicU64::new(newest + 1),
            fault_rules: FaultRules::open(storage.clone())?,
            ledger: Ledger::open(&storage)?,
            files,
            batches,
            token_queue: TokenQueue::default(),
            late_creates: Mutex::default(),
            storage,
            _folder_lock: None,
        })
    }

    /// The time of the clock that was handed in.
    pub fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// The next number of a file or batch; it orders those of the same millisecond.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq.fetch_add(1, Ordering::Relaxed)
    }

    /// The project that a key, and the header `OpenAI-Project`, stand for.
    ///
    /// # Errors
    /// 401 for an unknown key and for a project that the key does not belong to.
    pub fn authenticate(
        &self,
        key: &str,
        project: Option<&str>,
        organization: &str,
    ) -> Result<CallingProject, ErrorReply> {
        let mut projects = self
            .settings
            .api_keys
            .iter()
            .filter(|one| one.key == key)
            .map(|one| one.project.as_str())
            .peekable();
        if projects.peek().is_none() {
            return Err(incorrect_key(key));
        }
        let found = match project {
            Some(named) => projects.find(|one| *one == named).ok_or_else(|| {
                ErrorReply::new(401, "OpenAI-Project header should match project for API key")
                    .code("mismatched_project")
            }),
            None => projects.next().ok_or_else(|| incorrect_key(key)),
        };
        Ok(CallingProject {
            project: found?.to_owned(),
            organization: organization.to_owned(),
        })
    }

    /// `GET /models`: the aliases.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.settings.models.iter().map(|model| model.name.as_str())
    }

    /// `GET /models/{name}`: checks that there is a model of that alias or dated name.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn check_model(&self, name: &str) -> Result<(), ErrorReply> {
        match self.settings.model(name) {
            Some(_) => Ok(()),
            None => Err(ErrorReply::new(404, format!("The model '{name}' does not exist"))
                .code("model_not_found")
                .param("model")),
        }
    }

    /// Records that a client did something that OpenAI's reference does not provide for. The answer stays the
    /// same.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn record_flag(&self, flag: &str, request: &str, detail: &str) -> io::Result<()> {
        let entry = LedgerEntry::Flag {
            flag: flag.to_owned(),
            request: request.to_owned(),
            detail: detail.to_owned(),
        };
        self.ledger.append(self.now(), entry)
    }

    /// Records a delivery to the webhook sink of that name.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn record_webhook(&self, name: &str, bytes: usize, status: u16) -> io::Result<()> {
        let entry = LedgerEntry::Hook {
            name: name.to_owned(),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            status,
        };
        self.ledger.append(self.now(), entry)
    }

    /// Opens the ledger: one JSON object a line for each effect.
    ///
    /// # Errors
    /// If the ledger cannot be opened.
    pub fn read_ledger(&self) -> io::Result<Content> {
        self.ledger.reader()
    }

    /// The effects from the one of that number on. Only an OpenAI in memory has them.
    pub fn ledger_from(&self, number: usize) -> Vec<LedgerEntry> {
        self.ledger.entries_from(number)
    }

    /// The active fault rules; `times` is what is left.
    pub fn fault_rules(&self) -> Vec<FaultRule> {
        self.fault_rules.list()
    }

    /// Adds fault rules; gives their ids.
    ///
    /// # Errors
    /// If the rules cannot be written.
    pub fn add_fault_rules(&self, rules: Vec<FaultRule>) -> io::Result<Vec<u64>> {
        let ids = self.fault_rules.add(rules, self.now());
        self.fault_rules.save()?;
        Ok(ids)
    }

    /// Deletes the fault rules with these ids.
    pub fn remove_fault_rules(&self, ids: &[u64]) {
        self.fault_rules.remove(ids);
    }

    /// Deletes all fault rules, and ends the stalls that have no end of their own.
    ///
    /// # Errors
    /// If the rules or a batch cannot be written.
    pub fn clear_fault_rules(&self) -> io::Result<()> {
        self.fault_rules.clear();
        self.fault_rules.save()?;
        self.end_stalls()
    }

    /// Writes the fault rules if a call changed them.
    ///
    /// # Errors
    /// If the rules cannot be written.
    pub fn save_fault_rules(&self) -> io::Result<()> {
        self.fault_rules.save()
    }

    /// Triggers a fault if a rule says so for a target of these names, and records it in the ledger.
    pub(super) fn trigger_fault(&self, fault: Fault, target: FaultTarget<'_>) -> io::Result<Option<Value>> {
        let Some(value) = self.fault_rules.trigger(fault, target, self.now()) else {
            return Ok(None);
        };
        let entry = LedgerEntry::fault(fault.as_str(), target.names);
        self.ledger.append(self.now(), entry)?;
        Ok(Some(value))
    }
}

/// 401 for an unknown key; the message shows the key's start, as OpenAI's does.
pub(super) fn incorrect_key(key: &str) -> ErrorReply {
    let start = key.chars().take(3).collect::<String>();
    ErrorReply::new(401, format!("Incorrect API key provided: {start}***.")).code("invalid_api_key")
}
