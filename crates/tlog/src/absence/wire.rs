//! How a proof of the entries of a key is written.

use super::{AbsenceProof, KeyEntry, MAX_RANGES, SealedRange};
use crate::wire::{
    Bytes, Format, FormatName, WireHash, WireIndex, WireNote, at_most, from_cbor, from_json,
    to_cbor, to_json,
};
use crate::{BundleLeaf, Error, MAX_ENTRIES};
use merkle_tree::{Hash, KeyProof, Neighbour, Shown};
use serde::{Deserialize, Deserializer, Serialize};

/// The columns of the widest table.
const MAX_COLUMNS: usize = 1600;
/// The leaves of an index that are shown are two at most.
const MAX_NODES: usize = 2 * 62;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Name;

impl FormatName for Name {
    const NAME: &'static str = "merkle_log/absence-proof@v1";
}

/// The fields are in the order of deterministic CBOR, here and below.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(deserialize_with = "at_most::<MAX_COLUMNS, _, _>")]
    key: Vec<String>,
    nodes: Vec<WireHash>,
    format: Format<Name>,
    #[serde(deserialize_with = "at_most::<MAX_RANGES, _, _>")]
    ranges: Vec<WireRange>,
    source: String,
    #[serde(deserialize_with = "at_most::<MAX_ENTRIES, _, _>")]
    entries: Vec<WireEntry>,
    checkpoint: WireNote,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRange {
    seal: WireIndex,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    after: Option<WireNeighbour>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    blind: Option<WireHash>,
    #[serde(deserialize_with = "at_most::<MAX_NODES, _, _>")]
    nodes: Vec<WireHash>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    before: Option<WireNeighbour>,
    position: WireIndex,
    leaf_data: Bytes,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireNeighbour {
    rest: WireHash,
    shared: u8,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    index: WireIndex,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    leaf_data: Option<Bytes>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    leaf_hash: Option<WireHash>,
}

/// A field that is there has a value: `null` is refused.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl AbsenceProof {
    /// # Errors
    /// If it is not the JSON of such a proof.
    pub fn from_json(json: &[u8]) -> Result<AbsenceProof, Error> {
        from_json::<Wire>(json)?.proof()
    }

    /// # Errors
    /// If it is not the one CBOR of such a proof.
    pub fn from_cbor(cbor: &[u8]) -> Result<AbsenceProof, Error> {
        from_cbor::<Wire>(cbor)?.proof()
    }

    pub fn to_json(&self) -> String {
        to_json(&Wire::of(self))
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        to_cbor(&Wire::of(self))
    }
}

fn wire_hashes(hashes: &[Hash]) -> Vec<WireHash> {
    hashes.iter().copied().map(WireHash).collect()
}

fn hashes(wire: Vec<WireHash>) -> Vec<Hash> {
    wire.into_iter().map(|hash| hash.0).collect()
}

fn refuse(what: &str) -> Error {
    Error::ProofBundle(what.to_owned())
}

impl Wire {
    fn of(proof: &AbsenceProof) -> Wire {
        Wire {
            key: proof.key.clone(),
            nodes: wire_hashes(&proof.nodes),
            format: Format::default(),
            ranges: proof.ranges.iter().map(WireRange::of).collect(),
            source: proof.source.clone(),
            entries: proof.entries.iter().map(WireEntry::of).collect(),
            checkpoint: WireNote(proof.checkpoint.clone()),
        }
    }

    fn proof(self) -> Result<AbsenceProof, Error> {
        let ranges = self.ranges.into_iter().map(WireRange::range);
        let entries = self.entries.into_iter().map(WireEntry::entry);
        let proof = AbsenceProof {
            checkpoint: self.checkpoint.0,
            source: self.source,
            key: self.key,
            ranges: ranges.collect::<Result<_, _>>()?,
            entries: entries.collect::<Result<_, _>>()?,
            nodes: hashes(self.nodes),
        };
        proof.check_form()?;
        Ok(proof)
    }
}

impl WireRange {
    fn of(range: &SealedRange) -> WireRange {
        let neighbour = |n: Neighbour| WireNeighbour {
            rest: WireHash(n.rest),
            shared: n.shared,
        };
        let (blind, before, after) = match &range.proof.shown {
            Shown::Key { blind } => (Some(WireHash(*blind)), None, None),
            Shown::Neighbours { before, after } => {
                (None, before.map(neighbour), after.map(neighbour))
            }
        };
        let position = merkle_tree::LeafIndex::new(range.proof.position);
        WireRange {
            seal: WireIndex(range.seal),
            after,
            blind,
            nodes: wire_hashes(&range.proof.nodes),
            before,
            // No index has as many keys as the largest tree has leaves.
            position: WireIndex(position.unwrap_or(range.seal)),
            leaf_data: Bytes(range.leaf_data.clone()),
        }
    }

    fn range(self) -> Result<SealedRange, Error> {
        let neighbour = |n: WireNeighbour| Neighbour {
            shared: n.shared,
            rest: n.rest.0,
        };
        let shown = match (self.blind, self.before, self.after) {
            (Some(blind), None, None) => Shown::Key { blind: blind.0 },
            (None, before, after) if before.is_some() || after.is_some() => Shown::Neighbours {
                before: before.map(neighbour),
                after: after.map(neighbour),
            },
            _ => {
                return Err(refuse(
                    "a range has neither its key nor neighbours, or both",
                ));
            }
        };
        Ok(SealedRange {
            seal: self.seal.0,
            leaf_data: self.leaf_data.0,
            proof: KeyProof {
                position: self.position.0.get(),
                shown,
                nodes: hashes(self.nodes),
            },
        })
    }
}

impl WireEntry {
    fn of(entry: &KeyEntry) -> WireEntry {
        let (leaf_data, leaf_hash) = match &entry.leaf {
            BundleLeaf::Data(data) => (Some(Bytes(data.clone())), None),
            BundleLeaf::Hash(hash) => (None, Some(WireHash(*hash))),
        };
        WireEntry {
            index: WireIndex(entry.index),
            leaf_data,
            leaf_hash,
        }
    }

    fn entry(self) -> Result<KeyEntry, Error> {
        Ok(KeyEntry {
            index: self.index.0,
            leaf: match (self.leaf_data, self.leaf_hash) {
                (Some(data), None) => BundleLeaf::Data(data.0),
                (None, Some(hash)) => BundleLeaf::Hash(hash.0),
                _ => return Err(refuse("an entry has not one of leaf_data and leaf_hash")),
            },
        })
    }
}
