//! A shard: slots and the table that finds them, written by one thread and read by any.
//!
//! The first slot and one line of the index hold the shard's *stamp*: which ledger and shard it is, and
//! the checkpoint that last wrote the file. So a file that is put back from an older copy is noticed. An
//! index that is missing or not the checkpoint's is made again from the slots.

use crate::account::Key;
use crate::error::Error;
use crate::storage::encryption::Encryption;
use crate::storage::index::{self, ChangeError, DamagedLine, LEAST, LINE, Table};
use crate::storage::layout::{Identity, KeyHash};
use crate::storage::region::Region;
use crate::storage::seqlock::{self, Version};
use crate::storage::slot::{Cell, SLOT, Slot, Words};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

/// What the superblock says of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub state: State,
    /// The checkpoint that left the state; 0 for a shard that is new.
    pub checkpoint: u64,
    /// The index may have to be made again, because the journal of the checkpoint is damaged.
    pub rebuild: bool,
}

/// The state of a shard, as a checkpoint keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub slots: u64,
    pub table: Table,
}

pub struct Shard {
    pub identity: Identity,
    pub slots: Region,
    pub index: Region,
    /// The index is not right, and is made again when all slots are: nothing is changed in it until then.
    rebuild: AtomicBool,
    /// The write-ahead log is being replayed, so an index that is not right may be made again.
    replaying: AtomicBool,
    version: Version,
    buckets: AtomicU64,
    count: AtomicU64,
    state: Mutex<State>,
}

/// Slots that are asked for at a time where one after another is looked at: a mebibyte.
const READ_AHEAD: u64 = 8_192;

/// A slot and where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub number: u64,
    pub slot: Slot,
}

/// Where a hash's slot probably is.
#[derive(Clone, Copy)]
pub struct Guess<'a> {
    number: u64,
    cell: &'a Cell,
}

impl Shard {
    pub fn open(
        identity: Identity,
        slots: Region,
        index: Region,
        expected: Expected,
    ) -> Result<Self, Error> {
        let new = expected.checkpoint == 0;
        let mut state = expected.state;
        let mut rebuild = expected.rebuild;
        if new {
            state = State::default();
            state.table = Table::create(&index).map_err(Error::io(identity.index_name()))?;
        } else {
            check_slots(&identity, &slots, &expected)?;
            let whole = index.bytes() >= state.table.bytes() && state.table.buckets >= LEAST;
            rebuild |= !whole || index::stamp(&index) != Some(identity.stamp(expected.checkpoint));
        }
        let shard = Shard {
            identity,
            slots,
            index,
            rebuild: AtomicBool::new(rebuild),
            replaying: AtomicBool::new(true),
            version: Version::new(),
            buckets: AtomicU64::new(state.table.buckets),
            count: AtomicU64::new(state.slots),
            state: Mutex::new(state),
        };
        shard.reserve(0)?;
        Ok(shard)
    }

    /// Says that the log is replayed. Makes the index again if that is needed, which it says.
    pub fn replayed(&self, encryption: &Encryption, hasher: &SipHasher13) -> Result<bool, Error> {
        self.replaying.store(false, Ordering::Relaxed);
        if !self.rebuild.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let name = self.identity.index_name();
        tracing::warn!(index = %name, "the index is damaged, and is made again from the slots");
        let mut state = self.lock();
        state.table = Table::create(&self.index).map_err(Error::io(&name))?;
        for number in 0..state.slots {
            let slot = self.next_slot(number, encryption).ok_or_else(|| {
                let what = format!("its checksum is wrong, and {name} cannot be made without it");
                Error::damaged(&self.identity.slots_name(), format!("slot {number}"), what)
            })?;
            let hash = KeyHash::new(hasher, &slot.key(), slot.kind());
            state
                .table
                .reserve(&self.index, 1)
                .map_err(Error::io(&name))?;
            self.change(&mut state, |table| {
                table.insert(&self.index, hash.tag(), number)
            })?;
        }
        Ok(true)
    }

    /// Whether the index is yet to be made again.
    pub fn is_incomplete(&self) -> bool {
        self.rebuild.load(Ordering::Relaxed)
    }

    /// Says in both files, from the next checkpoint on, which one it is. Nobody may write meanwhile.
    pub fn set_stamp(&self, checkpoint: u64) {
        index::set_stamp(&self.index, &self.identity.stamp(checkpoint));
        let cell = self.slots.cell::<SLOT>(0);
        let words = self.identity.slots_stamp(checkpoint);
        seqlock::write(cell.expect("a shard has room for its stamp"), &words);
        self.slots.mark_dirty::<SLOT>(0);
    }

