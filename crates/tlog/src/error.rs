//! Why bytes are refused, and why a signature or a proof proves nothing.

use crate::{KeyId, KeyName};

/// What is wrong with an input. The variants up to [`Error::ProofBundle`] are about its form; the others
/// say what a well-formed input fails to prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("not a key name: {0}")]
    KeyName(&'static str),
    #[error("not a verifier key: {0}")]
    VerifierKey(&'static str),
    /// Never with any part of the key.
    #[error("not a signing key: {0}")]
    SigningKey(&'static str),
    #[error("signature type {0:#04x} is not supported")]
    SignatureType(u8),
    #[error("not a signed note: {0}")]
    Note(&'static str),
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    #[error("not an add-checkpoint request: {0}")]
    AddCheckpoint(&'static str),
    #[error("not a policy: line {line}: {what}")]
    Policy { line: usize, what: String },
    #[error("not a tile path: {0}")]
    TilePath(&'static str),
    #[error("not a tile: {0}")]
    Tile(&'static str),
    #[error("not an entry bundle: {0}")]
    EntryBundle(&'static str),
    #[error("not a tlog-proof: {0}")]
    TlogProof(&'static str),
    #[error("not a proof bundle: {0}")]
    ProofBundle(String),
    #[error("the signer failed: {0}")]
    Signer(String),
    #[error("no key is known for the log {origin:?}")]
    UnknownLog { origin: String },
    #[error("no known key has signed the note")]
    NotSigned,
    #[error("the log {origin:?} has not signed the checkpoint with a known key")]
    NotSignedByLog { origin: String },
    #[error("the signature by {name}+{id} is false")]
    BadSignature { name: KeyName, id: KeyId },
    #[error(
        "too few known witnesses have cosigned the checkpoint for the quorum {quorum:?}: {cosigned} have"
    )]
    Quorum { quorum: String, cosigned: usize },
    #[error("the entry {index} is not proven: {why}")]
    Inclusion {
        index: u64,
        why: merkle_tree::VerifyError,
    },
    #[error("the entries are not proven together: {0}")]
    Inclusions(merkle_tree::VerifyError),
    #[error(
        "the index of the range that entry {seal} seals does not prove which entries the key has: {why}"
    )]
    Key {
        seal: u64,
        why: merkle_tree::KeyProofError,
    },
    #[error("that the log only grew is not proven: {0}")]
    Consistency(merkle_tree::VerifyError),
    #[error("the log {origin:?} has signed two roots at size {size}")]
    Fork { origin: String, size: u64 },
    #[error("the proof contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error("no fork is proven: {0}")]
    NoFork(&'static str),
}

impl Error {
    /// Whether this shows the input to be false, rather than unreadable or signed by someone unknown.
    pub fn is_proof_of_falsehood(&self) -> bool {
        matches!(
            self,
            Error::BadSignature { .. }
                | Error::Inclusion { .. }
                | Error::Inclusions(_)
                | Error::Key { .. }
                | Error::Consistency(_)
                | Error::Fork { .. }
                | Error::Contradiction(_)
        )
    }
}
