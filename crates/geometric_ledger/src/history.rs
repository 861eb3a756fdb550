//! The ledger as it was after a batch: views, and what is read of them.

use crate::account::{Account, Key};
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::recorded::OpenTransfer;
use crate::storage::shard::Shard;
use crate::storage::slot::{Kind, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BinaryHeap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The ledger as it was after one batch, for as long as the view is held. Writers go on; what the
/// view may need of the write-ahead log is kept.
pub struct View {
    core: Arc<Core>,
    sequence: u64,
}

/// What an account was, as far back as history is kept: the newest state first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountHistory {
    pub states: Vec<AccountState>,
    /// The oldest state given is the first that the account ever had, or nothing came before it that was
    /// not deleted and forgotten.
    pub whole: bool,
}

/// What a batch made of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccountState {
    pub sequence: u64,
    /// When the batch was committed, in microseconds since 1970; `None` if the batch was pruned.
    pub time: Option<i64>,
    /// The account from then on; `None` if it was deleted.
    pub account: Option<Account>,
}

impl GeometricLedger {
    /// The states that an account had, the newest first, at most `limit` of them.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn account_history(&self, key: &Key, limit: usize) -> Result<AccountHistory, Error> {
        let view = self.view();
        let (mut states, mut whole) = (Vec::new(), true);
        let mut slot = self.core.find(key, Kind::Account, view.sequence)?;
        while let Some(now) = &mut slot {
            if states.len() == limit {
                whole = false;
                break;
            }
            let batch = self.core.batches.get(now.sequence())?;
            states.push(AccountState {
                sequence: now.sequence(),
                time: batch.map(|batch| batch.time),
                account: (now.kind() == Kind::Account).then(|| now.account()),
            });
            match self.core.undo(now) {
                Ok(Some(before)) => now.restore(&before),
                Ok(None) => slot = None,
                Err(Error::History { .. }) => {
                    whole = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(AccountHistory { states, whole })
    }

    /// The account of a key, if there is one.
    ///
    /// # Errors
    /// [`Error::DamagedAccount`] or [`Error::Damaged`] if the bytes on disk are not what was written.
    pub fn get(&self, key: &Key) -> Result<Option<Account>, Error> {
        self.core.get_visible(None, self.core.hash(key), key)
    }

    /// The accounts of many keys, which takes less time than one after another.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Account>>, Error> {
        self.core.get_many(keys, |guess, hash, key| {
            self.core.get_visible(guess, hash, key)
        })
    }

    /// The account of a key as it was after a batch.
    ///
    /// # Errors
    /// [`Error::History`] if that is longer ago than history is kept, or was not yet.
    pub fn get_at(&self, key: &Key, sequence: u64) -> Result<Option<Account>, Error> {
        self.view_at(sequence)?.get(key)
    }

    /// The ledger as it is now.
    pub fn view(&self) -> View {
        loop {
            // What was visible a moment ago is within the history, unless a great deal was written.
            if let Ok(view) = self.view_at(self.core.visible.load(Ordering::Acquire)) {
                return view;
            }
        }
    }

    /// The ledger as it was after a batch.
    ///
    /// # Errors
    /// As [`GeometricLedger::get_at`].
    pub fn view_at(&self, sequence: u64) -> Result<View, Error> {
        // The pin comes first: what is trimmed afterwards heeds it.
        let mut pins = self.core.pins.lock().unwrap();
        let oldest = self.core.oldest.load(Ordering::Acquire);
        let newest = self.core.visible.load(Ordering::Acquire);
        if !(oldest..=newest).contains(&sequence) {
            return Err(Error::History {
                asked: sequence,
                oldest,
                newest,
            });
        }
        *pins.entry(sequence).or_default() += 1;
        Ok(View {
            core: self.core.clone(),
            sequence,
        })
    }

    /// The sequences that [`GeometricLedger::get_at`] can be asked for.
    pub fn history(&self) -> std::ops::RangeInclusive<u64> {
        self.core.oldest.load(Ordering::Acquire)..=self.core.visible.load(Ordering::Acquire)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut pins = self.core.pins.lock().unwrap();
        if let Some(count) = pins.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.sequence);
            }
        }
    }
}

