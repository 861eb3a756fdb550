//! The logs of messages and key packages, where the extension `merkle_log` is installed.
//!
//! Both are captured by triggers, in the writer's transaction: a message that is stored is logged, one
//! that is rolled back is not. Messages can then no longer be changed or deleted, only redacted, or dropped
//! by the month. An entry holds what the server stores of a message or package with the SHA-256 digest in
//! place of the bytes, so a proof gives away no ciphertext. Each log has its worker's or [`log_now`]'s
//! batches, after which [`prove_message`] and [`prove_key_package`] find the entry; [`crate::proof`] checks
//! what they return, without a database.
//!
//! What these functions cannot answer is an error of the server's: a transaction in which they fail, also by
//! [`Error::NotYetLogged`], can only be rolled back.

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

    fn table(self) -> &'static str {
        match self {
            Log::Messages => "messages",
            Log::KeyPackages => "key_packages",
        }
    }

    /// What an entry holds of a row.
    fn columns(self) -> [&'static str; 7] {
        match self {
            Log::Messages => [
                "convo_id",
                "id",
                "sender",
                "message_type",
                "epoch",
                "digest",
                "sent_at",
            ],
            Log::KeyPackages => [
                "did",
                "id",
                "cipher_suite",
                "digest",
                "last_resort",
                "expires_at",
                "consumed_at",
            ],
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
    if !installed(connection).await? {
        return Ok(false);
    }
    Ok(exists(connection, Log::Messages).await? && exists(connection, Log::KeyPackages).await?)
}

async fn exists(connection: &mut PgConnection, log: Log) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM merkle_log_status WHERE log_name = $1) AS "exists!""#,
        log.name()
    );
    Ok(exists.fetch_one(connection).await?)
}

async fn installed(connection: &mut PgConnection) -> Result<bool> {
    let found = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'merkle_log') AS "installed!",
                  to_regclass('verification_logs') IS NOT NULL AS "visible!""#
    );
    let found = found.fetch_one(connection).await?;
    if found.installed && !found.visible {
        return Err(Error::invalid(
            "search path",
            "the schema of extension merkle_log is not on it: ALTER ROLE … SET search_path",
        ));
    }
    Ok(found.installed)
}

/// Makes the logs of messages and key packages, of the rows that are there and of all to come; does
/// nothing where they exist. Locks both tables until the transaction ends, so call it in one, as their
/// owner.
///
/// # Errors
/// [`Error::NotRegistered`] if the extension is not installed; the database's, if there is no
/// transaction, or the role lacks privileges (docs/catbird-db.md).
pub async fn register(connection: &mut PgConnection, options: Options) -> Result<()> {
    if !installed(connection).await? {
        return Err(Error::NotRegistered);
    }
    // Of several that register at once, all but the first find it done.
    let lock = sqlx::query!("LOCK TABLE key_packages, messages IN SHARE ROW EXCLUSIVE MODE");
    lock.execute(&mut *connection).await?;
    for log in [Log::Messages, Log::KeyPackages] {
        if exists(connection, log).await? {
            continue;
        }
        let source = sqlx::query!(
            "SELECT add_source(log, $2::text::regclass, capture => 'trigger', columns => $3, append_only => $4,
                               store_leaf_data => true, salted => $5)
               FROM (SELECT $1::text AS log, create_log($1)) AS created",
            log.name(),
            log.table(),
            &log.columns().map(str::to_owned),
            log == Log::Messages,
            options.salted
        );
        source.fetch_one(&mut *connection).await?;
    }
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
/// [`Error::NotRegistered`] if there is no such log.
pub async fn tree_head(connection: &mut PgConnection, log: Log) -> Result<TreeHead> {
    let head = sqlx::query!(
        r#"SELECT size AS "size!", merkle_root($1, size) AS "root!" FROM merkle_size($1) AS size"#,
        log.name()
    );
    let head = head.fetch_one(connection).await.map_err(unregistered)?;
    tree_head_of(log, head.size, &head.root)
}

/// That a log only grew from one size to another: to its present one, if none is named.
///
/// # Errors
/// [`Error::Invalid`] if the log never had these sizes, or the old one is the larger; [`Error::NotRegistered`].
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
    let proof = match proof.fetch_one(connection).await {
        Err(error) if has_code(&error, &[OUT_OF_RANGE]) => {
            let problem = "the log has not had these sizes, one after the other";
            return Err(Error::invalid("tree size", problem));
        }
        proof => proof.map_err(unregistered)?,
    };
    Ok(Consistency {
        old: tree_head_of(log, proof.old_size, &proof.old_root)?,
        new: tree_head_of(log, proof.new_size, &proof.new_root)?,
        path: hashes(&proof.path)?,
    })
}

