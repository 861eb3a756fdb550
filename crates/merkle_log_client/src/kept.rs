//! The file that keeps the last checkpoint. It is replaced as a whole, by one process at a time, and what
//! was in it survives a crash at any moment.

use crate::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tlog::SignedNote;

/// A file that keeps one checkpoint. Two files stand beside it: `<file>.lock`, which is never replaced or removed, and
/// for moments `<file>.new`.
///
/// ```
/// use merkle_log_client::Kept;
/// # let directory = tempfile::tempdir()?;
/// # let file = directory.path().join("kept");
/// # let mut note = tlog::SignedNote::new("example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")?;
/// # let key = tlog::SigningKey::from_seed(tlog::KeyName::new("example.com/log")?, tlog::SignatureType::Ed25519, &[1; 32])?;
/// # note.sign(&key, 0)?;
/// let kept = Kept::new(file);
/// let lock = kept.lock()?;
/// // What is read under the lock is what is replaced: compare the two before.
/// let before = kept.read()?;
/// kept.replace(&note, &lock)?;
/// # assert_eq!((before, kept.read()?), (None, Some(note)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
}

/// As long as this lives, nobody else replaces the file, in this process or another.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Kept {
    /// The file need not be there yet; its directory must.
    pub fn new(path: impl Into<PathBuf>) -> Kept {
        Kept { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint, if one was ever kept. Its signatures are not verified.
    ///
    /// # Errors
    /// If the file cannot be read, or is no note: it is never taken for an absent one.
    pub fn read(&self) -> Result<Option<SignedNote>, Error> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(Some(SignedNote::from_bytes(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Waits until nobody else has the lock. It is on a file beside the checkpoint's, which is never replaced.
    ///
    /// # Errors
    /// If that file cannot be made or locked.
    pub fn lock(&self) -> Result<Lock, Error> {
        let locked = self.lock_file().and_then(|file| {
            file.lock()?;
            Ok(Lock { _file: file })
        });
        locked.map_err(|error| self.failed(error))
    }

    /// The lock, or none if someone else has it.
    ///
    /// # Errors
    /// As [`Kept::lock`].
    pub fn try_lock(&self) -> Result<Option<Lock>, Error> {
        let locked = self.lock_file().and_then(|file| match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        });
        locked.map_err(|error| self.failed(error))
    }

    /// Puts another checkpoint in the place of the kept one. It is on disk when this returns.
    ///
    /// # Errors
    /// If it may not be on disk. Then either checkpoint may be the kept one: read it again.
    pub fn replace(&self, note: &SignedNote, _lock: &Lock) -> Result<(), Error> {
        self.write(note).map_err(|error| self.failed(error))
    }

    fn lock_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.beside("lock"))
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
