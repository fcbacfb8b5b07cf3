//! Where the simulated OpenAI keeps its state: a folder, or memory.
//!
//! In a folder each file is written under a temporary name and renamed, so that the state survives `kill -9` at
//! any instruction. There is no `fsync`: a power cut may cost the sandbox its state, which is worth no money.
//! In memory there are contents alone. Records stay in their maps, because nothing is ever opened again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lock::lock;

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sandbox state {}: {message}", path.display())]
pub struct StateFolderError {
    path: PathBuf,
    message: String,
}

impl StateFolderError {
    /// The error of one path.
    pub(super) fn new(path: &Path, why: &dyn Display) -> Self {
        Self {
            path: path.to_owned(),
            message: why.to_string(),
        }
    }
}

/// The place of the state. Names are paths below it, such as `files/ID.data`.
#[derive(Clone)]
pub enum Storage {
    /// A folder, which a later start opens again.
    Folder(PathBuf),
    /// The contents of files by name; they end with the last clone.
    Memory(Arc<Mutex<BTreeMap<String, Arc<[u8]>>>>),
}

/// The bytes of a file, open for reading.
pub enum Content {
    /// A file of a folder.
    Disk(File),
    /// Bytes in memory.
    Memory(Cursor<Arc<[u8]>>),
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read(into),
            Self::Memory(bytes) => bytes.read(into),
        }
    }
}

impl Seek for Content {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Disk(file) => file.seek(to),
            Self::Memory(bytes) => bytes.seek(to),
        }
    }
}

impl Storage {
    /// Creates a subfolder where needed.
    pub fn create_folder(&self, name: &str) -> io::Result<()> {
        match self {
            Self::Folder(folder) => fs::create_dir_all(folder.join(name)),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Locks the folder for as long as the file is open, so that no second sandbox writes there.
    pub fn lock_folder(folder: &Path) -> Result<File, StateFolderError> {
        let path = folder.join("lock");
        let file = File::create(&path).map_err(|error| StateFolderError::new(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StateFolderError::new(
                folder,
                &"another sandbox uses this folder; name another one with --state",
            )),
            Err(TryLockError::Error(error)) => Err(StateFolderError::new(&path, &error)),
        }
    }

    /// Replaces a whole file, or leaves the old one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let temporary = temporary(&path);
                File::create(&temporary)?.write_all(bytes)?;
                fs::rename(&temporary, path)
            }
            Self::Memory(files) => {
                lock(files).insert(name.to_owned(), bytes.into());
                Ok(())
            }
        }
    }

    /// Replaces a file with a record as JSON. In memory the caller's own copy is the record.
    pub fn write_record(&self, name: &str, record: &impl Serialize) -> io::Result<()> {
        match self {
            Self::Folder(_) => self.write(name, &serde_json::to_vec(record)?),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Opens a file for reading.
    pub fn open(&self, name: &str) -> io::Result<Content> {
        match self {
            Self::Folder(folder) => Ok(Content::Disk(File::open(folder.join(name))?)),
            Self::Memory(files) => {
                let bytes = lock(files).get(name).cloned();
                let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
                Ok(Content::Memory(Cursor::new(bytes)))
            }
        }
    }

    /// Removes a file; it is no error if there is none.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Self::Folder(folder) => match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Self::Memory(files) => {
                lock(files).remove(name);
                Ok(())
            }
        }
    }

    /// Gives a file's content a second name.
    pub fn link(&self, from: &str, to: &str) -> io::Result<()> {
        match self {
            Self::Folder(folder) => {
                let (from, to) = (folder.join(from), folder.join(to));
                match fs::hard_link(&from, &to) {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    Err(_) => fs::copy(&from, &to).map(|_| ()),
                }
            }
            Self::Memory(files) => {
                let mut files = lock(files);
                let bytes = files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
                files.insert(to.to_owned(), bytes);
                Ok(())
            }
        }
    }

    /// Reads a record; `None` if there is no such file.
    pub fn read_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateFolderError> {
        let Self::Folder(folder) = self else {
            return Ok(None);
        };
        let path = folder.join(name);
        let failed = |error: &dyn Display| StateFolderError::new(&path, error);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Reads every `*.json` record of a subfolder, which is created where needed.
    pub fn read_records<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, StateFolderError> {
        let Self::Folder(folder) = self else {
            return Ok(Vec::new());
        };
        let path = folder.join(name);
        let failed = |error: io::Error| StateFolderError::new(&path, &error);
        self.create_folder(name).map_err(failed)?;
        let mut records = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            let file = file.to_string_lossy();
            if file.ends_with(".json") {
                records.extend(self.read_record::<T>(&format!("{name}/{file}"))?);
            }
        }
        Ok(records)
    }
}

/// The temporary name under which a file is written.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

enum Sink {
    Disk(BufWriter<File>),
    Memory(Vec<u8>),
}

/// Writes a file of lines, which is created with its first line and gets its name at the end.
pub struct LineWriter {
    storage: Storage,
    name: String,
    sink: Option<Sink>,
    bytes: u64,
}

impl LineWriter {
    /// A writer that has created nothing yet.
    pub fn new(storage: &Storage, name: String) -> Self {
        Self {
            storage: storage.clone(),
            name,
            sink: None,
            bytes: 0,
        }
    }

    /// Writes a line. Its line feed comes with the next line, or at the end.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.sink.is_some() {
            self.write(b"\n")?;
        }
        self.write(line)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => none.insert(match &self.storage {
                Storage::Folder(folder) => {
                    let file = File::create(temporary(&folder.join(&self.name)))?;
                    Sink::Disk(BufWriter::with_capacity(1 << 18, file))
                }
                Storage::Memory(_) => Sink::Memory(Vec::new()),
            }),
        };
        match sink {
            Sink::Disk(file) => file.write_all(bytes)?,
            Sink::Memory(all) => all.extend_from_slice(bytes),
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    /// Ends the last line, if `is_ended`, and gives the file its name. The result is the file's size; `None` if
    /// there was no line.
    pub fn finish(mut self, is_ended: bool) -> io::Result<Option<u64>> {
        if self.sink.is_some() && is_ended {
            self.write(b"\n")?;
        }
        match (self.sink, &self.storage) {
            (Some(Sink::Disk(mut file)), Storage::Folder(folder)) => {
                file.flush()?;
                let path = folder.join(&self.name);
                fs::rename(temporary(&path), &path)?;
            }
            (Some(Sink::Memory(bytes)), storage) => storage.write(&self.name, &bytes)?,
            _ => return Ok(None),
        }
        Ok(Some(self.bytes))
    }
}
