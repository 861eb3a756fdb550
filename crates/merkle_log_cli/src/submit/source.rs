//! The database: newest checkpoints, consistency proofs, and where cosignatures are kept. It reconnects by itself, and
//! waits for nothing for ever.

use crate::connection::Connection;
use crate::database::Database;
use crate::output::Failure;
use merkle_tree::{Hash, TreeSize};
use std::sync::Arc;
use std::time::Duration;
use tlog::{Signature, SignedNote, VerifierKey};
use tokio::sync::Mutex;

/// How long the database may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Source {
    connection: Connection,
    session: Mutex<Option<Arc<Database>>>,
}

impl Source {
    pub fn new(connection: &Connection) -> Source {
        Source {
            connection: connection.clone(),
            session: Mutex::new(None),
        }
    }

    /// The newest checkpoint of a log, with the cosignatures that are kept with it.
    pub async fn newest(&self, log: &str) -> Result<SignedNote, Failure> {
        let sql = "SELECT c.note FROM @extschema@.merkle_log_checkpoints c
                    WHERE c.log_name = $1 ORDER BY c.tree_size DESC LIMIT 1";
        let rows = async {
            let database = self.session().await?;
            database.rows(sql, &[&log]).await
        };
        match self.within_patience(rows).await?.first() {
            Some(row) => Ok(row.try_get::<_, String>(0)?.parse()?),
            None => Err(Failure::Said(format!(
                "no checkpoint of log \"{log}\" was signed yet, or there is no such log\n\
                 Hint: Let the worker sign with alter_log(…, checkpoint_interval => …), or call checkpoint(…)."
            ))),
        }
    }

    /// Checkpoints of a log with their cosignatures, the newest of those below a size first, so many at most.
    pub async fn before(
        &self,
        log: &str,
        size: i64,
        most: i64,
    ) -> Result<Vec<(i64, String)>, Failure> {
        let sql = "SELECT c.tree_size, c.note FROM @extschema@.merkle_log_checkpoints c
                    WHERE c.log_name = $1 AND c.tree_size < $2 ORDER BY c.tree_size DESC LIMIT $3";
        let rows = async {
            let database = self.session().await?;
            database.rows(sql, &[&log, &size, &most]).await
        };
        let rows = self.within_patience(rows).await?;
        let notes = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        notes.collect()
    }

    /// That the tree of size `new` begins with the one of size `old`.
    pub async fn proof(
        &self,
        log: &str,
        old: TreeSize,
        new: TreeSize,
    ) -> Result<Vec<Hash>, Failure> {
        let sql = "SELECT p.path FROM @extschema@.consistency_proof($1, $2, $3) p";
        let (old, new) = (old.get() as i64, new.get() as i64);
        let path = async {
            let database = self.session().await?;
            database.one::<Vec<Vec<u8>>>(sql, &[&log, &old, &new]).await
        };
        let path = self.within_patience(path).await?;
        path.iter()
            .map(|hash| Ok(Hash::try_from(hash.as_slice())?))
            .collect()
    }

    /// Keeps a witness' cosignature over a checkpoint of the log.
    pub async fn keep(
        &self,
        log: &str,
        text: &str,
        signature: &Signature,
        key: &VerifierKey,
    ) -> Result<(), Failure> {
        let mut note = SignedNote::new(text)?;
        note.add(signature.clone())?;
        let (note, keys) = (note.to_string(), vec![key.to_string()]);
        let sql = "SELECT @extschema@.add_cosignature($1, $2, $3)";
        let kept = async {
            let database = self.session().await?;
            database.one::<i32>(sql, &[&log, &note, &keys]).await
        };
        self.within_patience(kept).await.map(|_| ())
    }

    async fn within_patience<T>(
        &self,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whatever it waits for, it is not waited for again on this connection.
                self.session.lock().await.take();
                Err(Failure::Said(format!(
                    "the database did not answer within {} s",
                    PATIENCE.as_secs()
                )))
            }
        }
    }

    async fn session(&self) -> Result<Arc<Database>, Failure> {
        let mut session = self.session.lock().await;
        if let Some(database) = session.as_ref().filter(|database| !database.is_closed()) {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(Database::connect(&self.connection).await?);
        *session = Some(Arc::clone(&database));
        Ok(database)
    }
}
