//! Setting and deleting accounts, whole batches at a time.

use crate::account::{Account, Key};
use crate::engine::items::{Rule, Update};
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::batch::Batch;

impl GeometricLedger {
    /// Sets accounts, all or none. Of several updates of one key the last counts. What balances rise
    /// by is minted, what they fall by is burned.
    ///
    /// The rules of transfers hold: a balance may be below zero only with [`Flags::OVERDRAFT`](crate::Flags::OVERDRAFT), and of an
    /// account with [`Flags::FROZEN`](crate::Flags::FROZEN) only the flags may change, which is how it is released.
    ///
    /// When it returns, the batch is as durable as [`Options::durability`](crate::Options) says, and
    /// every reader sees it.
    ///
    /// # Errors
    /// [`Error::Item`] or [`Error::Io`]: nothing was done. [`Error::Stopped`]: whether the batch was
    /// done is known after opening the ledger again.
    pub fn update_batch(&self, updates: &[(Key, Account)]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Mint)
    }

    /// Sets and deletes accounts, all or none. Otherwise as [`GeometricLedger::update_batch`]; a frozen
    /// account cannot be deleted.
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn apply(&self, updates: &[Update]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Mint)
    }

    /// As [`GeometricLedger::apply`], for accounts that come from elsewhere: they are set as they are,
    /// frozen or below zero, over whatever was there. Balances keep within
    /// [`Account::MAX_BALANCE`](crate::Account::MAX_BALANCE).
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn import(&self, updates: &[Update]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Import)
    }
}
