//! The index of the keys of a sealed range of entries: a sorted Merkle tree that proves which entries a key has, and that a
//! key has none (docs/proof-format.md).
//!
//! The index is an RFC 6962 tree with one leaf for each key, in the order of the keys' hashes. A leaf has all entries of its
//! key, so the leaf of a key proves that these are all, and two leaves beside each other prove that no key lies between.
//!
//! A leaf is a commitment that can be opened in two ways: as a whole, for the key that is asked for, or to the few first
//! bits of the key's hash that set a neighbour apart from it. So a proof says next to nothing about keys that it is not
//! about, although they may be few enough to be guessed.
//!
//! All hashes but those of the tree begin with bytes that RFC 6962 does not use (0x00 and 0x01), each kind with another.

use crate::hash::{HASH_SIZE, Hash, leaf_hashes};
use crate::index::{LeafIndex, TreeSize};
use crate::lanes::{Message, digests};
use crate::multiproof::{Multiproof, multiproof, verify_multiproof};
use crate::read::{Error, HashReader};
use crate::verify::VerifyError;
use sha2::{Digest, Sha256};
use std::fmt;

/// What the hash of a key begins with.
const KEY: u8 = 0x10;
/// What the commitment to a whole key begins with.
const WHOLE: u8 = 0x11;
/// What the hash that blinds a key begins with.
const BLIND: u8 = 0x12;
/// What the commitment to one bit begins with: this for 0, and the next byte for 1.
const BIT: u8 = 0x20;

/// Bits of a key's hash to which a neighbour can be opened. Of 65,536 keys, one agrees in so many with a key that is not
/// among them with a probability of 2^-48.
pub const BITS: u8 = 64;

/// Where a key stands in an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; HASH_SIZE]);

impl KeyHash {
    /// The hash of a key, as texts for its columns in order, of a source. `salt` is another for each index, so that hashes
    /// of two indexes do not tell that they have a key in common: the root of the tree that the range ends.
    pub fn new<'k>(
        salt: &Hash,
        source: &'k str,
        key: impl IntoIterator<Item = &'k str>,
    ) -> KeyHash {
        let mut hash = Sha256::new_with_prefix([KEY]);
        hash.update(salt.as_bytes());
        for text in std::iter::once(source).chain(key) {
            // Texts are shorter than 1 GB; the length keeps two of them from being taken for others.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        KeyHash(hash.finalize().into())
    }

    pub fn as_bytes(&self) -> &[u8; HASH_SIZE] {
        &self.0
    }

    /// Bit `place`, counted from the most significant.
    fn bit(&self, place: u8) -> u8 {
        self.0[usize::from(place / 8)] >> (7 - place % 8) & 1
    }

    /// How many first bits two hashes have in common.
    fn shared(&self, other: &KeyHash) -> u32 {
        let mut shared = 0;
        for (a, b) in self.0.iter().zip(&other.0) {
            shared += (a ^ b).leading_zeros();
            if a != b {
                break;
            }
        }
        shared
    }
}

impl From<[u8; HASH_SIZE]> for KeyHash {
    fn from(bytes: [u8; HASH_SIZE]) -> Self {
        KeyHash(bytes)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Hash::from(self.0), f)
    }
}

/// A key and its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    pub hash: KeyHash,
    /// Leaf indexes, ascending.
    pub entries: Vec<u64>,
}

/// What blinds the leaves of an index. Who has it can compute the index from the keys; who has neither it nor a key's
/// entries cannot tell from a leaf whether it is the key's.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; HASH_SIZE]);

impl Secret {
    /// What blinds one key, and nothing about another.
    pub fn blind(&self, key: &KeyHash) -> Hash {
        let mut hash = Sha256::new_with_prefix([BLIND]);
        hash.update(self.0);
        hash.update(key.0);
        let digest: [u8; HASH_SIZE] = hash.finalize().into();
        digest.into()
    }
}

