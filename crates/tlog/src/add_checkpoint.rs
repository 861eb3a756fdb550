//! What a log sends to a witness (C2SP tlog-witness, `add-checkpoint`), and what the witness must answer.

use crate::encoding::{base64_encode, decimal, hash_from_base64};
use crate::{Checkpoint, Error, Policy, SignedNote, VerifierKey};
use merkle_tree::{Hash, TreeSize, prefix_root, verify_consistency};
use std::fmt;
use std::str::FromStr;

/// A proof of more hashes is refused.
pub const MAX_PROOF_HASHES: usize = 63;

/// A checkpoint for a witness, and a proof that it continues the one of `old_size` that the witness has seen last.
///
/// ```
/// # let (key, origin) = ("example.com/log", "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
/// # let key = tlog::SigningKey::from_seed(tlog::KeyName::new(key)?, tlog::SignatureType::Ed25519, &[1; 32])?;
/// # let mut note = tlog::SignedNote::new(origin)?;
/// # note.sign(&key, 0)?;
/// use tlog::{AddCheckpoint, Ruling, Verdict};
///
/// let request = AddCheckpoint::new(Default::default(), Vec::new(), note)?;
/// assert_eq!(request.to_string().parse::<AddCheckpoint>()?, request);
///
/// let policy = tlog::Policy::of_log(key.verifier_key());
/// let admitted = request.admit(&policy).expect("the log is known and has signed");
/// assert_eq!(request.rule(None), Ruling { verdict: Verdict::Cosign, doubt: None });
/// # assert_eq!(&admitted, request.note());
/// # Ok::<(), tlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: TreeSize,
    path: Vec<Hash>,
    note: SignedNote,
    checkpoint: Checkpoint,
}

/// What a witness answers. Each is one status of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200: the checkpoint continues the last one. It must be kept before the cosignature is given away.
    Cosign,
    /// 400: the old size is larger than the checkpoint's.
    BadRequest,
    /// 403: no key that is known for the log has signed.
    Forbidden,
    /// 404: the log is not known.
    NotFound,
    /// 409: the last checkpoint has this size, which is not the request's old size.
    Conflict { size: TreeSize },
    /// 422: the proof does not hold, or the last checkpoint has this size and another root.
    Unprocessable,
}

/// Why a checkpoint that the log has signed may be evidence against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The log has signed two histories: together with the last checkpoint and the proof this convicts it.
    Fork,
    /// The proof does not show that the log only grew. Whoever sent it may have altered it.
    Unproven,
}

/// What a witness answers to a request whose checkpoint a known log has signed, and whether it is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    pub doubt: Option<Doubt>,
}

impl AddCheckpoint {
    /// # Errors
    /// If the proof is too long, or the note is no checkpoint.
    pub fn new(
        old_size: TreeSize,
        path: Vec<Hash>,
        note: SignedNote,
    ) -> Result<AddCheckpoint, Error> {
        if path.len() > MAX_PROOF_HASHES {
            return Err(Error::AddCheckpoint("the proof has more than 63 hashes"));
        }
        let checkpoint = note.text().parse()?;
        Ok(AddCheckpoint {
            old_size,
            path,
            note,
            checkpoint,
        })
    }

    /// # Errors
    /// As [`AddCheckpoint::from_str`], and if the bytes are not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<AddCheckpoint, Error> {
        let text = std::str::from_utf8(bytes);
        text.map_err(|_| Error::AddCheckpoint("it is not UTF-8"))?
            .parse()
    }

    pub fn old_size(&self) -> TreeSize {
        self.old_size
    }

    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    pub fn note(&self) -> &SignedNote {
        &self.note
    }

    /// What the note says, whoever has signed it.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The checkpoint with the signatures that its log's keys have made, if the policy knows any of them. What others
    /// wrote below it is ignored, and left out.
    ///
    /// # Errors
    /// What the witness answers instead of looking at its state.
    pub fn admit(&self, policy: &Policy) -> Result<SignedNote, Verdict> {
        let of_log = |key: &&VerifierKey| key.name().as_str() == self.checkpoint.origin();
        let keys: Vec<_> = policy.logs().iter().filter(of_log).collect();
        if keys.is_empty() {
            return Err(Verdict::NotFound);
        }
        let signatures = self.note.verify(keys).map_err(|_| Verdict::Forbidden)?;
        let mut note = SignedNote::new(self.note.text()).map_err(|_| Verdict::BadRequest)?;
        for (signature, _) in signatures {
            note.add(signature.clone())
                .map_err(|_| Verdict::BadRequest)?;
        }
        Ok(note)
    }

    /// What a witness answers that has cosigned `last` of this log last, or nothing yet. The log must have signed the
    /// request's checkpoint: see [`AddCheckpoint::admit`].
    pub fn rule(&self, last: Option<&Checkpoint>) -> Ruling {
        let size = last.map_or(TreeSize::ZERO, Checkpoint::size);
        let verdict = |verdict, doubt| Ruling { verdict, doubt };
        // Two roots of one size are evidence, whatever else the request says.
        let same_size = last.filter(|last| last.size() == self.checkpoint.size());
        let fork = same_size.filter(|last| last.root() != self.checkpoint.root());
        let fork = fork.map(|_| Doubt::Fork);
        if self.old_size > self.checkpoint.size() {
            return verdict(Verdict::BadRequest, fork);
        }
        if self.old_size != size {
            return verdict(Verdict::Conflict { size }, fork);
        }
        if fork.is_some() {
            return verdict(Verdict::Unprocessable, fork);
        }
        let root = last.map_or(merkle_tree::EMPTY_ROOT, |last| *last.root());
        match self.grew_from(&root) {
            true => verdict(Verdict::Cosign, None),
            false => verdict(Verdict::Unprocessable, self.doubt(&root)),
        }
    }

    fn grew_from(&self, root: &Hash) -> bool {
        let (size, new_root) = (self.checkpoint.size(), self.checkpoint.root());
        verify_consistency(self.old_size, size, root, new_root, &self.path).is_ok()
    }

    /// What a proof that does not hold says about the log.
    fn doubt(&self, root: &Hash) -> Option<Doubt> {
        let (size, new_root) = (self.checkpoint.size(), self.checkpoint.root());
        // Nothing is continued, or the same checkpoint was sent with a proof.
        if self.old_size == TreeSize::ZERO || self.old_size == size {
            return None;
        }
        match prefix_root(self.old_size, size, new_root, &self.path) {
            Some(prefix) if prefix != *root => Some(Doubt::Fork),
            _ => Some(Doubt::Unproven),
        }
    }
}

impl FromStr for AddCheckpoint {
    type Err = Error;

    /// # Errors
    /// If it has not the one form of a request: old size, proof, empty line, signed checkpoint.
    fn from_str(text: &str) -> Result<AddCheckpoint, Error> {
        let (proof, note) = text
            .split_once("\n\n")
            .ok_or(Error::AddCheckpoint("it has no empty line"))?;
        let mut lines = proof.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| decimal(line.strip_prefix("old ")?))
            .and_then(|size| TreeSize::new(size).ok())
            .ok_or(Error::AddCheckpoint("the first line has no old size"))?;
        let mut path = Vec::new();
        for line in lines {
            if path.len() == MAX_PROOF_HASHES {
                return Err(Error::AddCheckpoint("the proof has more than 63 hashes"));
            }
            let hash = hash_from_base64(line);
            path.push(hash.ok_or(Error::AddCheckpoint("a line of the proof is no hash"))?);
        }
        AddCheckpoint::new(old_size, path, note.parse()?)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.path {
            writeln!(f, "{}", base64_encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.note)
    }
}
