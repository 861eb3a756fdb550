//! Checkpoints: tree heads, signed for those outside.
//!
//! What is signed cannot be taken back, and whoever sees two roots of one size has proof that the log forks. So before
//! a head is signed, it is flushed here and on synchronous standbys; its root is computed again from the entries on top
//! of the last checkpoint ([`recompute`]); and it must contain every checkpoint that is known to have been signed, also
//! by a server that this one was restored from or that it took over from ([`accept`]), or by another database of this
//! server ([`memory`]). One signs at a time, and no standby does. What is signed is committed before anyone is given it
//! ([`signer`]): a transaction that is rolled back takes no signature back.

mod known;
mod memory;
pub mod recompute;
mod signer;
pub mod signing_key;

use crate::administration::{self, ADMINISTRATION, Act};
use crate::batch;
use crate::catalog::identity;
use crate::catalog::logs::{self, Log};
use crate::error::{CheckpointError, Error};
use crate::pg::lock::Object;
use crate::pg::spi::Snapshot;
use crate::pg::{server, wal, xact};
use crate::session::Session;
use crate::settings;
use crate::store::checkpoints::{self, Accepted, Stored};
use crate::store::heads::{self, Head};
use crate::store::tree::{TreeReader, tree_error, tree_size};
use memory::Memory;
use merkle_tree::Hash;
use tlog::{Checkpoint, Signature, SignedNote, SigningKey, VerifierKey};

pub use known::{accept, remember_all};

/// The newest checkpoint, after signing what is new; on a standby, the newest that was signed.
pub fn newest(session: &Session, name: &str) -> Result<String, Error> {
    let log = logs::by_name(session, Snapshot::Statement, name)?;
    if server::in_recovery() {
        let latest = checkpoints::latest(session, Snapshot::Statement, &log);
        return latest.map(|c| c.note).ok_or_else(|| {
            Error::Checkpoint(CheckpointError::NoCheckpoint {
                log: log.name,
                size: "any".to_owned(),
            })
        });
    }
    batch::check_writable(Some(name))?;
    identity::look(session)?;
    if logs::row_writer(session, &log)?.is_some_and(xact::is_own) {
        return Err(uncommitted(&log));
    }
    match examine(session, &log)? {
        Examined::Signed(note) => {
            if let Some(stored) = checkpoints::latest(session, Snapshot::Fresh, &log) {
                known::remember(&stored)?;
            }
            Ok(note)
        }
        Examined::Due(_) => signer::sign(name),
    }
}

fn uncommitted(log: &Log) -> Error {
    let log = log.name.clone();
    Error::Checkpoint(CheckpointError::Uncommitted { log })
}

/// What there is to sign of a log.
enum Examined {
    /// Nothing: this is the newest checkpoint.
    Signed(String),
    Due(Box<Due>),
}

struct Due {
    head: Head,
    last: Option<Stored>,
    origin: String,
    key: SigningKey,
}

/// That the log may be signed as it is, and what is new.
fn examine(session: &Session, log: &Log) -> Result<Examined, Error> {
    let (head, writer) = heads::stored(session, Snapshot::Fresh, log)?;
    if xact::is_own(writer) {
        return Err(uncommitted(log));
    }
    let last = checkpoints::latest(session, Snapshot::Fresh, log);
    let known = checkpoints::accepted(session, Snapshot::Fresh, log)?;
    for known in &known {
        contains(session, log, &head, known)?;
    }
    if let Some(last) = &last {
        contains(session, log, &head, &last.known(log)?)?;
    }
    let of_another = |last: &&Stored| {
        let given = checkpoints::given_origin(session, Snapshot::Fresh, log);
        given.as_ref() != Some(&last.origin)
    };
    match last.filter(|last| last.tree_size == head.tree_size) {
        // What the original of a copy has signed is as true here.
        Some(last) if of_another(&&last) => Ok(Examined::Signed(last.note)),
        Some(last) => match signing_key::configured(&last.origin)? {
            Some(key) if !last.is_signed_by(&key.verifier_key()) => {
                Ok(Examined::Due(Box::new(Due {
                    head,
                    origin: last.origin.clone(),
                    last: Some(last),
                    key,
                })))
            }
            _ => Ok(Examined::Signed(last.note)),
        },
        None => {
            let origin = origin(session, Snapshot::Fresh, log)?;
            Ok(Examined::Due(Box::new(Due {
                head,
                last: checkpoints::latest(session, Snapshot::Fresh, log),
                key: signing_key::of_log(&origin)?,
                origin,
            })))
        }
    }
}

