//! The logs of messages and key packages, where the extension `merkle_log` is installed.
//!
//! Both are captured by triggers, in the writer's transaction: a message that is stored is logged, one
//! that is rolled back is not. Messages can then no longer be changed or deleted, only redacted, or dropped
//! by the month. An entry holds what the server stores of a message or package with the SHA-256 digest in
//! place of the bytes, so a proof gives away no ciphertext. Each log has its worker's or [`log_now`]'s
//! batches, after which [`prove_message`] and [`prove_key_package`] find the entry; [`crate::proof`] checks
//! what they return, without a database.

use crate::proof::{Consistency, Proof, TreeHead};
use crate::{Database, Did, Error, Result};
use sqlx::PgConnection;
use uuid::Uuid;

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Of the messages stored.
    Messages,
    /// Of the key packages stored, given out and deleted.
    KeyPackages,
}

impl Log {
    /// The name in `merkle_log`.
    pub fn name(self) -> &'static str {
        match self {
            Log::Messages => "catbird_messages",
            Log::KeyPackages => "catbird_key_packages",
        }
    }
}

/// How entries are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Random bytes in each entry: it can be redacted, and nobody can guess it from its hash.
    pub salted: bool,
}

/// Whether there are transparency logs.
///
/// # Errors
/// If the extension is installed where the session does not find it, outside its search path.
pub async fn registered(connection: &mut PgConnection) -> Result<bool> {
    let found = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'merkle_log') AS "installed!",
                  to_regclass('verification_logs') IS NOT NULL AS "visible!""#
    );
    let found = found.fetch_one(&mut *connection).await?;
    if !found.installed {
        return Ok(false);
    }
    if !found.visible {
        return Err(Error::invalid(
            "search path",
            "the schema of extension merkle_log is not on it: ALTER ROLE … SET search_path",
        ));
    }
    let logs = sqlx::query_scalar!(
        r#"SELECT count(*) AS "logs!" FROM merkle_log_status WHERE log_name = ANY ($1)"#,
        &[Log::Messages, Log::KeyPackages].map(|log| log.name().to_owned())
    );
    Ok(logs.fetch_one(connection).await? == 2)
}

/// Makes the logs of messages and key packages, of the rows that are there and of all to come; does
/// nothing where they exist. Locks both tables. Call it in a transaction, as their owner.
///
/// # Errors
/// [`Error::NotRegistered`] if the extension is not installed; the database's, if the role lacks
/// privileges (docs/catbird-db.md).
pub async fn register(connection: &mut PgConnection, options: Options) -> Result<()> {
    if registered(connection).await? {
        return Ok(());
    }
    let installed = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'merkle_log') AS "installed!""#
    );
    if !installed.fetch_one(&mut *connection).await? {
        return Err(Error::NotRegistered);
    }
    let messages = sqlx::query!(
        "SELECT add_source(log, 'messages', capture => 'trigger', append_only => true, store_leaf_data => true, salted => $2,
                           columns => '{convo_id, id, sender, message_type, epoch, digest, sent_at}')
           FROM (SELECT $1::text AS log, create_log($1)) AS created",
        Log::Messages.name(),
        options.salted
    );
    messages.fetch_one(&mut *connection).await?;
    let key_packages = sqlx::query!(
        "SELECT add_source(log, 'key_packages', capture => 'trigger', store_leaf_data => true, salted => $2,
                           columns => '{did, id, cipher_suite, digest, last_resort, expires_at, consumed_at}')
           FROM (SELECT $1::text AS log, create_log($1)) AS created",
        Log::KeyPackages.name(),
        options.salted
    );
    key_packages.fetch_one(connection).await?;
    Ok(())
}

/// Appends what is committed and not yet logged, now, instead of waiting for the worker. Returns the
/// number of entries.
///
/// # Errors
/// [`Error::NotRegistered`]; the database's, if the role may not run batches.
pub async fn log_now(database: &Database, log: Log) -> Result<i64> {
    let mut connection = database.connection().await?;
    if !registered(&mut connection).await? {
        return Err(Error::NotRegistered);
    }
    let mut entries = 0;
    loop {
        match batch(&mut connection, log).await? {
            0 => return Ok(entries),
            some => entries += some,
        }
    }
}

pub(crate) async fn batch(connection: &mut PgConnection, log: Log) -> Result<i64> {
    let batch = sqlx::query_scalar!(
        r#"SELECT entries AS "entries!" FROM process_next_batch($1)"#,
        log.name()
    );
    Ok(batch.fetch_one(connection).await?)
}

/// The latest committed state of a log.
///
/// # Errors
/// If there is no such log.
pub async fn tree_head(connection: &mut PgConnection, log: Log) -> Result<TreeHead> {
    let head = sqlx::query!(
        r#"SELECT size AS "size!", merkle_root($1, size) AS "root!" FROM merkle_size($1) AS size"#,
        log.name()
    );
    let head = head.fetch_one(connection).await?;
    tree_head_of(log, head.size, &head.root)
}

