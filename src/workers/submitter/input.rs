//! The input file of a batch, written from its lines and frozen parameters. A file that is written again after
//! the batch was sealed must have the SHA-256 that was sealed.

use std::path::Path;

use crate::domain::parameters::Parameters;
use crate::openai::jsonl::{LineWriter, sha256_file};
use crate::store::batches::{BatchRow, Input};
use crate::store::{Store, StoreError, requests};
use crate::workers::spool::{Spool, SpoolKind};
use crate::workers::worker::WorkerError;

/// Lines read in one query.
const PAGE: u32 = 500;

/// The name of the file at OpenAI. An upload whose answer was lost is found by it.
pub fn file_name(key: &str) -> String {
    format!("batchkeeper-{key}.jsonl")
}

/// Writes the input of a batch from its present rows, durably.
pub fn write(store: &Store, spool: &Spool, row: &BatchRow) -> Result<Input, WorkerError> {
    let parameters = Parameters::parse(row.stage, &row.parameters).map_err(StoreError::from)?;
    let mut file = spool.create(&row.key, SpoolKind::Input)?;
    let mut writer = LineWriter::new(&mut file, parameters.form().endpoint);
    let mut after = 0;
    loop {
        let lines = store.read(|view| requests::lines(view, row.id, after, PAGE))?;
        let Some(last) = lines.last() else { break };
        after = last.request;
        for line in &lines {
            writer.write(&line.custom_id.to_string(), &line.body(&parameters))?;
        }
    }
    let sealed = writer.finish()?;
    file.finish()?;
    let lines =
        u32::try_from(sealed.lines).map_err(|_| StoreError::Other("too many lines in a batch".into()))?;
    Ok(Input {
        lines,
        bytes: sealed.bytes,
        sha256: sealed.sha256_hex,
    })
}

/// Whether the spool still has the file that was sealed.
pub fn is_there(path: &Path, row: &BatchRow) -> Result<bool, WorkerError> {
    Ok(path.exists() && Some(&sha256_file(path)?.1) == row.input_sha256.as_ref())
}
