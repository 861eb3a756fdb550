//! Transfers that are records: done in batches, looked up by id, and listed by account.

use crate::account::Key;
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::Error;
use crate::history::View;
use crate::ledger::GeometricLedger;
use crate::recorded::{
    NewTransfer, StatementEntry, StatementPage, StatementQuery, TransferId, TransferRecord,
    TransferResults,
};
use crate::submit::Submitted;
use std::time::Instant;

impl GeometricLedger {
    /// Does transfers, one after another, and records them. Each is done or refused for itself, unless it is
    /// linked to the next one; what was refused leaves no trace. The rules of
    /// [`GeometricLedger::transfer_batch`] hold; besides, a transfer's code is that of its accounts.
    ///
    /// A transfer happens once however often it is sent: the same id with the same content is answered with
    /// the batch that did it.
    ///
    /// ```
    /// use geometric_ledger::{Account, GeometricLedger, NewTransfer, StatementQuery};
    /// # let directory = tempfile::tempdir()?;
    /// # let ledger = GeometricLedger::new(directory.path().join("ledger"))?;
    /// let (alice, bob) = ([1; 32], [2; 32]);
    /// let accounts = [(alice, Account::with_balance(100)), (bob, Account::with_balance(0))];
    /// ledger.update_batch(&accounts)?;
    ///
    /// // Thirty wait for the goods to arrive; twenty of them are paid in the end.
    /// let order = NewTransfer::new(*b"order 2026-00001", alice, bob, 30).pending(None);
    /// ledger.create_transfers(&[order])?[0].clone()?;
    /// assert_eq!((ledger.get(&alice)?.unwrap().balance, ledger.reserved(&alice)?), (70, 30));
    /// let paid = NewTransfer::post_part(*b"goods 2026-00001", order.id, 20);
    /// ledger.create_transfers(&[paid])?[0].clone()?;
    ///
    /// let page = ledger.statement(&alice, &StatementQuery::default())?;
    /// let changes: Vec<_> = page.entries.iter().map(|entry| entry.change).collect();
    /// assert_eq!(changes, [-30, 10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`]; nothing of the batch was done then. Why a transfer is refused
    /// is in the results.
    pub fn create_transfers(&self, transfers: &[NewTransfer]) -> Result<TransferResults, Error> {
        let start = Instant::now();
        let (results, sequence, end) = self.core.record_transfers(transfers)?;
        self.core.wait(sequence, end)?;
        telemetry::committed(transfers.len() as u64, start.elapsed());
        Ok(results)
    }

    /// As [`GeometricLedger::create_transfers`], without waiting for the disk; see
    /// [`GeometricLedger::submit_update_batch`].
    ///
    /// # Errors
    /// As [`GeometricLedger::create_transfers`].
    pub fn submit_transfers(
        &self,
        transfers: &[NewTransfer],
    ) -> Result<Submitted<TransferResults>, Error> {
        let (results, sequence, end) = self.core.record_transfers(transfers)?;
        let updates = transfers.len() as u64;
        Ok(Submitted::new(
            &self.core,
            results,
            updates,
            (sequence, end),
        ))
    }

    /// A transfer that was recorded.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn transfer(&self, id: &TransferId) -> Result<Option<TransferRecord>, Error> {
        self.view().transfer(id)
    }

    /// A page of an account's statement: what recorded transfers have changed of its balance.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn statement(&self, account: &Key, query: &StatementQuery) -> Result<StatementPage, Error> {
        self.view().statement(account, query)
    }

    /// What open transfers have taken off an account's balance.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn reserved(&self, account: &Key) -> Result<u128, Error> {
        self.view().reserved(account)
    }
}

impl View {
    /// A transfer that was recorded by then.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn transfer(&self, id: &TransferId) -> Result<Option<TransferRecord>, Error> {
        self.core().transfer_record(id, self.sequence())
    }

    /// What open transfers had taken off an account's balance.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn reserved(&self, account: &Key) -> Result<u128, Error> {
        let head = self.core().statement_head(account, self.sequence())?;
        Ok(head.reserved)
    }

    /// A page of an account's statement as it was. To find its first entry takes a number of look-ups that
    /// grows with the logarithm of the statement's length.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn statement(&self, account: &Key, query: &StatementQuery) -> Result<StatementPage, Error> {
        let core = self.core();
        let count = core.statement_head(account, self.sequence())?.entries;
        let statement = Statement { core, account };
        let mut first = statement.first_from(count, query.from)?;
        let mut end = match query.until {
            Some(until) => statement.first_from(count, Some(until))?,
            None => count + 1,
        };
        match (query.after, query.newest_first) {
            (Some(after), true) => end = end.min(after),
            (Some(after), false) => first = first.max(after.saturating_add(1)),
            (None, _) => {}
        }
        let limit = match query.limit {
            0 => 100,
            limit => limit as u64,
        };
        let there = end.saturating_sub(first);
        let (from, to) = match query.newest_first {
            true => (end - there.min(limit), end),
            false => (first, first + there.min(limit)),
        };
        let mut entries = Vec::new();
        for number in from..to {
            // What was let go meanwhile is left out.
            entries.extend(core.statement_entry(account, number)?);
        }
        if query.newest_first {
            entries.reverse();
        }
        let last = if query.newest_first {
            from
        } else {
            to.saturating_sub(1)
        };
        Ok(StatementPage {
            entries,
            next: (there > limit).then_some(last),
        })
    }
}

struct Statement<'a> {
    core: &'a Core,
    account: &'a Key,
}

impl Statement<'_> {
    /// The first entry that is there and not from before a time, or the number after the last one.
    fn first_from(&self, count: u64, time: Option<i64>) -> Result<u64, Error> {
        let time = time.unwrap_or(i64::MIN);
        let before = |entry: Option<StatementEntry>| entry.is_none_or(|entry| entry.time < time);
        // Entries are let go oldest first, and their times rise.
        let (mut low, mut high) = (1, count + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match before(self.core.statement_entry(self.account, middle)?) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }
}