    /// Bytes of the slots' file that are in use.
    pub fn slots_bytes(&self) -> u64 {
        cell_of(self.count()) * SLOT as u64 * 8
    }

    pub fn state(&self) -> State {
        *self.lock()
    }

    /// Keeps everybody else from changing the table.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Makes room for so many more accounts: all that can fail of adding them for want of space.
    pub fn reserve(&self, more: u64) -> Result<(), Error> {
        let state = self.lock();
        if state.slots + more > u64::from(u32::MAX) {
            let full = std::io::Error::other("the shard has four billion slots");
            return Err(Error::io(self.identity.slots_name())(full));
        }
        let slots = self
            .slots
            .ensure(cell_of(state.slots + more) * SLOT as u64 * 8);
        slots
            .and_then(|()| state.table.reserve(&self.index, more))
            .map_err(Error::io(format!("{} cannot grow", self.identity.name())))
    }

    /// The line of the table that a hash is probably in, which is asked for.
    #[inline]
    pub fn prefetch_line(&self, tag: u32) -> Option<&[AtomicU64; LINE]> {
        index::prefetch(&self.index, self.buckets.load(Ordering::Relaxed), tag)
    }

    /// Asks for a slot's memory.
    #[inline]
    pub fn prefetch(&self, slot: u64) {
        self.slots.prefetch::<SLOT>(cell_of(slot));
    }

    /// The slot that a hash is in by a line of the table, which is asked for.
    #[inline]
    pub fn guess(&self, line: &[AtomicU64; LINE], tag: u32) -> Option<Guess<'_>> {
        let number = index::guess(line, tag)?;
        let cell = self.slots.prefetch(cell_of(number))?;
        Some(Guess { number, cell })
    }

    /// As [`Shard::find`], with what [`Shard::guess`] said looked at first.
    #[inline(always)]
    pub fn find_at(
        &self,
        guess: Option<Guess>,
        hash: KeyHash,
        key: &Key,
        encryption: &Encryption,
        found: &mut Found,
    ) -> Result<(bool, u32), Error> {
        if let Some(Guess { number, cell }) = guess
            && found.slot.read(cell, encryption)
            && found.slot.has_key(key)
        {
            found.number = number;
            return Ok((true, 1));
        }
        self.find(hash, key, encryption, found)
    }

    /// Whether there is a slot of a key, and how many lines and slots were looked at to find it. It is
    /// `found` where the caller keeps it: to hand it over would be to copy it, which costs as much as to
    /// check it.
    pub fn find(
        &self,
        hash: KeyHash,
        key: &Key,
        encryption: &Encryption,
        found: &mut Found,
    ) -> Result<(bool, u32), Error> {
        loop {
            let version = self.version.begin();
            let buckets = self.buckets.load(Ordering::Acquire);
            let (mut hit, mut damaged, mut slots) = (false, None, 0);
            let lines = index::candidates(&self.index, buckets, hash.tag(), |number| {
                slots += 1;
                let cell = self.slots.cell(cell_of(number));
                if !cell.is_some_and(|cell| found.slot.read(cell, encryption)) {
                    damaged = Some(number);
                    return false;
                }
                found.number = number;
                hit = found.slot.has_key(key);
                hit
            });
            if let (true, Ok(lines)) = (hit, &lines) {
                return Ok((true, lines + slots - 1));
            }
            if !self.version.unchanged(version) {
                std::hint::spin_loop();
                continue;
            }
            return match (lines, damaged) {
                (Err(DamagedLine(line)), _) => Err(self.damaged_line(line)),
                (_, Some(slot)) => Err(self.damaged_slot(key, slot)),
                (Ok(lines), None) => Ok((false, lines + slots)),
            };
        }
    }

    /// As [`Shard::slot`], by who looks at one slot after another.
    pub fn next_slot(&self, number: u64, encryption: &Encryption) -> Option<Slot> {
        if number.is_multiple_of(READ_AHEAD) {
            let first = cell_of(number);
            self.slots.will_need::<SLOT>(first..first + 2 * READ_AHEAD);
        }
        self.slot(number, encryption)
    }

    /// A slot, if its tag is right.
    pub fn slot(&self, number: u64, encryption: &Encryption) -> Option<Slot> {
        let mut slot = Slot::default();
        slot.read(self.slots.cell(cell_of(number))?, encryption)
            .then_some(slot)
    }

    /// Writes a slot that has been there.
    #[inline]
    pub fn put(&self, number: u64, words: &Words) {
        let cell = self.slots.cell::<SLOT>(cell_of(number));
        seqlock::write(cell.expect("the slot is there"), words);
        self.slots.mark_dirty::<SLOT>(cell_of(number));
    }

    /// Adds a slot after the last one.
    pub fn add(&self, state: &mut State, tag: u32, words: &Words) -> Result<(), Error> {
        let number = state.slots;
        self.put(number, words);
        self.change(state, |table| table.insert(&self.index, tag, number))?;
        state.slots += 1;
        self.count.store(state.slots, Ordering::Release);
        Ok(())
    }

    /// Gives a slot's place to the last one. `moved` is the last one, unless that is what goes.
    pub fn reclaim(
        &self,
        state: &mut State,
        slot: u64,
        tag: u32,
        moved: Option<(u32, &Words)>,
    ) -> Result<(), Error> {
        let last = state.slots - 1;
        self.change(state, |table| {
            table.remove(&self.index, tag, slot)?;
            if let Some((tag, _)) = moved {
                table.replace(&self.index, tag, last, slot)?;
            }
            // Readers who saw the old table look again.
            moved.iter().for_each(|(_, words)| self.put(slot, words));
            Ok(())
        })?;
        if let Some((_, words)) = moved.filter(|_| self.rebuild.load(Ordering::Relaxed)) {
            self.put(slot, words);
        }
        state.slots = last;
        self.count.store(last, Ordering::Release);
        Ok(())
    }

    fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Table) -> Result<(), ChangeError>,
    ) -> Result<(), Error> {
        if self.rebuild.load(Ordering::Relaxed) {
            return Ok(());
        }
        let result = self.version.change(|| {
            let result = change(&mut state.table);
            self.buckets.store(state.table.buckets, Ordering::Release);
            result
        });
        result.or_else(|error| match error {
            ChangeError::Io(error) => Err(Error::io(self.identity.index_name())(error)),
            _ if self.replaying.load(Ordering::Relaxed) => {
                self.rebuild.store(true, Ordering::Relaxed);
                Ok(())
            }
            ChangeError::Line(DamagedLine(line)) => Err(self.damaged_line(line)),
            ChangeError::Missing => {
                let name = self.identity.index_name();
                Err(Error::damaged(&name, "its table", "an entry is missing"))
            }
        })
    }

    /// The raw words of a slot, as they are moved. Nobody may write meanwhile.
    pub fn raw(&self, number: u64) -> Option<Words> {
        let mut words = [0; SLOT];
        seqlock::read(self.slots.cell(cell_of(number))?, &mut words).then_some(words)
    }

    #[cold]
    fn damaged_slot(&self, key: &Key, slot: u64) -> Error {
        match self.identity.is_of_accounts() {
            true => Error::DamagedAccount {
                key: *key,
                shard: self.identity.number,
                slot,
            },
            false => Error::damaged(
                &self.identity.slots_name(),
                format!("slot {slot}"),
                "its checksum is wrong",
            ),
        }
    }

    fn damaged_line(&self, line: u64) -> Error {
        Error::damaged(
            &self.identity.index_name(),
            format!("line {line}"),
            "its checksum is wrong",
        )
    }
}

