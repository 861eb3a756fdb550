//! Where the files of a log are.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;

/// Reads the files of one log, by their paths below its prefix (C2SP tlog-tiles).
pub trait Transport: Send + Sync {
    /// A file's content.
    ///
    /// # Errors
    /// If the file is not there, cannot be read, or has more than `limit` bytes.
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError>;
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("there is no such file")]
    NotFound,
    /// Worth another attempt.
    #[error("{0}")]
    Passing(String),
    #[error("{0}")]
    Lasting(String),
}

/// An exported log in a directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into() }
    }
}

impl Transport for Directory {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        let path = self.path.join(path);
        // What is no file, such as a pipe, might be waited for and read for ever.
        let opened = match std::fs::metadata(&path) {
            Ok(of) if !of.is_file() => Err(std::io::Error::other("is no file")),
            Ok(_) => std::fs::File::open(path),
            Err(error) => Err(error),
        };
        match opened {
            Ok(file) => read_at_most(file, limit),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(TransportError::NotFound),
            Err(error) => Err(TransportError::Lasting(error.to_string())),
        }
    }
}

impl<T: Transport + ?Sized> Transport for std::sync::Arc<T> {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        (**self).get(path, limit)
    }
}

/// All that there is to read, if it is not more than `limit` bytes.
pub(crate) fn read_at_most(reader: impl Read, limit: u64) -> Result<Vec<u8>, TransportError> {
    let mut bytes = Vec::new();
    let read = reader.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| TransportError::Passing(error.to_string()))?;
    match bytes.len() as u64 > limit {
        true => Err(TransportError::Lasting(format!(
            "it has more than {limit} bytes"
        ))),
        false => Ok(bytes),
    }
}
