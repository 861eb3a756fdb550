//! Connections that are kept and lent: bb8's pool, since sqlx's own asks the server for a sign of life
//! each time that a connection comes back, which takes a third of the throughput of short statements.

use crate::{Config, Error, Result};
use bb8::{ManageConnection, PooledConnection, RunError};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor};
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// How long a connection may have been idle to be lent without a ping.
const TRUSTED: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Pool(bb8::Pool<Server>);

#[derive(Debug)]
pub(crate) struct Server(PgConnectOptions);

#[derive(Debug)]
pub(crate) struct Pooled {
    connection: PgConnection,
    lent: Instant,
    /// In the middle of a transaction, or cut off: nobody else may have it.
    spoilt: bool,
}

/// A connection for queries of the application's own. Back in the pool when dropped.
#[derive(Debug)]
pub struct Connection(PooledConnection<'static, Server>);

/// A transaction under way, to pass to the operations of the modules as a connection. Dropped, it is
/// rolled back, and its connection closed; [`Transaction::rollback`] keeps that.
#[derive(Debug)]
pub struct Transaction(Connection);

impl ManageConnection for Server {
    type Connection = Pooled;
    type Error = sqlx::Error;

    async fn connect(&self) -> sqlx::Result<Pooled> {
        Ok(Pooled {
            connection: PgConnection::connect_with(&self.0).await?,
            lent: Instant::now(),
            spoilt: false,
        })
    }

    async fn is_valid(&self, pooled: &mut Pooled) -> sqlx::Result<()> {
        if pooled.lent.elapsed() > TRUSTED {
            pooled.connection.ping().await?;
        }
        pooled.lent = Instant::now();
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.spoilt
    }
}

impl Pool {
    /// Connects when connections are asked for.
    pub fn new(config: &Config, url: &str) -> Result<Pool> {
        let builder = bb8::Pool::builder()
            .max_size(config.max_connections)
            .min_idle(config.min_connections)
            .connection_timeout(config.acquire_timeout)
            .idle_timeout(config.idle_timeout)
            .queue_strategy(bb8::QueueStrategy::Lifo);
        Ok(Pool(
            builder.build_unchecked(Server(config.connection(url)?)),
        ))
    }

    pub async fn get(&self) -> Result<Connection> {
        match self.0.get_owned().await {
            Ok(connection) => Ok(Connection(connection)),
            Err(RunError::User(error)) => Err(error.into()),
            Err(RunError::TimedOut) if self.state().connections < self.0.config().max_size => {
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "no connection was made in time");
                Err(sqlx::Error::from(error).into())
            }
            Err(RunError::TimedOut) => Err(Error::PoolExhausted),
        }
    }

    pub async fn begin(&self) -> Result<Transaction> {
        let mut connection = self.get().await?;
        connection.0.spoilt = true;
        connection.execute("BEGIN").await?;
        Ok(Transaction(connection))
    }

    pub fn state(&self) -> bb8::State {
        self.0.state()
    }
}

impl Connection {
    /// Passes on how an operation ended; a connection that was cut off is not lent again.
    pub(crate) fn judge<T>(&mut self, result: Result<T>) -> Result<T> {
        self.0.spoilt |= matches!(result, Err(Error::Unavailable(_)));
        result
    }
}

impl Transaction {
    /// # Errors
    /// The database's. If it is not known whether the commit was done, [`Error::Unavailable`].
    pub async fn commit(self) -> Result<()> {
        self.end("COMMIT").await
    }

    /// # Errors
    /// The database's; the transaction is rolled back all the same.
    pub async fn rollback(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<()> {
        self.0.execute(how).await?;
        self.0.0.spoilt = false;
        Ok(())
    }
}

impl Deref for Connection {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0.connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.connection
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
