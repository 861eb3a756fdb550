//! What a log is asked, and what is believed of its answers.

use crate::growth::{Growth, compare};
use crate::kept::Kept;
use crate::tiles::{Tiles, get, short_tile};
use crate::{Error, Retry, Transport};
use merkle_tree::{
    Hash, LeafIndex, TreeSize, VerifyError, inclusion_proof, leaf_hash, verify_inclusion,
};
use std::path::PathBuf;
use tlog::{Checkpoint, Policy, ProofBundle, Proven, SignedNote, VerifiedCheckpoint};

/// A client of one log.
pub struct Client {
    transport: Box<dyn Transport>,
    policy: Policy,
    kept: Kept,
    retry: Retry,
}

/// The newest checkpoint that a log shows, now the kept one.
#[derive(Clone, Debug)]
pub struct Latest {
    pub note: SignedNote,
    pub verified: VerifiedCheckpoint,
    pub progress: Progress,
}

/// How a checkpoint continues the one that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was kept: this history is believed because there is none to compare it with.
    First,
    /// It is the same.
    Same,
    /// The log grew, and what it had is unchanged.
    Grew { from: TreeSize },
}

/// An entry that is proven to be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    LeafData(Vec<u8>),
    /// The log shows no leaf data of it. There is an entry at this index, and this is its leaf hash.
    Withheld {
        leaf_hash: Hash,
    },
}

impl Entry {
    pub fn leaf_data(&self) -> Option<&[u8]> {
        match self {
            Entry::LeafData(data) => Some(data),
            Entry::Withheld { .. } => None,
        }
    }

    pub fn leaf_hash(&self) -> Hash {
        match self {
            Entry::LeafData(data) => leaf_hash(data),
            Entry::Withheld { leaf_hash } => *leaf_hash,
        }
    }

    /// What has this leaf hash and length 0 in its bundle.
    fn of_hash(hash: Hash) -> Entry {
        match hash == leaf_hash(&[]) {
            true => Entry::LeafData(Vec::new()),
            false => Entry::Withheld { leaf_hash: hash },
        }
    }
}

const MAX_CHECKPOINT: u64 = 1 << 20;

/// How often another process may be faster.
const ROUNDS: u32 = 100;

impl Client {
    /// `kept` is the file of the last checkpoint; it is made when there is one. Clients of one log, also in
    /// several processes, may share it.
    pub fn new(
        transport: impl Transport + 'static,
        policy: Policy,
        kept: impl Into<PathBuf>,
    ) -> Client {
        Client {
            transport: Box::new(transport),
            policy,
            kept: Kept::new(kept),
            retry: Retry::default(),
        }
    }

    /// A client of the log below a URL.
    #[cfg(feature = "http")]
    pub fn http(prefix: &str, policy: Policy, kept: impl Into<PathBuf>) -> Client {
        Client::new(crate::Http::new(prefix), policy, kept)
    }

    pub fn with_retry(self, retry: Retry) -> Client {
        Client { retry, ..self }
    }

    /// The last checkpoint that was believed, without asking the log.
    ///
    /// # Errors
    /// If the file cannot be read, or its content is not signed by a known log.
    pub fn kept(&self) -> Result<Option<(SignedNote, VerifiedCheckpoint)>, Error> {
        let Some(note) = self.kept.read()? else {
            return Ok(None);
        };
        let verified = self.policy.verify_log(&note)?;
        Ok(Some((note, verified)))
    }

    /// Asks the log for its newest checkpoint, and keeps it if the log grew from the kept one to it.
    ///
    /// # Errors
    /// If the checkpoint is not valid under the policy, not consistent with the kept one
    /// ([`Error::NotConsistent`]), or older. Then the kept one stays.
    pub fn latest(&self) -> Result<Latest, Error> {
        for _ in 0..ROUNDS {
            // What is kept is read before the log is asked: what others keep meanwhile may be newer than the answer.
            let kept = self.kept()?;
            let bytes = get(&*self.transport, &self.retry, "checkpoint", MAX_CHECKPOINT)?;
            let note = SignedNote::from_bytes(&bytes)?;
            let verified = self.policy.verify(&note)?;
            let progress = self.progress(kept.as_ref(), &note, &verified.checkpoint)?;
            // Comparing may take long, and is done without the lock: then it is good only for what was compared.
            let lock = self.kept.lock()?;
            let compared = kept.map(|(note, _)| note);
            if self.kept.read()? != compared {
                continue;
            }
            if compared.as_ref() != Some(&note) {
                self.kept.replace(&note, &lock)?;
            }
            return Ok(Latest {
                note,
                verified,
                progress,
            });
        }
        Err(Error::Busy)
    }

