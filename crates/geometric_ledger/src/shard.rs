//! A shard: slots and the table that finds them, written by one thread and read by any.

use crate::account::{Hex, Key};
use crate::error::Error;
use crate::index::{self, ChangeError, DamagedLine, LEAST, LINE, Table};
use crate::region::Region;
use crate::seal::Seal;
use crate::seqlock::{self, Version};
use crate::slot::{Cell, SLOT, Slot, Words};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// A key's hash under the ledger's secret, so that nobody can choose keys that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    #[inline]
    pub fn new(hasher: &SipHasher13, key: &Key) -> Self {
        KeyHash(hasher.hash(key))
    }

    /// The shard, of a power of two.
    pub fn shard(self, shards: usize) -> usize {
        (self.0 >> 48) as usize & (shards - 1)
    }

    /// What the shard's table goes by.
    pub fn tag(self) -> u32 {
        self.0 as u32
    }

    pub fn whole(self) -> u64 {
        self.0
    }
}

/// The state of a shard, as a checkpoint keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub slots: u64,
    pub table: Table,
}

pub struct Shard {
    pub number: u16,
    pub slots: Region,
    pub index: Region,
    version: Version,
    buckets: AtomicU64,
    count: AtomicU64,
    state: Mutex<State>,
}

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
        number: u16,
        slots: Region,
        index: Region,
        state: Option<State>,
    ) -> Result<Self, Error> {
        let state = match state {
            Some(state) => state,
            None => State {
                slots: 0,
                table: Table::create(&index).map_err(Error::io(format!("shard {number}")))?,
            },
        };
        if state.table.buckets < LEAST {
            return Err(Error::damaged(
                "ledger",
                format!("shard {number}"),
                "no table",
            ));
        }
        let shard = Shard {
            number,
            slots,
            index,
            version: Version::new(),
            buckets: AtomicU64::new(state.table.buckets),
            count: AtomicU64::new(state.slots),
            state: Mutex::new(state),
        };
        shard.reserve(0)?;
        Ok(shard)
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
            return Err(Error::io(format!("shard {}", self.number))(full));
        }
        self.slots
            .ensure((state.slots + more) * SLOT as u64 * 8)
            .and_then(|()| state.table.reserve(&self.index, more))
            .map_err(Error::io(format!("shard {} cannot grow", self.number)))
    }

    /// The line of the table that a hash is probably in, which is asked for.
    #[inline]
    pub fn prefetch_line(&self, tag: u32) -> Option<&[AtomicU64; LINE]> {
        index::prefetch(&self.index, self.buckets.load(Ordering::Relaxed), tag)
    }

    /// Asks for a slot's memory.
    #[inline]
    pub fn prefetch(&self, slot: u64) {
        self.slots.prefetch::<SLOT>(slot);
    }

    /// The slot that a hash is in by a line of the table, which is asked for.
    #[inline]
    pub fn guess(&self, line: &[AtomicU64; LINE], tag: u32) -> Option<Guess<'_>> {
        let number = index::guess(line, tag)?;
        let cell = self.slots.prefetch(number)?;
        Some(Guess { number, cell })
    }

    /// As [`Shard::find`], with what [`Shard::guess`] said looked at first.
    #[inline(always)]
    pub fn find_at(
        &self,
        guess: Option<Guess>,
        hash: KeyHash,
        key: &Key,
        seal: &Seal,
        found: &mut Found,
    ) -> Result<(bool, u32), Error> {
        if let Some(Guess { number, cell }) = guess
            && found.slot.read(cell, seal)
            && found.slot.has_key(key)
        {
            found.number = number;
            return Ok((true, 1));
        }
        self.find(hash, key, seal, found)
    }

    /// Whether there is a slot of a key, and how many lines and slots were looked at to find it. It is
    /// `found` where the caller keeps it: to hand it over would be to copy it, which costs as much as to
    /// check it.
    pub fn find(
        &self,
        hash: KeyHash,
        key: &Key,
        seal: &Seal,
        found: &mut Found,
    ) -> Result<(bool, u32), Error> {
        loop {
            let version = self.version.begin();
            let buckets = self.buckets.load(Ordering::Acquire);
            let (mut hit, mut damaged, mut slots) = (false, None, 0);
            let lines = index::candidates(&self.index, buckets, hash.tag(), |number| {
                slots += 1;
                let cell = self.slots.cell(number);
                if !cell.is_some_and(|cell| found.slot.read(cell, seal)) {
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
                (_, Some(slot)) => Err(Error::DamagedAccount {
                    key: *key,
                    shard: self.number,
                    slot,
                }),
                (Ok(lines), None) => Ok((false, lines + slots)),
            };
        }
    }

    /// A slot, if its tag is right.
    pub fn slot(&self, number: u64, seal: &Seal) -> Option<Slot> {
        let mut slot = Slot::default();
        slot.read(self.slots.cell(number)?, seal).then_some(slot)
    }

    /// Writes a slot that has been there.
    #[inline]
    pub fn put(&self, number: u64, words: &Words) {
        let cell = self.slots.cell::<SLOT>(number);
        seqlock::write(cell.expect("the slot is there"), words);
        self.slots.mark::<SLOT>(number);
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
            if let Some((tag, words)) = moved {
                table.replace(&self.index, tag, last, slot)?;
                self.put(slot, words);
            }
            Ok(())
        })?;
        state.slots = last;
        self.count.store(last, Ordering::Release);
        Ok(())
    }

    fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Table) -> Result<(), ChangeError>,
    ) -> Result<(), Error> {
        let result = self.version.change(|| {
            let result = change(&mut state.table);
            self.buckets.store(state.table.buckets, Ordering::Release);
            result
        });
        result.map_err(|error| match error {
            ChangeError::Io(error) => Error::io(format!("shard {}", self.number))(error),
            ChangeError::Line(DamagedLine(line)) => self.damaged_line(line),
            ChangeError::Missing => {
                Error::damaged(&index_name(self.number), "its table", "an entry is missing")
            }
        })
    }

    /// The raw words of a slot, as they are moved. Nobody may write meanwhile.
    pub fn raw(&self, number: u64) -> Option<Words> {
        let mut words = [0; SLOT];
        seqlock::read(self.slots.cell(number)?, &mut words).then_some(words)
    }

    fn damaged_line(&self, line: u64) -> Error {
        Error::damaged(
            &index_name(self.number),
            format!("line {line}"),
            "its checksum is wrong",
        )
    }
}

pub fn slots_name(shard: u16) -> String {
    format!("shard-{}.slots", Hex(&[shard as u8]))
}

pub fn index_name(shard: u16) -> String {
    format!("shard-{}.index", Hex(&[shard as u8]))
}
