//! Proofs of one entry as text (C2SP tlog-proof).

use crate::encoding::{base64_decode, base64_encode, decimal, hash_from_base64};
use crate::{Error, Policy, SignedNote, VerifiedCheckpoint};
use merkle_tree::{Hash, LeafIndex, verify_inclusion};
use std::fmt;
use std::str::FromStr;

/// The claim that an entry, which is not part of the proof, is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Nothing authenticates it. In proofs that this project writes it is the leaf data, which the proof
    /// authenticates if its hash is what is verified.
    pub extra: Option<Vec<u8>>,
    pub index: LeafIndex,
    /// The leaf's sibling first.
    pub path: Vec<Hash>,
    pub checkpoint: SignedNote,
}

const HEADER: &str = "c2sp.org/tlog-proof@v1";

impl TlogProof {
    /// Whether the entry with this leaf hash is at the proof's index of a log that the policy knows.
    ///
    /// # Errors
    /// If it is not so.
    pub fn verify(&self, leaf_hash: &Hash, policy: &Policy) -> Result<VerifiedCheckpoint, Error> {
        let verified = policy.verify(&self.checkpoint)?;
        let (size, root) = (verified.checkpoint.size(), verified.checkpoint.root());
        verify_inclusion(leaf_hash, self.index, size, &self.path, root).map_err(|why| {
            let index = self.index.get();
            Error::Inclusion { index, why }
        })?;
        Ok(verified)
    }
}

impl FromStr for TlogProof {
    type Err = Error;

    fn from_str(text: &str) -> Result<TlogProof, Error> {
        let (proof, checkpoint) = text
            .split_once("\n\n")
            .ok_or(Error::TlogProof("it has no empty line"))?;
        let mut lines = proof.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(Error::TlogProof(
                "the first line is not c2sp.org/tlog-proof@v1",
            ));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = extra.map(|line| {
            base64_decode(&line["extra ".len()..])
                .ok_or(Error::TlogProof("the extra data are not base64"))
        });
        let index = lines
            .next()
            .and_then(|line| decimal(line.strip_prefix("index ")?))
            .and_then(|index| LeafIndex::new(index).ok())
            .ok_or(Error::TlogProof(
                "the index line is missing, or has no index",
            ))?;
        let path = lines.map(|line| {
            hash_from_base64(line).ok_or(Error::TlogProof("a line of the path is no hash"))
        });
        Ok(TlogProof {
            extra: extra.transpose()?,
            index,
            path: path.collect::<Result<_, _>>()?,
            checkpoint: checkpoint.parse()?,
        })
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", base64_encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", base64_encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
