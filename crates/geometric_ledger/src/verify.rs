//! Whether what there is is right, and the space of what is gone.

use crate::engine::scrub::{Audit, Finding};
use crate::engine::stats::LedgerStats;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::record::Totals;

impl GeometricLedger {
    /// Numbers of the ledger.
    pub fn stats(&self) -> LedgerStats {
        self.core.stats()
    }

    /// Sums up all balances as of one batch, and compares with what was minted and burned by then.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] if they differ, [`Error::Damaged`] if an account cannot be read.
    pub fn audit(&self) -> Result<Audit, Error> {
        self.audit_with(|_, _| Ok(()))
    }

    /// As [`GeometricLedger::audit`]; `progress` is told now and then how many accounts of how many were
    /// read, and may end it.
    pub(crate) fn audit_with(
        &self,
        mut progress: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<Audit, Error> {
        let view = self.view();
        let total = self.stats().accounts;
        let (mut accounts, mut balances, mut pending) = (0, 0i128, 0i128);
        for item in view.iter() {
            accounts += 1;
            if accounts % STEP == 0 {
                progress(accounts, total)?;
            }
            // In whatever order, the sum wraps to the right one, which is known to fit.
            balances = balances.wrapping_add(item?.1.balance);
        }
        for amount in view.open_amounts() {
            pending = pending.wrapping_add(amount? as i128);
        }
        let totals = match self.core.batches.get(view.sequence())? {
            Some(batch) => batch.totals,
            None => Totals::default(),
        };
        let expected = totals.balances();
        let sum = balances.wrapping_add(pending);
        if sum != expected || accounts != totals.accounts {
            let balances = sum;
            return Err(Error::Unbalanced { balances, expected });
        }
        Ok(Audit {
            sequence: view.sequence(),
            accounts,
            totals,
            balances,
            pending,
        })
    }

    /// Reads both copies of the superblock, every slot, every line of the indexes, every batch's row and
    /// every hash above them, and checks that each account is found where it is. Batches go on meanwhile.
    ///
    /// # Errors
    /// If something cannot be read at all; what is wrong is in the result.
    pub fn verify(&self) -> Result<Vec<Finding>, Error> {
        self.verify_with(|_, _| Ok(()))
    }

    /// As [`GeometricLedger::verify`]; `progress` is told now and then how much of how much was read, and
    /// may end it.
    pub(crate) fn verify_with(
        &self,
        mut progress: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<Vec<Finding>, Error> {
        self.core.scrub(&mut progress)
    }

    /// Gives slots to others that nobody can ask for any more, in all shards, and the space behind
    /// them to the file system. The ledger does the first by itself, little by little.
    ///
    /// # Errors
    /// If it cannot be written; nothing is lost.
    pub fn compact(&self) -> Result<u64, Error> {
        self.compact_with(|_, _| true)
    }

    /// As [`GeometricLedger::compact`]. `progress` is told how much of it is done; false stops it, with what
    /// was done.
    ///
    /// # Errors
    /// As [`GeometricLedger::compact`]; [`Error::Interrupted`] if it was told to stop.
    pub fn compact_with(&self, mut progress: impl FnMut(u64, u64) -> bool) -> Result<u64, Error> {
        self.checkpoint()?;
        let core = &self.core;
        let shards = core.account_shards().iter().chain(core.record_shards());
        let steps: u64 = shards.map(|shard| shard.count() / STEP + 2).sum();
        let total = steps + core.receipts().count() / STEP + 2;
        let mut reclaimed = 0;
        for done in 0..total {
            if !progress(done, total) {
                return Err(Error::Interrupted);
            }
            let mut writer = core.write_always()?;
            reclaimed += match done < steps {
                true => core.reclaim_some(&mut writer, STEP)?,
                false => core.reclaim_some_receipts(&mut writer, STEP)?,
            };
        }
        // The next recovery must not find what the space is taken from.
        self.checkpoint()?;
        self.core.punch()?;
        Ok(reclaimed)
    }
}

/// Slots that compaction looks at with writers waiting.
const STEP: u64 = 4_096;
