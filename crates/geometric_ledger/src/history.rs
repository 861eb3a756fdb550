//! Reading: as of now, or as of an earlier batch.
//!
//! A slot knows the batch that last changed it and where in the write-ahead log that change can be
//! undone; undoing leads to the account before, which knows the same. So one account's past is a
//! chain through the log, as far back as the log is kept. Reading as of now is a case of it: what a
//! batch changed is not seen before the batch is durable.

use crate::account::{Account, Key};
use crate::engine::look_up::Guesses;
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::changes::{LONGEST_UNDO, take_undo};
use crate::storage::shard::{Found, Guess, KeyHash, Shard};
use crate::storage::slot::Before;
use crate::storage::slot::{Kind, Slot};
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The ledger as it was after one batch, for as long as the view is held. Writers go on; what the
/// view may need of the write-ahead log is kept.
pub struct View {
    core: Arc<Core>,
    sequence: u64,
}

impl GeometricLedger {
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

    /// Every slot that was there, as it was: accounts, tombstones, receipts. A receipt that has become
    /// too old meanwhile may be left out, and one that has moved may come twice.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Result<Slot, Error>> + '_ {
        // Receipts never change, and move only from the end to the front: so from the end to the front
        // none is missed.
        let shard = self.core.receipts();
        let receipts = (0..shard.count()).rev().filter_map(move |number| {
            let slot = self.slot(shard, number);
            let there = |slot: &Slot| slot.sequence() <= self.sequence;
            slot.map(|slot| Some(slot).filter(there)).transpose()
        });
        self.account_slots().chain(receipts)
    }

    /// The slots of accounts, tombstones included.
    fn account_slots(&self) -> impl Iterator<Item = Result<Slot, Error>> + '_ {
        self.core.account_shards().iter().flat_map(move |shard| {
            (0..shard.count()).filter_map(move |number| {
                let slot = self.slot(shard, number);
                let as_it_was = slot.and_then(|mut slot| {
                    let there = self.core.go_back(&mut slot, self.sequence)?;
                    Ok(there.then_some(slot))
                });
                as_it_was.transpose()
            })
        })
    }

    fn slot(&self, shard: &Shard, number: u64) -> Result<Slot, Error> {
        shard.slot(number, &self.core.encryption).ok_or_else(|| {
            telemetry::damaged();
            let place = format!("slot {number}");
            Error::damaged(&shard.identity.slots_name(), place, "its checksum is wrong")
        })
    }
}

impl Core {
    fn get_many<T>(
        &self,
        keys: &[Key],
        get: impl Fn(Option<Guess>, KeyHash, &Key) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let hashes: Vec<_> = keys.iter().map(|key| self.hash(key)).collect();
        let mut guesses = Guesses::default();
        let mut found = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let guess = guesses.next(self, at, |at| hashes.get(at).copied());
            found.push(get(guess, hashes[at], key)?);
        }
        Ok(found)
    }

    #[inline]
    fn get_visible(
        &self,
        guess: Option<Guess>,
        hash: KeyHash,
        key: &Key,
    ) -> Result<Option<Account>, Error> {
        loop {
            let visible = self.visible.load(Ordering::Acquire);
            match self.get_at(guess, hash, key, visible) {
                // The log is trimmed only before what was visible long ago: look again.
                Err(Error::History { .. }) if self.visible.load(Ordering::Acquire) > visible => {}
                result => return result,
            }
        }
    }

    #[inline]
    fn get_at(
        &self,
        guess: Option<Guess>,
        hash: KeyHash,
        key: &Key,
        sequence: u64,
    ) -> Result<Option<Account>, Error> {
        let mut found = Found::default();
        let there = self.find_at(guess, hash, key, sequence, &mut found)?;
        let there = there && found.slot.kind() == Kind::Account;
        Ok(there.then(|| found.slot.account()))
    }

    /// Whether there was anything of a key after a batch, which is `found` then.
    #[inline]
    fn find_at(
        &self,
        guess: Option<Guess>,
        hash: KeyHash,
        key: &Key,
        sequence: u64,
        found: &mut Found,
    ) -> Result<bool, Error> {
        let shard = self.shard(hash);
        let guess = guess.or_else(|| shard.guess(shard.prefetch_line(hash.tag())?, hash.tag()));
        match shard.find_at(guess, hash, key, &self.encryption, found) {
            Ok((true, _)) if found.slot.sequence() > sequence => {
                self.go_back(&mut found.slot, sequence)
            }
            Ok((there, _)) => Ok(there),
            Err(error) => {
                telemetry::damaged();
                tracing::error!(%error, "damage");
                Err(error)
            }
        }
    }

    /// What there was of a key after a batch.
    pub(crate) fn find(&self, key: &Key, kind: Kind, sequence: u64) -> Result<Option<Slot>, Error> {
        let mut found = Found::default();
        let hash = self.hash_of(key, kind);
        let there = self.find_at(None, hash, key, sequence, &mut found)?;
        Ok(there.then_some(found.slot))
    }

    /// Makes a slot what it was after a batch; false if it was nothing yet.
    fn go_back(&self, slot: &mut Slot, sequence: u64) -> Result<bool, Error> {
        while slot.sequence() > sequence {
            let Some(before) = self.undo(slot)? else {
                return Ok(false);
            };
            slot.restore(&before);
        }
        Ok(true)
    }

    /// What a slot was before its last change.
    fn undo(&self, slot: &Slot) -> Result<Option<Before>, Error> {
        let bytes = match self.read_undo(slot) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            result => result?,
        };
        let undo = bytes.and_then(|bytes| take_undo(&mut &bytes[..], &slot.key(), slot.words()));
        if let Some(undo) = undo {
            return Ok(undo.before);
        }
        // After a failed sync, what should undo the batch may be gone as well.
        self.wal.check()?;
        // And what was let go while it was looked for may have been written over.
        let oldest = self.oldest.load(Ordering::Acquire);
        if slot.sequence() <= oldest {
            return Err(Error::History {
                asked: slot.sequence() - 1,
                oldest,
                newest: self.visible.load(Ordering::Acquire),
            });
        }
        telemetry::damaged();
        let place = format!("position {}", slot.undo());
        let what = "an undo cannot be read";
        Err(Error::damaged("the write-ahead log", place, what))
    }

    /// The bytes of the log that begin with a slot's undo, as far as they can be read.
    fn read_undo(&self, slot: &Slot) -> Result<Option<Vec<u8>>, Error> {
        let io = Error::io("the write-ahead log");
        if !self.encryption.encrypts() {
            let read = self.wal.read_some(slot.undo(), LONGEST_UNDO);
            return read.map(Some).map_err(io);
        }
        let Some(batch) = self.batches.get(slot.sequence())? else {
            return Ok(None);
        };
        let read =
            self.wal
                .read_encrypted(batch.position, slot.undo(), LONGEST_UNDO, &self.encryption);
        read.map_err(io)
    }
}