/// Where a slot is: after the stamp.
#[inline(always)]
fn cell_of(slot: u64) -> u64 {
    slot + 1
}

/// Fails if the slots are not those of the checkpoint, or of the one that was interrupted after it.
fn check_slots(identity: &Identity, slots: &Region, expected: &Expected) -> Result<(), Error> {
    let damaged = |what: String| {
        let what = format!("{what}; restore a snapshot");
        Error::damaged(&identity.slots_name(), "the file", what)
    };
    let needed = cell_of(expected.state.slots) * SLOT as u64 * 8;
    if slots.bytes() < needed {
        let there = slots.bytes();
        return Err(damaged(format!(
            "{needed} bytes of it are in use, and it has {there}"
        )));
    }
    let mut words = [0; SLOT];
    let cell = slots.cell(0).expect("there are bytes");
    let read = seqlock::read(cell, &mut words);
    if !read || words[15] != xxh3_64(words[..15].as_bytes()) {
        // Every slot has a tag of its own, and the next checkpoint writes the stamp again.
        tracing::warn!(file = %identity.slots_name(), "the file's stamp is damaged");
        return Ok(());
    }
    let now = expected.checkpoint;
    if ![now, now + 1]
        .map(|it| identity.slots_stamp(it))
        .contains(&words)
    {
        let theirs = words[4];
        return Err(damaged(format!(
            "it is of checkpoint {theirs} of some ledger, and not of checkpoint {now} of this one"
        )));
    }
    Ok(())
}
