//! The spool: the folder of the input and result files of live batches.
//!
//! A file of the spool can always be had again: an input from the rows, a result file from OpenAI. So it
//! may vanish at any time, but a file under its own name is always whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use crate::base::private_file::create_private;
use crate::base::text_enum::text_enum;
use crate::domain::batch::ResultKind;

/// Bytes that are collected before they are written to the disk.
const BUFFER: usize = 1 << 16;

text_enum! {
    /// What a file of the spool holds; the text stands in its name.
    SpoolKind {
        /// The input of a batch that OpenAI does not have yet.
        Input = "input",
        /// Lines answered with 2xx.
        Output = "output",
        /// Lines that failed or never ran.
        Error = "error",
    }
}

impl From<ResultKind> for SpoolKind {
    fn from(kind: ResultKind) -> Self {
        match kind {
            ResultKind::Output => Self::Output,
            ResultKind::Error => Self::Error,
        }
    }
}

/// The folder that holds the files.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// A spool in a folder that is there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The path of a batch's file: `<key>.<kind>.jsonl`.
    pub fn path(&self, key: &str, kind: SpoolKind) -> PathBuf {
        self.folder.join(format!("{}.{kind}.jsonl", stem(key)))
    }

    /// The path of a file that is being written, or whose download broke off.
    pub fn part_path(&self, key: &str, kind: SpoolKind) -> PathBuf {
        self.path(key, kind).with_extension("part")
    }

    /// Begins a batch's file under another name; [`PartFile::finish`] gives it its own.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(&self, key: &str, kind: SpoolKind) -> io::Result<PartFile> {
        let path = self.path(key, kind);
        let part = self.part_path(key, kind);
        Ok(PartFile {
            writer: BufWriter::with_capacity(BUFFER, create_private(&part)?),
            part,
            path,
            folder: self.folder.clone(),
        })
    }

    /// Gives a part the name of a whole file, durably.
    ///
    /// # Errors
    /// When it is not there, or the disk refuses.
    pub fn accept_part(&self, key: &str, kind: SpoolKind) -> io::Result<PathBuf> {
        let path = self.path(key, kind);
        let part = self.part_path(key, kind);
        File::open(&part)?.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }

    /// Removes a batch's file and what is left of a broken download of it, if they are there.
    ///
    /// # Errors
    /// When one is there and cannot be removed.
    pub fn remove(&self, key: &str, kind: SpoolKind) -> io::Result<()> {
        for path in [self.path(key, kind), self.part_path(key, kind)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes every file of the spool that is of no use any more: a killed process leaves one when its batch's row was
    /// settled first. `live` holds the key of each batch that is not over, with whether its input may still
    /// be sent. No worker may use the spool meanwhile.
    ///
    /// # Errors
    /// When the folder cannot be read or a file cannot be removed.
    pub fn sweep(&self, live: &HashMap<String, bool>) -> io::Result<()> {
        let live: HashMap<String, bool> = live
            .iter()
            .map(|(key, may_be_sent)| (stem(key), *may_be_sent))
            .collect();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((stem, kind)) = name.to_str().and_then(parse_name) else {
                continue;
            };
            let is_of_use = live
                .get(stem)
                .is_some_and(|may_be_sent| *may_be_sent || kind != SpoolKind::Input);
            if !is_of_use && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
                log::info!(event = "swept", file:% = name.display(); "");
            }
        }
        Ok(())
    }
}

/// The stem and the kind of a file with a name of the spool's.
fn parse_name(name: &str) -> Option<(&str, SpoolKind)> {
    let (stem, rest) = name.split_once('.')?;
    let kind = rest
        .strip_suffix(".jsonl")
        .or_else(|| rest.strip_suffix(".part"))?;
    let is_key = !stem.is_empty()
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    Some((stem, kind.parse().ok().filter(|_| is_key)?))
}

/// The beginning of a file's name, up to its first dot. The key of a second batch of one submission holds
/// a `#`.
fn stem(key: &str) -> String {
    key.replace('#', "-")
}

/// A file that is being written; it has its own name once it is whole and durable.
#[derive(Debug)]
pub struct PartFile {
    writer: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    folder: PathBuf,
}

impl PartFile {
    /// Leaves the file as a part, which may be incomplete.
    ///
    /// # Errors
    /// When the disk refuses the rest of it.
    pub fn leave(mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Makes the file durable under its own name.
    ///
    /// # Errors
    /// When the disk refuses the rest of it.
    pub fn finish(self) -> io::Result<PathBuf> {
        let file = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(self.path)
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::new(folder.path().to_owned());
        let path = spool.path("k#b", SpoolKind::Output);
        assert_eq!(path.file_name(), Some("k-b.output.jsonl".as_ref()));
        let mut file = spool.create("k#b", SpoolKind::Output).expect("a file");
        file.write_all(b"a line\n").expect("written");
        assert!(!path.exists());
        assert_eq!(file.finish().expect("durable"), path);
        assert_eq!(fs::read(&path).expect("there"), b"a line\n");
        spool.remove("k#b", SpoolKind::Output).expect("removed");
        spool.remove("k#b", SpoolKind::Output).expect("gone before");
    }

    #[test]
    fn only_files_of_live_batches_outlive_a_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::new(folder.path().to_owned());
        for name in [
            "unsent.input.jsonl",
            "sent.input.jsonl",
            "sent.output.part",
            "over.error.jsonl",
            "over.output.part",
            "notes.txt",
            "over.error.jsonl.bak",
            ".hidden.input.jsonl",
        ] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        let live = HashMap::from([("unsent".to_owned(), true), ("sent".to_owned(), false)]);
        spool.sweep(&live).expect("swept");
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("a file").file_name())
            .collect();
        left.sort();
        let ours = ["sent.output.part", "unsent.input.jsonl"];
        let others = [".hidden.input.jsonl", "notes.txt", "over.error.jsonl.bak"];
        assert_eq!(left, [others[0], others[1], others[2], ours[0], ours[1]]);
    }
}
