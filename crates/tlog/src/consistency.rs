//! Consistency proofs with the two checkpoints that they connect (`docs/proof-format.md`).

use crate::wire::{Format, FormatName, WireHash, WireNote, from_cbor, from_json, to_cbor, to_json};
use crate::{Error, Policy, SignedNote, VerifiedCheckpoint};
use merkle_tree::{Hash, prefix_root, verify_consistency};
use serde::{Deserialize, Serialize};

/// The claim that a log only grew from one checkpoint to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyBundle {
    pub old: SignedNote,
    pub new: SignedNote,
    /// PROOF(old size, D[0:new size]) of RFC 6962 §2.1.2.
    pub path: Vec<Hash>,
}

/// What a [`ConsistencyBundle`] proves: the entries of `old` are the first entries of `new`.
#[derive(Clone, Debug)]
pub struct ProvenGrowth {
    pub old: VerifiedCheckpoint,
    pub new: VerifiedCheckpoint,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Consistency;

impl FormatName for Consistency {
    const NAME: &'static str = "merkle_log/consistency@v1";
}

/// The fields are in the order of deterministic CBOR.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    new: WireNote,
    old: WireNote,
    path: Vec<WireHash>,
    format: Format<Consistency>,
}

impl ConsistencyBundle {
    /// # Errors
    /// If it is not the JSON of a consistency proof.
    pub fn from_json(json: &[u8]) -> Result<ConsistencyBundle, Error> {
        from_json::<Wire>(json).map(ConsistencyBundle::from)
    }

    /// # Errors
    /// If it is not the one CBOR of a consistency proof.
    pub fn from_cbor(cbor: &[u8]) -> Result<ConsistencyBundle, Error> {
        from_cbor::<Wire>(cbor).map(ConsistencyBundle::from)
    }

    pub fn to_json(&self) -> String {
        to_json(&self.wire())
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        to_cbor(&self.wire())
    }

    /// Whether both checkpoints are the log's, the newer one has the quorum, and the older one is a prefix
    /// of it.
    ///
    /// # Errors
    /// If any of that is not so: [`Error::Fork`] if the log has signed two histories of one size.
    pub fn verify(&self, policy: &Policy) -> Result<ProvenGrowth, Error> {
        let old = policy.verify_log(&self.old)?;
        let new = policy.verify(&self.new)?;
        let (from, to) = (&old.checkpoint, &new.checkpoint);
        if from.origin() != to.origin() {
            return Err(Error::Contradiction(
                "the checkpoints are those of two logs",
            ));
        }
        if from.size() == to.size() && from.root() != to.root() {
            return Err(Error::Fork {
                origin: from.origin().to_owned(),
                size: from.size().get(),
            });
        }
        verify_consistency(from.size(), to.size(), from.root(), to.root(), &self.path)
            .map_err(Error::Consistency)?;
        Ok(ProvenGrowth { old, new })
    }

    /// [`Error::Fork`] if this convicts the log of two histories: it has signed two roots of one size, or the path leads to
    /// the new root and shows that the new tree begins with other entries than the old one had. A path that leads nowhere
    /// convicts nobody, since anyone can write it; and where the old size is a power of two, no path shows that.
    pub fn fork(&self, policy: &Policy) -> Option<Error> {
        let old = policy.verify_log(&self.old).ok()?.checkpoint;
        let new = policy.verify_log(&self.new).ok()?.checkpoint;
        let (size, root) = (old.size(), old.root());
        let shown = match size == new.size() {
            true => Some(*new.root()),
            false => prefix_root(size, new.size(), new.root(), &self.path),
        };
        let convicts = old.origin() == new.origin() && shown.is_some_and(|shown| shown != *root);
        convicts.then(|| Error::Fork {
            origin: old.origin().to_owned(),
            size: size.get(),
        })
    }

    fn wire(&self) -> Wire {
        Wire {
            new: WireNote(self.new.clone()),
            old: WireNote(self.old.clone()),
            path: self.path.iter().copied().map(WireHash).collect(),
            format: Format::default(),
        }
    }
}

impl From<Wire> for ConsistencyBundle {
    fn from(wire: Wire) -> ConsistencyBundle {
        ConsistencyBundle {
            old: wire.old.0,
            new: wire.new.0,
            path: wire.path.into_iter().map(|hash| hash.0).collect(),
        }
    }
}
