//! Sessions with the database, which are used again. A session that was left in the middle of a statement, or that
//! failed for a reason of its own, is not; so after a restart of the server the pool is whole again by itself.

use super::config::Limits;
use super::problems::Problem;
use crate::connection::Connection;
use crate::database::{Database, Parameters};
use crate::output::Failure;
use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Row, Statement};

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Reading,
    Administration,
}

/// Opens sessions.
pub struct Opener {
    connection: Connection,
    purpose: Purpose,
    settings: String,
}

pub type Pool = managed::Pool<Opener>;

/// A pool, which connects when it is first asked.
pub fn pool(connection: Connection, purpose: Purpose, limits: &Limits) -> Result<Pool, Failure> {
    let (size, read_only) = match purpose {
        Purpose::Reading => (limits.database_connections, "on"),
        Purpose::Administration => (2, "off"),
    };
    let settings = format!(
        "SET default_transaction_read_only = {read_only};
         SET statement_timeout = {};
         SET lock_timeout = {};
         SET jit = off;
         SET idle_in_transaction_session_timeout = '60s';
         SET client_connection_check_interval = '1s'",
        limits.statement_ms, limits.statement_ms
    );
    let wait = Some(Duration::from_millis(limits.wait_ms));
    let opener = Opener {
        connection,
        purpose,
        settings,
    };
    Ok(managed::Pool::builder(opener)
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(wait)
        .create_timeout(wait)
        .recycle_timeout(wait)
        .build()?)
}

/// Why no session could be opened, as its error prints it.
#[derive(Debug)]
pub struct NotOpened(Failure);

impl std::fmt::Display for NotOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Failure::Said(what) => f.write_str(what),
            Failure::Unheard => f.write_str("nobody listens"),
        }
    }
}

impl std::error::Error for NotOpened {}

impl managed::Manager for Opener {
    type Type = Session;
    type Error = NotOpened;

    async fn create(&self) -> Result<Session, NotOpened> {
        let database = Database::connect(&self.connection)
            .await
            .map_err(NotOpened)?;
        database.batch(&self.settings).await.map_err(NotOpened)?;
        Ok(Session {
            database,
            purpose: self.purpose,
            statements: Mutex::default(),
            spoilt: AtomicBool::new(false),
        })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<NotOpened> {
        match session.database.is_closed() || session.spoilt.load(Ordering::Relaxed) {
            true => Err(RecycleError::message("it is not fit to be used again")),
            false => Ok(()),
        }
    }
}

pub struct Session {
    database: Database,
    purpose: Purpose,
    statements: Mutex<HashMap<&'static str, Statement>>,
    /// A statement is running, or has failed in a way that says something of the session.
    spoilt: AtomicBool,
}

impl Session {
    pub async fn rows(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Problem> {
        self.fit(async {
            let statement = self.prepared(sql).await?;
            self.database.client().query(&statement, parameters).await
        })
        .await
    }

    /// The first rows, for as long as `take` wants more; the others are not read.
    pub async fn rows_while(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
        mut take: impl FnMut(Row) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        let rows = self
            .fit(async {
                let statement = self.prepared(sql).await?;
                let parameters = parameters.iter().copied();
                self.database
                    .client()
                    .query_raw(&statement, parameters)
                    .await
            })
            .await?;
        let mut rows = std::pin::pin!(rows);
        self.spoilt.store(true, Ordering::Relaxed);
        while let Some(row) = rows.try_next().await? {
            if !take(row)? {
                return Ok(());
            }
        }
        self.spoilt.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub async fn row(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, Problem> {
        Ok(self.rows(sql, parameters).await?.into_iter().next())
    }

    /// The one value of a statement's one row.
    pub async fn value<T: FromSqlOwned>(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<T, Problem> {
        let row = self.row(sql, parameters).await?;
        let row = row.ok_or_else(|| {
            tracing::error!(sql, "the database gave no row");
            Problem::new(super::problems::Kind::Internal, "the database gave no row")
        })?;
        Ok(row.try_get(0)?)
    }

    /// The database, for calls that change it.
    pub fn administered(&self) -> Option<&Database> {
        (self.purpose == Purpose::Administration).then_some(&self.database)
    }

    /// Runs something with the session, which is fit to be used again only if that comes to an end.
    pub async fn fit<T>(
        &self,
        run: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Problem> {
        self.spoilt.store(true, Ordering::Relaxed);
        let done = run.await;
        let stays_fit = match &done {
            Ok(_) => true,
            // Class 0A among others: a plan that the server's functions have outgrown.
            Err(error) => error.as_db_error().is_some_and(|error| {
                let class = error.code().code().get(..2).unwrap_or_default();
                ["02", "22", "42", "55"].contains(&class)
            }),
        };
        self.spoilt.store(!stays_fit, Ordering::Relaxed);
        Ok(done?)
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let known = |session: &Session| session.statements.lock().ok()?.get(sql).cloned();
        if let Some(statement) = known(self) {
            return Ok(statement);
        }
        let statement = self.database.prepare(sql).await?;
        if let Ok(mut statements) = self.statements.lock() {
            statements.insert(sql, statement.clone());
        }
        Ok(statement)
    }
}
