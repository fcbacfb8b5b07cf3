//! The calls of the Files API.

use std::io::{Read, Take};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error_reply::ErrorReply;
use super::faults::{Fault, FaultTarget};
use super::ids;
use super::ledger::LedgerEntry;
use super::list_page::{ListPage, page_limit};
use super::records::{FileRecord, content_name};
use super::simulated_openai::{CallingProject, SimulatedOpenAi};
use super::storage::Content;
use crate::base::hex;

const PURPOSES: [&str; 6] = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"];

/// A file as a caller sees it. Members in the order of recorded answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileView {
    /// Always `file`.
    pub object: &'static str,
    /// `file-…`.
    pub id: String,
    /// Such as `batch`.
    pub purpose: String,
    /// The name of the upload.
    pub filename: String,
    /// The size.
    pub bytes: u64,
    /// In seconds.
    pub created_at: i64,
    /// In seconds.
    pub expires_at: Option<i64>,
    /// Always `processed`.
    pub status: &'static str,
    /// Always null.
    pub status_details: Option<&'static str>,
}

impl From<FileRecord> for FileView {
    fn from(record: FileRecord) -> Self {
        Self {
            object: "file",
            id: record.id,
            purpose: record.purpose,
            filename: record.filename,
            bytes: record.bytes,
            created_at: record.created_ms / 1000,
            expires_at: record.expires_at,
            status: "processed",
            status_details: None,
        }
    }
}

/// The fields of an upload, as sent; `None` where a field is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileUpload<'a> {
    /// The field `purpose`.
    pub purpose: Option<&'a str>,
    /// The file name of the field `file`.
    pub filename: Option<&'a str>,
    /// The field `file`.
    pub content: Option<&'a [u8]>,
    /// The field `expires_after[anchor]`.
    pub expires_anchor: Option<&'a str>,
    /// The field `expires_after[seconds]`.
    pub expires_seconds: Option<&'a str>,
}

/// The query of a listing of files, as sent; `None` where a value is absent.
#[derive(Clone, Debug, Default)]
pub struct FileListQuery {
    /// The file before the page.
    pub after: Option<String>,
    /// The most files of the page.
    pub limit: Option<String>,
    /// `asc` or `desc`.
    pub order: Option<String>,
    /// Only files of this purpose.
    pub purpose: Option<String>,
}

/// The content of a file.
pub struct FileContent {
    /// The file's name.
    pub filename: String,
    /// The content, open for reading.
    pub content: Take<Content>,
}

impl SimulatedOpenAi {
    /// `POST /files`.
    ///
    /// # Errors
    /// The refusal.
    pub fn upload_file(
        &self,
        caller: &CallingProject,
        upload: &FileUpload<'_>,
    ) -> Result<FileView, ErrorReply> {
        let purpose = upload.purpose.ok_or_else(|| missing_field("purpose"))?;
        if !PURPOSES.contains(&purpose) {
            return Err(refused_field(
                "purpose",
                format!("'{purpose}' is not one of the purposes that exist."),
            ));
        }
        let content = upload.content.ok_or_else(|| missing_field("file"))?;
        let filename = upload.filename.unwrap_or("");
        if purpose == "batch" {
            self.check_input_file(filename, content)?;
        }
        let lifetime = self.lifetime(purpose, upload)?;
        let now = self.now();
        let seq = self.next_seq();
        let id = ids::file(&[&self.settings.seed, "upload", &seq.to_string()]);
        self.storage.write(&content_name(&id), content)?;
        let record = FileRecord {
            id,
            seq,
            project: caller.project.clone(),
            purpose: purpose.to_owned(),
            filename: filename.to_owned(),
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            created_ms: now.millis(),
            expires_at: lifetime.map(|seconds| now.seconds() + seconds),
            deleted: false,
        };
        self.files.save(record.clone())?;
        let entry = LedgerEntry::Upload {
            file: record.id.clone(),
            filename: record.filename.clone(),
            purpose: record.purpose.clone(),
            bytes: record.bytes,
            sha256: hex::encode(&Sha256::digest(content)),
            project: caller.project.clone(),
            organization: caller.organization.clone(),
        };
        self.ledger.append(now, entry)?;
        Ok(record.into())
    }

    fn check_input_file(&self, filename: &str, content: &[u8]) -> Result<(), ErrorReply> {
        let is_allowed = match filename.rsplit_once('.') {
            Some((_, extension)) => extension == "jsonl",
            None => self.settings.allow_no_extension && !filename.is_empty(),
        };
        if !is_allowed {
            return Err(refused_field(
                "file",
                format!("Invalid extension of '{filename}'. Supported formats: \"jsonl\"."),
            ));
        }
        if content.len() > self.settings.max_upload_bytes {
            return Err(too_large(
                self.settings.too_large_status,
                self.settings.max_upload_bytes,
            ));
        }
        // Only the beginning is checked at once. Each line is checked when a batch is made of the file.
        let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
        match serde_json::from_slice::<serde::de::IgnoredAny>(first) {
            Ok(_) => Ok(()),
            Err(_) => Err(refused_field(
                "file",
                "Invalid file format for Batch API. Must be .jsonl",
            )),
        }
    }

