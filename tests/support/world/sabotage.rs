//! Bugs that a program of this kind has had, put in from outside: the simulation must find each.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use batchkeeper::domain::openai::BatchStatus;
use batchkeeper::openai::{
    Batch, BatchApi, CallError, CallResult, FileObject, Identity, NewBatch, Page, ServerDate,
};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::openai::OpenAi;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// OpenAI's id of a batch that was made is not stored.
    IdNotStored,
    /// The text is read from another field of the answer.
    WrongField,
    /// Translations are read in another format than they are asked for in.
    OtherFormat,
    /// A create whose answer was lost is repeated at once.
    BlindRepeat,
    /// A batch that was made at about the right time is taken for ours.
    TimingOnly,
    /// A batch that is not listed yet is taken for not made.
    NoSettling,
    /// What the error file does not name is settled before the output is read.
    ErrorsFirst,
    /// A request leaves its batch after the batch was sealed.
    ClaimChanged,
    /// An expired batch is sent again whole, with what was answered.
    ExpiredWhole,
}

impl Bug {
    pub const ALL: [Self; 9] = [
        Self::IdNotStored,
        Self::WrongField,
        Self::OtherFormat,
        Self::BlindRepeat,
        Self::TimingOnly,
        Self::NoSettling,
        Self::ErrorsFirst,
        Self::ClaimChanged,
        Self::ExpiredWhole,
    ];
}

/// OpenAI as a program with that bug sees it.
pub fn api(bug: Bug, openai: Arc<OpenAi>) -> Arc<dyn BatchApi> {
    Arc::new(Sabotaged {
        openai,
        bug,
        doubtful: Mutex::default(),
    })
}

/// What a program with that bug does to its rows.
pub fn rows(bug: Bug, sql: &Connection) {
    let change = match bug {
        Bug::IdNotStored => {
            "UPDATE batch_jobs SET openai_batch_id = NULL WHERE openai_batch_id IN
                    (SELECT openai_batch_id FROM openai_batches WHERE state = 'submitted');
             UPDATE openai_batches SET state = 'uploaded', openai_batch_id = NULL, openai_time = NULL
             WHERE state = 'submitted' AND stage = 'vision';"
        }
        Bug::ClaimChanged => {
            "CREATE TEMP TABLE IF NOT EXISTS taken (batch INTEGER PRIMARY KEY, request INTEGER);
             INSERT OR IGNORE INTO taken SELECT l.batch_id, max(l.request_id) FROM batch_lines l
                    JOIN openai_batches b ON b.id = l.batch_id WHERE b.state = 'uploaded' AND b.lines > 1
                    AND l.batch_id NOT IN (SELECT batch FROM taken) GROUP BY l.batch_id;
             UPDATE requests SET state = 'waiting' WHERE state = 'claimed' AND id IN
                    (SELECT request FROM taken JOIN batch_lines ON batch_id = batch AND request_id = request
                     JOIN openai_batches b ON b.id = batch WHERE b.state = 'uploaded');
             UPDATE openai_batches SET lines = lines - 1 WHERE state = 'uploaded' AND id IN
                    (SELECT batch FROM taken JOIN batch_lines ON batch_id = batch AND request_id = request);
             DELETE FROM batch_lines WHERE (batch_id, request_id) IN (SELECT batch, request FROM taken)
                    AND batch_id IN (SELECT id FROM openai_batches WHERE state = 'uploaded');"
        }
        _ => return,
    };
    sql.execute_batch(&format!("BEGIN IMMEDIATE; {change} COMMIT;"))
        .expect("the rows are changed");
}

struct Sabotaged {
    openai: Arc<OpenAi>,
    bug: Bug,
    /// Metadata of the last create whose answer was lost.
    doubtful: Mutex<Option<BTreeMap<String, String>>>,
}

