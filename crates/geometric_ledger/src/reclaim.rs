//! Slots that nobody can ask for any more are given to others, a few at a time: the last slot of the
//! shard moves to the place of one that is gone, so slots stay without gaps. What moves where is in
//! the write-ahead log, with the slot itself, so that replay needs no more than the log.

use crate::commit::Writer;
use crate::error::Error;
use crate::ledger::Core;
use crate::record::{HEADER, Header, Reclaimed, RecordKind, push_reclaimed};
use crate::region::PAGE;
use crate::shard::Shard;
use crate::slot::{Kind, SLOT, Slot};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

impl Core {
    /// Looks at so many slots, and gives those to others that nobody can ask for any more.
    pub fn reclaim_some(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        slots: u64,
    ) -> Result<u64, Error> {
        // A scan goes from slot to slot: none may move while there is one.
        let pins = self.pins.lock().unwrap();
        if !pins.is_empty() {
            return Ok(0);
        }
        let oldest = self.oldest.load(Ordering::Acquire);
        let receipts = oldest.min(writer.sequence.saturating_sub(self.options.receipts));
        let gone = |slot: &Slot| match slot.kind() {
            Kind::Account => false,
            Kind::Tombstone => slot.sequence() <= oldest,
            Kind::Receipt => slot.sequence() <= receipts,
        };
        let (number, from) = writer.hand;
        let shard = &self.shards[number];
        let end = (from + slots).min(shard.count());
        let found = self.find_gone(shard, from..end, gone);
        writer.hand = match end == shard.count() {
            true => ((number + 1) % self.shards.len(), 0),
            false => (number, end),
        };
        if found.is_empty() {
            return Ok(0);
        }
        let mut body = Vec::new();
        found
            .iter()
            .for_each(|reclaimed| push_reclaimed(&mut body, reclaimed));
        let mut header = Header {
            kind: RecordKind::Reclaim,
            epoch: writer.epoch,
            attempt: 0,
            items: found.len() as u32,
            body: body.len() as u64,
            updates: 0,
            position: self
                .wal
                .place((HEADER + body.len().next_multiple_of(8)) as u64)?,
            sequence: writer.sequence,
            durable: 0,
            time: crate::commit::now(),
            tag: [0; 16],
        };
        self.wal.append(&mut header, &self.seal, &mut body)?;
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
            let Some(slot) = Slot::open(words, &self.seal).filter(&gone) else {
                continue;
            };
            count -= 1;
            let moved = match place == count {
                true => None,
                false => {
                    let Some(words) = last.remove(&count).or_else(|| raw(count)) else {
                        break;
                    };
                    let Some(slot) = Slot::open(words, &self.seal) else {
                        break;
                    };
                    last.insert(place, words);
                    Some((self.hash(&slot.key()).tag(), words))
                }
            };
            found.push(Reclaimed {
                shard: shard.number,
                slot: place,
                tag: self.hash(&slot.key()).tag(),
                moved,
            });
        }
        found
    }

    /// Gives the file system back what lies behind the last slot.
    pub fn punch(&self) -> Result<(), Error> {
        for shard in &self.shards {
            let _writer = self.writer.lock().unwrap();
            let used = (shard.count() * SLOT as u64 * 8).next_multiple_of(PAGE as u64);
            let there = shard.slots.bytes();
            if there > used {
                let punched = shard.slots.file().punch(used, there - used);
                punched.map_err(Error::io(format!("the slots of shard {}", shard.number)))?;
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
