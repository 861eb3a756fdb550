//! What the database says of a log: its checkpoint, its entries, and of pruned ones the hashes of their tiles.

use super::{Stop, said};
use crate::connection::failed;
use crate::database::Database;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use merkle_tree::{HASH_SIZE, Hash, TILE_WIDTH};
use std::ops::Range;
use std::pin::Pin;
use tlog::{Checkpoint, SignedNote, tile_from_bytes};
use tokio_postgres::Row;

pub struct Log<'d> {
    database: &'d Database,
    name: String,
    /// The newest checkpoint, with all its signatures.
    pub note: String,
    pub checkpoint: Checkpoint,
    /// Entries before this one are gone.
    pub pruned_to: u64,
}

/// Up to 256 entries in order, which end where a tile does.
#[derive(Debug)]
pub struct Bundle {
    /// The leaf index of the first.
    pub first: u64,
    /// The entries as an entry bundle (C2SP tlog-tiles). One of length 0 stands for an entry of which the log does not keep
    /// the leaf data, or does not show them to this role.
    pub bytes: Vec<u8>,
    pub hashes: Vec<Hash>,
}

pub type Bundles = Pin<Box<dyn Stream<Item = Result<Bundle, Stop>> + Send>>;

impl Log<'_> {
    pub async fn find<'d>(database: &'d Database, name: &str, sign: bool) -> Result<Log<'d>, Stop> {
        let sql = match sign {
            true => "SELECT @extschema@.checkpoint($1)",
            false => {
                "SELECT (SELECT c.note FROM @extschema@.merkle_log_checkpoints c
                          WHERE c.log_name = $1 ORDER BY c.tree_size DESC LIMIT 1)"
            }
        };
        let note: Option<String> = database.one(sql, &[&name]).await?;
        let note = note.ok_or_else(|| {
            said(format!(
                "the log {name:?} has no checkpoint\n\
                 Hint: Run this without --no-sign, or let the worker sign (checkpoint_interval)."
            ))
        })?;
        let checkpoint = SignedNote::from_bytes(note.as_bytes())?.text().parse()?;
        let pruned_to: i64 = database
            .one(
                "SELECT pruned_to FROM @extschema@.merkle_log_status WHERE log_name = $1",
                &[&name],
            )
            .await?;
        Ok(Log {
            database,
            name: name.to_owned(),
            note,
            checkpoint,
            pruned_to: pruned_to as u64,
        })
    }

    pub async fn root(&self, size: u64) -> Result<Hash, Stop> {
        let root: Vec<u8> = self
            .database
            .one(
                "SELECT @extschema@.merkle_root($1, $2)",
                &[&self.name, &(size as i64)],
            )
            .await?;
        Ok(Hash::try_from(root.as_slice())?)
    }

    /// Entries in order.
    pub async fn bundles(&self, range: Range<u64>) -> Result<Bundles, Stop> {
        let sql = "SELECT first_index, leaf_hashes, entry_bundle FROM @extschema@.entry_bundles($1, $2, $3)";
        let (from, to) = (range.start as i64, range.end as i64);
        let rows = self.database.stream(sql, &[&self.name, &from, &to]).await?;
        Ok(Box::pin(rows.map(|row| bundle(&row.map_err(failed)?))))
    }

    /// Of each 256 entries before the first that is there, the root.
    pub async fn roots_of_pruned(
        &self,
    ) -> Result<impl Stream<Item = Result<Vec<Hash>, Stop>> + use<>, Stop> {
        let sql = "SELECT t.hashes FROM @extschema@.merkle_tile t JOIN @extschema@.verification_logs l USING (log_id)
                    WHERE l.log_name = $1 AND t.level = 1 ORDER BY t.tile_index";
        let rows = self.database.stream(sql, &[&self.name]).await?;
        let rows = rows.map_err(|error| Stop::Failed(failed(error)));
        Ok(rows.and_then(async |row| {
            let hashes: &[u8] = row.try_get(0).map_err(failed)?;
            hashes
                .chunks(HASH_SIZE)
                .map(|hash| Ok(Hash::try_from(hash)?))
                .collect()
        }))
    }

    /// That the log has as many entries as are published.
    pub fn check_reaches(&self, size: u64) -> Result<(), Stop> {
        match self.checkpoint.size().get() < size {
            false => Ok(()),
            true => Err(said(format!(
                "the target has {size} entries of the log, and the database only {}\n\
                 Hint: Is it an older copy of the database, or a standby that lags?",
                self.checkpoint.size()
            ))),
        }
    }

    /// That the entries after the published ones are there.
    pub fn check_not_pruned(&self, size: u64) -> Result<(), Stop> {
        match 0 < size && size / TILE_WIDTH * TILE_WIDTH < self.pruned_to {
            false => Ok(()),
            true => Err(said(format!(
                "the entries before {} were pruned, and the target has only {size}\n\
                 Hint: Export to a new target.",
                self.pruned_to
            ))),
        }
    }
}

fn bundle(row: &Row) -> Result<Bundle, Stop> {
    let hashes: &[u8] = row.try_get(1).map_err(failed)?;
    let hashes = tile_from_bytes(hashes, (hashes.len() / HASH_SIZE) as u16)?;
    Ok(Bundle {
        first: row.try_get::<_, i64>(0).map_err(failed)? as u64,
        bytes: row.try_get(2).map_err(failed)?,
        hashes,
    })
}

/// What a note's bytes say.
pub fn checkpoint_of(note: &Bytes) -> Result<Checkpoint, Stop> {
    Ok(SignedNote::from_bytes(note)?.text().parse()?)
}
