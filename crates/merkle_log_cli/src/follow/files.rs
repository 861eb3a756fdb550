//! Files that a crash at any moment leaves as they were before or as they are after, and never between.

use crate::output::Failure;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Replaces a file as a whole; after this it is on disk. One process at a time may do so ([`lock`]).
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// A file's content, if it is there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A directory, made if need be, for this process alone as long as what is returned lives.
pub fn lock(directory: &Path) -> Result<File, Failure> {
    std::fs::create_dir_all(directory).map_err(Failure::of(directory))?;
    let path = directory.join("lock");
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = open.map_err(Failure::of(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(Failure::of(&path)(error)),
        Err(TryLockError::WouldBlock) => Err(Failure::Said(format!(
            "{} is used by another process\nHint: Give each its own directory, or let one follow all logs.",
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