/// The commitment to all of a key.
fn whole(key: &KeyHash, blind: &Hash, entries: &[u64]) -> Hash {
    let mut hash = Sha256::new_with_prefix([WHOLE]);
    hash.update(blind.as_bytes());
    hash.update(key.0);
    for entry in entries {
        hash.update(entry.to_be_bytes());
    }
    let digest: [u8; HASH_SIZE] = hash.finalize().into();
    digest.into()
}

/// The commitment to a bit and all that follows it.
fn with_bit(bit: u8, rest: &Hash) -> Hash {
    let mut hash = Sha256::new_with_prefix([BIT + bit]);
    hash.update(rest.as_bytes());
    let digest: [u8; HASH_SIZE] = hash.finalize().into();
    digest.into()
}

/// The commitment to the bits of `key` from `from` on, of which `rest` is what follows bit `to`.
fn fold(key: &KeyHash, from: u8, to: u8, rest: Hash) -> Hash {
    (from..to)
        .rev()
        .fold(rest, |rest, place| with_bit(key.bit(place), &rest))
}

/// The leaf hashes of an index, in the order of `keys`.
pub fn sealed_leaves(keys: &[SealedKey], secret: &Secret) -> Vec<Hash> {
    let of_key = |key: &SealedKey| whole(&key.hash, &secret.blind(&key.hash), &key.entries);
    let mut commitments: Vec<Hash> = keys.iter().map(of_key).collect();
    // A bit of all keys at a time, which several lanes of a processor can share.
    let mut next = Vec::with_capacity(keys.len());
    for place in (0..BITS).rev() {
        let messages = keys.iter().zip(&commitments).map(|(key, rest)| Message {
            prefix: BIT + key.hash.bit(place),
            parts: [rest.as_bytes(), &[]],
        });
        digests(messages, |digest| next.push(Hash::from(digest)));
        std::mem::swap(&mut commitments, &mut next);
        next.clear();
    }
    leaf_hashes(commitments.iter().map(|c| c.as_bytes().as_slice()))
}

/// A neighbour of a key that is not there, as far as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// How many first bits of its hash are those of the key's. The next one is not.
    pub shared: u8,
    /// The commitment to all that follows that bit.
    pub rest: Hash,
}

impl Neighbour {
    fn of(neighbour: &SealedKey, secret: &Secret, key: &KeyHash) -> Option<Neighbour> {
        let shared = u8::try_from(neighbour.hash.shared(key)).ok();
        let shared = shared.filter(|shared| *shared < BITS)?;
        let blind = secret.blind(&neighbour.hash);
        let end = whole(&neighbour.hash, &blind, &neighbour.entries);
        Some(Neighbour {
            shared,
            rest: fold(&neighbour.hash, shared + 1, BITS, end),
        })
    }

    /// Its commitment, if it stands on the side of `key` where the first bit that differs is `bit` for it.
    fn commitment(&self, key: &KeyHash, bit: u8) -> Option<Hash> {
        let is_there = self.shared < BITS && key.bit(self.shared) != bit;
        is_there.then(|| fold(key, 0, self.shared, with_bit(bit, &self.rest)))
    }
}

/// What proves which entries a key has in a sealed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProof {
    /// How many keys of the index stand before the key.
    pub position: u64,
    pub shown: Shown,
    /// The proof of the leaves that are shown ([`multiproof`]).
    pub nodes: Vec<Hash>,
}

/// Which leaves of the index are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The key's own, with what blinds it.
    Key { blind: Hash },
    /// Those between which it would stand: at least one, and both unless it would be the first or the last.
    Neighbours {
        before: Option<Neighbour>,
        after: Option<Neighbour>,
    },
}

/// What is wrong with the proof of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProofError {
    #[error("the entries of the key are not in order")]
    EntriesNotAscending,
    #[error("the key is shown and has no entry, or has entries and is not shown")]
    NotShown,
    #[error(
        "the position is beyond the end of the index, or the neighbours are not those of the position"
    )]
    Position,
    #[error("a neighbour does not stand on its side of the key")]
    Order,
    #[error(transparent)]
    Inclusion(#[from] VerifyError),
}

