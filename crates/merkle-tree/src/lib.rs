//! RFC 6962 Merkle trees over tiles.
//!
//! A tree is stored as C2SP tiles of height 8: tile `N` of level `L` holds up to 256 hashes, hash
//! `i` being the root of the complete subtree over the leaves `[(256N+i)·256^L, (256N+i+1)·256^L)`.
//! Only hashes of complete subtrees are stored, so a stored hash never changes. Everything else is
//! computed from O(log n) of them through [`HashReader`].
//!
//! ```
//! use merkle_tree::*;
//! use std::collections::BTreeMap;
//!
//! struct Store(BTreeMap<TileId, Vec<Hash>>);
//! impl HashReader for Store {
//!     type Error = std::convert::Infallible;
//!     fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error> {
//!         Ok(self.0[&tile][first as usize..][..count as usize].to_vec())
//!     }
//! }
//!
//! let leaves: Vec<Hash> = ["a", "b", "c"].map(|d| leaf_hash(d.as_bytes())).to_vec();
//! let mut frontier = Frontier::default();
//! for leaf in &leaves {
//!     frontier.push(*leaf)?;
//! }
//! let mut store = Store(BTreeMap::from([(TileId { level: 0, index: 0 }, leaves.clone())]));
//! let (index, size) = (LeafIndex::new(1)?, frontier.size());
//! let path = inclusion_proof(&mut store, index, size)?;
//! verify_inclusion(&leaves[1], index, size, &path, &frontier.root())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod frontier;
mod hash;
mod index;
mod lanes;
mod multiproof;
mod proof;
mod read;
mod sealed;
mod verify;

pub use frontier::Frontier;
pub use hash::{
    EMPTY_ROOT, HASH_SIZE, Hash, HashLengthError, leaf_hash, leaf_hashes, node_hash, parents,
    tile_hash,
};
pub use index::{LeafIndex, MAX_SIZE, OutOfRange, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
pub use multiproof::{Multiproof, MultiproofVerification, multiproof, verify_multiproof};
pub use proof::{consistency_proof, inclusion_proof};
pub use read::{Error, HashReader, root, subtree_hash};
pub use sealed::{
    BITS, KeyHash, KeyProof, KeyProofError, Neighbour, ProveError, SealedKey, Secret, Shown,
    key_proof, sealed_leaves, verify_key_proof,
};
pub use verify::{VerifyError, prefix_root, verify_consistency, verify_inclusion};
