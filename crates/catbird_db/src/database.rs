//! Connections: the primary, a replica if there is one, and what is tried again.

use crate::pool::{Connection, Pool, Transaction};
use crate::{Config, Error, Result};
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use std::time::{Duration, Instant};

/// The database of one messaging server. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Database {
    pub(crate) primary: Pool,
    pub(crate) replica: Option<Pool>,
}

/// How the database is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Of a query to the primary, connection included.
    pub latency: Duration,
    /// Of the primary's pool.
    pub connections: u32,
    pub idle_connections: u32,
    /// How far the replica's data is behind, if there is a replica and it has fallen behind.
    pub replica_lag: Option<Duration>,
    /// Messages can be stored until then, unless [`crate::retention::create_partitions`] is called.
    pub partitions_until: DateTime<Utc>,
    /// Whether there are transparency logs.
    pub transparent: bool,
}

impl Database {
    /// # Errors
    /// If the configuration makes no sense, or the primary cannot be reached.
    pub async fn connect(config: &Config) -> Result<Database> {
        let primary = Pool::new(config, &config.url)?;
        let replica = match &config.read_url {
            Some(url) => Some(Pool::new(config, url)?),
            None => None,
        };
        // The pool tries for as long as a caller waits; here the first answer counts.
        let options = config.connection(&config.url)?;
        PgConnection::connect_with(&options).await?.close().await?;
        Ok(Database { primary, replica })
    }

    /// Brings the schema up to date. Several servers may call it at once.
    ///
    /// # Errors
    /// If the database has other migrations than this program knows.
    pub async fn migrate(&self) -> Result<()> {
        // A migration takes as long as it takes, and so do those of others that are waited for.
        let mut connection = self.primary.lend().await?;
        sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0")
            .execute(&mut *connection)
            .await?;
        sqlx::migrate!().run(&mut *connection).await?;
        sqlx::raw_sql("RESET statement_timeout; RESET lock_timeout")
            .execute(&mut *connection)
            .await?;
        connection.judge(Ok(()))
    }

    /// On the primary, READ COMMITTED: what the operations' locks are made for.
    ///
    /// # Errors
    /// If there is no connection.
    pub async fn begin_transaction(&self) -> Result<Transaction> {
        self.primary.begin().await
    }

    /// # Errors
    /// If the primary does not answer, or the replica does not.
    pub async fn health_check(&self) -> Result<Health> {
        let started = Instant::now();
        let mut connection = self.primary.get().await?;
        let partitions_until = crate::retention::partitions_until(&mut connection).await?;
        let latency = started.elapsed();
        let transparent = crate::transparency::registered(&mut connection).await?;
        let replica_lag = match &self.replica {
            Some(replica) => replica_lag(&mut *replica.get().await?).await?,
            None => None,
        };
        Ok(Health {
            latency,
            connections: self.primary.state().connections,
            idle_connections: self.primary.state().idle_connections,
            replica_lag,
            partitions_until,
            transparent,
        })
    }

    /// To the primary, for queries of the application's own.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn connection(&self) -> Result<Connection> {
        self.primary.get().await
    }
}

async fn replica_lag(replica: &mut PgConnection) -> Result<Option<Duration>> {
    // A replica that has replayed all it received is not behind, however long ago that was written.
    let lag = sqlx::query_scalar!(
        "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
          WHERE pg_is_in_recovery() AND pg_last_wal_receive_lsn() <> pg_last_wal_replay_lsn()"
    );
    let seconds = lag.fetch_optional(replica).await?.flatten();
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// How often an operation is tried when the server rolled it back for the sake of others.
const ATTEMPTS: u32 = 5;

/// The tries of one operation.
#[derive(Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Whether to try again after this error; waits before it says yes. Only what was certainly rolled
    /// back is tried again: an error that may have come after the commit is the caller's to judge.
    pub(crate) async fn again(&mut self, error: &Error) -> bool {
        self.0 += 1;
        if !matches!(error, Error::Contended(_)) || self.0 >= ATTEMPTS {
            return false;
        }
        let pause = Duration::from_millis(rand::random_range(1..10 << self.0));
        tracing::debug!(%error, attempt = self.0, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        true
    }
}
