//! One look at a log: its newest checkpoint, and whether that continues the one that was kept.

use super::sql::SqlLog;
use merkle_log_client::{Error, Growth, Retry, Transport, TransportError, compare};
use std::fmt;
use std::sync::Arc;
use tlog::{ForkProof, Policy, SignedNote, VerifiedCheckpoint};

/// A log that is followed.
pub struct Followed {
    pub name: String,
    pub transport: Box<dyn Transport>,
    pub retry: Retry,
    pub policy: Policy,
    pub origin: String,
    /// Where the database itself can be asked.
    pub database: Option<Arc<SqlLog>>,
}

/// The newest checkpoint that the log shows, signed by it.
pub struct Newest {
    pub note: SignedNote,
    pub verified: VerifiedCheckpoint,
}

impl Newest {
    pub fn size(&self) -> u64 {
        self.verified.checkpoint.size().get()
    }
}

/// Why a checkpoint is not taken.
#[derive(Debug)]
pub enum Refusal {
    /// There is nothing to judge: no answer, or one that is no checkpoint.
    Unread(String),
    /// The log has not signed it, or not truly; the second is proven.
    Signature { what: String, proven: bool },
    /// The log has signed two histories.
    Fork(Box<ForkProof>),
    /// The log shows fewer entries than before, and not which history they are of.
    WentBack { kept: u64, shown: u64 },
    /// The log's tiles are not those of its checkpoint.
    Tiles(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unread(what) | Refusal::Signature { what, .. } | Refusal::Tiles(what) => {
                f.write_str(what)
            }
            Refusal::Fork(fork) => f.write_str(&fork_text(fork)),
            Refusal::WentBack { kept, shown } => {
                write!(f, "the log shows {shown} entries, and has shown {kept}")
            }
        }
    }
}

/// What a fork is, for people.
fn fork_text(fork: &ForkProof) -> String {
    let line = |note: &SignedNote, place| note.text().lines().nth(place).unwrap_or("?").to_owned();
    let (old, new) = (line(&fork.old, 1), line(&fork.new, 1));
    match old == new {
        true => format!(
            "the log has signed two roots at size {old}: {} and {}",
            line(&fork.old, 2),
            line(&fork.new, 2)
        ),
        false => format!(
            "the log has signed {old} entries, and then {new} entries that do not begin with these"
        ),
    }
}

/// A checkpoint is no longer than this.
const MAX_CHECKPOINT: u64 = 1 << 20;

impl Followed {
    /// The newest checkpoint, if the log has signed it. The quorum is not asked.
    pub fn newest(&self) -> Result<Newest, Refusal> {
        let mut attempt = 1;
        let bytes = loop {
            match self.transport.get("checkpoint", MAX_CHECKPOINT) {
                Ok(bytes) => break bytes,
                Err(TransportError::Passing(_)) if attempt < self.retry.attempts => {
                    std::thread::sleep(self.retry.first_pause * attempt);
                    attempt += 1;
                }
                Err(error) => return Err(Refusal::Unread(format!("the checkpoint: {error}"))),
            }
        };
        let unread = |error: tlog::Error| Refusal::Unread(error.to_string());
        let note = SignedNote::from_bytes(&bytes).map_err(unread)?;
        let verified = self.policy.verify_log(&note).map_err(|error| match error {
            tlog::Error::Checkpoint(_) | tlog::Error::Note(_) => unread(error),
            error => Refusal::Signature {
                // A false line of a witness says nothing of the log.
                proven: matches!(&error, tlog::Error::BadSignature { name, .. } if name.as_str() == self.origin),
                what: error.to_string(),
            },
        })?;
        if verified.checkpoint.origin() != self.origin {
            return Err(Refusal::Signature {
                what: format!(
                    "this is a checkpoint of {:?}, not of {:?}",
                    verified.checkpoint.origin(),
                    self.origin
                ),
                proven: false,
            });
        }
        Ok(Newest { note, verified })
    }

    /// Whether a checkpoint continues the one that was kept.
    pub fn continues(&self, kept: &SignedNote, newest: &Newest) -> Result<(), Refusal> {
        let known = self.policy.verify_log(kept).map_err(|error| {
            Refusal::Unread(format!(
                "the checkpoint that was kept is not one of this log: {error}"
            ))
        })?;
        if known.checkpoint.origin() != self.origin {
            return Err(Refusal::Unread(format!(
                "the checkpoint that was kept is one of {:?}",
                known.checkpoint.origin()
            )));
        }
        let before = known.checkpoint.size().get();
        if newest.size() < before {
            // Its tiles may still tell whether it is the beginning of what was kept.
            return match compare(&*self.transport, &self.retry, &newest.note, kept) {
                Ok(Growth::Forked(fork)) => Err(Refusal::Fork(fork)),
                _ => Err(Refusal::WentBack {
                    kept: before,
                    shown: newest.size(),
                }),
            };
        }
        match compare(&*self.transport, &self.retry, kept, &newest.note) {
            Ok(Growth::Grew { .. }) => Ok(()),
            Ok(Growth::Forked(fork)) => Err(Refusal::Fork(fork)),
            Err(Error::Tlog(tlog::Error::Consistency(_))) => Err(Refusal::Tiles(
                "the tiles do not lead to the root that the log has signed".to_owned(),
            )),
            Err(error) => Err(Refusal::Unread(error.to_string())),
        }
    }
}