    /// An entry of the log, proven to be in the kept checkpoint. What has length 0 in its bundle is withheld, unless it
    /// is empty; then the leaf hash of the log's tile is what is proven.
    ///
    /// # Errors
    /// If there is no such entry, the log does not serve it, or it is not the one that the checkpoint commits to.
    pub fn entry(&self, index: u64) -> Result<Entry, Error> {
        let (_, verified) = self.kept()?.ok_or(Error::NothingKept)?;
        let checkpoint = verified.checkpoint;
        let size = checkpoint.size();
        let no_such_entry = Error::NoSuchEntry {
            index,
            size: size.get(),
        };
        let at = match LeafIndex::new(index) {
            Ok(at) if index < size.get() => at,
            _ => return Err(no_such_entry),
        };
        let mut tiles = self.tiles(size);
        let data = tiles.entry(index)?;
        let entry = match data.is_empty() {
            true => Entry::of_hash(tiles.leaf_hash(index)?),
            false => Entry::LeafData(data),
        };
        let path = inclusion_proof(&mut tiles, at, size).map_err(read_error)?;
        verify_inclusion(&entry.leaf_hash(), at, size, &path, checkpoint.root())
            .map_err(|why| tlog::Error::Inclusion { index, why })?;
        Ok(entry)
    }

    /// What a proof bundle proves, if its log's checkpoint is also part of the history that was kept.
    ///
    /// # Errors
    /// If the bundle does not prove it, or the log has shown another history ([`Error::NotConsistent`]).
    pub fn verify(&self, bundle: &ProofBundle) -> Result<Proven, Error> {
        let proven = bundle.verify(&self.policy)?;
        let (kept_note, kept) = self.kept()?.ok_or(Error::NothingKept)?;
        let kept = kept.checkpoint;
        let mut level = (&proven, bundle);
        while level.0.checkpoint.checkpoint.origin() != kept.origin() {
            level = match (&level.0.hub, &level.1.hub) {
                (Some(proven), Some(bundle)) => (proven, bundle),
                _ => {
                    return Err(Error::OtherLog {
                        kept: kept.origin().to_owned(),
                        shown: proven.checkpoint.checkpoint.origin().to_owned(),
                    });
                }
            };
        }
        let (shown, note) = (&level.0.checkpoint.checkpoint, &level.1.checkpoint);
        match shown.size() <= kept.size() {
            true => self.continues(note, &kept_note, [&kept_note, note])?,
            false => self.continues(&kept_note, note, [&kept_note, note])?,
        }
        Ok(proven)
    }

    fn progress(
        &self,
        kept: Option<&(SignedNote, VerifiedCheckpoint)>,
        note: &SignedNote,
        shown: &Checkpoint,
    ) -> Result<Progress, Error> {
        let Some((kept_note, kept)) = kept else {
            return Ok(Progress::First);
        };
        let kept = &kept.checkpoint;
        if kept.origin() != shown.origin() {
            return Err(Error::OtherLog {
                kept: kept.origin().to_owned(),
                shown: shown.origin().to_owned(),
            });
        }
        if shown.size() < kept.size() {
            return Err(Error::Older {
                kept: kept.size().get(),
                shown: shown.size().get(),
            });
        }
        self.continues(kept_note, note, [kept_note, note])?;
        Ok(match kept.size() == shown.size() {
            true => Progress::Same,
            false => Progress::Grew { from: kept.size() },
        })
    }

    /// That the entries of `old` are the first of `new`, by a proof from the log's tiles.
    fn continues(
        &self,
        old: &SignedNote,
        new: &SignedNote,
        [kept, shown]: [&SignedNote; 2],
    ) -> Result<(), Error> {
        let fork = match compare(&*self.transport, &self.retry, old, new)? {
            Growth::Grew { .. } => return Ok(()),
            Growth::Forked(fork) => fork,
        };
        let checkpoint: Checkpoint = fork.old.text().parse()?;
        let why = match fork.path.is_empty() {
            true => tlog::Error::Fork {
                origin: checkpoint.origin().to_owned(),
                size: checkpoint.size().get(),
            },
            false => tlog::Error::Consistency(VerifyError::RootMismatch),
        };
        Err(Error::NotConsistent {
            kept: Box::new(kept.clone()),
            shown: Box::new(shown.clone()),
            why,
        })
    }

    fn tiles(&self, size: TreeSize) -> Tiles<'_> {
        Tiles::new(&*self.transport, &self.retry, size)
    }
}

pub(crate) fn read_error(error: merkle_tree::Error<Error>) -> Error {
    match error {
        merkle_tree::Error::Read(error) => error,
        _ => short_tile(),
    }
}