    /// Seconds until the file expires; `None` if it does not.
    fn lifetime(&self, purpose: &str, upload: &FileUpload<'_>) -> Result<Option<i64>, ErrorReply> {
        match (upload.expires_anchor, upload.expires_seconds) {
            (None, None) if purpose == "batch" => Ok(i64::try_from(self.settings.file_lifetime_seconds).ok()),
            (None, None) => Ok(None),
            (Some("created_at"), Some(seconds)) => match seconds.parse() {
                Ok(seconds) if (3_600..=2_592_000).contains(&seconds) => Ok(Some(seconds)),
                _ => Err(refused_field(
                    "expires_after.seconds",
                    "Expected 3600 to 2592000 seconds.",
                )),
            },
            _ => Err(refused_field(
                "expires_after.anchor",
                "Expected the anchor 'created_at' and seconds.",
            )),
        }
    }

    /// `GET /files`.
    ///
    /// # Errors
    /// The refusal.
    pub fn list_files(
        &self,
        caller: &CallingProject,
        query: &FileListQuery,
    ) -> Result<ListPage<FileView>, ErrorReply> {
        let limit = page_limit(query.limit.as_deref(), 10_000, 10_000, || {
            refused_field("limit", "Expected a limit of 1 to 10000.")
        })?;
        let mut records = self.files.available(&caller.project, self.now());
        if let Some(purpose) = &query.purpose {
            records.retain(|record| record.purpose == *purpose);
        }
        if query.order.as_deref() != Some("asc") {
            records.reverse();
        }
        let start = match &query.after {
            None => 0,
            Some(after) => records
                .iter()
                .position(|record| record.id == *after)
                .map(|position| position + 1)
                .ok_or_else(|| no_such_file(after).param("after"))?,
        };
        Ok(ListPage {
            has_more: records.len() > start + limit,
            items: records
                .into_iter()
                .skip(start)
                .take(limit)
                .map(FileView::from)
                .collect(),
        })
    }

    /// `GET /files/{id}`.
    ///
    /// # Errors
    /// 404 if the project has no such file.
    pub fn file(&self, caller: &CallingProject, id: &str) -> Result<FileView, ErrorReply> {
        let mut record = self.find_file(caller, id)?;
        if self.is_partial(&record, &[Fault::PartialFile])? {
            record.bytes /= 2;
        }
        Ok(record.into())
    }

    /// `GET /files/{id}/content`.
    ///
    /// # Errors
    /// 404 if the project has no such file.
    pub fn file_content(&self, caller: &CallingProject, id: &str) -> Result<FileContent, ErrorReply> {
        let record = self.find_file(caller, id)?;
        let partial = self.is_partial(&record, &[Fault::PartialFile, Fault::PartialContent])?;
        let content = self.storage.open(&content_name(id))?;
        Ok(FileContent {
            content: content.take(if partial { record.bytes / 2 } else { u64::MAX }),
            filename: record.filename,
        })
    }

    /// Triggers the faults that show half of a file while it is young.
    fn is_partial(&self, record: &FileRecord, faults: &[Fault]) -> Result<bool, ErrorReply> {
        for fault in faults {
            let target = FaultTarget {
                names: &[&record.id, &record.filename],
                seed: &record.id,
            };
            if let Some(value) = self.trigger_fault(*fault, target)?
                && self.is_young_file(&record.id, Some(value.as_i64().unwrap_or(60_000)))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `DELETE /files/{id}`.
    ///
    /// # Errors
    /// 404 if the project has no such file.
    pub fn delete_file(&self, caller: &CallingProject, id: &str) -> Result<(), ErrorReply> {
        self.find_file(caller, id)?;
        self.files.delete(id)?;
        let entry = LedgerEntry::DeleteFile { file: id.into() };
        Ok(self.ledger.append(self.now(), entry)?)
    }

    fn find_file(&self, caller: &CallingProject, id: &str) -> Result<FileRecord, ErrorReply> {
        self.files
            .find(&caller.project, id, self.now())
            .ok_or_else(|| no_such_file(id))
    }
}

fn refused_field(name: &str, message: impl Into<String>) -> ErrorReply {
    ErrorReply::new(400, message).param(name).with_detail()
}

fn missing_field(name: &str) -> ErrorReply {
    ErrorReply::missing(name).with_detail()
}

/// The refusal of an input file of too many bytes.
pub fn too_large(status: u16, limit: usize) -> ErrorReply {
    ErrorReply::new(
        status,
        format!("The file is too large: batch input files may have {limit} bytes."),
    )
    .with_detail()
}

/// The refusal of a call for an unknown, deleted or expired file.
pub fn no_such_file(id: &str) -> ErrorReply {
    ErrorReply::new(404, format!("No such File object: {id}"))
        .param("id")
        .with_detail()
}
