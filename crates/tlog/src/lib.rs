//! The formats of the transparency field, as pure functions over bytes: [signed notes](SignedNote),
//! [checkpoints](Checkpoint), cosignatures, [requests to witnesses](AddCheckpoint), [policies](Policy), [tile paths](TilePath),
//! [entry bundles](entry_bundle) and [proofs](TlogProof) as the C2SP specifications have them; and
//! [proof bundles](ProofBundle), [absence proofs](AbsenceProof), [consistency proofs](ConsistencyBundle) and
//! [fork proofs](ForkProof), which are the project's own (`docs/proof-format.md`).
//!
//! Every decoder is strict (one value has one form, except where a specification allows several), and
//! none panics, whatever bytes it is given. Hashing and proofs are those of the crate `merkle-tree`.
//!
//! A log signs a checkpoint, and a reader checks it:
//!
//! ```
//! use tlog::{Checkpoint, KeyName, Policy, SignatureType, SignedNote, SigningKey};
//!
//! let key = SigningKey::from_seed(KeyName::new("example.com/log")?, SignatureType::Ed25519, &[7; 32])?;
//! let checkpoint = Checkpoint::new("example.com/log", Default::default(), merkle_tree::EMPTY_ROOT)?;
//! let mut note = SignedNote::new(&checkpoint.to_string())?;
//! note.sign(&key, 0)?;
//!
//! let policy = Policy::of_log(key.verifier_key());
//! let verified = policy.verify(&note.to_string().parse()?)?;
//! assert_eq!(verified.checkpoint, checkpoint);
//! # Ok::<(), tlog::Error>(())
//! ```
#![forbid(unsafe_code)]

mod absence;
mod add_checkpoint;
mod checkpoint;
mod consistency;
mod cosignature;
mod encoding;
pub mod entry_bundle;
mod error;
mod fork;
mod key;
mod note;
mod policy;
mod proof_bundle;
mod tile_path;
mod tlog_proof;
mod wire;

pub use absence::{AbsenceProof, KeyEntry, MAX_RANGES, ProvenKey, Seal, SealedRange};
pub use add_checkpoint::{AddCheckpoint, Doubt, MAX_PROOF_HASHES, Ruling, Verdict};
pub use checkpoint::Checkpoint;
pub use consistency::{ConsistencyBundle, ProvenGrowth};
pub use cosignature::UnixSeconds;
pub use error::Error;
pub use fork::{ForkProof, ProvenFork};
pub use key::{KeyId, KeyName, SignatureType, SigningKey, VerifierKey};
pub use note::{MAX_SIGNATURES, Signature, SignedNote, Signer};
pub use policy::{Cosigned, Policy, Quorum, VerifiedCheckpoint, Witness};
pub use proof_bundle::{
    BundleEntry, BundleLeaf, Content, Label, MAX_ENTRIES, MAX_LEVELS, ProofBundle, Proven,
    ProvenEntry,
};
pub use tile_path::{TileLevel, TilePath, tile_from_bytes, tile_to_bytes, tiles_of};
pub use tlog_proof::TlogProof;
