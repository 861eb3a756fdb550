//! What is known to be signed under an origin: by this server, by one that it took over from, or told by someone outside.
//!
//! The server keeps it on file, beside its databases ([`super::memory`]).

use super::memory::Memory;
use super::{contains, lock, note_error, origin, signing_key};
use crate::batch;
use crate::catalog::logs::{self, Log};
use crate::error::{CheckpointError, Error};
use crate::pg::server;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::checkpoints::{self, Accepted, Stored};
use crate::store::heads::{self, Head};
use tlog::{Checkpoint, SignedNote, VerifierKey};

/// That the log contains what is known to be signed under the origin, whichever of this server's databases did it; the
/// largest of it.
pub fn check(
    session: &Session,
    log: &Log,
    head: &Head,
    memory: &Memory,
    origin: &str,
) -> Result<Option<Accepted>, Error> {
    let Some(known) = memory.known()? else {
        return Ok(None);
    };
    let mut largest: Option<Accepted> = None;
    for checkpoint in &known.checkpoints {
        let known_here = accepted(checkpoint);
        contains(session, log, head, &known_here).map_err(|error| match error {
            Error::Checkpoint(
                CheckpointError::LostTail { .. } | CheckpointError::Rewritten { .. },
            ) => Error::Checkpoint(CheckpointError::SignedElsewhere {
                log: log.name.clone(),
                origin: origin.to_owned(),
                database: known.database.clone(),
                size: checkpoint.size().get() as i64,
            }),
            error => error,
        })?;
        if largest
            .as_ref()
            .is_none_or(|l| l.tree_size < known_here.tree_size)
        {
            largest = Some(known_here);
        }
    }
    Ok(largest)
}

fn accepted(checkpoint: &Checkpoint) -> Accepted {
    Accepted {
        tree_size: checkpoint.size().get() as i64,
        root: *checkpoint.root(),
    }
}

/// Puts on file what is on record as signed, of every origin the newest, in case that this server did not sign it: it
/// took over from another, or a database of another was restored into it.
///
/// # Errors
/// If a file is damaged, or cannot be written.
pub fn remember_all(session: &Session) -> Result<(), Error> {
    checkpoints::newest_of_origins(session)
        .iter()
        .try_for_each(remember)
}

/// As `remember_all`, of one checkpoint; nothing, if its row does not hold a signed note of it.
pub fn remember(stored: &Stored) -> Result<(), Error> {
    let (Ok(note), Ok(key)) = (
        stored.note.parse::<SignedNote>(),
        stored.verifier_key.parse::<VerifierKey>(),
    ) else {
        return Ok(());
    };
    let is_of_row = note.text().parse::<Checkpoint>().is_ok_and(|checkpoint| {
        let size = checkpoint.size().get() as i64;
        (checkpoint.origin(), size) == (stored.origin.as_str(), stored.tree_size)
    });
    if !is_of_row || !stored.is_signed_by(&key) {
        return Ok(());
    }
    let memory = Memory::lock(&stored.origin, &stored.origin)?;
    let known = memory
        .known()?
        .map_or(Vec::new(), |known| known.checkpoints);
    let is_new = |known: &Checkpoint| (known.size().get() as i64) < stored.tree_size;
    match known.iter().all(is_new) {
        true => memory.add(server::database_name(), &note),
        false => Ok(()),
    }
}

/// How a log stands to a checkpoint that is known outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Contained,
    LostTail,
    Rewritten,
    /// Nobody can say: the entries that would tell were pruned.
    Pruned,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Contained => "contained",
            Standing::LostTail => "lost_tail",
            Standing::Rewritten => "rewrote_history",
            Standing::Pruned => "pruned",
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
    let wanted = accepted(&checkpoint);
    let head = heads::latest(session, Snapshot::Fresh, &log)?;
    let standing = match contains(session, &log, &head, &wanted) {
        Ok(()) => Standing::Contained,
        Err(Error::Checkpoint(CheckpointError::LostTail { .. })) => Standing::LostTail,
        Err(Error::Checkpoint(CheckpointError::Rewritten { .. })) => Standing::Rewritten,
        // Of a size that was no head here, the tree is known no more.
        Err(_) if wanted.tree_size < log.pruned_to => return Ok(Standing::Pruned),
        Err(error) => return Err(error),
    };
    checkpoints::accept(session, &log, &wanted, text);
    let memory = Memory::lock(&log.name, checkpoint.origin())?;
    let known = memory
        .known()?
        .map_or(Vec::new(), |known| known.checkpoints);
    let goes_on = |known: &Checkpoint| {
        known.size() < checkpoint.size() && contains(session, &log, &head, &accepted(known)).is_ok()
    };
    match standing == Standing::Contained && known.iter().all(goes_on) {
        true => memory.replace(server::database_name(), &note)?,
        false => memory.add(server::database_name(), &note)?,
    }
    Ok(standing)
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