/// That a log only grew from one size to another: to its present one, if none is named.
///
/// # Errors
/// If the log never had these sizes.
pub async fn prove_consistency(
    connection: &mut PgConnection,
    log: Log,
    old_size: u64,
    new_size: Option<u64>,
) -> Result<Consistency> {
    let proof = sqlx::query!(
        r#"SELECT old_size AS "old_size!", new_size AS "new_size!", old_root AS "old_root!", new_root AS "new_root!",
                  path AS "path!"
             FROM consistency_proof($1, $2, $3)"#,
        log.name(),
        to_i64(old_size)?,
        new_size.map(to_i64).transpose()?
    );
    let proof = proof.fetch_one(connection).await?;
    Ok(Consistency {
        old: tree_head_of(log, proof.old_size, &proof.old_root)?,
        new: tree_head_of(log, proof.new_size, &proof.new_root)?,
        path: hashes(&proof.path)?,
    })
}

/// That a message is in its log: at a size the log had, or the present one.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::NotYetLogged`], also if it was logged after that size.
pub async fn prove_message(
    connection: &mut PgConnection,
    convo_id: Uuid,
    id: Uuid,
    tree_size: Option<u64>,
) -> Result<Proof> {
    let key = sqlx::query_scalar!(
        r#"SELECT ARRAY[convo_id::text, sent_at::text, id::text]::text AS "key!"
             FROM message_ids WHERE convo_id = $1 AND id = $2"#,
        convo_id,
        id
    );
    let key = key.fetch_optional(&mut *connection).await?;
    let key = key.ok_or_else(|| Error::not_found("message", id))?;
    let proof = sqlx::query_as!(
        Row,
        r#"SELECT p.leaf_index AS "leaf_index!", p.tree_size AS "tree_size!", p.root_hash AS "root!", p.path AS "path!",
                  leaf_data($1, p.leaf_index) AS "leaf_data!"
             FROM inclusion_proof($1, 'messages', $2, $3) AS p"#,
        Log::Messages.name(),
        key,
        tree_size.map(to_i64).transpose()?
    );
    let proof = proof.fetch_one(connection).await;
    proof_of(Log::Messages, proof, "message", id)
}

/// That a key package is in its log, with the latest that is logged of it: that it was stored, or given
/// out; at a size the log had, or the present one.
///
/// # Errors
/// [`Error::NotYetLogged`], also if there is no such key package.
pub async fn prove_key_package(
    connection: &mut PgConnection,
    did: &Did,
    id: i64,
    tree_size: Option<u64>,
) -> Result<Proof> {
    let proof = sqlx::query_as!(
        Row,
        r#"SELECT p.leaf_index AS "leaf_index!", p.tree_size AS "tree_size!", p.root_hash AS "root!", p.path AS "path!",
                  leaf_data($1, p.leaf_index) AS "leaf_data!"
             FROM inclusion_proof($1, 'key_packages', ARRAY[$2::text, $3::bigint::text]::text, $4) AS p"#,
        Log::KeyPackages.name(),
        did.as_str(),
        id,
        tree_size.map(to_i64).transpose()?
    );
    let proof = proof.fetch_one(connection).await;
    proof_of(Log::KeyPackages, proof, "key package", id)
}

struct Row {
    leaf_index: i64,
    tree_size: i64,
    root: Vec<u8>,
    path: Vec<Vec<u8>>,
    leaf_data: Vec<u8>,
}

fn proof_of(
    log: Log,
    row: sqlx::Result<Row>,
    what: &'static str,
    id: impl ToString,
) -> Result<Proof> {
    let row = row.map_err(|error| {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // no_data_found; numeric_value_out_of_range: not in a tree of that size
            Some("P0002" | "22003") => Error::NotYetLogged {
                what,
                id: id.to_string(),
            },
            _ => Error::from(error),
        }
    })?;
    Ok(Proof {
        leaf_data: row.leaf_data,
        leaf_index: row.leaf_index as u64,
        path: hashes(&row.path)?,
        head: tree_head_of(log, row.tree_size, &row.root)?,
    })
}

fn tree_head_of(log: Log, size: i64, root: &[u8]) -> Result<TreeHead> {
    Ok(TreeHead {
        log: log.name().to_owned(),
        tree_size: size as u64,
        root: hash(root)?,
    })
}

fn hashes(path: &[Vec<u8>]) -> Result<Vec<[u8; 32]>> {
    path.iter().map(|bytes| hash(bytes)).collect()
}

fn hash(bytes: &[u8]) -> Result<[u8; 32]> {
    let wrong = |_| sqlx::Error::Protocol(format!("a hash of {} bytes", bytes.len()));
    bytes.try_into().map_err(wrong).map_err(Error::Database)
}

fn to_i64(size: u64) -> Result<i64> {
    i64::try_from(size).map_err(|_| Error::invalid("tree size", size.to_string()))
}
