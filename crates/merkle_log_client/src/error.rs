//! Why the client does not believe what it was shown, or could not look.

use std::path::PathBuf;
use tlog::SignedNote;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A note, a tile or a proof is malformed, or not signed by someone known.
    #[error(transparent)]
    Tlog(#[from] tlog::Error),
    /// The log shows another history than before. Both checkpoints carry its signature: keep them, they are
    /// the evidence.
    #[error("the log shows a history that is not the one it showed before: {why}")]
    NotConsistent {
        kept: Box<SignedNote>,
        shown: Box<SignedNote>,
        why: tlog::Error,
    },
    /// The log shows fewer entries than before. A mirror may lag; a log that stays so has lost entries.
    #[error("the log shows {shown} entries, and has shown {kept} before")]
    Older { kept: u64, shown: u64 },
    #[error("this is the log {shown:?}, and what was kept is of the log {kept:?}")]
    OtherLog { kept: String, shown: String },
    #[error("nothing was kept yet: ask for the latest checkpoint first")]
    NothingKept,
    #[error("entry {index} is not in the log, which has {size}")]
    NoSuchEntry { index: u64, size: u64 },
    /// The file that keeps the checkpoint. It is never replaced when it cannot be read.
    #[error("{path}: {error}")]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the log does not serve {path}")]
    Missing { path: String },
    #[error("{path} could not be read in {attempts} attempts: {why}")]
    Unreachable {
        path: String,
        attempts: u32,
        why: String,
    },
    #[error("others keep newer checkpoints faster than this one can be compared with them")]
    Busy,
    #[cfg(feature = "tokio")]
    #[error("the task was ended")]
    Ended,
}
