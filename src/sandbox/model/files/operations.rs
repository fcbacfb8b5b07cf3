//! The Files API: records and contents on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::clock::Timestamp;
use crate::base::hex;
use crate::http::{Request, Response};
use crate::sandbox::CallingProject;
use crate::sandbox::Sandbox;
use crate::sandbox::http::multipart;
use crate::sandbox::model::disk::{self, StateFolderError};
use crate::sandbox::model::error_reply::{ErrorReply, ListPage, ok};
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;

const PURPOSES: [&str; 6] = [
    "assistants",
    "batch",
    "fine-tune",
    "vision",
    "user_data",
    "evals",
];

/// A file, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct FileRecord {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) seq: u64,
    pub(in crate::sandbox) project: String,
    pub(in crate::sandbox) purpose: String,
    pub(in crate::sandbox) filename: String,
    pub(in crate::sandbox) bytes: u64,
    pub(in crate::sandbox) created_ms: i64,
    pub(in crate::sandbox) expires_at: Option<i64>,
    pub(in crate::sandbox) deleted: bool,
}

/// Members in the order of recorded answers.
#[derive(Serialize)]
struct FileView<'a> {
    object: &'static str,
    id: &'a str,
    purpose: &'a str,
    filename: &'a str,
    bytes: u64,
    created_at: i64,
    expires_at: Option<i64>,
    status: &'static str,
    status_details: Option<&'static str>,
}

impl FileRecord {
    fn object(&self) -> FileView<'_> {
        FileView {
            object: "file",
            id: &self.id,
            purpose: &self.purpose,
            filename: &self.filename,
            bytes: self.bytes,
            created_at: self.created_ms / 1000,
            expires_at: self.expires_at,
            status: "processed",
            status_details: None,
        }
    }

    fn lives(&self, now: Timestamp) -> bool {
        !self.deleted && self.expires_at.is_none_or(|end| now.seconds() < end)
    }
}

/// All files.
pub(in crate::sandbox) struct FileRecords {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, FileRecord>>,
}

impl FileRecords {
    pub(in crate::sandbox) fn open(folder: &Path) -> Result<Self, StateFolderError> {
        let folder = folder.join("files");
        let records = disk::read_records::<FileRecord>(&folder)?
            .into_iter()
            .map(|record| (record.id.clone(), record))
            .collect();
        Ok(Self {
            folder,
            records: Mutex::new(records),
        })
    }

    /// Where a file's content lies.
    pub(in crate::sandbox) fn content(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.data"))
    }

    /// Keeps a record; its content is there already.
    pub(in crate::sandbox) fn put(&self, record: FileRecord) -> io::Result<()> {
        let path = self.folder.join(format!("{}.json", record.id));
        disk::write_json(&path, &record)?;
        self.lock().insert(record.id.clone(), record);
        Ok(())
    }

    /// The highest number of any record.
    pub(in crate::sandbox) fn newest_seq(&self) -> u64 {
        self.lock()
            .values()
            .map(|record| record.seq)
            .max()
            .unwrap_or(0)
    }

    /// A record, living or not.
    pub(in crate::sandbox) fn any(&self, id: &str) -> Option<FileRecord> {
        self.lock().get(id).cloned()
    }

    /// A project's file that lives.
    pub(in crate::sandbox) fn get(
        &self,
        project: &str,
        id: &str,
        now: Timestamp,
    ) -> Option<FileRecord> {
        self.any(id)
            .filter(|record| record.project == project && record.lives(now))
    }

