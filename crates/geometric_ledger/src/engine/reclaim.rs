//! Slots that nobody can ask for any more are given to others, a few at a time: the last slot of the
//! shard moves to the place of one that is gone, so slots stay without gaps. What moves where is in
//! the write-ahead log, with the slot itself, so that replay needs no more than the log.

use crate::engine::state::Core;
use crate::engine::state::Writer;
use crate::error::Error;
use crate::storage::changes::{Reclaimed, push_reclaimed};
use crate::storage::record::RecordKind;
use crate::storage::region::PAGE;
use crate::storage::shard::Shard;
use crate::storage::slot::{Kind, Slot};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Receipts that are added before those that are too old are looked for, and how many are looked at for
/// each: so there are never many more than are kept.
const RECEIPTS: u64 = 256;
const LOOKED_AT: u64 = 4;

impl Core {
    /// Looks at so many slots, of all but receipts, and gives those to others that nobody can ask for any
    /// more.
    pub fn reclaim_some(&self, writer: &mut Writer, slots: u64) -> Result<u64, Error> {
        // A scan goes from slot to slot: none may move while there is one.
        let pins = self.pins.lock().unwrap();
        if !pins.is_empty() {
            return Ok(0);
        }
        let oldest = self.oldest.load(Ordering::Acquire);
        let kept = self.oldest_kept(writer.sequence).min(oldest);
        let gone = |slot: &Slot| match slot.kind() {
            Kind::Tombstone | Kind::Ended => slot.sequence() <= oldest,
            Kind::Entry => slot.sequence() <= kept,
            Kind::Transfer => slot.sequence() <= kept && !self.is_of_pending(slot),
            Kind::Account | Kind::Receipt | Kind::Statement | Kind::Pending => false,
        };
        let (number, from) = writer.cursor;
        let shards = self.account_shards().len() + self.record_shards().len();
        let shard = match self.account_shards().get(number) {
            Some(shard) => shard,
            None => &self.record_shards()[number - self.account_shards().len()],
        };
        let end = (from + slots).min(shard.count());
        let reclaimed = self.reclaim_range(writer, shard, from..end, gone)?;
        writer.cursor = match end >= shard.count() {
            true => ((number + 1) % shards, 0),
            false => (number, end),
        };
        Ok(reclaimed)
    }

    /// Whether a part is of a transfer that is pending. If that cannot be told, it is kept.
    fn is_of_pending(&self, part: &Slot) -> bool {
        let mut key = part.key();
        key[16] = 0;
        let pending = self.find_newest(&key, Kind::Pending);
        pending.map_or(true, |slot| {
            slot.is_some_and(|slot| slot.kind() == Kind::Pending)
        })
    }

    /// Lets receipts go that are older than was promised, in step with those that are added. A view
    /// needs none of them, and a scan of receipts goes against the direction that they move in.
    pub fn reclaim_receipts(&self, writer: &mut Writer) -> Result<(), Error> {
        let shard = self.receipts();
        if shard.count() < writer.receipts_due {
            return Ok(());
        }
        self.reclaim_some_receipts(writer, RECEIPTS * LOOKED_AT)?;
        writer.receipts_due = shard.count() + RECEIPTS.min(self.options.receipts.max(1));
        Ok(())
    }

    /// Looks at so many receipts.
    pub fn reclaim_some_receipts(&self, writer: &mut Writer, slots: u64) -> Result<u64, Error> {
        let shard = self.receipts();
        let oldest = writer.sequence.saturating_sub(self.options.receipts);
        let from = match writer.receipts_cursor {
            hand if hand < shard.count() => hand,
            _ => 0,
        };
        let end = (from + slots).min(shard.count());
        writer.receipts_cursor = match end == shard.count() {
            true => 0,
            false => end,
        };
        self.reclaim_range(writer, shard, from..end, |slot| slot.sequence() <= oldest)
    }

    fn reclaim_range(
        &self,
        writer: &mut Writer,
        shard: &Shard,
        range: Range<u64>,
        gone: impl Fn(&Slot) -> bool,
    ) -> Result<u64, Error> {
        let found = self.find_gone(shard, range, gone);
        if found.is_empty() {
            return Ok(0);
        }
        let mut body = Vec::new();
        found
            .iter()
            .for_each(|reclaimed| push_reclaimed(&mut body, reclaimed));
        let mut header = self.header(writer, RecordKind::Reclaim, body.len() as u64)?;
        header.items = found.len() as u32;
        self.wal.append(&mut header, &self.encryption, &mut body)?;
        found
            .iter()
            .try_for_each(|reclaimed| self.reclaim(reclaimed))
            .inspect_err(|error| self.wal.stop(&error.to_string()))?;
        Ok(found.len() as u64)
    }

    /// Slots of a range that are gone, and what moves to their places.
    fn find_gone(
        &self,
        shard: &Shard,
        range: Range<u64>,
        gone: impl Fn(&Slot) -> bool,
    ) -> Vec<Reclaimed> {
        let mut count = shard.count();
        let mut found = Vec::new();
        // From the end, so that the last slot is never one that is yet to go.
        let mut last = HashMap::new();
        for place in range.rev() {
            let raw = |place: u64| shard.raw(place);
            let Some(words) = last.get(&place).copied().or_else(|| raw(place)) else {
                continue;
            };
            let Some(slot) = Slot::decode(words, &self.encryption).filter(&gone) else {
                continue;
            };
            count -= 1;
            let moved = match place == count {
                true => None,
                false => {
                    let Some(words) = last.remove(&count).or_else(|| raw(count)) else {
                        break;
                    };
                    let Some(slot) = Slot::decode(words, &self.encryption) else {
                        break;
                    };
                    last.insert(place, words);
                    Some((self.hash_of(&slot.key(), slot.kind()).tag(), words))
                }
            };
            found.push(Reclaimed {
                shard: shard.identity.number,
                slot: place,
                tag: self.hash_of(&slot.key(), slot.kind()).tag(),
                moved,
            });
        }
        found
    }

    /// Gives the file system back what lies behind the last slot.
    pub fn punch(&self) -> Result<(), Error> {
        for shard in &self.shards {
            let _writer = self.writer.lock().unwrap();
            let used = shard.slots_bytes().next_multiple_of(PAGE as u64);
            let there = shard.slots.bytes();
            if there > used {
                let punched = shard.slots.file().punch(used, there - used);
                punched.map_err(Error::io(shard.identity.slots_name()))?;
            }
        }
        Ok(())
    }

    /// Gives one slot's place to another.
    pub fn reclaim(&self, reclaimed: &Reclaimed) -> Result<(), Error> {
        let missing = || {
            Error::damaged(
                "the write-ahead log",
                "a reclaimed slot",
                "there is no such shard",
            )
        };
        let shard = self
            .shards
            .get(usize::from(reclaimed.shard))
            .ok_or_else(missing)?;
        let mut state = shard.lock();
        let moved = reclaimed.moved.as_ref().map(|(tag, words)| (*tag, words));
        shard.reclaim(&mut state, reclaimed.slot, reclaimed.tag, moved)
    }
}
