//! A log in a database, with the paths that its files have elsewhere (C2SP tlog-tiles).

use crate::connection::{Connection, failed};
use crate::database::Database;
use crate::output::Failure;
use futures_util::TryStreamExt;
use merkle_log_client::{Transport, TransportError};
use merkle_tree::{HASH_SIZE, TILE_WIDTH};
use std::sync::Arc;
use std::time::Duration;
use tlog::{TileLevel, TilePath};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Characters of a finding.
const LONGEST_FINDING: usize = 500;

pub struct SqlLog {
    runtime: Handle,
    connection: Connection,
    log: String,
    timeout: Duration,
    /// None after it was left in the middle of something, or the server went away.
    session: Mutex<Option<Database>>,
}

impl SqlLog {
    pub fn new(
        runtime: Handle,
        connection: Connection,
        log: &str,
        timeout: Duration,
    ) -> Arc<SqlLog> {
        Arc::new(SqlLog {
            runtime,
            connection,
            log: log.to_owned(),
            timeout,
            session: Mutex::new(None),
        })
    }

    /// What `verify_log` finds, one line a finding, at most so many; and whether there are more. It has a session of its
    /// own, and takes so long at most.
    pub fn findings(&self, most: usize, limit: Duration) -> Result<(Vec<String>, bool), Failure> {
        let asked = async { tokio::time::timeout(limit, self.all_findings(most)).await };
        self.runtime.block_on(asked).unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(Failure::Said(format!(
                "verify_log did not end in {seconds} s"
            )))
        })
    }

    async fn all_findings(&self, most: usize) -> Result<(Vec<String>, bool), Failure> {
        let database = self.connect().await?;
        // Redactions and what left with a partition or a removed source are told as well, and are no one's fault.
        let sql = "SELECT pg_catalog.concat_ws(' ', v.kind, v.source_table, v.source_key, v.leaf_index)
                     FROM @extschema@.verify_log($1) v JOIN @extschema@.finding_kinds() k USING (kind)
                    WHERE k.fault_of <> 'nobody'";
        let rows = database.stream(sql, &[&self.log]).await?;
        let mut rows = std::pin::pin!(rows);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            if found.len() == most {
                return Ok((found, true));
            }
            let line = row.try_get::<_, String>(0).map_err(failed)?;
            found.push(line.chars().take(LONGEST_FINDING).collect());
        }
        Ok((found, false))
    }

    async fn connect(&self) -> Result<Database, Failure> {
        let connected = tokio::time::timeout(self.timeout, Database::connect(&self.connection));
        let database = connected
            .await
            .map_err(|_| Failure::Said("the database does not answer".to_owned()))??;
        database
            .batch(
                "SET default_transaction_read_only = on; SET client_connection_check_interval = '10s'",
            )
            .await?;
        Ok(database)
    }

    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, TransportError> {
        if path == "checkpoint" {
            let sql = "SELECT note FROM @extschema@.merkle_log_checkpoints WHERE log_name = $1 ORDER BY tree_size DESC LIMIT 1";
            let row = self.row(sql, &[&self.log]).await?;
            let note = row.map(|row| row.try_get::<_, String>(0));
            return note
                .transpose()
                .map(|note| note.map(String::into_bytes))
                .map_err(passing);
        }
        let tile: TilePath = path
            .parse()
            .map_err(|error: tlog::Error| TransportError::Lasting(error.to_string()))?;
        let out_of_range = |_| TransportError::NotFound;
        let first = i64::try_from(tile.index().saturating_mul(TILE_WIDTH)).map_err(out_of_range)?;
        let end = first.saturating_add(tile.width().into());
        let index = i64::try_from(tile.index()).map_err(out_of_range)?;
        let row = match tile.level() {
            TileLevel::Entries => {
                // Of pruned entries there are none, and asking for them would be an error.
                let sql = "SELECT b.entry_bundle
                             FROM @extschema@.merkle_log_status l, @extschema@.entry_bundles(l.log_name, $2, $3) b
                            WHERE l.log_name = $1 AND l.pruned_to <= $2 AND b.first_index = $2";
                self.row(sql, &[&self.log, &first, &end]).await?
            }
            TileLevel::Hashes(0) => {
                let sql = "SELECT pg_catalog.string_agg(leaf_hash, ''::pg_catalog.bytea ORDER BY leaf_index)
                             FROM @extschema@.merkle_log_leaves WHERE log_name = $1 AND leaf_index >= $2 AND leaf_index < $3";
                self.row(sql, &[&self.log, &first, &end]).await?
            }
            TileLevel::Hashes(level) => {
                let sql = "SELECT hashes FROM @extschema@.merkle_log_tiles WHERE log_name = $1 AND level = $2 AND tile_index = $3";
                self.row(sql, &[&self.log, &i16::from(level), &index])
                    .await?
            }
        };
        let content = row.map(|row| row.try_get::<_, Option<Vec<u8>>>(0));
        let content = content.transpose().map_err(passing)?.flatten();
        let length = usize::from(tile.width()) * HASH_SIZE;
        Ok(match (tile.level(), content) {
            (TileLevel::Hashes(_), Some(hashes)) => hashes.get(..length).map(<[u8]>::to_vec),
            (_, content) => content,
        })
    }

    /// The only row of an answer, if it has one. A server that answers more than it was asked is not listened to.
    async fn row(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, TransportError> {
        let mut session = self.session.lock().await;
        // Until the answer is there, nobody else uses the session.
        let database = match session.take().filter(|database| !database.is_closed()) {
            Some(database) => database,
            None => self.connect().await.map_err(|failure| {
                TransportError::Passing(match failure {
                    Failure::Said(what) => what,
                    Failure::Unheard => "nobody listens".to_owned(),
                })
            })?,
        };
        let asked = async {
            let statement = database.prepare(sql).await?;
            let parameters = parameters.iter().copied();
            let rows = database.client().query_raw(&statement, parameters).await?;
            let mut rows = std::pin::pin!(rows);
            let row = rows.try_next().await?;
            // After its end the answer must not be asked for more.
            let more = match row {
                Some(_) => rows.try_next().await?,
                None => None,
            };
            Ok((row, more))
        };
        let (row, more) = asked.await.map_err(passing)?;
        if more.is_some() {
            let what = "the server answers with more rows than it was asked for";
            return Err(TransportError::Passing(what.to_owned()));
        }
        *session = Some(database);
        Ok(row)
    }
}

fn passing(error: tokio_postgres::Error) -> TransportError {
    match failed(error) {
        Failure::Said(what) => TransportError::Passing(what),
        Failure::Unheard => TransportError::Passing("nobody listens".to_owned()),
    }
}

impl Transport for SqlLog {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        let asked = async { tokio::time::timeout(self.timeout, self.file(path)).await };
        let Ok(content) = self.runtime.block_on(asked) else {
            let seconds = self.timeout.as_secs();
            return Err(TransportError::Passing(format!("no answer in {seconds} s")));
        };
        match content? {
            None => Err(TransportError::NotFound),
            Some(content) if content.len() as u64 > limit => Err(TransportError::Lasting(format!(
                "it has more than {limit} bytes"
            ))),
            Some(content) => Ok(content),
        }
    }
}
