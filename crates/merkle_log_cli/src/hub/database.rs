//! The hub's database: the tables `hub.checkpoints` and `hub.convictions`, and the log that they are sources of.

use crate::connection::{Connection, failed};
use crate::database::Database;
use crate::output::Failure;
use std::time::Duration;
use tlog::SignedNote;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

pub struct Hub {
    runtime: Handle,
    connection: Connection,
    /// The name of its log.
    pub log: String,
    timeout: Duration,
    /// None after it was left in the middle of something, or the server went away.
    session: Mutex<Option<Database>>,
}

/// A checkpoint to be kept.
pub struct Pulled<'p> {
    pub origin: &'p str,
    pub size: u64,
    pub root: &'p [u8],
    pub note: &'p SignedNote,
    /// The size of the checkpoint that it continues.
    pub continues: Option<u64>,
    pub from: &'p str,
}

impl Hub {
    pub fn new(runtime: Handle, connection: Connection, log: &str, seconds: u64) -> Hub {
        Hub {
            runtime,
            connection,
            log: log.to_owned(),
            timeout: Duration::from_secs(seconds),
            session: Mutex::new(None),
        }
    }

    /// The newest checkpoint of an origin.
    pub fn newest(&self, origin: &str) -> Result<Option<SignedNote>, Failure> {
        self.ask(async |database| {
            let sql = "SELECT checkpoint FROM hub.checkpoints WHERE origin = $1 ORDER BY tree_size DESC LIMIT 1";
            note(&database.rows(sql, &[&origin]).await?)
        })
    }

    /// The checkpoint of an origin that has a size.
    pub fn of_size(&self, origin: &str, size: u64) -> Result<Option<SignedNote>, Failure> {
        self.ask(async |database| {
            let sql = "SELECT checkpoint FROM hub.checkpoints WHERE origin = $1 AND tree_size = $2";
            note(&database.rows(sql, &[&origin, &(size as i64)]).await?)
        })
    }

    /// Keeps a checkpoint. False if another hub has kept one that continues the same: then this one must be compared
    /// with that.
    pub fn keep(&self, pulled: &Pulled) -> Result<bool, Failure> {
        let continues = pulled.continues.map_or(-1, |size| size as i64);
        self.ask(async |database| {
            let sql = "INSERT INTO hub.checkpoints (origin, tree_size, root, checkpoint, continues, pulled_from)
                       VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true";
            let (size, note) = (pulled.size as i64, pulled.note.to_string());
            let kept = database
                .rows(
                    sql,
                    &[&pulled.origin, &size, &pulled.root, &note, &continues, &pulled.from],
                )
                .await?;
            Ok(!kept.is_empty())
        })
    }

    /// Keeps the proof that a log has signed two histories, unless there is one against the same checkpoint.
    pub fn convict(
        &self,
        origin: &str,
        size: u64,
        evidence: &str,
        from: &str,
    ) -> Result<(), Failure> {
        self.ask(async |database| {
            let sql = "INSERT INTO hub.convictions (origin, tree_size, evidence, pulled_from)
                       VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
            database
                .rows(sql, &[&origin, &(size as i64), &evidence, &from])
                .await
                .map(drop)
        })
    }

    /// The evidence against an origin, the first pieces of it.
    pub fn convictions(&self, origin: &str) -> Result<Vec<String>, Failure> {
        self.ask(async |database| {
            let sql = "SELECT evidence FROM hub.convictions WHERE origin = $1 ORDER BY found_at LIMIT 100";
            let rows = database.rows(sql, &[&origin]).await?;
            let evidence = rows.iter().map(|row| row.try_get(0));
            evidence.collect::<Result<_, _>>().map_err(failed)
        })
    }

    /// Appends what is new to the hub's log.
    pub fn batch(&self) -> Result<(), Failure> {
        let sql = "SELECT entries FROM @extschema@.process_next_batch($1)";
        self.ask(async |database| {
            while database.one::<i64>(sql, &[&self.log]).await? > 0 {}
            Ok(())
        })
    }

    /// Has the newest tree head of the hub's log signed, once.
    pub fn sign(&self) -> Result<(), Failure> {
        self.ask(async |database| {
            let sql = "SELECT @extschema@.checkpoint($1)";
            database
                .one::<Option<String>>(sql, &[&self.log])
                .await
                .map(drop)
        })
    }

    /// Asks something of the database, in bounded time. The session is used again only if that came to an end.
    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let asked = async {
            let mut session = self.session.lock().await;
            let database = match session.take().filter(|database| !database.is_closed()) {
                Some(database) => database,
                None => self.connect().await?,
            };
            let answer = question(&database).await?;
            *session = Some(database);
            Ok(answer)
        };
        let bounded = async { tokio::time::timeout(self.timeout, asked).await };
        self.runtime.block_on(bounded).unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(Failure::Said(format!(
                "the hub's database did not answer in {seconds} s"
            )))
        })
    }

    async fn connect(&self) -> Result<Database, Failure> {
        let database = Database::connect(&self.connection).await?;
        let seconds = self.timeout.as_secs();
        let settings = format!(
            "SET statement_timeout = '{seconds}s'; SET client_connection_check_interval = '5s'"
        );
        database.batch(&settings).await?;
        Ok(database)
    }
}

fn note(rows: &[tokio_postgres::Row]) -> Result<Option<SignedNote>, Failure> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let text: String = row.try_get(0).map_err(failed)?;
    Ok(Some(SignedNote::from_bytes(text.as_bytes())?))
}
