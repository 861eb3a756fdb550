//! Committing transfers that are recorded: those that are asked for, and the end of those whose time is
//! over.

use crate::account::Key;
use crate::engine::items::Rule;
use crate::engine::post::Posting;
use crate::engine::state::{Core, now};
use crate::error::Error;
use crate::recorded::{DEBIT, NewTransfer, TransferId, TransferResults, part_key};
use crate::storage::layout::KeyHash;
use crate::storage::slot::Kind;
use crate::workers;
use rayon::prelude::*;

impl Core {
    /// The hashes of what transfers need: a record that may be there, accounts, statements.
    fn hashes_of(&self, transfers: &[NewTransfer]) -> Vec<KeyHash> {
        let hashes = |new: &NewTransfer| {
            let part = |id: &TransferId| self.hash_of(&part_key(id, DEBIT), Kind::Transfer);
            let account = |key: &Key| [self.hash(key), self.hash_of(key, Kind::Statement)];
            let [debit, debit_statement] = account(&new.debit);
            let [credit, credit_statement] = account(&new.credit);
            [
                part(&new.id),
                debit,
                debit_statement,
                credit,
                credit_statement,
            ]
        };
        match workers::for_items(transfers.len()) {
            Some(pool) => pool.install(|| transfers.par_iter().flat_map_iter(hashes).collect()),
            None => transfers.iter().flat_map(hashes).collect(),
        }
    }

    /// Does transfers and records them. Returns what became of each, and the batch and the position up to
    /// which the log has to be durable for it.
    pub fn record_transfers(
        &self,
        transfers: &[NewTransfer],
    ) -> Result<(TransferResults, u64, u64), Error> {
        self.warm(&self.hashes_of(transfers));
        let writer = self.write()?;
        let mut posting = Posting::new(self, &writer);
        let results = posting.run(transfers)?;
        let rule = Rule::Record(posting.time);
        let items = posting.items();
        if items.is_empty() {
            return Ok((results, writer.sequence, self.wal.appended()));
        }
        let order = self.order(&items[..]);
        let (batch, end) = self.append(writer, &items[..], &order, rule)?;
        Ok((results, batch.sequence, end))
    }

    /// Gives back what pending transfers have taken whose time is over, as far as no checkpoint has to be
    /// waited for. Returns how many there were.
    pub fn expire_transfers(&self) -> Result<usize, Error> {
        let due = self.due_transfers(now())?;
        for some in due.chunks(EXPIRE) {
            let Some(writer) = self.write_unless_full()? else {
                break;
            };
            let mut posting = Posting::new(self, &writer);
            some.iter().try_for_each(|id| posting.expire(*id))?;
            let rule = Rule::Record(posting.time);
            let items = posting.items();
            if items.is_empty() {
                continue;
            }
            let order = self.order(&items[..]);
            let (batch, end) = self.append(writer, &items[..], &order, rule)?;
            self.wait(batch.sequence, end)?;
        }
        Ok(due.len())
    }
}

/// Transfers that expire in one batch.
const EXPIRE: usize = 1_000;
