//! What this server has signed, beside its databases: of each origin the newest checkpoint, in a file of its own in the
//! directory `merkle_log_origins` of the data directory, and with it those that are known to have been signed elsewhere
//! and that no checkpoint signed here contains yet.
//!
//! The rows of a database go with it: when it is dropped, or its extension, or when another database of the server gives
//! a log the same origin. A signature stays. So nothing is signed under an origin that does not contain what the file
//! says. It is written before the note is handed out, by one process at a time, and what was in it survives a crash.

use crate::error::{CheckpointError, Error};
use crate::pg::server;
use crate::pg::wait;
use crate::settings;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tlog::{Checkpoint, SignedNote};

const DIRECTORY: &str = "merkle_log_origins";
const POLL: Duration = Duration::from_millis(5);

/// What is on file of an origin.
#[derive(Serialize, Deserialize)]
struct OnFile {
    database: String,
    note: String,
    #[serde(default)]
    others: Vec<String>,
}

/// Checkpoints that are signed under an origin, the newest of this server first, and the database that signed it.
pub struct Known {
    pub database: String,
    pub checkpoints: Vec<Checkpoint>,
}

/// Checkpoints signed elsewhere that a file holds at most.
const OTHERS: usize = 100;

/// The file of one origin. As long as this lives, no other process writes it.
pub struct Memory {
    origin: String,
    path: PathBuf,
    _lock: File,
}

impl Memory {
    /// Waits until no other process signs under this origin.
    ///
    /// # Errors
    /// If another does for as long as a batch waits at the fence, or the directory cannot be written.
    pub fn lock(log: &str, origin: &str) -> Result<Memory, Error> {
        let directory = server::data_directory().join(DIRECTORY);
        let name: String = Sha256::digest(origin)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let path = directory.join(name);
        let failed = |e: io::Error| error(origin, &path, &e);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
        match made {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(failed)?;
        let deadline = Instant::now() + settings::fence_timeout();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => wait::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy {
                        log: log.to_owned(),
                        by: format!("another process that signs under the origin \"{origin}\""),
                    });
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Ok(Memory {
            origin: origin.to_owned(),
            path,
            _lock: lock,
        })
    }

    /// # Errors
    /// If the file cannot be read, or is damaged: it is never taken for an absent one.
    pub fn known(&self) -> Result<Option<Known>, Error> {
        let Some(on_file) = self.read()? else {
            return Ok(None);
        };
        let notes = std::iter::once(&on_file.note).chain(&on_file.others);
        let checkpoints = notes.map(|note| self.checkpoint(note));
        let checkpoints: Option<Vec<Checkpoint>> = checkpoints.collect();
        Ok(Some(Known {
            checkpoints: checkpoints.ok_or_else(|| self.damaged())?,
            database: on_file.database,
        }))
    }

    fn read(&self) -> Result<Option<OnFile>, Error> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(&self.origin, &self.path, &e)),
        };
        let on_file = serde_json::from_slice(&bytes);
        on_file.map(Some).map_err(|_| self.damaged())
    }

    /// What a note says, if it is a checkpoint of the origin.
    fn checkpoint(&self, note: &str) -> Option<Checkpoint> {
        let note: SignedNote = note.parse().ok()?;
        let checkpoint: Checkpoint = note.text().parse().ok()?;
        (checkpoint.origin() == self.origin).then_some(checkpoint)
    }

    fn damaged(&self) -> Error {
        error(&self.origin, &self.path, &"is damaged")
    }

    /// A checkpoint whose tree contains all that are on file takes their place, durably.
    ///
    /// # Errors
    /// If it is of another origin, or smaller than what is on file, or the file cannot be written.
    pub fn replace(&self, database: String, note: &SignedNote) -> Result<(), Error> {
        let note = note.to_string();
        let known = self.known()?;
        let follows = |new: &Checkpoint| {
            let mut known = known.iter().flat_map(|known| &known.checkpoints);
            known.all(|old| old.size() < new.size() || is_same(old, new))
        };
        if !self.checkpoint(&note).is_some_and(|new| follows(&new)) {
            let problem = "what is to be signed does not follow it";
            return Err(error(&self.origin, &self.path, &problem));
        }
        let others = Vec::new();
        self.store(&OnFile {
            database,
            note,
            others,
        })
    }

    /// Adds a checkpoint that is known to have been signed, durably.
    ///
    /// # Errors
    /// If it is of another origin, or the file cannot be written, or holds too many.
    pub fn add(&self, database: String, note: &SignedNote) -> Result<(), Error> {
        let text = note.to_string();
        let new = self.checkpoint(&text).ok_or_else(|| self.damaged())?;
        let Some(known) = self.known()? else {
            let others = Vec::new();
            return self.store(&OnFile {
                database,
                note: text,
                others,
            });
        };
        if known.checkpoints.iter().any(|old| is_same(old, &new)) {
            return Ok(());
        }
        let mut on_file = self.read()?.ok_or_else(|| self.damaged())?;
        if on_file.others.len() == OTHERS {
            let problem = "holds too many checkpoints that the log does not contain";
            return Err(error(&self.origin, &self.path, &problem));
        }
        on_file.others.push(text);
        self.store(&on_file)
    }

    fn store(&self, on_file: &OnFile) -> Result<(), Error> {
        let bytes = serde_json::to_vec(on_file).expect("texts are JSON");
        self.write(&bytes)
            .map_err(|e| error(&self.origin, &self.path, &e))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        // The directory itself may be new.
        File::open(directory.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn is_same(a: &Checkpoint, b: &Checkpoint) -> bool {
    (a.size(), a.root()) == (b.size(), b.root())
}

fn error(origin: &str, path: &Path, problem: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(CheckpointError::Memory {
        origin: origin.to_owned(),
        path: path.display().to_string(),
        problem: problem.to_string(),
    })
}
