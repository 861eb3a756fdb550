//! Submission of checkpoints to a witness (C2SP tlog-witness, `add-checkpoint`).

use crate::Retry;
use crate::http::{TIMEOUT, agent};
use crate::transport::{TransportError, read_at_most};
use merkle_tree::{Hash, TreeSize};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use tlog::{AddCheckpoint, Checkpoint, Signature, SignedNote, VerifierKey};

/// A witness at a URL, which is believed only what its key has signed.
#[derive(Debug)]
pub struct WitnessClient {
    url: String,
    key: VerifierKey,
    agent: ureq::Agent,
    retry: Retry,
    /// By the logs' origins.
    known: Mutex<HashMap<String, Known>>,
}

/// What a witness has said of a log.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The size that it is at, by its last answer.
    size: TreeSize,
    /// The largest that it has cosigned for this client.
    cosigned: TreeSize,
}

/// What a witness made of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Its cosignature, verified.
    Cosigned(Signature),
    /// It has cosigned a checkpoint of another size last.
    Conflict(TreeSize),
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The witness has cosigned a checkpoint that is larger: another one submits as well, or this log has lost entries.
    #[error("the witness has cosigned {witness} entries, and this checkpoint has {submitted}")]
    Ahead { witness: u64, submitted: u64 },
    /// The witness says a smaller size than it has cosigned for this client: it has lost its state, and may cosign
    /// another history now. It should not count any more.
    #[error("the witness has cosigned {cosigned} entries, and says that it is at {witness}")]
    RolledBack { witness: u64, cosigned: u64 },
    /// The witness says that the checkpoint does not continue the last one that it has cosigned. If the proof was sound,
    /// the log has two histories.
    #[error(
        "the witness refuses the checkpoint: it does not continue what the witness has cosigned, {size} entries"
    )]
    NotConsistent { size: u64 },
    /// The witness does not know the log, or its key, or does not take requests like this one.
    #[error("the witness refuses the request: HTTP status {status}")]
    Refused { status: u16 },
    /// Worth another attempt later.
    #[error("the witness could not be reached in {attempts} attempts: {why}")]
    Unreachable { attempts: u32, why: String },
    /// What answers is not this witness, or it is broken.
    #[error("the answer is not a cosignature by the witness' key: {0}")]
    NotCosigned(tlog::Error),
    #[error("the answer is not one of a witness: {0}")]
    Answer(&'static str),
    #[error("others submit newer checkpoints faster than this one can be proven")]
    Busy,
    /// The note is no checkpoint.
    #[error(transparent)]
    Checkpoint(tlog::Error),
    /// The consistency proof could not be made.
    #[error("the consistency proof from {old} entries cannot be made: {why}")]
    Proof {
        old: u64,
        why: Box<dyn StdError + Send + Sync>,
    },
    #[cfg(feature = "tokio")]
    #[error("the task was ended")]
    Ended,
}

/// Bytes of the longest answer.
const MAX_ANSWER: u64 = 64 << 10;

/// How often the witness may say another size before this submission gives way to whoever is faster.
pub(crate) const ROUNDS: u32 = 5;

impl WitnessClient {
    /// The witness with this submission prefix, such as `https://witness.example.com`.
    pub fn new(url: &str, key: VerifierKey) -> WitnessClient {
        WitnessClient {
            url: format!("{}/add-checkpoint", url.trim_end_matches('/')),
            key,
            agent: agent(TIMEOUT),
            retry: Retry::default(),
            known: Mutex::default(),
        }
    }

    pub fn with_retry(self, retry: Retry) -> WitnessClient {
        WitnessClient { retry, ..self }
    }

    /// How long one request may take.
    pub fn with_timeout(self, timeout: std::time::Duration) -> WitnessClient {
        WitnessClient {
            agent: agent(timeout),
            ..self
        }
    }

    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Tells what the witness is known to have cosigned, such as by a cosignature that was kept: from now on it must not say a
    /// smaller size ([`SubmitError::RolledBack`]).
    pub fn has_cosigned(&self, checkpoint: &Checkpoint) {
        let (known, size) = (self.known(checkpoint), checkpoint.size());
        let known = Known {
            size: known.size.max(size),
            cosigned: known.cosigned.max(size),
        };
        self.remember(checkpoint, known);
    }

    /// The size to prove from first: what the witness said last, or zero, to which a witness that has cosigned anything
    /// answers with its size.
    pub(crate) fn first_size(&self, checkpoint: &Checkpoint) -> TreeSize {
        self.known(checkpoint).size.min(checkpoint.size())
    }

