//! Checkpoints: tree heads, signed for those outside.
//!
//! What is signed cannot be taken back, and whoever sees two roots of one size has proof that the log forks. So before
//! a head is signed, it is flushed here and on synchronous standbys; its root is computed again from the entries on top
//! of the last checkpoint ([`recompute`]); and it must contain every checkpoint that is known to have been signed, also
//! by a server that this one was restored from or that it took over from ([`accept`]). One signs at a time, and no
//! standby does.

pub mod recompute;
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
use merkle_tree::Hash;
use tlog::{Checkpoint, SignedNote, VerifierKey};

/// The newest checkpoint, after signing what is new; on a standby, the newest that was signed.
pub fn newest(session: &Session, name: &str) -> Result<String, Error> {
    if !server::in_recovery() {
        return sign(session, name);
    }
    let log = logs::by_name(session, Snapshot::Statement, name)?;
    let latest = checkpoints::latest(session, Snapshot::Statement, &log);
    let none = || CheckpointError::NoCheckpoint {
        log: log.name.clone(),
        size: "any".to_owned(),
    };
    latest
        .map(|c| c.note)
        .ok_or_else(|| Error::Checkpoint(none()))
}

/// Signs the log's latest head, unless that was done. The caller commits soon: others who sign wait.
pub fn sign(session: &Session, name: &str) -> Result<String, Error> {
    batch::check_writable(Some(name))?;
    identity::check(session)?;
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    lock(session, &log)?;
    let (head, writer) = heads::stored(session, Snapshot::Fresh, &log)?;
    if xact::is_own(writer) {
        let log = log.name;
        return Err(Error::Checkpoint(CheckpointError::Uncommitted { log }));
    }
    let last = checkpoints::latest(session, Snapshot::Fresh, &log);
    let signed = match &last {
        None => None,
        Some(last) => Some((last.tree_size, last.root(&log)?)),
    };
    let known = checkpoints::accepted(session, Snapshot::Fresh, &log)?;
    let own = signed.map(|(tree_size, root)| Accepted { tree_size, root });
    for known in known.iter().chain(&own) {
        contains(session, &log, &head, known)?;
    }
    if let Some(last) = last.filter(|last| last.tree_size == head.tree_size) {
        return Ok(last.note);
    }
    let origin = origin(session, Snapshot::Fresh, &log)?;
    let key = signing_key::of_log(&origin)?;
    recompute::check(session, &log, &head, signed)?;
    remember_origin(session, &log, &origin)?;
    let checkpoint = Checkpoint::new(&origin, tree_size(&log, head.tree_size)?, head.root);
    let text = checkpoint.map_err(|e| note_error(&e))?.to_string();
    let row = Stored {
        tree_size: head.tree_size,
        root: head.root.as_bytes().to_vec(),
        origin,
        note: text.clone(),
        verifier_key: key.verifier_key().to_string(),
    };
    checkpoints::insert(session, &log, &row);
    make_durable(&log)?;
    let mut note = SignedNote::new(&text).map_err(|e| note_error(&e))?;
    note.sign(&key, 0).map_err(|e| note_error(&e))?;
    let note = note.to_string();
    checkpoints::set_note(session, &log, row.tree_size, &note);
    Ok(note)
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

/// The log's name outside: that of its checkpoints, the one that it was given, or one by `merkle_log.origin_prefix`.
pub fn origin(session: &Session, snapshot: Snapshot, log: &Log) -> Result<String, Error> {
    let signed = checkpoints::latest(session, snapshot, log).map(|c| c.origin);
    let given = signed.or_else(|| checkpoints::given_origin(session, snapshot, log));
    if let Some(origin) = given {
        return Ok(origin);
    }
    let prefix = settings::origin_prefix().ok_or_else(|| {
        let log = log.name.clone();
        Error::Checkpoint(CheckpointError::NoOrigin { log })
    })?;
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

/// That a log may get this origin: it has no checkpoints under another.
pub fn check_new_origin(session: &Session, log: &Log, origin: &str) -> Result<(), Error> {
    check_origin(session, origin, Some(log.id))?;
    match checkpoints::latest(session, Snapshot::Fresh, log) {
        Some(last) if last.origin != origin => {
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

/// The key by which the log's checkpoints are verified: that of the key file, or the one that signed last.
pub fn verifier_key(session: &Session, name: &str) -> Result<String, Error> {
    let log = logs::by_name(session, Snapshot::Statement, name)?;
    let last = checkpoints::latest(session, Snapshot::Statement, &log).map(|c| c.verifier_key);
    match last {
        Some(key) if server::in_recovery() || settings::signing_key_file().is_none() => Ok(key),
        _ => {
            let origin = origin(session, Snapshot::Statement, &log)?;
            Ok(signing_key::of_log(&origin)?.verifier_key().to_string())
        }
    }
}

/// How a log stands to a checkpoint that is known outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Contained,
    LostTail,
    Rewritten,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Contained => "contained",
            Standing::LostTail => "lost_tail",
            Standing::Rewritten => "rewrote_history",
        }
    }
}

/// Takes the newest checkpoint that is known outside: nothing is signed from now on that does not contain it.
pub fn accept(session: &Session, text: &str) -> Result<Standing, Error> {
    let note: SignedNote = text.parse().map_err(|e| note_error(&e))?;
    let checkpoint: Checkpoint = note.text().parse().map_err(|e| note_error(&e))?;
    let log = of_origin(session, checkpoint.origin())?;
    batch::check_writable(Some(&log.name))?;
    let keys = known_keys(session, &log, checkpoint.origin());
    note.verify(&keys).map_err(|e| note_error(&e))?;
    lock(session, &log)?;
    let accepted = Accepted {
        tree_size: checkpoint.size().get() as i64,
        root: *checkpoint.root(),
    };
    checkpoints::accept(session, &log, &accepted, text);
    let head = heads::latest(session, Snapshot::Fresh, &log)?;
    match contains(session, &log, &head, &accepted) {
        Ok(()) => Ok(Standing::Contained),
        Err(Error::Checkpoint(CheckpointError::LostTail { .. })) => Ok(Standing::LostTail),
        Err(Error::Checkpoint(CheckpointError::Rewritten { .. })) => Ok(Standing::Rewritten),
        Err(error) => Err(error),
    }
}

fn of_origin(session: &Session, wanted: &str) -> Result<Log, Error> {
    let all = logs::ids(session);
    let mut all = all.into_iter().filter_map(|id| logs::by_id(session, id));
    let found =
        all.find(|log| origin(session, Snapshot::Fresh, log).is_ok_and(|origin| origin == wanted));
    found.ok_or_else(|| {
        let origin = wanted.chars().take(100).collect();
        Error::Checkpoint(CheckpointError::NoSuchOrigin { origin })
    })
}

/// The keys that sign, or have signed, for a log.
fn known_keys(session: &Session, log: &Log, origin: &str) -> Vec<VerifierKey> {
    let before = checkpoints::keys_of(session, log, origin);
    let mut keys: Vec<VerifierKey> = before.iter().filter_map(|k| k.parse().ok()).collect();
    keys.extend(signing_key::of_log(origin).ok().map(|k| k.verifier_key()));
    keys
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
    for (signature, _) in &cosignatures {
        signed
            .add((*signature).clone())
            .map_err(|e| note_error(&e))?;
    }
    checkpoints::set_note(session, &log, size, &signed.to_string());
    Ok(cosignatures.len() as i32)
}

fn note_error(problem: &tlog::Error) -> Error {
    Error::Checkpoint(CheckpointError::Note(problem.to_string()))
}
