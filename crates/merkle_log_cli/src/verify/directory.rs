//! An exported directory (C2SP tlog-tiles): every entry and every tile are hashed again, up to the root that
//! the log has signed.

use super::{Finding, Report, Trust};
use crate::rehash::{Fault, Rehash, Tree, Wanted};
use merkle_log_client::{self as client, Retry};
use std::path::Path;
use tlog::{Checkpoint, SignedNote, VerifiedCheckpoint};

/// What a directory proved to be.
#[derive(Debug)]
pub struct Directory {
    pub checkpoint: VerifiedCheckpoint,
    /// The entries before this index are not there: their bundles are missing. Their hashes are, but for those of pruned
    /// entries.
    pub first_entry: u64,
    /// Of the entries before this index not even all hashes are there, only those of whole tiles: they were pruned.
    pub pruned_to: u64,
    /// How many other entries are there as hashes only: withheld.
    pub withheld: u64,
    /// How many tiles were compared with what follows from the level below.
    pub tiles: u64,
    /// The kept checkpoint that the directory was found to contain.
    pub since: Option<Checkpoint>,
}

pub fn verify(directory: &Path, trust: &Trust) -> Result<Report, Finding> {
    let path = directory.join("checkpoint");
    let note = read(&path).map_err(Finding::unreadable(&path))?;
    let checkpoint = trust.policy.verify(&SignedNote::from_bytes(&note)?)?;
    let tree = Tree {
        transport: &client::Directory::new(directory),
        retry: &Retry::default(),
        size: checkpoint.checkpoint.size(),
    };
    let mut rehash = Rehash::new(Wanted::AllButPruned, trust.since.clone());
    while !rehash.step(&tree, &checkpoint.checkpoint)? {}
    contains(&checkpoint.checkpoint, trust.since.as_ref())?;
    Ok(Report::Directory(Directory {
        checkpoint,
        first_entry: rehash.first_entry,
        pruned_to: rehash.pruned_to,
        withheld: rehash.withheld,
        tiles: rehash.tiles,
        since: trust.since.clone(),
    }))
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Finding {
        match fault {
            Fault::Unread(what) => Finding::Unknown(what),
            fault => Finding::Bad(fault.to_string()),
        }
    }
}

/// That the kept checkpoint can be one of the tree's, which was compared on the way.
fn contains(checkpoint: &Checkpoint, since: Option<&Checkpoint>) -> Result<(), Finding> {
    match since {
        Some(since) if since.origin() != checkpoint.origin() => Err(Finding::Unknown(
            "the checkpoint that you have kept is another log's".to_owned(),
        )),
        Some(since) if since.size() > checkpoint.size() => Err(Finding::Unknown(format!(
            "the checkpoint that you have kept has {} entries, this has {}",
            since.size(),
            checkpoint.size()
        ))),
        _ => Ok(()),
    }
}

/// A file of the directory. What is none, such as a pipe, might be read for ever.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match std::fs::metadata(path)?.is_file() {
        true => std::fs::read(path),
        false => Err(std::io::Error::other("is no file")),
    }
}