/// Why nothing of the log would be signed now; `None` if it would be, and on a standby, which never signs.
pub fn problem(session: &Session, log: &Log) -> Option<String> {
    if server::in_recovery() {
        return None;
    }
    let looked = || identity::look(session).and_then(|()| examine(session, log).map(|_| ()));
    looked().err().map(|error| error.to_string())
}

/// Signs the log's latest head, unless that was done. The caller commits before anyone is given the note, and soon:
/// others who sign wait.
pub fn sign(session: &Session, name: &str) -> Result<String, Error> {
    batch::check_writable(Some(name))?;
    identity::check(session)?;
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    lock(session, &log)?;
    let due = match examine(session, &log)? {
        Examined::Signed(note) => return Ok(note),
        Examined::Due(due) => due,
    };
    let Due {
        head,
        last,
        origin,
        key,
    } = *due;
    let memory = Memory::lock(&log.name, &origin)?;
    let remembered = known::check(session, &log, &head, &memory, &origin)?;
    // The key was replaced: the same checkpoint is signed by the new one as well.
    let again = last
        .as_ref()
        .filter(|last| last.tree_size == head.tree_size);
    // A row that the key has not signed vouches for nothing.
    let before = last
        .as_ref()
        .filter(|last| last.tree_size < head.tree_size && last.is_signed_by(&key.verifier_key()));
    let before = before.map(|last| last.known(&log)).transpose()?;
    let signed = remembered.or(before).map(|k| (k.tree_size, k.root));
    recompute::check(session, &log, &head, signed)?;
    let size = tree_size(&log, head.tree_size)?;
    let checkpoint = Checkpoint::new(&origin, size, head.root).map_err(|e| note_error(&e))?;
    let text = checkpoint.to_string();
    let mut note = match again {
        Some(last) => signed_note(&log, last, &text)?,
        None => {
            remember_origin(session, &log, &origin)?;
            let row = Stored {
                tree_size: head.tree_size,
                root: head.root.as_bytes().to_vec(),
                origin,
                note: text.clone(),
                verifier_key: key.verifier_key().to_string(),
            };
            checkpoints::insert(session, &log, &row);
            SignedNote::new(&text).map_err(|e| note_error(&e))?
        }
    };
    if again.is_some() {
        // So that there is something to flush, as for a new one.
        checkpoints::set_note(session, &log, head.tree_size, &note.to_string());
    }
    make_durable(&log)?;
    note.sign(&key, 0).map_err(|e| note_error(&e))?;
    checkpoints::set_note(session, &log, head.tree_size, &note.to_string());
    memory.replace(server::database_name(), &note)?;
    Ok(note.to_string())
}

/// The stored note of a checkpoint, which must say `text`: a signature is never put under what stands in a table.
fn signed_note(log: &Log, stored: &Stored, text: &str) -> Result<SignedNote, Error> {
    let note = stored.note.parse::<SignedNote>();
    note.ok()
        .filter(|note| note.text() == text)
        .ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!(
                "the note of the checkpoint of size {} does not say what the log is",
                stored.tree_size
            ),
        })
}

fn lock(session: &Session, log: &Log) -> Result<(), Error> {
    let signer = Object {
        table: session.relation(c"merkle_checkpoint")?,
        number: log.id,
    };
    let locked =
        signer.try_exclusive() || signer.exclusive_within(settings::fence_timeout()).is_ok();
    match locked {
        true => Ok(()),
        false => Err(Error::Busy {
            log: log.name.clone(),
            by: "another transaction that signs a checkpoint of it".to_owned(),
        }),
    }
}

