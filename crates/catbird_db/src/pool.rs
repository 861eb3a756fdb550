//! Connections that are kept and lent: bb8's pool, since sqlx's own asks the server for a sign of life
//! each time that a connection comes back, which takes a third of the throughput of short statements.

use crate::{Config, Error, Result};
use bb8::{ManageConnection, PooledConnection, RunError};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor};
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a connection may have been idle to be lent without a ping.
const TRUSTED: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Pool(bb8::Pool<Server>);

#[derive(Debug)]
pub(crate) struct Server {
    options: PgConnectOptions,
    /// When a connection was last found to be broken. A failover breaks all of them at once, so those that
    /// were lent before are tried out before they are lent again.
    broken: Mutex<Instant>,
}

#[derive(Debug)]
pub(crate) struct Pooled {
    connection: PgConnection,
    /// When it was made or lent last.
    lent: Instant,
    /// In use, in the middle of a transaction, or cut off: nobody else may have it.
    spoilt: bool,
}

/// A connection for queries of the application's own. Back in the pool when dropped, once the server has
/// said that nothing is under way on it. For a transaction call
/// [`Database::begin_transaction`](crate::Database::begin_transaction): a `BEGIN` of
/// your own would be lent on, and so is what you `SET` for the session.
#[derive(Debug)]
pub struct Connection {
    /// `None` only while it is dropped.
    pooled: Option<PooledConnection<'static, Server>>,
    /// Whether the server is asked before somebody else gets it.
    ask: bool,
}

/// A transaction under way, to pass to the operations of the modules as a connection. Dropped, it is
/// rolled back, and its connection closed; [`Transaction::rollback`] keeps that.
#[derive(Debug)]
pub struct Transaction(Connection);

impl Server {
    fn broken(&self) -> MutexGuard<'_, Instant> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ManageConnection for Server {
    type Connection = Pooled;
    type Error = sqlx::Error;

    async fn connect(&self) -> sqlx::Result<Pooled> {
        Ok(Pooled {
            connection: PgConnection::connect_with(&self.options).await?,
            lent: Instant::now(),
            spoilt: false,
        })
    }

    async fn is_valid(&self, pooled: &mut Pooled) -> sqlx::Result<()> {
        let now = Instant::now();
        if now - pooled.lent > TRUSTED || pooled.lent <= *self.broken() {
            let answer = tokio::time::timeout(TRUSTED, pooled.connection.ping()).await;
            answer.map_err(|_| sqlx::Error::from(io::Error::from(io::ErrorKind::TimedOut)))??;
        }
        pooled.lent = now;
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        if pooled.spoilt {
            *self.broken() = Instant::now();
        }
        pooled.spoilt
    }
}

impl Pool {
    /// Connects when connections are asked for.
    pub fn new(config: &Config, url: &str) -> Result<Pool> {
        let sizes = config.max_connections > 0 && config.min_connections <= config.max_connections;
        if !sizes || config.acquire_timeout.is_zero() || config.idle_timeout.is_zero() {
            return Err(Error::invalid(
                "pool configuration",
                "DATABASE_MAX_CONNECTIONS must be at least 1 and no less than DATABASE_MIN_CONNECTIONS; DATABASE_ACQUIRE_TIMEOUT and DATABASE_IDLE_TIMEOUT must be more than 0",
            ));
        }
        let builder = bb8::Pool::builder()
            .max_size(config.max_connections)
            .min_idle(config.min_connections)
            .connection_timeout(config.acquire_timeout)
            .idle_timeout(config.idle_timeout)
            .queue_strategy(bb8::QueueStrategy::Lifo);
        Ok(Pool(builder.build_unchecked(Server {
            options: config.connection(url)?,
            broken: Mutex::new(Instant::now()),
        })))
    }

    /// For whoever lets it drop.
    pub async fn get(&self) -> Result<Connection> {
        match self.0.get_owned().await {
            Ok(pooled) => Ok(Connection {
                pooled: Some(pooled),
                ask: true,
            }),
            Err(RunError::User(error)) => Err(error.into()),
            Err(RunError::TimedOut) if self.state().connections < self.0.config().max_size => {
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "no connection was made in time");
                Err(sqlx::Error::from(error).into())
            }
            Err(RunError::TimedOut) => Err(Error::PoolExhausted),
        }
    }

    /// For whoever says how it ended, by [`Connection::judge`]. If that does not come, since the caller
    /// was cancelled, the connection is closed: the answer to come would be taken for another's.
    pub async fn lend(&self) -> Result<Connection> {
        let mut connection = self.get().await?;
        connection.ask = false;
        connection.spoil(true);
        Ok(connection)
    }

    pub async fn begin(&self) -> Result<Transaction> {
        let mut connection = self.lend().await?;
        connection
            .execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?;
        Ok(Transaction(connection))
    }

    pub fn state(&self) -> bb8::State {
        self.0.state()
    }
}

impl Connection {
    /// Passes on how an operation ended; a connection that was cut off is not lent again.
    pub(crate) fn judge<T>(&mut self, result: Result<T>) -> Result<T> {
        self.spoil(matches!(result, Err(Error::Unavailable(_))));
        result
    }

    fn spoil(&mut self, spoilt: bool) {
        if let Some(pooled) = &mut self.pooled {
            pooled.spoilt = spoilt;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (Some(mut pooled), true) = (self.pooled.take(), self.ask) else {
            return;
        };
        pooled.spoilt = true;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let answer = tokio::time::timeout(TRUSTED, pooled.connection.ping()).await;
                pooled.spoilt = !matches!(answer, Ok(Ok(())));
            });
        }
    }
}

impl Transaction {
    /// # Errors
    /// The database's, also where a statement failed before, so that there is nothing to commit. If it is
    /// not known whether the commit was done, [`Error::Unavailable`].
    pub async fn commit(self) -> Result<()> {
        // Of a transaction that failed COMMIT alone would make a rollback, and say that all is well.
        self.end("SELECT; COMMIT").await
    }

    /// # Errors
    /// The database's; the transaction is rolled back all the same.
    pub async fn rollback(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<()> {
        sqlx::raw_sql(how).execute(&mut *self.0).await?;
        self.0.spoil(false);
        Ok(())
    }
}

impl Deref for Connection {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self
            .pooled
            .as_ref()
            .expect("it is taken by drop only")
            .connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self
            .pooled
            .as_mut()
            .expect("it is taken by drop only")
            .connection
    }
}

impl Deref for Transaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
