//! `merkle_checkpoint`: what was signed, one row a size, for ever; `merkle_accepted_checkpoint`: what is known to have
//! been signed.

use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::store::tree::hashes;
use merkle_tree::Hash;
use tlog::{SignedNote, VerifierKey};

/// A checkpoint that was signed here.
pub struct Stored {
    pub tree_size: i64,
    pub root: Vec<u8>,
    pub origin: String,
    /// With the log's signature and all cosignatures.
    pub note: String,
    pub verifier_key: String,
}

const COLUMNS: &str = "c.tree_size, c.root_hash, c.origin, c.note, c.verifier_key";

fn from_row(row: &Row) -> Stored {
    Stored {
        tree_size: row.required(0),
        root: row.required(1),
        origin: row.required(2),
        note: row.required(3),
        verifier_key: row.required(4),
    }
}

impl Stored {
    pub fn known(&self, log: &Log) -> Result<Accepted, Error> {
        let (tree_size, root) = (self.tree_size, one_hash(log, &self.root)?);
        Ok(Accepted { tree_size, root })
    }

    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        let note = self.note.parse::<SignedNote>();
        note.is_ok_and(|note| note.verify([key]).is_ok())
    }
}

fn one_hash(log: &Log, bytes: &[u8]) -> Result<Hash, Error> {
    match hashes(log, bytes)?.as_slice() {
        [hash] => Ok(*hash),
        _ => Err(Error::Damaged {
            log: log.name.clone(),
            problem: "the root of a checkpoint is no hash".to_owned(),
        }),
    }
}

/// The newest checkpoint of a log.
pub fn latest(session: &Session, snapshot: Snapshot, log: &Log) -> Option<Stored> {
    let sql = format!(
        "SELECT {COLUMNS} FROM @extschema@.merkle_checkpoint c WHERE c.log_id = $1 ORDER BY c.tree_size DESC LIMIT 1"
    );
    let found = session.query(snapshot, &sql, &[log.id.into()], from_row);
    found.into_iter().next()
}

/// Of every origin the newest checkpoint, also of logs that are not there any more.
pub fn newest_of_origins(session: &Session) -> Vec<Stored> {
    let sql = format!(
        "SELECT DISTINCT ON (c.origin) {COLUMNS} FROM @extschema@.merkle_checkpoint c ORDER BY c.origin, c.tree_size DESC"
    );
    session.query(Snapshot::Fresh, &sql, &[], from_row)
}

/// The checkpoint of a size.
pub fn at(session: &Session, snapshot: Snapshot, log: &Log, size: i64) -> Option<Stored> {
    let sql = format!(
        "SELECT {COLUMNS} FROM @extschema@.merkle_checkpoint c WHERE c.log_id = $1 AND c.tree_size = $2"
    );
    let args = [log.id.into(), size.into()];
    let found = session.query(snapshot, &sql, &args, from_row);
    found.into_iter().next()
}

/// Checkpoints of more than `after` entries, smallest first, at most `limit`, each with the root that the tree head of
/// its size has.
pub fn with_heads(
    session: &Session,
    log: &Log,
    after: i64,
    limit: i64,
) -> Vec<(Stored, Option<Vec<u8>>)> {
    let sql = format!(
        "SELECT {COLUMNS}, h.root_hash FROM @extschema@.merkle_checkpoint c
           LEFT JOIN @extschema@.merkle_tree_head h USING (log_id, tree_size)
          WHERE c.log_id = $1 AND c.tree_size > $2 ORDER BY c.tree_size LIMIT $3"
    );
    session.read(&sql, &[log.id.into(), after.into(), limit.into()], |row| {
        (from_row(row), row.get(5))
    })
}

/// Writes a checkpoint; the note is a placeholder until it is signed.
pub fn insert(session: &Session, log: &Log, checkpoint: &Stored) {
    session.execute(
        "INSERT INTO @extschema@.merkle_checkpoint (log_id, tree_size, root_hash, origin, note, verifier_key)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            log.id.into(),
            checkpoint.tree_size.into(),
            checkpoint.root.as_slice().into(),
            checkpoint.origin.as_str().into(),
            checkpoint.note.as_str().into(),
            checkpoint.verifier_key.as_str().into(),
        ],
    );
}

pub fn set_note(session: &Session, log: &Log, size: i64, note: &str) {
    session.execute(
        "UPDATE @extschema@.merkle_checkpoint SET note = $3 WHERE log_id = $1 AND tree_size = $2",
        &[log.id.into(), size.into(), note.into()],
    );
}

