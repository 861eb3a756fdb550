//! The file that keeps the last checkpoint. It is replaced as a whole, by one process at a time, and what
//! was in it survives a crash at any moment.

use crate::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tlog::SignedNote;

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    path: PathBuf,
}

/// As long as this lives, no other process replaces the file.
pub(crate) struct Lock {
    _file: File,
}

impl Kept {
    pub(crate) fn new(path: PathBuf) -> Kept {
        Kept { path }
    }

    /// The checkpoint, if one was ever kept.
    ///
    /// # Errors
    /// If the file cannot be read, or is no note: it is never taken for an absent one.
    pub(crate) fn read(&self) -> Result<Option<SignedNote>, Error> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(Some(SignedNote::from_bytes(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Waits until no other process has the lock. It is on a file beside the checkpoint's, which is never
    /// replaced.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.beside("lock"));
        let locked = open.and_then(|file| file.lock().map(|()| Lock { _file: file }));
        locked.map_err(|error| self.failed(error))
    }

    pub(crate) fn replace(&self, note: &SignedNote, _lock: &Lock) -> Result<(), Error> {
        self.write(note).map_err(|error| self.failed(error))
    }

    fn write(&self, note: &SignedNote) -> io::Result<()> {
        let new = self.beside("new");
        let mut file = File::create(&new)?;
        file.write_all(note.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let directory = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(extension);
        name.into()
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            error,
        }
    }
}
