//! What the entry of a log says that seals a range of its entries.

use crate::Error;
use leaf_format::{Cbor, Columns, Kind, Leaf};
use merkle_tree::{Hash, TreeSize};
use std::ops::Range;

/// A range of entries whose keys are committed in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    pub entries: Range<u64>,
    /// The root of the log's tree at the end of the range, with which the hashes of keys are salted.
    pub root: Hash,
    /// Leaves of the index.
    pub keys: TreeSize,
    pub index_root: Hash,
}

impl Seal {
    /// The format of the index, which the entry names.
    pub const INDEX: &'static str = "merkle_log/key-index@v1";

    /// # Errors
    /// If the leaf seals no range, or one in a way that this format does not have.
    pub fn of(leaf: &Leaf) -> Result<Seal, Error> {
        let refuse = |what: &str| Error::ProofBundle(format!("not the seal of a range: {what}"));
        let Columns::Map(columns) = &leaf.columns else {
            return Err(refuse("it has no columns"));
        };
        if leaf.kind != Kind::Seal || columns.len() != 6 {
            return Err(refuse("the entry has another kind or other columns"));
        }
        if columns.get("index") != Some(&Cbor::Text(Seal::INDEX.to_owned())) {
            return Err(refuse("the index has another format"));
        }
        let number = |name: &str| match columns.get(name) {
            Some(Cbor::Integer(n)) => u64::try_from(*n)
                .ok()
                .and_then(|n| TreeSize::new(n).ok())
                .ok_or_else(|| refuse("a number is beyond the largest tree")),
            _ => Err(refuse("a number is missing")),
        };
        let hash = |name: &str| match columns.get(name) {
            Some(Cbor::Bytes(bytes)) => {
                Hash::try_from(bytes.as_slice()).map_err(|_| refuse("a hash has another length"))
            }
            _ => Err(refuse("a hash is missing")),
        };
        let seal = Seal {
            entries: number("from")?.get()..number("to")?.get(),
            root: hash("root_hash")?,
            keys: number("keys")?,
            index_root: hash("index_root")?,
        };
        let length = seal.entries.end.saturating_sub(seal.entries.start);
        match (1..=length).contains(&seal.keys.get()) {
            true => Ok(seal),
            false => Err(refuse("the range has no entry, or fewer than keys")),
        }
    }
}
