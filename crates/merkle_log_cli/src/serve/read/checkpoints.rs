//! Checkpoints, which are for everyone.

use crate::serve::pool::Session;
use crate::serve::problems::{Kind, Problem};
use serde::Serialize;
use utoipa::ToSchema;

/// A tree head as a signed note (C2SP tlog-checkpoint).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Checkpoint {
    pub size: i64,
    pub origin: String,
    /// With all its signatures
    pub note: String,
    pub verifier_key: String,
    pub signed_at: Option<String>,
}

const CHECKPOINTS: &str = "
    SELECT c.tree_size, c.origin, c.note, c.verifier_key,
           to_char(c.signed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
      FROM @extschema@.merkle_log_checkpoints c
     WHERE c.log_name = $1 AND c.tree_size >= $2 ORDER BY c.tree_size LIMIT $3";

/// Checkpoints from a size on, the smallest first.
pub async fn checkpoints(
    session: &Session,
    log: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<Checkpoint>, Problem> {
    let rows = session.rows(CHECKPOINTS, &[&log, &from, &limit]).await?;
    if rows.is_empty() {
        exists(session, log).await?;
    }
    let checkpoint = |row: &tokio_postgres::Row| {
        Ok(Checkpoint {
            size: row.try_get(0)?,
            origin: row.try_get(1)?,
            note: row.try_get(2)?,
            verifier_key: row.try_get(3)?,
            signed_at: row.try_get(4)?,
        })
    };
    rows.iter().map(checkpoint).collect()
}

/// The note of the newest checkpoint.
pub async fn newest(session: &Session, log: &str) -> Result<String, Problem> {
    let sql = "SELECT c.note FROM @extschema@.merkle_log_checkpoints c
                WHERE c.log_name = $1 ORDER BY c.tree_size DESC LIMIT 1";
    match session.row(sql, &[&log]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => {
            exists(session, log).await?;
            Err(unsigned(log))
        }
    }
}

fn unsigned(log: &str) -> Problem {
    Problem::new(
        Kind::NotYetLogged,
        format!("no checkpoint of log \"{log}\" was signed yet"),
    )
    .with_hint(
        "Let the worker sign with alter_log(…, checkpoint_interval => …), or call checkpoint(…).",
    )
}

/// That there is such a log, where the answer would be empty without one.
async fn exists(session: &Session, log: &str) -> Result<(), Problem> {
    super::logs::size(session, log).await.map(|_| ())
}
