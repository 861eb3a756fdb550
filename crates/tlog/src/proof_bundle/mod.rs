//! Proof bundles (`docs/proof-format.md`): all that an outsider needs to check rows of a log, but the keys
//! of those whom they trust.

mod verify;
mod wire;

use crate::{Error, SignedNote, TlogProof};
use merkle_tree::{Hash, LeafIndex, leaf_hash};

pub use verify::{Content, Proven, ProvenEntry};

/// So many bundles may be nested.
pub const MAX_LEVELS: usize = 8;

/// A bundle has no more entries than these.
pub const MAX_ENTRIES: usize = 10_000;

/// The longest path of a tree with fewer than 2^62 leaves.
const MAX_PATH: usize = 62;

/// The claim that entries are in a log, and that the log's checkpoint is in another log, the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofBundle {
    pub checkpoint: SignedNote,
    /// At least one, in the order of their indexes.
    pub entries: Vec<BundleEntry>,
    /// The nodes that prove all entries at once ([`merkle_tree::multiproof`]), two or more: version 2 of the format. Where
    /// there are none, each entry has a path: version 1.
    pub multiproof: Option<Vec<Hash>>,
    /// A bundle of one entry, which contains the text of `checkpoint`.
    pub hub: Option<Box<ProofBundle>>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEntry {
    pub index: LeafIndex,
    pub leaf: BundleLeaf,
    /// Its inclusion proof, the leaf's sibling first. Empty where the bundle has one proof of all its entries.
    pub path: Vec<Hash>,
    pub label: Option<Label>,
}

/// What is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleLeaf {
    Data(Vec<u8>),
    /// The leaf data are withheld.
    Hash(Hash),
}

/// Which row an entry is said to be of, for people. The tree does not authenticate it: where leaf data are
/// there, a label that contradicts them is refused, and what the row is stands in the leaf data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The name under which the table was registered.
    pub source: String,
    /// Key columns and their values as text.
    pub key: Vec<(String, String)>,
}

impl ProofBundle {
    /// Reads either form: JSON begins with a brace, CBOR does not.
    ///
    /// # Errors
    /// If it is not a proof bundle.
    pub fn from_bytes(bytes: &[u8]) -> Result<ProofBundle, Error> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => ProofBundle::from_json(bytes),
            _ => ProofBundle::from_cbor(bytes),
        }
    }

    /// The proof of one entry as C2SP tlog-proof, with the leaf data as extra data if they are there; None where the
    /// bundle has one proof of all its entries.
    pub fn tlog_proof(&self, entry: &BundleEntry) -> Option<TlogProof> {
        if self.multiproof.is_some() {
            return None;
        }
        Some(TlogProof {
            extra: match &entry.leaf {
                BundleLeaf::Data(data) => Some(data.clone()),
                BundleLeaf::Hash(_) => None,
            },
            index: entry.index,
            path: entry.path.clone(),
            checkpoint: self.checkpoint.clone(),
        })
    }

    /// This bundle, with the proof that its checkpoint is an entry of a hub. Of a bundle that is in a hub already, the
    /// outermost checkpoint is meant. The proofs are not checked here: [`Self::verify`] does.
    ///
    /// # Errors
    /// If the hub's bundle has not exactly one entry, or that does not hold the checkpoint.
    pub fn nest(mut self, hub: ProofBundle) -> Result<ProofBundle, Error> {
        let [entry] = hub.entries.as_slice() else {
            return Err(Error::ProofBundle(
                "the hub's bundle has not exactly one entry".to_owned(),
            ));
        };
        let outermost = self.outermost();
        entry.leaf.content().holds(outermost.checkpoint.text())?;
        outermost.hub = Some(Box::new(hub));
        self.check_form()?;
        Ok(self)
    }

    fn outermost(&mut self) -> &mut ProofBundle {
        match self.hub {
            Some(ref mut hub) => hub.outermost(),
            None => self,
        }
    }

    /// What every bundle has, however it was made.
    fn check_form(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::ProofBundle(what.to_owned()));
        let levels = std::iter::successors(Some(self), |bundle| bundle.hub.as_deref());
        if levels.clone().count() > MAX_LEVELS {
            return refuse("too many bundles are nested");
        }
        for (level, bundle) in levels.enumerate() {
            let indexes = bundle.entries.iter().map(|entry| entry.index);
            if bundle.entries.is_empty() || !indexes.is_sorted_by(|a, b| a < b) {
                return refuse(
                    "the entries are not in the order of their indexes, or there are none",
                );
            }
            if level > 0 && bundle.entries.len() != 1 {
                return refuse("the hub's bundle has more than one entry");
            }
            if bundle.multiproof.is_some() && bundle.entries.len() == 1 {
                return refuse("a proof of several entries at once has one entry");
            }
            let has_path = |entry: &BundleEntry| !entry.path.is_empty();
            if bundle.multiproof.is_some() && bundle.entries.iter().any(has_path) {
                return refuse("an entry has a path beside the proof of all entries at once");
            }
            bundle
                .entries
                .iter()
                .try_for_each(BundleEntry::check_form)?;
        }
        Ok(())
    }
}

impl BundleEntry {
    fn check_form(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::ProofBundle(what.to_owned()));
        if self.path.len() > MAX_PATH {
            return refuse("a path is longer than that of any tree");
        }
        let key = self.label.as_ref().map_or(&[][..], |label| &label.key);
        let names: std::collections::BTreeSet<_> = key.iter().map(|(name, _)| name).collect();
        match names.len() == key.len() {
            true => Ok(()),
            false => refuse("a key column is there twice"),
        }
    }
}

impl BundleLeaf {
    pub fn hash(&self) -> Hash {
        match self {
            BundleLeaf::Data(data) => leaf_hash(data),
            BundleLeaf::Hash(hash) => *hash,
        }
    }
}