/// The row of the checkpoint was written, so what is flushed up to there holds the commit of the head before it.
fn make_durable(log: &Log) -> Result<(), Error> {
    let (upto, patience) = (wal::flush_written(), settings::fence_timeout());
    match wal::wait_for_synchronous_standbys(upto, patience) {
        true => Ok(()),
        false => Err(Error::Checkpoint(CheckpointError::NotReplicated {
            log: log.name.clone(),
            timeout: patience.as_secs_f64(),
        })),
    }
}

/// That the tree of `head` contains a checkpoint that was signed.
pub fn contains(session: &Session, log: &Log, head: &Head, known: &Accepted) -> Result<(), Error> {
    if known.tree_size > head.tree_size {
        return Err(Error::Checkpoint(CheckpointError::LostTail {
            log: log.name.clone(),
            known: known.tree_size,
            size: head.tree_size,
            root: head.root.to_string(),
        }));
    }
    let root = root_at(session, log, head, known.tree_size)?;
    match root == known.root {
        true => Ok(()),
        false => Err(Error::Checkpoint(CheckpointError::Rewritten {
            log: log.name.clone(),
            size: known.tree_size,
            signed: known.root.to_string(),
            root: root.to_string(),
        })),
    }
}

fn root_at(session: &Session, log: &Log, head: &Head, size: i64) -> Result<Hash, Error> {
    if size == head.tree_size {
        return Ok(head.root);
    }
    let mut reader = TreeReader::new(session, log, Snapshot::Fresh);
    merkle_tree::root(&mut reader, tree_size(log, size)?).map_err(|e| tree_error(log, e))
}

/// The log's name outside: the one that it was given or has signed under, or one by `merkle_log.origin_prefix`. A log of
/// a copy has none until it is given one.
pub fn origin(session: &Session, snapshot: Snapshot, log: &Log) -> Result<String, Error> {
    if let Some(origin) = checkpoints::given_origin(session, snapshot, log) {
        return Ok(origin);
    }
    let of_log = |what: fn(String) -> CheckpointError| Error::Checkpoint(what(log.name.clone()));
    if identity::is_copy(session, snapshot) {
        return Err(of_log(|log| CheckpointError::OriginOfCopy { log }));
    }
    let prefix =
        settings::origin_prefix().ok_or_else(|| of_log(|log| CheckpointError::NoOrigin { log }))?;
    let origin = format!("{prefix}/{}", log.name);
    check_origin(session, &origin, Some(log.id))?;
    Ok(origin)
}

/// That a log can have this origin, and no other has or had it.
pub fn check_origin(session: &Session, origin: &str, log_id: Option<i32>) -> Result<(), Error> {
    tlog::KeyName::new(origin).map_err(|e| signing_key::origin_error(origin, &e))?;
    let problem = match origin {
        _ if origin.contains("://") => "it has a scheme",
        _ if origin.ends_with('/') => "it ends in a slash",
        _ if origin.chars().any(char::is_control) => "it has a control character",
        _ if origin.len() > 255 => "it is longer than 255 bytes",
        _ if checkpoints::is_of_another(session, origin, log_id) => {
            let origin = origin.to_owned();
            return Err(Error::Checkpoint(CheckpointError::OriginTaken { origin }));
        }
        _ => return Ok(()),
    };
    Err(Error::Checkpoint(CheckpointError::Origin {
        origin: origin.chars().take(100).collect(),
        problem: problem.to_owned(),
    }))
}

/// That a log may get this origin: it has no checkpoints under another, and gets none before the transaction ends.
pub fn check_new_origin(session: &Session, log: &Log, origin: &str) -> Result<(), Error> {
    lock(session, log)?;
    let own = checkpoints::given_origin(session, Snapshot::Fresh, log);
    // Where the log has none, its checkpoints are those of the original of a copy.
    check_origin(session, origin, own.as_ref().map(|_| log.id))?;
    match checkpoints::latest(session, Snapshot::Fresh, log) {
        Some(last) if Some(&last.origin) == own.as_ref() && last.origin != origin => {
            Err(Error::Checkpoint(CheckpointError::OriginFixed {
                log: log.name.clone(),
                origin: last.origin,
            }))
        }
        _ => Ok(()),
    }
}

