//! The tree of a log a second time, from its entries, on top of what was signed last.
//!
//! A root that is signed cannot be taken back, so it is not taken from where it is stored. The edge of the tree at the
//! last checkpoint is read from tiles and must lead to the root that was signed; then every leaf hash since is hashed up
//! again. The result must be the head's root, and the tiles on the way those that are stored. So the new tree extends
//! the signed one, and proofs of it can be made.

use crate::catalog::logs::Log;
use crate::error::{CheckpointError, Error};
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use crate::store::heads::Head;
use crate::store::tree::{TreeReader, tree_error, tree_size};
use merkle_tree::{Frontier, Hash, HashReader};

/// Entries that are read at once.
const CHUNK: i64 = 4096;

/// That the tree of `head` is that of the entries, and extends the tree of `signed` entries with that root.
pub fn check(
    session: &Session,
    log: &Log,
    head: &Head,
    signed: Option<(i64, Hash)>,
) -> Result<(), Error> {
    let contradiction = |problem: String| {
        let log = log.name.clone();
        Error::Checkpoint(CheckpointError::Contradiction { log, problem })
    };
    let (signed_size, signed_root) = signed.unwrap_or((0, merkle_tree::EMPTY_ROOT));
    let mut reader = TreeReader::new(session, log, Snapshot::Fresh);
    let mut frontier = edge(log, &mut reader, signed_size)?;
    if frontier.root() != signed_root {
        return Err(Error::Checkpoint(CheckpointError::Rewritten {
            log: log.name.clone(),
            size: signed_size,
            signed: signed_root.to_string(),
            root: frontier.root().to_string(),
        }));
    }
    // Of pruned entries there are no hashes to begin with; tiles prove that what is left extends what was signed.
    if signed_size < log.pruned_to {
        let (old, new) = (
            tree_size(log, signed_size)?,
            tree_size(log, head.tree_size)?,
        );
        let proof = merkle_tree::consistency_proof(&mut reader, old, new);
        let proof = proof.map_err(|e| tree_error(log, e))?;
        merkle_tree::verify_consistency(old, new, &signed_root, &head.root, &proof)
            .map_err(|e| contradiction(format!("the log does not extend what was signed: {e}")))?;
        frontier = edge(log, &mut reader, log.pruned_to)?;
    }
    frontier.take_tiles();
    let mut next = frontier.size().get() as i64;
    let mut open = entries::open(session)?;
    let mut scratch = Scratch::new();
    while next < head.tree_size {
        pgrx::check_for_interrupts!();
        let count = CHUNK.min(head.tree_size - next);
        let hashes: Result<Vec<Hash>, Error> = scratch
            .scope(|| entries::leaf_hashes(&mut open, Snapshot::Fresh, log, next, count as usize));
        let hashes = hashes?;
        if hashes.len() as i64 != count {
            let at = next + hashes.len() as i64;
            return Err(contradiction(format!("entry {at} is missing")));
        }
        for hash in hashes {
            let pushed = frontier.push(hash);
            pushed.map_err(|e| contradiction(e.to_string()))?;
        }
        next += count;
        for (tile, computed) in frontier.take_tiles() {
            let stored = reader.read(tile, 0, computed.len() as u16)?;
            if stored != computed {
                let (level, index) = (tile.level, tile.index);
                return Err(contradiction(format!(
                    "tile {index} of level {level} is not that of the entries"
                )));
            }
        }
    }
    match frontier.root() == head.root {
        true => Ok(()),
        false => Err(contradiction(format!(
            "the entries have root {} at size {}, and the tree head has {}",
            frontier.root(),
            head.tree_size,
            head.root
        ))),
    }
}

fn edge(log: &Log, reader: &mut TreeReader, size: i64) -> Result<Frontier, Error> {
    Frontier::load(reader, tree_size(log, size)?).map_err(|e| tree_error(log, e))
}
