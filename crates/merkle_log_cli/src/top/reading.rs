//! What a database says of its logs, and what it is asked to do with them.

use super::Heard;
use crate::administer::call::Call;
use crate::administer::log::name;
use crate::connection::Connection;
use crate::database::Database;
use crate::output::Failure;
use crate::status::{PROBLEM, SIGNED, STATE};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, timeout, timeout_at};

/// The state of everything at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    pub database: String,
    pub is_standby: bool,
    /// The process that runs the logs of this database by itself.
    pub worker: Option<i32>,
    pub logs: Vec<Log>,
    /// What is being done just now.
    pub commands: Vec<Running>,
    pub sizes: Sizes,
    /// The checks that fail; `None` for a role that may not ask.
    pub health: Option<Vec<Check>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    pub name: String,
    pub state: String,
    pub sources: i64,
    pub entries: i64,
    /// Of the latest tree head, in hexadecimal.
    pub root: Option<String>,
    pub lag_rows: Option<i64>,
    pub lag_seconds: Option<f64>,
    /// The last batch that appended entries: how long ago, how long it took, and how many they were.
    pub batch_age: Option<f64>,
    pub batch_seconds: Option<f64>,
    pub batch_entries: Option<i64>,
    /// The size of the newest checkpoint.
    pub signed: Option<i64>,
    pub late_entries: i64,
    pub problem: String,
}

/// A command of some session, and how far it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Running {
    pub command: String,
    pub log: Option<String>,
    pub done: i64,
    pub total: i64,
}

/// Bytes that the extension's tables take, with their indexes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sizes {
    pub entries: i64,
    pub leaf_data: i64,
    pub queue: i64,
    pub other: i64,
}

/// A check of `merkle_log_health()` that fails.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub object: Option<String>,
    pub detail: String,
}

/// What `verify_log` found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub faults: u64,
    /// What was done on purpose, and is on record.
    pub on_record: u64,
    /// The first of the faults, a line each.
    pub first: Vec<String>,
}

/// What somebody at the keyboard wants of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Refresh,
    Pause(String),
    Resume(String),
}

/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Health looks at every source.
const BETWEEN_CHECKS: Duration = Duration::from_secs(10);
/// Faults of which the text is kept.
const MOST_FAULTS: usize = 100;

fn statement() -> String {
    format!(
        "SELECT pg_catalog.jsonb_build_object(
            'database', pg_catalog.current_database(),
            'is_standby', pg_catalog.pg_is_in_recovery(),
            'worker', (SELECT w.pid FROM @extschema@.background_worker() w),
            'logs', COALESCE((
                SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                           'name', s.log_name,
                           'state', {STATE},
                           'sources', s.sources,
                           'entries', s.tree_size,
                           'root', pg_catalog.encode(s.root_hash, 'hex'),
                           'lag_rows', s.lag_rows,
                           'lag_seconds', s.lag_seconds,
                           'batch_age', GREATEST(EXTRACT(epoch FROM pg_catalog.now() - s.last_batch_at), 0),
                           'batch_seconds', EXTRACT(epoch FROM s.last_batch_duration),
                           'batch_entries', s.last_batch_entries,
                           'signed', {SIGNED},
                           'late_entries', s.late_entries,
                           'problem', {PROBLEM}) ORDER BY s.log_name)
                  FROM @extschema@.merkle_log_status s), '[]'),
            'commands', COALESCE((
                SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                           'command', p.command, 'log', p.log_name, 'done', p.rows_done, 'total', p.rows_total))
                  FROM @extschema@.merkle_log_progress p WHERE p.datname = pg_catalog.current_database()), '[]'),
            'sizes', (
                SELECT pg_catalog.jsonb_build_object(
                           'entries', COALESCE(pg_catalog.sum(t.bytes) FILTER (WHERE t.name = 'merkle_log'), 0),
                           'leaf_data', COALESCE(pg_catalog.sum(t.bytes) FILTER (WHERE t.name = 'merkle_leaf_data'), 0),
                           'queue', COALESCE(pg_catalog.sum(t.bytes) FILTER (WHERE t.name = 'merkle_pending'), 0),
                           'other', COALESCE(pg_catalog.sum(t.bytes) FILTER (WHERE t.name NOT IN ('merkle_log', 'merkle_leaf_data', 'merkle_pending')), 0))
                  FROM (SELECT c.relname::pg_catalog.text, pg_catalog.pg_total_relation_size(c.oid)
                          FROM pg_catalog.pg_extension e
                          JOIN pg_catalog.pg_class c ON c.oid = ANY (e.extconfig) AND c.relkind = 'r'
                         WHERE e.extname = 'merkle_log') t (name, bytes)))::pg_catalog.text"
    )
}

const MAY_CHECK: &str = "
    SELECT pg_catalog.has_function_privilege('@extschema@.merkle_log_health()', 'EXECUTE')";

const CHECKS: &str = "
    SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'name', h.check_name, 'object', h.object, 'detail', h.detail)), '[]')::pg_catalog.text
      FROM @extschema@.merkle_log_health() h WHERE NOT h.ok";