    /// Counts living files by purpose, and their bytes.
    pub(in crate::sandbox) fn totals(&self, now: Timestamp) -> (BTreeMap<String, u64>, u64) {
        let mut counts = BTreeMap::new();
        let mut bytes = 0;
        for record in self.lock().values().filter(|record| record.lives(now)) {
            *counts.entry(record.purpose.clone()).or_default() += 1;
            bytes += record.bytes;
        }
        (counts, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, FileRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// `POST /files`.
    pub(in crate::sandbox) fn upload(
        &self,
        caller: &CallingProject,
        request: &Request,
    ) -> Result<Response, ErrorReply> {
        let content_type = request.header("content-type").unwrap_or("");
        let parts = multipart::parse(content_type, &request.body)
            .ok_or_else(|| ErrorReply::new(400, "Could not parse multipart form.").with_detail())?;
        let upload = self.check_upload(&parts)?;
        let now = self.now();
        let seq = self.next_seq();
        let id = ids::file(&[&self.settings.seed, "upload", &seq.to_string()]);
        disk::write(&self.files.content(&id), upload.content)?;
        let record = FileRecord {
            id,
            seq,
            project: caller.project.clone(),
            purpose: upload.purpose.to_owned(),
            filename: upload.filename.to_owned(),
            bytes: u64::try_from(upload.content.len()).unwrap_or(u64::MAX),
            created_ms: now.millis(),
            expires_at: upload.lifetime.map(|seconds| now.seconds() + seconds),
            deleted: false,
        };
        self.files.put(record.clone())?;
        let entry = LedgerEntry::Upload {
            file: record.id.clone(),
            filename: record.filename.clone(),
            purpose: record.purpose.clone(),
            bytes: record.bytes,
            sha256: hex::encode(&Sha256::digest(upload.content)),
            project: caller.project.clone(),
            organization: caller.organization.clone(),
        };
        self.ledger.note(now, entry)?;
        ok(&record.object())
    }

    fn check_upload<'a>(
        &self,
        parts: &'a [multipart::FormPart<'a>],
    ) -> Result<FileUpload<'a>, ErrorReply> {
        let refuse =
            |param: &str, message: String| ErrorReply::new(400, message).param(param).with_detail();
        const KNOWN: [&str; 4] = [
            "file",
            "purpose",
            "expires_after[anchor]",
            "expires_after[seconds]",
        ];
        if let Some(part) = parts.iter().find(|part| !KNOWN.contains(&&*part.name)) {
            return Err(refuse(
                &part.name,
                format!("Unknown parameter: '{}'.", part.name),
            ));
        }
        let text = |name: &str| {
            parts
                .iter()
                .find(|part| part.name == name)
                .and_then(|part| std::str::from_utf8(part.content).ok())
        };
        let missing = |name: &str| {
            refuse(name, format!("Missing required parameter: '{name}'."))
                .code("missing_required_parameter")
        };
        let purpose = text("purpose").ok_or_else(|| missing("purpose"))?;
        if !PURPOSES.contains(&purpose) {
            return Err(refuse(
                "purpose",
                format!("'{purpose}' is not one of the purposes that exist."),
            ));
        }
        let file = parts
            .iter()
            .find(|part| part.name == "file")
            .ok_or_else(|| missing("file"))?;
        let filename = file.filename.as_deref().unwrap_or("");
        let extension = filename.rsplit_once('.').map(|(_, extension)| extension);
        let named = match extension {
            Some(extension) => extension == "jsonl",
            None => self.settings.allow_no_extension && !filename.is_empty(),
        };
        if purpose == "batch" && !named {
            return Err(refuse(
                "file",
                format!("Invalid extension of '{filename}'. Supported formats: \"jsonl\"."),
            ));
        }
        if purpose == "batch" && file.content.len() > self.settings.max_upload_bytes {
            return Err(too_large(
                self.settings.too_large_status,
                self.settings.max_upload_bytes,
            ));
        }
        let lifetime = match (
            text("expires_after[anchor]"),
            text("expires_after[seconds]"),
        ) {
            (None, None) => (purpose == "batch")
                .then(|| i64::try_from(self.settings.file_lifetime_seconds).ok())
                .flatten(),
            (Some("created_at"), Some(seconds)) => match seconds.parse() {
                Ok(seconds) if (3_600..=2_592_000).contains(&seconds) => Some(seconds),
                _ => {
                    return Err(refuse(
                        "expires_after.seconds",
                        "Expected 3600 to 2592000 seconds.".into(),
                    ));
                }
            },
            _ => {
                return Err(refuse(
                    "expires_after.anchor",
                    "Expected the anchor 'created_at' and seconds.".into(),
                ));
            }
        };
        Ok(FileUpload {
            purpose,
            filename,
            content: file.content,
            lifetime,
        })
    }

    /// `GET /files`.
    pub(in crate::sandbox) fn list_files(
        &self,
        caller: &CallingProject,
        request: &Request,
    ) -> Result<Response, ErrorReply> {
        let limit = match request.parameter("limit") {
            None => 10_000,
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|limit| (1..=10_000).contains(limit))
                .ok_or_else(|| {
                    ErrorReply::new(400, "Expected a limit of 1 to 10000.")
                        .param("limit")
                        .with_detail()
                })?,
        };
        let purpose = request.parameter("purpose");
        let now = self.now();
        let mut records = self
            .files
            .lock()
            .values()
            .filter(|record| record.project == caller.project && record.lives(now))
            .filter(|record| purpose.as_ref().is_none_or(|only| *only == record.purpose))
            .cloned()
            .collect::<Vec<_>>();
        records.sort_by_key(|record| (record.created_ms, record.seq));
        if request.parameter("order").as_deref() != Some("asc") {
            records.reverse();
        }
        let start = match request.parameter("after") {
            None => 0,
            Some(after) => records
                .iter()
                .position(|record| record.id == after)
                .map(|at| at + 1)
                .ok_or_else(|| no_such_file(&after).param("after"))?,
        };
        let has_more = records.len() > start + limit;
        let page = records
            .iter()
            .skip(start)
            .take(limit)
            .map(|record| (record.id.clone(), record.object()))
            .collect();
        ok(&ListPage::new(page, has_more))
    }

    /// `GET /files/{id}`.
    pub(in crate::sandbox) fn get_file(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<Response, ErrorReply> {
        ok(&self.living_file(caller, id)?.object())
    }

    /// `GET /files/{id}/content`.
    pub(in crate::sandbox) fn file_content(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<Response, ErrorReply> {
        let record = self.living_file(caller, id)?;
        let file = File::open(self.files.content(id))?;
        Ok(
            Response::stream(200, "application/octet-stream", file).with_header(
                "Content-Disposition",
                &format!("attachment; filename=\"{}\"", record.filename),
            ),
        )
    }

    /// `DELETE /files/{id}`.
    pub(in crate::sandbox) fn delete_file(
        &self,
        caller: &CallingProject,
        id: &str,
    ) -> Result<Response, ErrorReply> {
        #[derive(Serialize)]
        struct DeletedFile<'a> {
            id: &'a str,
            object: &'static str,
            deleted: bool,
        }
        self.living_file(caller, id)?;
        self.forget_file(id)?;
        let entry = LedgerEntry::DeleteFile { file: id.into() };
        self.ledger.note(self.now(), entry)?;
        ok(&DeletedFile {
            id,
            object: "file",
            deleted: true,
        })
    }

    /// Marks a file as deleted and removes its content.
    pub(in crate::sandbox) fn forget_file(&self, id: &str) -> io::Result<()> {
        if let Some(mut record) = self.files.any(id) {
            record.deleted = true;
            self.files.put(record)?;
        }
        disk::remove(&self.files.content(id))
    }

    fn living_file(&self, caller: &CallingProject, id: &str) -> Result<FileRecord, ErrorReply> {
        self.files
            .get(&caller.project, id, self.now())
            .ok_or_else(|| no_such_file(id))
    }

    /// A file's content under a second name, so that it can be deleted while a batch needs it.
    pub(in crate::sandbox) fn link_content(&self, id: &str, to: &Path) -> io::Result<()> {
        let from = self.files.content(id);
        match fs::hard_link(&from, to) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => fs::copy(&from, to).map(|_| ()),
        }
    }
}

struct FileUpload<'a> {
    purpose: &'a str,
    filename: &'a str,
    content: &'a [u8],
    lifetime: Option<i64>,
}

pub(in crate::sandbox) fn too_large(status: u16, limit: usize) -> ErrorReply {
    ErrorReply::new(
        status,
        format!("The file is too large: batch input files may have {limit} bytes."),
    )
    .with_detail()
}

pub(in crate::sandbox) fn no_such_file(id: &str) -> ErrorReply {
    ErrorReply::new(404, format!("No such File object: {id}"))
        .param("id")
        .with_detail()
}
