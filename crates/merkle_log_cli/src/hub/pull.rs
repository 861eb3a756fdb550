//! One pull of one log: its newest checkpoint becomes a row, or what is wrong with it does.

use super::database::{Hub, Keeping, Kept, Pulled};
use crate::follow::{Followed, Newest, Refusal};
use crate::output::Failure;
use std::fmt;
use tlog::{Checkpoint, ForkProof, SignedNote};

/// What came of a pull.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The checkpoint is in the hub: now, or before. So many rows of the hub are newer than what it continues, and no log
    /// has signed them.
    Kept {
        size: u64,
        new: bool,
        unbelieved: u64,
    },
    /// The log is proven bad.
    Bad(String),
    /// Nothing can be said of the log.
    Undone(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Kept {
                size,
                new,
                unbelieved,
            } => {
                write!(f, "{size} entries{}", if *new { ", new" } else { "" })?;
                match unbelieved {
                    0 => Ok(()),
                    rows => write!(
                        f,
                        "; {rows} newer rows of hub.checkpoints are not signed by the log, and are not believed"
                    ),
                }
            }
            Outcome::Bad(what) => write!(f, "BAD: {what}"),
            Outcome::Undone(what) => write!(f, "could not tell: {what}"),
        }
    }
}

/// How often another hub may be faster.
const ROUNDS: u32 = 100;

/// Pulls the newest checkpoint of a log. One that was convicted is pulled further, and stays bad.
pub fn pull(hub: &Hub, log: &Followed) -> Outcome {
    let pulled = pull_once(hub, log).and_then(|outcome| match outcome {
        Outcome::Kept { .. } => match is_convicted(hub, log)? {
            false => Ok(outcome),
            true => Ok(Outcome::Bad(
                "the log has signed two histories: hub.convictions has the proof".to_owned(),
            )),
        },
        outcome => Ok(outcome),
    });
    pulled.unwrap_or_else(|failure| {
        Outcome::Undone(match failure {
            Failure::Said(what) => what,
            Failure::Unheard => "nobody listens".to_owned(),
        })
    })
}

/// Whether a conviction holds. What is no proof convicts nobody, whoever has put it there.
fn is_convicted(hub: &Hub, log: &Followed) -> Result<bool, Failure> {
    hub.is_convicted(&log.origin, &|evidence| convinces(log, evidence))
}

fn convinces(log: &Followed, evidence: &str) -> bool {
    let proof = ForkProof::from_json(evidence.as_bytes());
    proof.is_ok_and(|proof| {
        let fork = proof.verify(&log.policy);
        fork.is_ok_and(|fork| fork.old.checkpoint.origin() == log.origin)
    })
}

/// Whether the log has signed a note.
fn believes(log: &Followed, note: &SignedNote) -> bool {
    let verified = log.policy.verify_log(note);
    verified.is_ok_and(|verified| verified.checkpoint.origin() == log.origin)
}

fn pull_once(hub: &Hub, log: &Followed) -> Result<Outcome, Failure> {
    for _ in 0..ROUNDS {
        // What is kept is read before the log is asked: what another hub keeps meanwhile may be newer.
        let kept = hub.newest(&log.origin, &|note| believes(log, note))?;
        if kept.note.is_none() && kept.unbelieved > 0 {
            // They may be the log's own, by a key that the policy has no more: then anything else would be another history.
            return Ok(Outcome::Undone(format!(
                "none of the {} rows of hub.checkpoints is signed by a key that is known of this log\n\
                 Hint: A key that was replaced stays in the policy, beside the new one.",
                kept.unbelieved
            )));
        }
        let newest = match log.newest() {
            Ok(newest) => newest,
            Err(refusal) => return refused(hub, log, refusal),
        };
        let size = newest.size();
        let same = hub.of_size(&log.origin, size, &|note| believes(log, note))?;
        // First the one of the same size, which tells most.
        for known in [&same, &kept.note].into_iter().flatten() {
            if let Err(refusal) = log.continues(known, &newest) {
                return refused(hub, log, refusal);
            }
        }
        let outcome = |new| Outcome::Kept {
            size,
            new,
            unbelieved: kept.unbelieved,
        };
        if same.is_some() {
            return Ok(outcome(false));
        }
        // A fork is one without witnesses as well; a checkpoint to rely on is not.
        if let Err(why) = log.policy.check_quorum(&newest.verified) {
            return Ok(Outcome::Undone(why.to_string()));
        }
        match keep(hub, log, &kept, &newest)? {
            Keeping::Kept => return Ok(outcome(true)),
            Keeping::Overtaken => {}
            Keeping::Taken => {
                return Ok(Outcome::Undone(format!(
                    "hub.checkpoints has a row of {size} entries that is not signed by the log"
                )));
            }
        }
    }
    Ok(Outcome::Undone(
        "other hubs keep newer checkpoints faster than this one can compare with them".to_owned(),
    ))
}

fn keep(hub: &Hub, log: &Followed, kept: &Kept, newest: &Newest) -> Result<Keeping, Failure> {
    let pulled = Pulled {
        origin: &log.origin,
        size: newest.size(),
        root: newest.verified.checkpoint.root().as_bytes(),
        note: &newest.note,
        continues: kept.note.as_ref(),
        from: &log.name,
    };
    hub.keep(&pulled, &|note| believes(log, note))
}

fn size_of(note: &SignedNote) -> Result<u64, Failure> {
    Ok(note.text().parse::<Checkpoint>()?.size().get())
}

fn refused(hub: &Hub, log: &Followed, refusal: Refusal) -> Result<Outcome, Failure> {
    let what = refusal.to_string();
    Ok(match refusal {
        Refusal::Fork(fork) => {
            convict(hub, log, &fork)?;
            Outcome::Bad(what)
        }
        // Tiles may be a mirror's, and anyone can add a false signature on the way: a fork is what convicts.
        _ => Outcome::Undone(what),
    })
}

/// The evidence is kept beside the checkpoint that it contradicts: the one of the two that the hub has.
fn convict(hub: &Hub, log: &Followed, fork: &ForkProof) -> Result<(), Failure> {
    fork.verify(&log.policy)?;
    let (old, new) = (size_of(&fork.old)?, size_of(&fork.new)?);
    let has_old = hub
        .of_size(&log.origin, old, &|note| believes(log, note))?
        .is_some_and(|kept| kept.text() == fork.old.text());
    let size = if has_old { old } else { new };
    let evidence = fork.to_json();
    hub.convict(&log.origin, size, &evidence, &log.name, &|evidence| {
        convinces(log, evidence)
    })
}