/// An origin by the prefix is the log's from its first checkpoint on, whatever becomes of the prefix and of its name.
fn remember_origin(session: &Session, log: &Log, origin: &str) -> Result<(), Error> {
    if checkpoints::given_origin(session, Snapshot::Fresh, log).as_deref() != Some(origin) {
        checkpoints::set_origin(session, log, origin);
        session.logs_changed()?;
        // The administration log's own row is in no dump and on no record.
        if log.id != ADMINISTRATION {
            administration::record(session, Act::LogAltered { log_id: log.id });
        }
    }
    Ok(())
}

/// The key by which the newest checkpoint of the log is verified; before the first, that of the key file. Of a checkpoint
/// that two keys have signed, the one of the file.
pub fn verifier_key(session: &Session, name: &str) -> Result<String, Error> {
    let log = logs::by_name(session, Snapshot::Statement, name)?;
    let Some(last) = checkpoints::latest(session, Snapshot::Statement, &log) else {
        let origin = origin(session, Snapshot::Statement, &log)?;
        return Ok(signing_key::of_log(&origin)?.verifier_key().to_string());
    };
    let current = signing_key::configured(&last.origin).ok().flatten();
    let current = current.map(|key| key.verifier_key());
    Ok(match current.filter(|key| last.is_signed_by(key)) {
        Some(key) => key.to_string(),
        None => last.verifier_key,
    })
}

/// Adds those signatures of a note that known witnesses have made over a checkpoint of the log; returns how many.
pub fn cosign(session: &Session, name: &str, text: &str, keys: &[String]) -> Result<i32, Error> {
    batch::check_writable(Some(name))?;
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    let keys = keys.iter().map(|key| {
        let key = key.parse::<VerifierKey>();
        let key =
            key.map_err(|e| Error::Checkpoint(CheckpointError::VerifierKey(e.to_string())))?;
        match key.signature_type().is_cosignature() {
            true => Ok(key),
            false => Err(Error::Checkpoint(CheckpointError::VerifierKey(format!(
                "that of {} is not one for cosignatures",
                key.name()
            )))),
        }
    });
    let keys: Vec<VerifierKey> = keys.collect::<Result<_, Error>>()?;
    let note: SignedNote = text.parse().map_err(|e| note_error(&e))?;
    let checkpoint: Checkpoint = note.text().parse().map_err(|e| note_error(&e))?;
    let cosignatures = note.verify(&keys).map_err(|e| note_error(&e))?;
    lock(session, &log)?;
    let size = checkpoint.size().get() as i64;
    let stored = checkpoints::at(session, Snapshot::Fresh, &log, size);
    let stored = stored.ok_or_else(|| {
        Error::Checkpoint(CheckpointError::NoCheckpoint {
            log: log.name.clone(),
            size: size.to_string(),
        })
    })?;
    let mut signed: SignedNote = stored.note.parse().map_err(|e| note_error(&e))?;
    if signed.text() != note.text() {
        return Err(Error::Checkpoint(CheckpointError::Note(format!(
            "it is not the checkpoint of size {size} that this log has signed"
        ))));
    }
    let known = signed.verify(&keys).unwrap_or_default();
    let kept: Vec<_> = known.iter().map(|(s, key)| (*key, s.time(key))).collect();
    // A witness that has cosigned later is not taken back to what it said before.
    let newer = |signature: &Signature, key: &VerifierKey| {
        !kept
            .iter()
            .any(|(k, time)| *k == key && *time >= signature.time(key))
    };
    let new: Vec<Signature> = cosignatures
        .iter()
        .filter(|(signature, key)| newer(signature, key))
        .map(|(signature, _)| (*signature).clone())
        .collect();
    for signature in new {
        signed.add(signature).map_err(|e| note_error(&e))?;
    }
    checkpoints::set_note(session, &log, size, &signed.to_string());
    Ok(cosignatures.len() as i32)
}

fn note_error(problem: &tlog::Error) -> Error {
    Error::Checkpoint(CheckpointError::Note(problem.to_string()))
}
