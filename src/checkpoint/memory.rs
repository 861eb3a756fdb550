//! What this server has signed, beside its databases: of each origin the newest checkpoint, in a file of its own in the
//! directory `merkle_log_origins` of the data directory.
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
}

/// The newest checkpoint under an origin, and the database that signed it.
pub struct Newest {
    pub database: String,
    pub checkpoint: Checkpoint,
}

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
    pub fn newest(&self) -> Result<Option<Newest>, Error> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(&self.origin, &self.path, &e)),
        };
        let damaged = || error(&self.origin, &self.path, &"is damaged");
        let on_file: OnFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let note: SignedNote = on_file.note.parse().map_err(|_| damaged())?;
        let checkpoint: Checkpoint = note.text().parse().map_err(|_| damaged())?;
        match checkpoint.origin() == self.origin {
            true => Ok(Some(Newest {
                database: on_file.database,
                checkpoint,
            })),
            false => Err(damaged()),
        }
    }

    /// Takes the place of what was on file, durably.
    ///
    /// # Errors
    /// If it is of another origin, does not follow what was on file, or cannot be written.
    pub fn replace(&self, database: String, note: &SignedNote) -> Result<(), Error> {
        let follows = |checkpoint: Checkpoint| {
            let follows = self.newest()?.is_none_or(
                |Newest {
                     checkpoint: known, ..
                 }| {
                    known.size() < checkpoint.size()
                        || (known.size(), known.root()) == (checkpoint.size(), checkpoint.root())
                },
            );
            Ok::<bool, Error>(follows && checkpoint.origin() == self.origin)
        };
        let checkpoint = note.text().parse().ok();
        if !checkpoint.map(follows).transpose()?.unwrap_or(false) {
            let problem = "what is to be signed does not follow it";
            return Err(error(&self.origin, &self.path, &problem));
        }
        let note = note.to_string();
        let bytes = serde_json::to_vec(&OnFile { database, note }).expect("texts are JSON");
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

fn error(origin: &str, path: &Path, problem: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(CheckpointError::Memory {
        origin: origin.to_owned(),
        path: path.display().to_string(),
        problem: problem.to_string(),
    })
}