impl Sabotaged {
    fn seen(&self, mut remote: Batch) -> Batch {
        let is_over = remote.status.is_some_and(BatchStatus::is_final);
        let hides = match self.bug {
            Bug::ErrorsFirst => is_over && remote.error_file_id.is_some(),
            Bug::ExpiredWhole => remote.status == Some(BatchStatus::Expired),
            _ => false,
        };
        if hides {
            remote.output_file_id = None;
            remote.counts.completed = 0;
        }
        if hides && self.bug == Bug::ExpiredWhole {
            remote.error_file_id = None;
            remote.counts.failed = 0;
        }
        remote
    }

    fn misread(&self, line: &[u8]) -> Vec<u8> {
        let Ok(mut line) = serde_json::from_slice::<Value>(line) else {
            return line.to_vec();
        };
        let model = line["response"]["body"]["model"].clone();
        let of_translation = line["custom_id"].as_str().is_some_and(|id| id.starts_with("t_"));
        let items = line["response"]["body"]["output"].as_array_mut();
        for text in items
            .into_iter()
            .flatten()
            .filter_map(|item| item.pointer_mut("/content/0/text"))
        {
            match self.bug {
                Bug::WrongField => *text = model.clone(),
                Bug::OtherFormat if of_translation => {
                    *text = json!(format!("{}", json!({"translation": text})));
                }
                _ => {}
            }
        }
        line.to_string().into_bytes()
    }
}

impl BatchApi for Sabotaged {
    fn identity(&self) -> &Identity {
        self.openai.identity()
    }

    fn newest_date(&self) -> Option<ServerDate> {
        self.openai.newest_date()
    }

    fn upload(&self, name: &str, path: &Path) -> CallResult<FileObject> {
        self.openai.upload(name, path)
    }

    fn file(&self, id: &str) -> CallResult<FileObject> {
        let mut file = self.openai.file(id)?;
        if matches!(self.bug, Bug::WrongField | Bug::OtherFormat) {
            file.bytes = None;
        }
        Ok(file)
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>> {
        self.openai.input_files(after, limit)
    }

    fn delete_file(&self, id: &str) -> CallResult<()> {
        self.openai.delete_file(id)
    }

    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64> {
        if !matches!(self.bug, Bug::WrongField | Bug::OtherFormat) {
            return self.openai.download(id, into);
        }
        let mut bytes = Vec::new();
        self.openai.download(id, &mut bytes)?;
        let mut misread = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_ended = line.ends_with(b"\n");
            misread.extend(self.misread(line.strip_suffix(b"\n").unwrap_or(line)));
            misread.extend(is_ended.then_some(b'\n'));
        }
        into.write_all(&misread).map_err(|_| CallError::Unknown {
            message: "the disk failed".into(),
        })?;
        Ok(misread.len() as u64)
    }

    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch> {
        match self.openai.create_batch(new) {
            Err(CallError::Unknown { message }) if self.bug == Bug::BlindRepeat => {
                Err(CallError::NotSent { message })
            }
            Err(error @ CallError::Unknown { .. }) => {
                *self.doubtful.lock().unwrap() = Some(new.metadata.clone());
                Err(error)
            }
            Ok(made) if self.bug == Bug::NoSettling => {
                let mut doubtful = self.doubtful.lock().unwrap();
                doubtful.take_if(|metadata| *metadata == new.metadata);
                Ok(made)
            }
            answer => answer,
        }
    }

    fn batch(&self, id: &str) -> CallResult<Batch> {
        self.openai.batch(id).map(|remote| self.seen(remote))
    }

    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>> {
        let mut page = self.openai.batches(after, limit)?;
        if self.bug == Bug::TimingOnly
            && let Some(theirs) = page.data.iter_mut().find(|it| it.metadata.is_empty())
            && let Some(metadata) = self.doubtful.lock().unwrap().clone()
        {
            theirs.metadata = metadata;
        }
        // As if the listings had been made before the create could take effect.
        if self.bug == Bug::NoSettling
            && let Some(doubtful) = self.doubtful.lock().unwrap().as_ref()
        {
            page.data.retain(|it| it.metadata != *doubtful);
        }
        Ok(page)
    }

    fn cancel_batch(&self, id: &str) -> CallResult<Batch> {
        self.openai.cancel_batch(id)
    }
}
