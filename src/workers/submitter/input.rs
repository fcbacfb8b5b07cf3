//! The input file of a batch: written from its lines and frozen parameters, the same bytes each time.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::base::private_file::create_private;
use crate::domain::parameters::Parameters;
use crate::openai::jsonl::{LineWriter, sha256_file};
use crate::store::batches::{BatchRow, Input};
use crate::store::{Store, StoreError, requests};
use crate::workers::worker::WorkerError;

/// Lines read in one go.
const PAGE: u32 = 500;

/// The name under which OpenAI has the file: stray ones are found by it.
pub fn file_name(key: &str) -> String {
    format!("batchkeeper-{key}.jsonl")
}

/// Where the file lies until the batch is created.
pub fn path(spool: &Path, key: &str) -> PathBuf {
    spool.join(format!("{key}.input.jsonl"))
}

/// Writes the input of a batch as its rows have it now, durably.
pub fn write(store: &Store, spool: &Path, row: &BatchRow) -> Result<Input, WorkerError> {
    let parameters = Parameters::parse(row.stage, &row.parameters).map_err(StoreError::from)?;
    let path = path(spool, &row.key);
    let part = path.with_extension("part");
    let file = create_private(&part)?;
    let mut writer = LineWriter::new(BufWriter::with_capacity(1 << 16, &file));
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
    file.sync_all()?;
    fs::rename(&part, &path)?;
    File::open(spool)?.sync_all()?;
    let lines = u32::try_from(sealed.lines)
        .map_err(|_| StoreError::Other("too many lines in a batch".into()))?;
    Ok(Input {
        lines,
        bytes: sealed.bytes,
        sha256: sealed.sha256_hex,
    })
}

/// Whether the file that was sealed still lies there.
pub fn is_there(path: &Path, row: &BatchRow) -> Result<bool, WorkerError> {
    Ok(path.exists() && Some(&sha256_file(path)?.1) == row.input_sha256.as_ref())
}

/// Removes the file, once OpenAI has it; it can be written again from the rows.
pub fn remove(spool: &Path, key: &str) -> Result<(), WorkerError> {
    match fs::remove_file(path(spool, key)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
