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
use crate::storage::changes::{LONGEST_UNDO, take_undo};
use crate::storage::layout::KeyHash;
use crate::storage::shard::{Found, Guess};
use crate::storage::slot::{Before, Kind, Slot};
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

impl Core {
    pub fn get_many<T>(
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
    pub fn get_visible(
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
    pub fn get_at(
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
    pub fn find(&self, key: &Key, kind: Kind, sequence: u64) -> Result<Option<Slot>, Error> {
        let mut found = Found::default();
        let hash = self.hash_of(key, kind);
        let there = self.find_at(None, hash, key, sequence, &mut found)?;
        Ok(there.then_some(found.slot))
    }

    /// The account of a key as of a batch, if there was one.
    pub fn account(&self, key: &Key, sequence: u64) -> Result<Option<Account>, Error> {
        let slot = self.find(key, Kind::Account, sequence)?;
        let slot = slot.filter(|slot| slot.kind() == Kind::Account);
        Ok(slot.map(|slot| slot.account()))
    }

    /// What there is of a key now, durable or not.
    pub fn find_newest(&self, key: &Key, kind: Kind) -> Result<Option<Slot>, Error> {
        self.find(key, kind, u64::MAX >> 1)
    }

    /// Makes a slot what it was after a batch; false if it was nothing yet.
    pub fn go_back(&self, slot: &mut Slot, sequence: u64) -> Result<bool, Error> {
        while slot.sequence() > sequence {
            let Some(before) = self.undo(slot)? else {
                return Ok(false);
            };
            slot.restore(&before);
        }
        Ok(true)
    }

    /// What a slot was before its last change.
    pub fn undo(&self, slot: &Slot) -> Result<Option<Before>, Error> {
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