impl View {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The batch that the view is after.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The account of a key.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn get(&self, key: &Key) -> Result<Option<Account>, Error> {
        self.core
            .get_at(None, self.core.hash(key), key, self.sequence)
    }

    /// The accounts of many keys, which takes less time than one after another.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Account>>, Error> {
        self.core.get_many(keys, |guess, hash, key| {
            self.core.get_at(guess, hash, key, self.sequence)
        })
    }

    /// All accounts, shard by shard, in no order of keys.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Key, Account), Error>> + '_ {
        self.account_slots()
            .filter(|slot| !matches!(slot, Ok(slot) if slot.kind() != Kind::Account))
            .map(|slot| slot.map(|slot| (slot.key(), slot.account())))
    }

    /// The first `limit` accounts of a range of keys, in their order. Accounts are not stored in
    /// order, so this reads all of them, in memory for `limit`.
    ///
    /// # Errors
    /// As [`GeometricLedger::get`].
    pub fn range(
        &self,
        keys: impl RangeBounds<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Account)>, Error> {
        struct ByKey(Key, Account);
        impl PartialEq for ByKey {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for ByKey {}
        impl PartialOrd for ByKey {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for ByKey {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.0.cmp(&other.0)
            }
        }
        if matches!(keys.end_bound(), Bound::Included(end) if !keys.contains(end)) {
            return Ok(Vec::new());
        }
        let mut first = BinaryHeap::new();
        for item in self.iter() {
            let (key, account) = item?;
            if keys.contains(&key) {
                first.push(ByKey(key, account));
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        let sorted = first.into_sorted_vec();
        Ok(sorted
            .into_iter()
            .map(|ByKey(key, account)| (key, account))
            .collect())
    }

    /// Every slot that was there, as it was, of whatever kind. A receipt that has become too old meanwhile
    /// may be left out, and one that has moved may come twice.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Result<Slot, Error>> + '_ {
        // Receipts never change, and move only from the end to the front: so from the end to the front
        // none is missed.
        let shard = self.core.receipts();
        let receipts = (0..shard.count()).rev().filter_map(move |number| {
            let slot = self.slot(shard, number);
            let there = |slot: &Slot| slot.sequence() <= self.sequence;
            slot.map(|slot| Some(slot).filter(there)).transpose()
        });
        let records = self.slots_of(self.core.record_shards());
        self.account_slots().chain(receipts).chain(records)
    }

    /// The slots of accounts, tombstones included.
    fn account_slots(&self) -> impl Iterator<Item = Result<Slot, Error>> + '_ {
        self.slots_of(self.core.account_shards())
    }

    /// The amounts of pending transfers that were open.
    pub(crate) fn open_amounts(&self) -> impl Iterator<Item = Result<u128, Error>> + '_ {
        let open = |slot: &Slot| {
            let amount = OpenTransfer::from_words(slot.words()).amount;
            (slot.kind() == Kind::Pending).then_some(amount)
        };
        self.slots_of(std::slice::from_ref(self.core.pending()))
            .filter_map(move |slot| slot.map(|slot| open(&slot)).transpose())
    }

    fn slots_of<'a>(
        &'a self,
        shards: &'a [Shard],
    ) -> impl Iterator<Item = Result<Slot, Error>> + 'a {
        shards.iter().flat_map(move |shard| {
            (0..shard.count()).filter_map(move |number| {
                let slot = self.slot(shard, number);
                let as_it_was = slot.and_then(|mut slot| {
                    // What never changes was not there before.
                    let there = match slot.kind().is_immutable() {
                        true => slot.sequence() <= self.sequence,
                        false => self.core.go_back(&mut slot, self.sequence)?,
                    };
                    Ok(there.then_some(slot))
                });
                as_it_was.transpose()
            })
        })
    }

    fn slot(&self, shard: &Shard, number: u64) -> Result<Slot, Error> {
        shard
            .next_slot(number, &self.core.encryption)
            .ok_or_else(|| {
                telemetry::damaged();
                let place = format!("slot {number}");
                Error::damaged(&shard.identity.slots_name(), place, "its checksum is wrong")
            })
    }
}