/// That a message is in its log: at a size the log had, or the present one.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::NotYetLogged`], also if it was logged after that size;
/// [`Error::Erased`] if it was redacted or dropped; [`Error::NotRegistered`].
pub async fn prove_message(
    connection: &mut PgConnection,
    convo_id: Uuid,
    id: Uuid,
    tree_size: Option<u64>,
) -> Result<Proof> {
    let row = sqlx::query!(
        r#"SELECT ARRAY[i.convo_id::text, i.sent_at::text, i.id::text]::text AS "key!",
                  EXISTS (SELECT FROM messages m WHERE m.convo_id = i.convo_id AND m.sent_at = i.sent_at AND m.id = i.id) AS "there!"
             FROM message_ids i WHERE i.convo_id = $1 AND i.id = $2"#,
        convo_id,
        id
    );
    let row = row.fetch_optional(&mut *connection).await?;
    let row = row.ok_or_else(|| Error::not_found("message", id))?;
    let row = Row {
        log: Log::Messages,
        key: row.key,
        id: id.to_string(),
        there: row.there,
    };
    row.prove(connection, tree_size).await
}

/// That a key package is in its log, with the latest that is logged of it: that it was stored, or given
/// out; at a size the log had, or the present one.
///
/// # Errors
/// [`Error::NotYetLogged`], also if there is no such key package; [`Error::NotRegistered`].
pub async fn prove_key_package(
    connection: &mut PgConnection,
    did: &Did,
    id: i64,
    tree_size: Option<u64>,
) -> Result<Proof> {
    let key = sqlx::query_scalar!(
        r#"SELECT ARRAY[$1::text, $2::bigint::text]::text AS "key!""#,
        did.as_str(),
        id
    );
    let row = Row {
        log: Log::KeyPackages,
        key: key.fetch_one(&mut *connection).await?,
        id: id.to_string(),
        there: true,
    };
    row.prove(connection, tree_size).await
}

/// What is to be proven.
struct Row {
    log: Log,
    /// As `merkle_log` writes it.
    key: String,
    id: String,
    /// Whether an entry is still to come if there is none.
    there: bool,
}

impl Row {
    async fn prove(self, connection: &mut PgConnection, tree_size: Option<u64>) -> Result<Proof> {
        let what = match self.log {
            Log::Messages => "message",
            Log::KeyPackages => "key package",
        };
        let proof = sqlx::query!(
            r#"SELECT leaf_index AS "leaf_index!", tree_size AS "tree_size!", root_hash AS "root!", path AS "path!"
                 FROM inclusion_proof($1, $2::text::regclass, $3, $4)"#,
            self.log.name(),
            self.log.table(),
            self.key,
            tree_size.map(to_i64).transpose()?
        );
        let proof = match proof.fetch_one(&mut *connection).await {
            // Out of range: not in a tree of that size.
            Err(error) if has_code(&error, &[NO_DATA, OUT_OF_RANGE]) => {
                return Err(match self.there {
                    true => Error::NotYetLogged { what, id: self.id },
                    false => Error::Erased { what, id: self.id },
                });
            }
            proof => proof.map_err(unregistered)?,
        };
        let leaf_data = sqlx::query_scalar!(
            r#"SELECT leaf_data($1, $2) AS "leaf_data!""#,
            self.log.name(),
            proof.leaf_index
        );
        let leaf_data = match leaf_data.fetch_one(connection).await {
            Err(error) if has_code(&error, &[NO_DATA]) => {
                return Err(Error::Erased { what, id: self.id });
            }
            leaf_data => leaf_data?,
        };
        Ok(Proof {
            leaf_data,
            leaf_index: proof.leaf_index as u64,
            path: hashes(&proof.path)?,
            head: tree_head_of(self.log, proof.tree_size, &proof.root)?,
        })
    }
}

/// What the server says of a log that is not there: there is none of this name, or no function or type of the extension.
fn unregistered(error: sqlx::Error) -> Error {
    match has_code(&error, &["42704", "42883", "42P01"]) {
        true => Error::NotRegistered,
        false => error.into(),
    }
}

/// no_data_found
const NO_DATA: &str = "P0002";
/// numeric_value_out_of_range
const OUT_OF_RANGE: &str = "22003";

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| codes.contains(&&*code))
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
