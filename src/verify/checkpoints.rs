//! Checkpoints held against the tree heads, the keys that signed them, and what was accepted.

use super::finding::{Finding, Kind};
use crate::catalog::logs::Log;
use crate::checkpoint::contains;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::checkpoints::{self, Stored};
use crate::store::heads::Head;
use merkle_tree::EMPTY_ROOT;
use tlog::{Checkpoint, SignedNote, VerifierKey};

/// What is wrong with the next checkpoints of a log, at most `limit` behind a size, and the size of the last of them;
/// `None` behind the last. The heads themselves are checked by the recomputation of the tree.
pub fn page(session: &Session, log: &Log, after: i64, limit: i64) -> Option<(Vec<Finding>, i64)> {
    let page = checkpoints::with_heads(session, log, after, limit);
    let (last, _) = page.last()?;
    let last = last.tree_size;
    let finding = |(stored, root): &(Stored, Option<Vec<u8>>)| {
        let why = mismatch(stored, root.as_deref())?;
        Some(finding(
            stored.tree_size,
            &stored.root,
            root.as_deref(),
            why,
        ))
    };
    Some((page.iter().filter_map(finding).collect(), last))
}

/// What the log, whose latest head is `head`, does not contain of the checkpoints that are known to have been signed.
pub fn accepted(session: &Session, log: &Log, head: &Head) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for known in checkpoints::accepted(session, Snapshot::Statement, log)? {
        pgrx::check_for_interrupts!();
        let why = match contains(session, log, head, &known) {
            Ok(()) => continue,
            Err(error @ Error::Checkpoint(_)) => error.to_string(),
            Err(error) => return Err(error),
        };
        let root = known.root.as_bytes().as_slice();
        findings.push(finding(known.tree_size, root, None, why));
    }
    Ok(findings)
}

fn finding(size: i64, signed: &[u8], head: Option<&[u8]>, why: String) -> Finding {
    Finding {
        expected: Some(signed.to_vec()),
        actual: head.map(<[u8]>::to_vec),
        ..Finding::of_log(
            Kind::CheckpointMismatch,
            (size > 0).then_some(size - 1),
            why,
        )
    }
}

fn mismatch(stored: &Stored, head: Option<&[u8]>) -> Option<String> {
    let size = stored.tree_size;
    let says = |what: &str| Some(format!("the checkpoint of size {size} {what}"));
    let Ok(note) = stored.note.parse::<SignedNote>() else {
        return says("is no signed note");
    };
    let Ok(checkpoint) = note.text().parse::<Checkpoint>() else {
        return says("has no size and root");
    };
    let is_as_stored = checkpoint.size().get() as i64 == size
        && checkpoint.root().as_bytes().as_slice() == stored.root
        && checkpoint.origin() == stored.origin;
    if !is_as_stored {
        return says("is not what its row says");
    }
    let key = stored.verifier_key.parse::<VerifierKey>();
    let verified =
        key.map(|key| key.name().as_str() == stored.origin && note.verify([&key]).is_ok());
    if verified != Ok(true) {
        return says("is not signed by the key of its row");
    }
    match head {
        Some(root) if root == stored.root => None,
        Some(_) => says("has another root than the tree head of that size"),
        None if size == 0 && stored.root == EMPTY_ROOT.as_bytes() => None,
        None => says("has no tree head"),
    }
}
