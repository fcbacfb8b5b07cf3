//! Writes a result file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use crate::sandbox::model::disk;

/// A result file that is created with its first line.
pub struct ResultFileWriter {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
    bytes: u64,
}

impl ResultFileWriter {
    /// A writer that has created nothing yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            writer: None,
            bytes: 0,
        }
    }

    /// Writes a line and its line feed.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(BufWriter::with_capacity(
                1 << 18,
                File::create(disk::temporary(&self.path))?,
            )),
        };
        writer.write_all(line)?;
        writer.write_all(b"\n")?;
        self.bytes += u64::try_from(line.len()).unwrap_or(0) + 1;
        Ok(())
    }

    /// Gives the file its name. The result is the file's size; `None` if there was no line.
    pub fn finish(self) -> io::Result<Option<u64>> {
        let Some(mut writer) = self.writer else {
            return Ok(None);
        };
        writer.flush()?;
        fs::rename(disk::temporary(&self.path), &self.path)?;
        Ok(Some(self.bytes))
    }
}
