//! The hub's database: the tables `hub.checkpoints` and `hub.convictions`, and the log that they are sources of.

use crate::connection::{Connection, failed};
use crate::database::{Database, Parameters};
use crate::output::Failure;
use futures_util::TryStreamExt;
use std::time::Duration;
use tlog::{Checkpoint, SignedNote};
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
    /// The checkpoint that it continues.
    pub continues: Option<&'p SignedNote>,
    pub from: &'p str,
}

/// What is kept of an origin.
#[derive(Default)]
pub struct Kept {
    /// The newest checkpoint that is believed.
    pub note: Option<SignedNote>,
    /// Rows that are newer, and not believed.
    pub unbelieved: u64,
}

/// What came of keeping a checkpoint.
pub enum Keeping {
    Kept,
    /// Another hub has kept one meanwhile, which this one must be compared with.
    Overtaken,
    /// Somebody has put another row of its size there.
    Taken,
}

/// Whether a note is signed by the log.
pub type Believes<'b> = &'b dyn Fn(&SignedNote) -> bool;

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

    /// The newest checkpoint of an origin that is believed, and how many newer rows are not. Whoever may pull can put there
    /// what no log has signed.
    pub fn newest(&self, origin: &str, believes: Believes) -> Result<Kept, Failure> {
        self.ask(async |database| newest(database, origin, believes).await)
    }

    /// The believed checkpoint of an origin that has a size.
    pub fn of_size(
        &self,
        origin: &str,
        size: u64,
        believes: Believes,
    ) -> Result<Option<SignedNote>, Failure> {
        self.ask(async |database| {
            let sql = "SELECT checkpoint FROM hub.checkpoints WHERE origin = $1 AND tree_size = $2";
            let rows = database.rows(sql, &[&origin, &(size as i64)]).await?;
            let note = rows.first().map(note).transpose()?.flatten();
            Ok(note.filter(|note| believes(note)))
        })
    }

    /// Keeps a checkpoint, if the one that it was compared with is still the newest that is believed.
    pub fn keep(&self, pulled: &Pulled, believes: Believes) -> Result<Keeping, Failure> {
        self.ask(async |database| {
            database.batch("BEGIN").await?;
            // Held until the end of the transaction. A hub that waited sees what the other has kept.
            let sql = "INSERT INTO hub.pulling (origin) VALUES ($1) ON CONFLICT (origin) DO UPDATE SET origin = EXCLUDED.origin";
            database.rows(sql, &[&pulled.origin]).await?;
            let newest = newest(database, pulled.origin, believes).await?.note;
            let keeping = match newest.as_ref() == pulled.continues {
                false => Keeping::Overtaken,
                true => insert(database, pulled).await?,
            };
            database.batch("COMMIT").await?;
            Ok(keeping)
        })
    }

    /// Keeps the proof that a log has signed two histories, unless there is one against the same checkpoint.
    pub fn convict(
        &self,
        origin: &str,
        size: u64,
        evidence: &str,
        from: &str,
        convinces: &dyn Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        let size = size as i64;
        self.ask(async |database| {
            let sql = "SELECT evidence FROM hub.convictions WHERE origin = $1 AND tree_size = $2";
            if has(database, sql, &[&origin, &size], convinces).await? {
                return Ok(());
            }
            let sql =
                "INSERT INTO hub.convictions (origin, tree_size, piece, evidence, pulled_from)
                       SELECT $1, $2, COALESCE(pg_catalog.max(c.piece) + 1, 0), $3, $4
                         FROM hub.convictions c WHERE c.origin = $1 AND c.tree_size = $2
                       ON CONFLICT DO NOTHING";
            database
                .rows(sql, &[&origin, &size, &evidence, &from])
                .await
                .map(drop)
        })
    }

    /// Whether any evidence against an origin convinces.
    pub fn is_convicted(
        &self,
        origin: &str,
        convinces: &dyn Fn(&str) -> bool,
    ) -> Result<bool, Failure> {
        self.ask(async |database| {
            let sql = "SELECT evidence FROM hub.convictions WHERE origin = $1";
            has(database, sql, &[&origin], convinces).await
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

/// The newest checkpoint of an origin that is believed. Rows are read one by one, the newest first.
async fn newest(
    database: &Database,
    origin: &str,
    believes: Believes<'_>,
) -> Result<Kept, Failure> {
    let sql = "SELECT checkpoint FROM hub.checkpoints WHERE origin = $1 ORDER BY tree_size DESC";
    let mut rows = std::pin::pin!(database.stream(sql, &[&origin]).await?);
    let mut kept = Kept::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        match note(&row)?.filter(|note| believes(note)) {
            None => kept.unbelieved += 1,
            believed => {
                kept.note = believed;
                break;
            }
        }
    }
    Ok(kept)
}

async fn insert(database: &Database, pulled: &Pulled<'_>) -> Result<Keeping, Failure> {
    let continues = match pulled.continues {
        Some(note) => note.text().parse::<Checkpoint>()?.size().get() as i64,
        None => -1,
    };
    let sql =
        "INSERT INTO hub.checkpoints (origin, tree_size, root, checkpoint, continues, pulled_from)
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true";
    let (size, note) = (pulled.size as i64, pulled.note.to_string());
    let (origin, root, from) = (&pulled.origin, &pulled.root, &pulled.from);
    let rows = database
        .rows(sql, &[origin, &size, root, &note, &continues, from])
        .await?;
    Ok(match rows.is_empty() {
        false => Keeping::Kept,
        true => Keeping::Taken,
    })
}

/// Whether a text of an answer fulfils a condition.
async fn has(
    database: &Database,
    sql: &str,
    parameters: Parameters<'_>,
    condition: &dyn Fn(&str) -> bool,
) -> Result<bool, Failure> {
    let mut rows = std::pin::pin!(database.stream(sql, parameters).await?);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if condition(row.try_get(0).map_err(failed)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The signed note in a row, if it is one.
fn note(row: &tokio_postgres::Row) -> Result<Option<SignedNote>, Failure> {
    let text: &str = row.try_get(0).map_err(failed)?;
    Ok(SignedNote::from_bytes(text.as_bytes()).ok())
}