/// Why a proof of a key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError<E> {
    #[error("another key of the index cannot be told from this one by {BITS} bits of its hash")]
    Alike,
    #[error(transparent)]
    Tree(#[from] Error<E>),
}

/// The leaves of an index that prove which entries `key` has: of the first key whose hash is not less, and of the one
/// before it. `found` is the former, `before` the latter, where there are such; `position` is the number of keys before.
///
/// # Errors
/// If the reader of the index's leaves fails, or a neighbour is not to be told from the key.
pub fn key_proof<R: HashReader>(
    reader: &mut R,
    size: TreeSize,
    key: &KeyHash,
    secret: &Secret,
    position: u64,
    (before, found): (Option<&SealedKey>, Option<&SealedKey>),
) -> Result<KeyProof, ProveError<R::Error>> {
    let shown = match found.filter(|found| found.hash == *key) {
        Some(_) => Shown::Key {
            blind: secret.blind(key),
        },
        None => {
            let open = |neighbour: Option<&SealedKey>| {
                let opened =
                    neighbour.map(|n| Neighbour::of(n, secret, key).ok_or(ProveError::Alike));
                opened.transpose()
            };
            Shown::Neighbours {
                before: open(before)?,
                after: open(found)?,
            }
        }
    };
    let places = shown.places(position);
    let index = |place: &u64| -> Result<LeafIndex, Error<R::Error>> {
        let size = size.get();
        LeafIndex::new(*place).map_err(|e| Error::IndexOutOfRange { index: e.0, size })
    };
    let indexes: Vec<LeafIndex> = places.iter().map(index).collect::<Result<_, _>>()?;
    let Multiproof { nodes, .. } = multiproof(reader, &indexes, size)?;
    Ok(KeyProof {
        position,
        shown,
        nodes,
    })
}

impl Shown {
    /// The leaves that are shown, in order.
    fn places(&self, position: u64) -> Vec<u64> {
        match self {
            Shown::Key { .. } => vec![position],
            Shown::Neighbours { before, after } => {
                let before = before.and_then(|_| position.checked_sub(1));
                before.into_iter().chain(after.map(|_| position)).collect()
            }
        }
    }
}

/// Checks that `entries` are all that `key` has in the range whose index has `size` keys and `root`.
///
/// # Errors
/// If that is not proven.
pub fn verify_key_proof(
    proof: &KeyProof,
    key: &KeyHash,
    entries: &[u64],
    size: TreeSize,
    root: &Hash,
) -> Result<(), KeyProofError> {
    if !entries.is_sorted_by(|a, b| a < b) {
        return Err(KeyProofError::EntriesNotAscending);
    }
    let commitments = match &proof.shown {
        Shown::Key { blind } if !entries.is_empty() => {
            vec![fold(key, 0, BITS, whole(key, blind, entries))]
        }
        Shown::Neighbours { before, after } if entries.is_empty() => {
            let is_first = proof.position == 0;
            let is_last = proof.position == size.get();
            if before.is_none() != is_first || after.is_none() != is_last {
                return Err(KeyProofError::Position);
            }
            let before = before.map(|n| n.commitment(key, 0));
            let after = after.map(|n| n.commitment(key, 1));
            let both = before.into_iter().chain(after);
            both.collect::<Option<_>>().ok_or(KeyProofError::Order)?
        }
        _ => return Err(KeyProofError::NotShown),
    };
    let places = proof.shown.places(proof.position);
    if places.len() != commitments.len() || proof.position > size.get() {
        return Err(KeyProofError::Position);
    }
    let hashes = leaf_hashes(commitments.iter().map(|c| c.as_bytes().as_slice()));
    let index = |place: u64| LeafIndex::new(place).map_err(|_| KeyProofError::Position);
    let indexes: Vec<LeafIndex> = places.into_iter().map(index).collect::<Result<_, _>>()?;
    let leaves: Vec<(LeafIndex, Hash)> = indexes.into_iter().zip(hashes).collect();
    Ok(verify_multiproof(&leaves, size, &proof.nodes, root)?)
}
