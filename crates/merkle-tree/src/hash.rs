//! RFC 6962 §2.1 hashing: leaves and nodes are hashed under different prefixes, so that neither can
//! pass for the other.

use crate::lanes::{Message, digests};
use sha2::{Digest, Sha256};
use std::fmt;

/// Bytes of a hash.
pub const HASH_SIZE: usize = 32;

/// A SHA-256 hash of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_SIZE]);

/// The root of the empty tree: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = Hash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Bytes that are no hash, for their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 32 bytes, not {0}")]
pub struct HashLengthError(pub usize);

impl Hash {
    pub fn as_bytes(&self) -> &[u8; HASH_SIZE] {
        &self.0
    }
}

impl From<[u8; HASH_SIZE]> for Hash {
    fn from(bytes: [u8; HASH_SIZE]) -> Self {
        Hash(bytes)
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = HashLengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, HashLengthError> {
        bytes
            .try_into()
            .map(Hash)
            .map_err(|_| HashLengthError(bytes.len()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What leaves and nodes are hashed behind.
const LEAF: u8 = 0;
const NODE: u8 = 1;

/// `SHA-256(0x00 ‖ data)`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    Hash(
        Sha256::new_with_prefix([LEAF])
            .chain_update(data)
            .finalize()
            .into(),
    )
}

/// The leaf hashes of several leaves, in order, faster than one by one.
pub fn leaf_hashes<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Vec<Hash> {
    let leaves = leaves.into_iter();
    let mut hashes = Vec::with_capacity(leaves.size_hint().0);
    let message = |leaf| Message {
        prefix: LEAF,
        parts: [leaf, &[]],
    };
    digests(leaves.map(message), |digest| hashes.push(Hash(digest)));
    hashes
}

/// `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [NODE; 1 + 2 * HASH_SIZE];
    input[1..=HASH_SIZE].copy_from_slice(&left.0);
    input[1 + HASH_SIZE..].copy_from_slice(&right.0);
    Hash(Sha256::digest(input).into())
}

/// The level above `hashes`: the node hash of each pair, and at the end the one that is left over.
pub fn parents(hashes: &[Hash]) -> Vec<Hash> {
    let mut parents = Vec::with_capacity(hashes.len().div_ceil(2));
    let (pairs, odd) = hashes.as_chunks::<2>();
    let messages = pairs.iter().map(|pair| Message {
        prefix: NODE,
        parts: [&pair[0].0, &pair[1].0],
    });
    digests(messages, |digest| parents.push(Hash(digest)));
    parents.extend_from_slice(odd);
    parents
}

/// The Merkle tree hash over `hashes` as leaves: MTH of RFC 6962 §2.1 without the leaf hashing. The
/// root over a whole tile is the hash that stands for it one level up; the last of `hashes` may
/// also be the root of a smaller tree than the others.
pub fn tile_hash(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => EMPTY_ROOT,
        [hash] => *hash,
        [left, right] => node_hash(left, right),
        _ => tile_hash(&parents(hashes)),
    }
}
