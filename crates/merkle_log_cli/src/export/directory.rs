//! A tree in a directory. Files are written beside the tree and renamed into it, so that readers see whole ones;
//! before a checkpoint is, all that it speaks of is on the disk.

use super::target::{CHECKPOINT, File};
use super::{Stop, said};
use crate::output::Failure;
use bytes::Bytes;
use std::fs::{self, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where files are until they are whole. Nobody but the exporter looks there.
const STAGING: &str = ".merkle-log-staging";
const LOCK: &str = ".merkle-log-lock";

#[derive(Clone)]
pub struct Directory {
    root: PathBuf,
    /// Held for as long as this exporter may write.
    lock: Arc<fs::File>,
}

impl Directory {
    pub fn open(root: &Path) -> Result<Directory, Failure> {
        fs::create_dir_all(root).map_err(Failure::of(root))?;
        let path = root.join(LOCK);
        let lock = fs::File::create(&path).map_err(Failure::of(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Said(format!(
                    "{}: another export is at work there",
                    root.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::of(&path)(error)),
        }
        // What an exporter that was killed did not finish.
        let staging = root.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::of(&staging)(error));
            }
            _ => {}
        }
        fs::create_dir(&staging).map_err(Failure::of(&staging))?;
        Ok(Directory {
            root: root.to_owned(),
            lock: Arc::new(lock),
        })
    }

    pub fn read(&self, path: &str) -> Result<Option<Bytes>, Stop> {
        let path = self.root.join(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::of(&path)(error).into()),
        }
    }

    pub async fn write(&self, files: Vec<File>) -> Result<(), Stop> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.write_in_parallel(&files)).await??;
        Ok(())
    }

    fn write_in_parallel(&self, files: &[File]) -> Result<(), Failure> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = files.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let write = |(thread, files): (usize, &'_ [File])| {
                let staged = self.root.join(STAGING).join(thread.to_string());
                files.iter().try_for_each(|file| {
                    let path = self.root.join(file.path.to_string());
                    fs::write(&staged, &file.bytes).map_err(Failure::of(&staged))?;
                    rename(&staged, &path).map_err(Failure::of(&path))
                })
            };
            let started: Vec<_> = files
                .chunks(share)
                .enumerate()
                .map(|part| scope.spawn(move || write(part)))
                .collect();
            let mut ended = started.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::Said("a thread panicked".to_owned())))
            });
            ended.try_for_each(|written| written)
        })
    }

    /// Brings all that was written to the disk.
    pub fn sync(&self) -> Result<(), Stop> {
        Ok(rustix::fs::syncfs(&self.lock)?)
    }

    pub fn publish(&self, note: &str) -> Result<(), Stop> {
        let (staged, path) = (
            self.root.join(STAGING).join(CHECKPOINT),
            self.root.join(CHECKPOINT),
        );
        let write = || {
            let mut file = fs::File::create(&staged)?;
            file.write_all(note.as_bytes())?;
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            fs::File::open(&self.root)?.sync_all()
        };
        write().map_err(Failure::of(&path)).map_err(Stop::Failed)
    }

    /// The names of the files in a directory, which need not exist.
    pub fn list(&self, directory: &str) -> Result<Vec<String>, Stop> {
        let path = self.root.join(directory);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Failure::of(&path))?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        Ok(names
            .collect::<std::io::Result<_>>()
            .map_err(Failure::of(&path))?)
    }

    pub fn remove(&self, directory: &str) -> Result<(), Stop> {
        let path = self.root.join(directory);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(said(format!("{}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match (fs::rename(from, to), to.parent()) {
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(parent)?;
            fs::rename(from, to)
        }
        (renamed, _) => renamed,
    }
}
