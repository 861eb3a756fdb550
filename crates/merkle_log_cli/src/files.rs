//! Files that a crash at any moment leaves as they were before or as they are after, and never between.

use crate::output::Failure;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Replaces a file as a whole; after this it is on disk. One process at a time may do so ([`lock`]).
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = write(Path::new(&new), path, content);
    if written.is_err() {
        // Nobody else would: what is not whole is of no use.
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn write(new: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    sync(parent(path))
}

fn parent(path: &Path) -> &Path {
    let directory = path.parent();
    let directory = directory.filter(|path| !path.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes certain that a file that was found survives a failure of power: who wrote it may have been killed before.
pub fn settle(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync(parent(path))
}

/// Makes a directory that only its owner and the owner's group can read, unless it is there; it is on disk when this returns.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o750).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync(parent(directory))),
    }
}

/// A file's content, if it is there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A directory, made if need be, for this process alone as long as what is returned lives. The lock is on the directory
/// itself: there is no file that somebody could remove.
pub fn lock(directory: &Path) -> Result<File, Failure> {
    std::fs::create_dir_all(directory).map_err(Failure::of(directory))?;
    let file = File::open(directory).map_err(Failure::of(directory))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(Failure::of(directory)(error)),
        Err(TryLockError::WouldBlock) => Err(Failure::Said(format!(
            "another process has the state in {}\nHint: Give each a directory of its own, and each witness a key of its own.",
            directory.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_a_directory_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/here");
        let held = lock(&path).unwrap();
        assert!(lock(&path).is_err());
        // Nothing in it keeps others out.
        for entry in std::fs::read_dir(&path).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert!(lock(&path).is_err());
        drop(held);
        lock(&path).unwrap();
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path).unwrap(), None);
        for content in ["first", "second, longer", ""] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), content.as_bytes());
        }
        // A directory where a file should be is an error, and not an absent file.
        assert!(read(directory.path()).is_err());
    }
}
