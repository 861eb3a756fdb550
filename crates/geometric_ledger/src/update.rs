//! Setting and deleting accounts, whole batches at a time.

use crate::account::{Account, Key};
use crate::engine::items::{Rule, Update};
use crate::engine::telemetry;
use crate::error::{Error, Refusal};
use crate::ledger::GeometricLedger;
use crate::storage::batch::Batch;
use std::collections::HashSet;
use std::time::Instant;

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

impl GeometricLedger {
    /// Sets accounts, all or none, if each is what the caller believes it to be: of each key what is expected
    /// and what it becomes, `None` being no account. Otherwise as [`GeometricLedger::apply`].
    ///
    /// # Errors
    /// [`Refusal::Changed`] names the first account that is another one; otherwise as
    /// [`GeometricLedger::modify`].
    pub fn compare_and_set(
        &self,
        changes: &[(Key, Option<Account>, Option<Account>)],
    ) -> Result<Batch, Error> {
        let keys: Vec<_> = changes.iter().map(|(key, ..)| *key).collect();
        let modified = self.modify(&keys, |accounts| {
            for (item, (account, (key, expected, new))) in
                accounts.iter_mut().zip(changes).enumerate()
            {
                if account != expected {
                    let reason = Refusal::Changed(*key);
                    return Err(Error::Item { item, reason });
                }
                *account = *new;
            }
            Ok(())
        });
        modified.map(|(batch, ())| batch)
    }

    /// Reads accounts and changes them, all or none, with no other batch in between. `change` is given the
    /// accounts in the order of the keys, `None` where there is none, and makes of them what they become;
    /// if it fails, nothing is done. It is called once, while no other batch can be made, so it must be
    /// quick and must not use the ledger.
    ///
    /// # Errors
    /// What `change` returns; [`Refusal::GivenTwice`] if a key is; otherwise as
    /// [`GeometricLedger::update_batch`].
    pub fn modify<T, E: From<Error>>(
        &self,
        keys: &[Key],
        change: impl FnOnce(&mut [Option<Account>]) -> Result<T, E>,
    ) -> Result<(Batch, T), E> {
        let start = Instant::now();
        let core = &self.core;
        let mut seen = HashSet::with_capacity(keys.len());
        if let Some(item) = keys.iter().position(|key| !seen.insert(key)) {
            let reason = Refusal::GivenTwice(keys[item]);
            return Err(Error::Item { item, reason }.into());
        }
        let writer = core.write()?;
        let mut accounts = keys
            .iter()
            .map(|key| core.account(key, writer.sequence))
            .collect::<Result<Vec<_>, Error>>()?;
        let outcome = change(&mut accounts)?;
        let updates: Vec<_> = keys
            .iter()
            .zip(accounts)
            .map(|(key, account)| match account {
                Some(account) => Update::Put(*key, account),
                None => Update::Delete(*key),
            })
            .collect();
        let order = core.order(&updates[..]);
        let (batch, end) = core.append(writer, &updates[..], &order, Rule::Mint)?;
        core.wait(batch.sequence, end)?;
        telemetry::committed(batch.updates, start.elapsed());
        Ok((batch, outcome))
    }
}