    fn known(&self, checkpoint: &Checkpoint) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(checkpoint.origin()).copied().unwrap_or_default()
    }

    fn remember(&self, checkpoint: &Checkpoint, known: Known) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(checkpoint.origin().to_owned(), known);
    }

    /// Has the witness cosign a checkpoint. `prove` makes the consistency proof from an older size to the checkpoint's;
    /// it is asked again when the witness says that it is at another size.
    ///
    /// # Errors
    /// If there is no cosignature by the witness' key over the checkpoint.
    pub fn submit<E: StdError + Send + Sync + 'static>(
        &self,
        note: &SignedNote,
        mut prove: impl FnMut(TreeSize) -> Result<Vec<Hash>, E>,
    ) -> Result<Signature, SubmitError> {
        let checkpoint = checkpoint_of(note)?;
        let mut old = self.first_size(&checkpoint);
        for _ in 0..ROUNDS {
            let path = match needs_proof(old, &checkpoint) {
                true => prove(old).map_err(|why| cannot_prove(old, why))?,
                false => Vec::new(),
            };
            match self.offer(note, old, path)? {
                Offered::Cosigned(signature) => return Ok(signature),
                Offered::Conflict(size) => old = next_size(size, &checkpoint)?,
            }
        }
        Err(SubmitError::Busy)
    }

    /// One request, repeated while the witness cannot be reached.
    ///
    /// # Errors
    /// If the witness neither cosigns nor says another size than `old`.
    pub fn offer(
        &self,
        note: &SignedNote,
        old: TreeSize,
        path: Vec<Hash>,
    ) -> Result<Offered, SubmitError> {
        let request =
            AddCheckpoint::new(old, path, note.clone()).map_err(SubmitError::Checkpoint)?;
        let (body, checkpoint) = (request.to_string(), request.checkpoint());
        let answer = self.retry.until_lasting(|| self.post(&body));
        let (status, answer) = answer.map_err(|(error, attempts)| SubmitError::Unreachable {
            attempts,
            why: error.to_string(),
        })?;
        match status {
            200 => {
                let signature = self.cosignature(note, &answer)?;
                let size = checkpoint.size();
                let cosigned = self.known(checkpoint).cosigned.max(size);
                self.remember(checkpoint, Known { size, cosigned });
                Ok(Offered::Cosigned(signature))
            }
            409 => {
                let size = conflict(&answer)?;
                // Version 1.0.0 of the specification says so of another root at the same size.
                if size == old && old == checkpoint.size() {
                    return Err(SubmitError::NotConsistent { size: old.get() });
                }
                if size == old {
                    return Err(SubmitError::Answer(
                        "it conflicts with the size it asks for",
                    ));
                }
                let known = self.known(checkpoint);
                if size < known.cosigned {
                    return Err(SubmitError::RolledBack {
                        witness: size.get(),
                        cosigned: known.cosigned.get(),
                    });
                }
                self.remember(checkpoint, Known { size, ..known });
                Ok(Offered::Conflict(size))
            }
            422 => Err(SubmitError::NotConsistent { size: old.get() }),
            status => Err(SubmitError::Refused { status }),
        }
    }

    /// Status and body, whatever they mean; other answers than a witness' own may pass.
    fn post(&self, body: &str) -> Result<(u16, Vec<u8>), TransportError> {
        let response = self.agent.post(&self.url).send(body);
        let response = response.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) => {
                TransportError::Lasting(error.to_string())
            }
            error => TransportError::Passing(error.to_string()),
        })?;
        let status = response.status().as_u16();
        let answer = read_at_most(response.into_body().into_reader(), MAX_ANSWER)?;
        match status {
            408 | 425 | 429 | 500.. => {
                Err(TransportError::Passing(format!("HTTP status {status}")))
            }
            status => Ok((status, answer)),
        }
    }

    /// The cosignature among the lines of an answer. Those by other keys are ignored.
    fn cosignature(&self, note: &SignedNote, answer: &[u8]) -> Result<Signature, SubmitError> {
        let lines = std::str::from_utf8(answer)
            .ok()
            .and_then(|text| text.strip_suffix('\n'))
            .ok_or(SubmitError::Answer("it does not end in a signature line"))?;
        let bare = SignedNote::new(note.text()).map_err(SubmitError::Checkpoint)?;
        let mut error = tlog::Error::NotSigned;
        for line in lines.split('\n') {
            let signature: Signature = line.parse().map_err(SubmitError::NotCosigned)?;
            let mut cosigned = bare.clone();
            let added = cosigned.add(signature.clone());
            match added.and_then(|()| cosigned.verify([&self.key]).map(|_| ())) {
                Ok(()) => return Ok(signature),
                Err(tlog::Error::NotSigned) => {}
                Err(other) => error = other,
            }
        }
        Err(SubmitError::NotCosigned(error))
    }
}

pub(crate) fn checkpoint_of(note: &SignedNote) -> Result<Checkpoint, SubmitError> {
    note.text().parse().map_err(SubmitError::Checkpoint)
}

/// Nothing is to be proven from nothing, and to the same size.
pub(crate) fn needs_proof(old: TreeSize, checkpoint: &Checkpoint) -> bool {
    old != TreeSize::ZERO && old != checkpoint.size()
}

pub(crate) fn next_size(size: TreeSize, checkpoint: &Checkpoint) -> Result<TreeSize, SubmitError> {
    match size > checkpoint.size() {
        true => Err(SubmitError::Ahead {
            witness: size.get(),
            submitted: checkpoint.size().get(),
        }),
        false => Ok(size),
    }
}

pub(crate) fn cannot_prove(
    old: TreeSize,
    why: impl Into<Box<dyn StdError + Send + Sync>>,
) -> SubmitError {
    SubmitError::Proof {
        old: old.get(),
        why: why.into(),
    }
}

/// The size in the body of a conflict.
fn conflict(answer: &[u8]) -> Result<TreeSize, SubmitError> {
    let digits = std::str::from_utf8(answer)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .filter(|digits| *digits == "0" || !digits.starts_with('0'))
        .and_then(|digits| TreeSize::new(digits.parse().ok()?).ok())
        .ok_or(SubmitError::Answer("a conflict has no size"))
}

impl SubmitError {
    /// Whether another attempt may succeed without anyone changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            SubmitError::Unreachable { .. } | SubmitError::Busy | SubmitError::Proof { .. }
        )
    }
}
