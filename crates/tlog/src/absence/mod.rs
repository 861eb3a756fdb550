//! Proofs of which entries a key has in sealed ranges of a log, and that it has no others (`docs/proof-format.md`): of none,
//! that the key is absent.

mod seal;
mod wire;

use crate::{BundleLeaf, Content, Error, Policy, ProvenEntry, SignedNote, VerifiedCheckpoint};
use leaf_format::Leaf;
use merkle_tree::{
    Hash, KeyHash, KeyProof, LeafIndex, leaf_hash, verify_key_proof, verify_multiproof,
};
use std::ops::Range;

pub use seal::Seal;

/// A proof has no more sealed ranges than these.
pub const MAX_RANGES: usize = 10_000;

/// The claim that a key has these entries, and no others, in ranges of a log that lie one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsenceProof {
    pub checkpoint: SignedNote,
    /// The name under which the table was registered.
    pub source: String,
    /// The key's columns, in their order, as texts.
    pub key: Vec<String>,
    /// At least one, each where the one before it ends.
    pub ranges: Vec<SealedRange>,
    /// In the order of their indexes.
    pub entries: Vec<KeyEntry>,
    /// What proves the entries and those that seal the ranges, all at once ([`merkle_tree::multiproof`]).
    pub nodes: Vec<Hash>,
}

/// A sealed range, and what its index shows of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRange {
    /// The entry that seals it.
    pub seal: LeafIndex,
    /// The leaf data of that entry.
    pub leaf_data: Vec<u8>,
    pub proof: KeyProof,
}

/// An entry of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub index: LeafIndex,
    pub leaf: BundleLeaf,
}

/// What was proven: as the log has sealed them, `entries` are all entries of the key in the range.
#[derive(Clone, Debug)]
pub struct ProvenKey {
    pub checkpoint: VerifiedCheckpoint,
    pub source: String,
    pub key: Vec<String>,
    pub range: Range<u64>,
    pub entries: Vec<ProvenEntry>,
}

impl AbsenceProof {
    /// Reads either form: JSON begins with a brace, CBOR does not.
    ///
    /// # Errors
    /// If it is no such proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<AbsenceProof, Error> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => AbsenceProof::from_json(bytes),
            _ => AbsenceProof::from_cbor(bytes),
        }
    }

    /// Checks, in this order: the checkpoint's signatures and the quorum, that the log has the entries and those that seal
    /// the ranges, that the ranges lie one behind the other, and of each what its index shows.
    ///
    /// # Errors
    /// If any of that does not hold, or leaf data are of another source.
    pub fn verify(&self, policy: &Policy) -> Result<ProvenKey, Error> {
        self.check_form()?;
        let checkpoint = policy.verify(&self.checkpoint)?;
        self.verify_entries(&checkpoint)?;
        let mut seals = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let leaf = Leaf::decode(&range.leaf_data)
                .map_err(|e| Error::ProofBundle(format!("not the seal of a range: {e}")))?;
            let seal = Seal::of(&leaf)?;
            if seal.entries.end > range.seal.get() {
                return Err(Error::Contradiction(
                    "an entry seals a range that ends behind it",
                ));
            }
            seals.push(seal);
        }
        if seals
            .windows(2)
            .any(|pair| pair[0].entries.end != pair[1].entries.start)
        {
            return Err(Error::Contradiction(
                "the ranges do not lie one behind the other",
            ));
        }
        let (Some(first), Some(last)) = (seals.first(), seals.last()) else {
            return Err(Error::ProofBundle("there is no range".to_owned()));
        };
        let whole = first.entries.start..last.entries.end;
        let indexes: Vec<u64> = self.entries.iter().map(|e| e.index.get()).collect();
        if indexes.iter().any(|index| !whole.contains(index)) {
            return Err(Error::Contradiction(
                "an entry of the key is outside of the ranges",
            ));
        }
        for (range, seal) in self.ranges.iter().zip(&seals) {
            let texts = self.key.iter().map(String::as_str);
            let key = KeyHash::new(&seal.root, &self.source, texts);
            let at = |bound: u64| indexes.partition_point(|index| *index < bound);
            let entries = &indexes[at(seal.entries.start)..at(seal.entries.end)];
            verify_key_proof(&range.proof, &key, entries, seal.keys, &seal.index_root).map_err(
                |why| Error::Key {
                    seal: range.seal.get(),
                    why,
                },
            )?;
        }
        Ok(ProvenKey {
            checkpoint,
            source: self.source.clone(),
            key: self.key.clone(),
            range: whole,
            entries: self.proven_entries()?,
        })
    }

    fn verify_entries(&self, verified: &VerifiedCheckpoint) -> Result<(), Error> {
        let seals = self
            .ranges
            .iter()
            .map(|range| (range.seal, leaf_hash(&range.leaf_data)));
        let entries = self
            .entries
            .iter()
            .map(|entry| (entry.index, entry.leaf.hash()));
        let mut leaves: Vec<(LeafIndex, Hash)> = seals.chain(entries).collect();
        leaves.sort_unstable_by_key(|(index, _)| *index);
        let (size, root) = (verified.checkpoint.size(), verified.checkpoint.root());
        verify_multiproof(&leaves, size, &self.nodes, root).map_err(Error::Inclusions)
    }

    fn proven_entries(&self) -> Result<Vec<ProvenEntry>, Error> {
        let proven = |entry: &KeyEntry| {
            let content = entry.leaf.content();
            match &content {
                Content::Row(leaf) if leaf.source != self.source => {
                    Err(Error::Contradiction("the leaf data are of another source"))
                }
                _ => Ok(ProvenEntry {
                    index: entry.index,
                    leaf_hash: entry.leaf.hash(),
                    content,
                    label: None,
                }),
            }
        };
        self.entries.iter().map(proven).collect()
    }

    /// What every proof has, however it was made.
    fn check_form(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::ProofBundle(what.to_owned()));
        // What a log says of itself has no source.
        if self.source.is_empty() || self.key.is_empty() {
            return refuse("the source or the key is empty");
        }
        if self.ranges.is_empty() || !self.ranges.is_sorted_by(|a, b| a.seal < b.seal) {
            return refuse("the seals are not in the order of their indexes, or there are none");
        }
        if !self.entries.is_sorted_by(|a, b| a.index < b.index) {
            return refuse("the entries are not in the order of their indexes");
        }
        Ok(())
    }
}
