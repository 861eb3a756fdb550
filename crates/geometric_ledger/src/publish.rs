//! Committed batches as rows of a PostgreSQL table, which can be a source of a `merkle_log` log.
//!
//! What was published last is read from the table, in the transaction that adds to it: so each batch
//! is there once, whichever side crashes when.

use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::service::reader::{Progress, Reader};
use crate::storage::batch::Batch;
use postgres::{Client, NoTls};
use std::sync::atomic::Ordering;

/// Publishes a ledger's batches into one table.
pub struct Publisher {
    client: Client,
    table: String,
    progress: Box<Progress>,
}

/// Gives the batches from one to another, or the first of them.
type Read<'a> = &'a mut dyn FnMut(u64, u64) -> Result<Vec<Batch>, Error>;

/// Batches published in one transaction.
const AT_ONCE: u64 = 10_000;

impl Publisher {
    /// Connects, and creates the table if it is not there. `table` may be `schema.table`.
    ///
    /// # Errors
    /// [`Error::Postgres`].
    pub fn connect(connection: &str, table: &str) -> Result<Self, Error> {
        Self::new(Client::connect(connection, NoTls)?, table)
    }

    /// As [`Publisher::connect`], over a connection that is there.
    ///
    /// # Errors
    /// [`Error::Postgres`].
    pub fn new(mut client: Client, table: &str) -> Result<Self, Error> {
        let quoted: Vec<_> = table
            .split('.')
            .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
            .collect();
        let table = quoted.join(".");
        client.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {table} (
                 sequence bigint PRIMARY KEY,
                 committed_at timestamptz NOT NULL,
                 updates bigint NOT NULL,
                 accounts bigint NOT NULL,
                 minted numeric NOT NULL,
                 burned numeric NOT NULL,
                 digest bytea NOT NULL,
                 leaf_data bytea NOT NULL
             )"
        ))?;
        Ok(Publisher {
            client,
            table,
            progress: Box::new(|_, _| true),
        })
    }

    /// Is told, after each transaction, up to which batch the table is of how many there are; false stops
    /// publishing with [`Error::Interrupted`].
    pub fn on_progress(&mut self, progress: impl FnMut(u64, u64) -> bool + Send + 'static) {
        self.progress = Box::new(progress);
    }

    /// Publishes every batch that is durable and not in the table. Returns how many.
    ///
    /// # Errors
    /// [`Error::Postgres`]; [`Error::Tree`] if the table has another ledger's batches.
    pub fn publish(&mut self, ledger: &GeometricLedger) -> Result<u64, Error> {
        let core = &ledger.core;
        let newest = core.visible.load(Ordering::Acquire);
        if !core.options.read_only {
            core.wal.sync_to(core.wal.appended())?;
        }
        self.publish_up_to(newest, &mut |from, to| {
            let batches = (from..=to).filter_map(|sequence| ledger.batch(sequence).transpose());
            batches.collect()
        })
    }

    /// As [`Publisher::publish`], of a ledger that another process may have open.
    ///
    /// # Errors
    /// As [`Publisher::publish`], and as any reading.
    pub fn publish_from(&mut self, ledger: &mut Reader) -> Result<u64, Error> {
        let newest = ledger.describe()?.head.sequence;
        self.publish_up_to(newest, &mut |from, to| ledger.batches(from, to))
    }

    fn publish_up_to(&mut self, newest: u64, read: Read<'_>) -> Result<u64, Error> {
        let mut published = 0;
        loop {
            let (last, added) = self.publish_some(newest, read)?;
            published += added;
            if added == 0 {
                return Ok(published);
            }
            if !(self.progress)(last, newest) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Publishes the next batches, in one transaction: up to which, and how many.
    fn publish_some(&mut self, newest: u64, read: Read<'_>) -> Result<(u64, u64), Error> {
        let table = &self.table;
        let mut transaction = self.client.transaction()?;
        // Publishers take turns; readers and merkle_log are not held up.
        transaction.batch_execute(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))?;
        let last = transaction.query_opt(
            &format!("SELECT sequence, leaf_data FROM {table} ORDER BY sequence DESC LIMIT 1"),
            &[],
        )?;
        let mut from = 0;
        if let Some(row) = last {
            from = row.get::<_, i64>(0) as u64;
            let ours = read(from, from)?.first().map(Batch::leaf_data);
            if ours.as_deref() != Some(row.get(1)) {
                return Err(Error::Tree(format!(
                    "batch {from} in {table} is not this ledger's"
                )));
            }
        }
        let to = newest.min(from + AT_ONCE);
        let batches = match from < to {
            true => read(from + 1, to)?,
            false => Vec::new(),
        };
        let Some(last) = batches.last().map(|batch| batch.sequence) else {
            return Ok((from, 0));
        };
        let column = |value: fn(&Batch) -> i64| batches.iter().map(value).collect::<Vec<_>>();
        let text = |value: fn(&Batch) -> u128| {
            let values = batches.iter().map(|batch| value(batch).to_string());
            values.collect::<Vec<_>>()
        };
        let digests: Vec<_> = batches.iter().map(|batch| batch.digest.to_vec()).collect();
        let leaves: Vec<_> = batches.iter().map(Batch::leaf_data).collect();
        let added = transaction.execute(
            &format!(
                "INSERT INTO {table}
                 SELECT sequence, timestamptz 'epoch' + time * interval '1 microsecond',
                        updates, accounts, minted::numeric, burned::numeric, digest, leaf_data
                 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[],
                             $6::text[], $7::bytea[], $8::bytea[])
                      AS batch (sequence, time, updates, accounts, minted, burned, digest, leaf_data)
                 ORDER BY sequence"
            ),
            &[
                &column(|batch| batch.sequence as i64),
                &column(|batch| batch.time),
                &column(|batch| batch.updates as i64),
                &column(|batch| batch.totals.accounts as i64),
                &text(|batch| batch.totals.minted),
                &text(|batch| batch.totals.burned),
                &digests,
                &leaves,
            ],
        )?;
        transaction.commit()?;
        Ok((last, added))
    }
}
