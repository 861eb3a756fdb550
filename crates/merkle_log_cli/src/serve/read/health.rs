//! Whether the database answers, and what its extension says of its logs. What many ask for is asked of the database
//! once a second.

use super::logs::Log;
use crate::serve::gateway::Gateway;
use crate::serve::pool::Session;
use crate::serve::problems::Problem;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use utoipa::ToSchema;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Server {
    /// `primary` or `standby`
    pub role: String,
    /// How far a standby is behind, if anything was replayed
    pub replay_lag_seconds: Option<f64>,
}

pub async fn server(session: &Session) -> Result<Server, Problem> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
                      CASE WHEN NOT pg_is_in_recovery() THEN NULL
                           WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                           ELSE EXTRACT(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8";
    let rows = session.rows(sql, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Problem::unreachable(&"it gave no row"))?;
    Ok(Server {
        role: row.try_get(0)?,
        replay_lag_seconds: row.try_get(1)?,
    })
}

/// A check of `merkle_log_health()`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    pub check: String,
    /// The log, and after a colon its source
    pub object: Option<String>,
    pub ok: bool,
    /// Left out where it may name rows that are not public, as the mend is
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// The logs that the object may be of, by its text.
    #[serde(skip)]
    pub logs: Vec<String>,
}

impl Check {
    /// What everyone may know of it, if its log is not public: not even which table it is about.
    pub fn without_detail(self) -> Check {
        Check {
            object: self.logs.first().cloned(),
            detail: None,
            mend: None,
            ..self
        }
    }

    pub fn is_of(&self, log: &str) -> bool {
        self.logs.iter().any(|name| name == log)
    }
}

/// The checks, or none if the gateway's role may not ask for them.
pub async fn checks(session: &Session) -> Result<Option<Vec<Check>>, Problem> {
    // A log's name may hold a colon: all logs count that the object can be of.
    let sql = "SELECT h.check_name, h.object, h.ok, h.detail, h.mend,
                      ARRAY(SELECT l.log_name::text FROM @extschema@.merkle_log_status l
                             WHERE h.object = l.log_name OR starts_with(h.object, l.log_name || ': ')
                             ORDER BY length(l.log_name))
                 FROM @extschema@.merkle_log_health() h";
    let rows = match permitted(session, sql).await? {
        Some(rows) => rows,
        None => return Ok(None),
    };
    let check = |row: &tokio_postgres::Row| {
        Ok(Check {
            check: row.try_get(0)?,
            object: row.try_get(1)?,
            ok: row.try_get(2)?,
            detail: row.try_get(3)?,
            mend: row.try_get(4)?,
            logs: row.try_get(5)?,
        })
    };
    rows.iter()
        .map(check)
        .collect::<Result<_, Problem>>()
        .map(Some)
}

/// The extension's metrics, or none if the gateway's role may not ask for them.
pub async fn metrics(session: &Session) -> Result<Option<String>, Problem> {
    let rows = permitted(session, "SELECT @extschema@.merkle_log_metrics()").await?;
    let row = rows.and_then(|rows| rows.into_iter().next());
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

async fn permitted(
    session: &Session,
    sql: &'static str,
) -> Result<Option<Vec<tokio_postgres::Row>>, Problem> {
    let rows = session.rows(sql, &[]).await;
    match rows {
        Err(problem) if problem.sqlstate == Some(SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        rows => rows.map(Some),
    }
}

/// What was asked of the database lately.
#[derive(Default)]
pub struct Remembered {
    logs: Recent<Vec<Log>>,
    checks: Recent<(Server, Option<Vec<Check>>)>,
    metrics: Recent<Option<String>>,
}

/// An answer with its age. Whoever comes while the database is asked waits for that answer.
struct Recent<T>(Mutex<Option<(Instant, Shown<T>)>>);

type Shown<T> = Result<Arc<T>, Problem>;

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent(Mutex::new(None))
    }
}

const RECENT: Duration = Duration::from_secs(1);

impl<T> Recent<T> {
    async fn or(&self, ask: impl AsyncFnOnce() -> Result<T, Problem>) -> Shown<T> {
        let mut known = self.0.lock().await;
        if let Some((since, answer)) = &*known
            && since.elapsed() < RECENT
        {
            return answer.clone();
        }
        let answer = ask().await.map(Arc::new);
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl Gateway {
    /// All logs, with what the configuration says of them.
    pub async fn logs(&self) -> Result<Vec<Log>, Problem> {
        let ask = async || super::logs::logs(&*self.session().await?, None).await;
        let logs = self.remembered.logs.or(ask).await?;
        let live = self.live();
        let known = |log: &Log| Log {
            rows_are_public: live.is_public(&log.name),
            ..log.clone()
        };
        Ok(logs.iter().map(known).collect())
    }

    /// The server, and its checks without what may name rows that this reader may not see.
    pub async fn health(&self, has_token: bool) -> Result<(Server, Option<Vec<Check>>), Problem> {
        let ask = async || {
            let session = self.session().await?;
            Ok((server(&session).await?, checks(&session).await?))
        };
        let known = self.remembered.checks.or(ask).await?;
        let (server, checks) = (*known).clone();
        let live = self.live();
        let is_public = |check: &Check| {
            !check.logs.is_empty() && check.logs.iter().all(|log| live.is_public(log))
        };
        let shown = |check: Check| match has_token || is_public(&check) {
            true => check,
            false => check.without_detail(),
        };
        Ok((
            server,
            checks.map(|checks| checks.into_iter().map(shown).collect()),
        ))
    }

    /// The extension's metrics.
    pub async fn database_metrics(&self) -> Result<Arc<Option<String>>, Problem> {
        let ask = async || metrics(&*self.session().await?).await;
        self.remembered.metrics.or(ask).await
    }
}