/// The keys that have signed under an origin.
pub fn keys_of(session: &Session, log: &Log, origin: &str) -> Vec<String> {
    session.fresh(
        "SELECT DISTINCT c.verifier_key FROM @extschema@.merkle_checkpoint c WHERE c.log_id = $1 AND c.origin = $2",
        &[log.id.into(), origin.into()],
        |row| row.required(0),
    )
}

/// True if a log other than `log_id` has, or had, this origin.
pub fn is_of_another(session: &Session, origin: &str, log_id: Option<i32>) -> bool {
    let other = session.fresh_one(
        "SELECT true FROM @extschema@.merkle_checkpoint c WHERE c.origin = $1 AND c.log_id IS DISTINCT FROM $2
          UNION ALL
         SELECT true FROM @extschema@.merkle_accepted_checkpoint a
          WHERE pg_catalog.split_part(a.note, E'\\n', 1) = $1 AND a.log_id IS DISTINCT FROM $2
          UNION ALL
         SELECT true FROM @extschema@.verification_logs l WHERE l.origin = $1 AND l.log_id IS DISTINCT FROM $2
          LIMIT 1",
        &[origin.into(), log_id.into()],
        |row| row.required::<bool>(0),
    );
    other.is_some()
}

/// The origin that a log was given.
pub fn given_origin(session: &Session, snapshot: Snapshot, log: &Log) -> Option<String> {
    let origin = session.query(
        snapshot,
        "SELECT l.origin FROM @extschema@.verification_logs l WHERE l.log_id = $1",
        &[log.id.into()],
        |row| row.get(0),
    );
    origin.into_iter().flatten().next()
}

pub fn set_origin(session: &Session, log: &Log, origin: &str) {
    session.execute(
        "UPDATE @extschema@.verification_logs SET origin = $2 WHERE log_id = $1",
        &[log.id.into(), origin.into()],
    );
}

/// Logs that have checkpoints go on under the origin of the newest, where a dump did not carry their own. Returns which.
pub fn keep_origins(session: &Session) -> Vec<i32> {
    session.fresh(
        "UPDATE @extschema@.verification_logs l
            SET origin = (SELECT c.origin FROM @extschema@.merkle_checkpoint c WHERE c.log_id = l.log_id
                           ORDER BY c.tree_size DESC LIMIT 1)
          WHERE l.origin IS NULL AND EXISTS (SELECT FROM @extschema@.merkle_checkpoint c WHERE c.log_id = l.log_id)
      RETURNING l.log_id",
        &[],
        |row| row.required(0),
    )
}

/// No log has an origin any more: those that they had are another database's. Returns which had one.
pub fn forget_origins(session: &Session) -> Vec<i32> {
    session.fresh(
        "UPDATE @extschema@.verification_logs SET origin = NULL WHERE origin IS NOT NULL RETURNING log_id",
        &[],
        |row| row.required(0),
    )
}

/// A size and root that are known to have been signed.
pub struct Accepted {
    pub tree_size: i64,
    pub root: Hash,
}

/// What is known to have been signed of a log, smallest first.
pub fn accepted(session: &Session, snapshot: Snapshot, log: &Log) -> Result<Vec<Accepted>, Error> {
    let rows = session.query(
        snapshot,
        "SELECT a.tree_size, a.root_hash FROM @extschema@.merkle_accepted_checkpoint a
          WHERE a.log_id = $1 ORDER BY a.tree_size",
        &[log.id.into()],
        |row| (row.required::<i64>(0), row.required::<Vec<u8>>(1)),
    );
    let accepted = rows.into_iter().map(|(tree_size, root)| {
        let root = one_hash(log, &root)?;
        Ok(Accepted { tree_size, root })
    });
    accepted.collect()
}

/// Remembers a checkpoint that is known to have been signed.
pub fn accept(session: &Session, log: &Log, accepted: &Accepted, note: &str) {
    session.execute(
        "INSERT INTO @extschema@.merkle_accepted_checkpoint (log_id, tree_size, root_hash, note) VALUES ($1, $2, $3, $4)
         ON CONFLICT (log_id, tree_size, root_hash) DO UPDATE SET note = EXCLUDED.note, accepted_at = EXCLUDED.accepted_at",
        &[
            log.id.into(),
            accepted.tree_size.into(),
            accepted.root.as_bytes().as_slice().into(),
            note.into(),
        ],
    );
}
