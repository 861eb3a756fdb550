//! Whether one checkpoint of a log continues another.

use crate::client::read_error;
use crate::tiles::Tiles;
use crate::{Error, Retry, Transport};
use merkle_tree::{Hash, consistency_proof, root, verify_consistency};
use tlog::{Checkpoint, ForkProof, SignedNote};

/// How a checkpoint stands to an older one of the same log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The entries of the older one are the first of the newer one.
    Grew {
        /// PROOF(old size, D[0:new size]) of RFC 6962 §2.1.2.
        path: Vec<Hash>,
    },
    /// They are not: the log has shown two histories, and this proves it to anyone.
    Forked(Box<ForkProof>),
}

/// Compares two checkpoints of one log, which the caller has verified, by the log's tiles.
///
/// # Errors
/// If the sizes are reversed, or the tiles cannot be read or are not those of the newer checkpoint: then nothing is
/// said about the log, whose mirror may be damaged.
pub fn compare(
    transport: &dyn Transport,
    retry: &Retry,
    old: &SignedNote,
    new: &SignedNote,
) -> Result<Growth, Error> {
    let (from, to): (Checkpoint, Checkpoint) = (old.text().parse()?, new.text().parse()?);
    let (prefix_root, path) = match from.size() == to.size() {
        true => (*to.root(), Vec::new()),
        false => {
            let mut tiles = Tiles::new(transport, retry, to.size());
            let path = consistency_proof(&mut tiles, from.size(), to.size()).map_err(read_error)?;
            let prefix_root = root(&mut tiles, from.size()).map_err(read_error)?;
            // A damaged mirror must not look like a rewritten log.
            verify_consistency(from.size(), to.size(), &prefix_root, to.root(), &path)
                .map_err(tlog::Error::Consistency)?;
            (prefix_root, path)
        }
    };
    Ok(match prefix_root == *from.root() {
        true => Growth::Grew { path },
        false => Growth::Forked(Box::new(ForkProof {
            old: old.clone(),
            new: new.clone(),
            prefix_root,
            path,
        })),
    })
}
