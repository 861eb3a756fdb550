//! Proofs that a log has signed two histories (`docs/proof-format.md`).

use crate::wire::{Format, FormatName, WireHash, WireNote, from_cbor, from_json, to_cbor, to_json};
use crate::{Error, Policy, SignedNote, VerifiedCheckpoint};
use merkle_tree::{Hash, verify_consistency};
use serde::{Deserialize, Serialize};

/// The claim that a log has signed two checkpoints, of which the older is no beginning of the newer.
///
/// Two roots of one size speak for themselves. Where the sizes differ, `path` shows that the first entries of `new`
/// have the root `prefix_root`, which is not that of `old`. So nobody can accuse a log by a path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkProof {
    pub old: SignedNote,
    pub new: SignedNote,
    /// The root of the first entries of `new`, as many as `old` has.
    pub prefix_root: Hash,
    /// PROOF(old size, D[0:new size]) of RFC 6962 §2.1.2 in the tree of `new`.
    pub path: Vec<Hash>,
}

/// What a [`ForkProof`] proves: the log's key has signed both, and no log that only grows has both.
#[derive(Clone, Debug)]
pub struct ProvenFork {
    pub old: VerifiedCheckpoint,
    pub new: VerifiedCheckpoint,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fork;

impl FormatName for Fork {
    const NAME: &'static str = "merkle_log/fork@v1";
}

/// The fields are in the order of deterministic CBOR.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    new: WireNote,
    old: WireNote,
    path: Vec<WireHash>,
    format: Format<Fork>,
    prefix_root: WireHash,
}

impl ForkProof {
    /// # Errors
    /// If it is not the JSON of a fork proof.
    pub fn from_json(json: &[u8]) -> Result<ForkProof, Error> {
        from_json::<Wire>(json).map(ForkProof::from)
    }

    /// # Errors
    /// If it is not the one CBOR of a fork proof.
    pub fn from_cbor(cbor: &[u8]) -> Result<ForkProof, Error> {
        from_cbor::<Wire>(cbor).map(ForkProof::from)
    }

    pub fn to_json(&self) -> String {
        to_json(&self.wire())
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        to_cbor(&self.wire())
    }

    /// Whether the log has signed both checkpoints, and they are of two histories. The quorum is not asked: that
    /// witnesses have not cosigned a fork is no excuse for it.
    ///
    /// # Errors
    /// If the fork is not proven. Then nothing is proven at all, neither for nor against the log.
    pub fn verify(&self, policy: &Policy) -> Result<ProvenFork, Error> {
        let old = policy.verify_log(&self.old)?;
        let new = policy.verify_log(&self.new)?;
        let (from, to) = (&old.checkpoint, &new.checkpoint);
        if from.origin() != to.origin() {
            return Err(Error::NoFork("the checkpoints are those of two logs"));
        }
        verify_consistency(
            from.size(),
            to.size(),
            &self.prefix_root,
            to.root(),
            &self.path,
        )
        .map_err(|_| Error::NoFork("the path does not lead to the newer checkpoint"))?;
        match self.prefix_root == *from.root() {
            true => Err(Error::NoFork(
                "the newer checkpoint continues the older one",
            )),
            false => Ok(ProvenFork { old, new }),
        }
    }

    fn wire(&self) -> Wire {
        Wire {
            new: WireNote(self.new.clone()),
            old: WireNote(self.old.clone()),
            path: self.path.iter().copied().map(WireHash).collect(),
            format: Format::default(),
            prefix_root: WireHash(self.prefix_root),
        }
    }
}

impl From<Wire> for ForkProof {
    fn from(wire: Wire) -> ForkProof {
        ForkProof {
            old: wire.old.0,
            new: wire.new.0,
            prefix_root: wire.prefix_root.0,
            path: wire.path.into_iter().map(|hash| hash.0).collect(),
        }
    }
}