/// Reads again and again, from one connection after the other where one is lost.
pub struct Reader {
    connection: Connection,
    database: Option<Database>,
    /// When health was asked for last, and what it said.
    checked: Option<(Instant, Option<Vec<Check>>)>,
}

impl Reader {
    pub fn new(connection: Connection, database: Database) -> Reader {
        Reader {
            connection,
            database: Some(database),
            checked: None,
        }
    }

    /// Tells what it reads every `interval`, and does what it is asked to in between, until nobody listens.
    pub async fn run(mut self, interval: Duration, mut asked: Receiver<Ask>, heard: Sender<Heard>) {
        loop {
            let next = Instant::now() + interval;
            let told = match self.read().await {
                Ok(reading) => Heard::Read(Box::new(reading)),
                Err(why) => Heard::Lost(why),
            };
            if heard.send(told).await.is_err() {
                return;
            }
            match timeout_at(next, asked.recv()).await {
                Err(_) | Ok(Some(Ask::Refresh)) => {}
                Ok(Some(ask)) => {
                    let told = self.call(ask).await;
                    if heard.send(told).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
            }
        }
    }

    /// A reading, from a new connection if there is none.
    pub async fn read(&mut self) -> Result<Reading, String> {
        let read = timeout(PATIENCE, self.try_to_read()).await;
        let read =
            read.unwrap_or_else(|_| Err(Failure::Said("the database does not answer".to_owned())));
        read.map_err(|failure| {
            self.database = None;
            self.checked = None;
            said(failure)
        })
    }

    async fn try_to_read(&mut self) -> Result<Reading, Failure> {
        let database = match self.database.take() {
            Some(database) if !database.is_closed() => database,
            _ => Database::connect(&self.connection).await?,
        };
        let database = self.database.insert(database);
        let text: String = database.one(&statement(), &[]).await?;
        let mut reading: Reading = serde_json::from_str(&text)?;
        if self
            .checked
            .as_ref()
            .is_none_or(|(when, _)| when.elapsed() >= BETWEEN_CHECKS)
        {
            self.checked = Some((Instant::now(), checks(database).await?));
        }
        reading.health = self.checked.as_ref().and_then(|(_, checks)| checks.clone());
        Ok(reading)
    }

    async fn call(&mut self, ask: Ask) -> Heard {
        let (function, log, done) = match ask {
            Ask::Pause(log) => ("pause_log", log, "paused"),
            Ask::Resume(log) => ("resume_log", log, "resumed"),
            Ask::Refresh => return Heard::Said(String::new()),
        };
        let Some(database) = &self.database else {
            return Heard::Said(format!("{log} is not {done}: there is no connection"));
        };
        let call = Call::new(function, [name(&log)]);
        match timeout(PATIENCE, call.make(database)).await {
            Ok(Ok(())) => Heard::Said(format!("{log} is {done}")),
            Ok(Err(failure)) => Heard::Said(format!("{log} is not {done}: {}", said(failure))),
            Err(_) => Heard::Said(format!(
                "{log} is perhaps not {done}: the database does not answer"
            )),
        }
    }
}

async fn checks(database: &Database) -> Result<Option<Vec<Check>>, Failure> {
    match database.one(MAY_CHECK, &[]).await? {
        false => Ok(None),
        true => {
            let text: String = database.one(CHECKS, &[]).await?;
            Ok(Some(serde_json::from_str(&text)?))
        }
    }
}

/// Verifies a log, in a connection of its own.
pub async fn verify(connection: Connection, log: String, heard: Sender<Heard>) {
    let began = Instant::now();
    let found = find(&connection, &log).await.map_err(said);
    let after = began.elapsed();
    // Nobody listens any more where the program ends.
    let _ = heard.send(Heard::Verified { log, after, found }).await;
}

async fn find(connection: &Connection, log: &str) -> Result<Found, Failure> {
    let database = Database::connect(connection).await?;
    // The server stops when this program has ended.
    database
        .batch("SET client_connection_check_interval = '1s'")
        .await?;
    let sql = "SELECT k.fault_of = 'nobody',
                      pg_catalog.concat_ws(' ', v.kind, v.source_table, v.source_key, 'at ' || v.leaf_index::pg_catalog.text)
                          || ': ' || v.detail
                 FROM @extschema@.verify_log($1) v JOIN @extschema@.finding_kinds() k ON k.kind = v.kind";
    let rows = database.stream(sql, &[&log]).await?;
    let mut rows = pin!(rows);
    let mut found = Found::default();
    while let Some(row) = rows.try_next().await.map_err(crate::connection::failed)? {
        match row.get(0) {
            true => found.on_record += 1,
            false => {
                found.faults += 1;
                if found.first.len() < MOST_FAULTS {
                    found.first.push(row.get(1));
                }
            }
        }
    }
    Ok(found)
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Said(what) => what,
        Failure::Unheard => "nobody reads what is said".to_owned(),
    }
}
