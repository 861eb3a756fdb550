//! Logs, their sizes and roots.

use crate::serve::answers::Bytes;
use crate::serve::pool::Session;
use crate::serve::problems::Problem;
use serde::Serialize;
use utoipa::ToSchema;

/// A log, as everyone may know it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Log {
    pub name: String,
    /// Entries.
    pub size: i64,
    /// `running`, `waiting`, `failing`, `paused`, `disabled` or `held`
    pub state: String,
    /// The log's name in checkpoints
    pub origin: Option<String>,
    /// The key of its checkpoints, for comparison: get the one that you verify with from somewhere else
    pub verifier_key: Option<String>,
    /// Entries of the newest checkpoint
    pub checkpoint_size: Option<i64>,
    /// Rows that wait to be logged
    pub lag_rows: Option<i64>,
    pub lag_seconds: Option<f64>,
    pub last_batch_at: Option<String>,
    /// Entries before this one are gone
    pub pruned_to: i64,
    /// Whether rows are shown without a token
    pub rows_are_public: bool,
}

const LOGS: &str = "
    SELECT s.log_name, s.tree_size,
           CASE WHEN s.held_as_copy_of IS NOT NULL THEN 'held'
                WHEN NOT s.enabled THEN 'disabled'
                WHEN s.paused THEN 'paused'
                WHEN s.last_error IS NOT NULL THEN 'failing'
                WHEN s.source_problems IS NOT NULL OR s.waiting_for IS NOT NULL THEN 'waiting'
                ELSE 'running' END,
           c.origin, c.verifier_key, c.tree_size, s.lag_rows, s.lag_seconds,
           to_char(s.last_batch_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), s.pruned_to
      FROM @extschema@.merkle_log_status s
      LEFT JOIN LATERAL (SELECT k.origin, k.verifier_key, k.tree_size FROM @extschema@.merkle_log_checkpoints k
                          WHERE k.log_name = s.log_name ORDER BY k.tree_size DESC LIMIT 1) c ON true
     WHERE $1::pg_catalog.text IS NULL OR s.log_name = $1
     ORDER BY s.log_name";

/// All logs, or the one with a name. `rows_are_public` is not known here.
pub async fn logs(session: &Session, name: Option<&str>) -> Result<Vec<Log>, Problem> {
    let rows = session.rows(LOGS, &[&name]).await?;
    let log = |row: &tokio_postgres::Row| {
        Ok(Log {
            name: row.try_get(0)?,
            size: row.try_get(1)?,
            state: row.try_get(2)?,
            origin: row.try_get(3)?,
            verifier_key: row.try_get(4)?,
            checkpoint_size: row.try_get(5)?,
            lag_rows: row.try_get(6)?,
            lag_seconds: row.try_get(7)?,
            last_batch_at: row.try_get(8)?,
            pruned_to: row.try_get(9)?,
            rows_are_public: false,
        })
    };
    rows.iter().map(log).collect()
}

/// A size and the root there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Root {
    pub size: i64,
    pub root: Bytes,
}

pub async fn root(session: &Session, log: &str, size: i64) -> Result<Root, Problem> {
    let sql = "SELECT @extschema@.merkle_root($1, $2)";
    let root = session.value(sql, &[&log, &size]).await?;
    Ok(Root {
        size,
        root: Bytes(root),
    })
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Size {
    pub size: i64,
}

pub async fn size(session: &Session, log: &str) -> Result<Size, Problem> {
    let size = session
        .value("SELECT @extschema@.merkle_size($1)", &[&log])
        .await?;
    Ok(Size { size })
}

/// The state of a log after its latest batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Head {
    pub size: i64,
    pub root: Bytes,
    /// When the batch committed; a log that has none is empty
    pub created_at: Option<String>,
}

const HEAD: &str = "
    SELECT tree_size, root_hash, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
      FROM @extschema@.tree_head($1)";

pub async fn head(session: &Session, log: &str) -> Result<Head, Problem> {
    let row = session.row(HEAD, &[&log]).await?;
    let row = row.ok_or_else(|| Problem::unknown_log(log))?;
    Ok(Head {
        size: row.try_get(0)?,
        root: Bytes(row.try_get(1)?),
        created_at: row.try_get(2)?,
    })
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Found {
    pub found: bool,
}

pub async fn has_leaf(session: &Session, log: &str, hash: &[u8]) -> Result<Found, Problem> {
    let found = session
        .value("SELECT @extschema@.has_leaf($1, $2)", &[&log, &hash])
        .await?;
    Ok(Found { found })
}

pub async fn has_root(session: &Session, log: &str, root: &[u8]) -> Result<Found, Problem> {
    let found = session
        .value("SELECT @extschema@.has_root($1, $2)", &[&log, &root])
        .await?;
    Ok(Found { found })
}
