//! A job's results as a stream of JSON.

use std::io::{self, Read};
use std::sync::Arc;

use serde_json::Value;

use super::PAGE;
use super::lot_json::LotJson;
use crate::domain::job::VERSION;
use crate::store::jobs::JobRow;
use crate::store::lots::{self, LotFilter, LotRow};
use crate::store::{Store, Stored};

/// The JSON around a job's lots, and the function that writes each lot.
pub struct ResultsTemplate {
    before_lots: String,
    after_lots: String,
    write_lot: LotWriter,
}

/// Writes one lot of a job as JSON.
pub type LotWriter = fn(&JobRow, &LotRow, &mut Vec<u8>) -> serde_json::Result<()>;

impl ResultsTemplate {
    /// The members of the object `head`, then `opening`, the lots, and `closing`.
    pub fn new(head: &Value, opening: &str, closing: String, write_lot: LotWriter) -> Self {
        let head = head.to_string();
        let head = head.strip_suffix('}').unwrap_or(&head);
        let comma = if head.len() > 1 { "," } else { "" };
        Self {
            before_lots: format!("{head}{comma}{opening}"),
            after_lots: closing,
            write_lot,
        }
    }

    /// The members of the object `head`, then `results` as the contract has it.
    pub fn results(head: &Value) -> Self {
        let opening = format!("\"results\":{{\"version\":\"{VERSION}\",\"lots\":[");
        Self::new(head, &opening, "]}}".into(), |job, row, to| {
            serde_json::to_writer(to, &LotJson::new(&job.languages, row))
        })
    }
}

/// Reads a job's results as JSON, page by page, so that memory does not grow with the job.
pub struct ResultsStream {
    store: Arc<Store>,
    job: JobRow,
    template: ResultsTemplate,
    filter: LotFilter<'static>,
    /// The position of the next lot.
    position: u32,
    /// Lots still to read.
    remaining: u32,
    has_lots: bool,
    is_complete: bool,
    /// JSON that has not been read yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
}

impl ResultsStream {
    /// Streams up to `limit` lots from the position `offset` on.
    pub fn new(
        store: Arc<Store>,
        job: JobRow,
        mut template: ResultsTemplate,
        offset: u32,
        limit: u32,
    ) -> Self {
        let pending = std::mem::take(&mut template.before_lots).into_bytes();
        Self {
            store,
            job,
            template,
            filter: LotFilter::All,
            position: offset,
            remaining: limit,
            has_lots: false,
            is_complete: false,
            pending,
            sent: 0,
        }
    }

    /// Leaves out the lots that have not ended.
    #[must_use]
    pub fn without_pending(mut self) -> Self {
        self.filter = LotFilter::Finished;
        self
    }

    fn next_page(&mut self) -> Stored<()> {
        self.pending.clear();
        self.sent = 0;
        let want = self.remaining.min(PAGE);
        let page = if want == 0 {
            Vec::new()
        } else {
            self.store
                .read(|view| lots::page(view, &self.job.id, self.filter, self.position, want))?
        };
        for row in &page {
            if self.has_lots {
                self.pending.push(b',');
            }
            self.has_lots = true;
            (self.template.write_lot)(&self.job, row, &mut self.pending)?;
            self.position = row.position + 1;
        }
        let read = u32::try_from(page.len()).unwrap_or(want);
        self.remaining -= read;
        if read < want || want == 0 {
            self.pending
                .extend_from_slice(self.template.after_lots.as_bytes());
            self.is_complete = true;
        }
        Ok(())
    }
}

impl Read for ResultsStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.sent == self.pending.len() && !self.is_complete {
            self.next_page().map_err(io::Error::other)?;
        }
        let bytes = &self.pending[self.sent..];
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.sent += length;
        Ok(length)
    }
}
