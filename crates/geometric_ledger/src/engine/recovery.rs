//! Doing again what the write-ahead log has beyond the last checkpoint: each record in its turn, the
//! next one being read and taken apart meanwhile.

use crate::account::{Account, Key};
use crate::engine::items::Change;
use crate::engine::state::{Core, Writer};
use crate::error::Error;
use crate::storage::changes::{Reclaimed, take_reclaimed, take_undo, take_update};
use crate::storage::record::{HEADER, Header, RecordKind, TOTALS, Totals};
use crate::storage::shard::Shard;
use crate::storage::slot::Kind;
use crate::storage::superblock::Superblock;
use crate::storage::wal::Next;
use crate::workers;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What opening the ledger had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The ledger had been closed, so nothing was left to do.
    pub clean: bool,
    /// Batches that were done again from the write-ahead log, and the bytes of it that were read.
    pub batches: u64,
    pub bytes: u64,
    /// Pages of the index that were set from the checkpoint's journal.
    pub pages: u64,
    /// Checkpoints that were made meanwhile, to stay within `dirty_bytes`.
    pub checkpoints: u64,
    /// A copy of the superblock was damaged. It is whole again, unless the ledger is open for reading
    /// only.
    pub superblock_repaired: bool,
    /// Indexes that were missing or damaged, and were made again from the slots.
    pub indexes_rebuilt: u64,
    /// Hashes of the tree were missing or damaged, and were made again from the batches.
    pub tree_rebuilt: bool,
    pub duration: Duration,
}

/// A record, taken apart.
struct Record {
    header: Header,
    content: Content,
}

enum Content {
    Nothing,
    Reclaim(Vec<Reclaimed>),
    Batch {
        totals: Totals,
        digest: [u8; 32],
        items: Vec<(Key, Account, Kind)>,
        changes: Vec<Change>,
    },
}

impl Core {
    pub fn recover(&self, block: &Superblock) -> Result<Recovery, Error> {
        let mut recovery = Recovery {
            clean: block.clean,
            ..Recovery::default()
        };
        let mut position = block.position;
        if block.checkpoint > 0 {
            self.wal
                .segments
                .require(block.segment.0, block.segment.1)?;
        }
        self.wal.end_at(position, position);
        // The log is read even where the superblock says that there is nothing: an older copy of it may
        // have been put back. A whole record proves that; the search for parts of one is left out.
        let mut next = match block.clean {
            true => self.read_whole(position, block.sequence)?,
            false => self.read(position, block.sequence, 0)?,
        };
        recovery.clean &= next.is_none();
        while let Some(record) = next {
            let header = record.header;
            recovery.batches += u64::from(header.kind == RecordKind::Batch);
            recovery.bytes += header.end() - header.position;
            position = self.wal.after(&header);
            let (done, following) = workers::both(
                usize::MAX,
                || self.replay(&mut self.writer.lock().unwrap(), record),
                || self.read(position, header.sequence, header.epoch),
            );
            done?;
            next = following?;
            self.wal.end_at(position, self.wal.durable());
            recovery.checkpoints += self.bound_replay()?;
        }
        if !self.options.read_only {
            // A process that was killed leaves what the disk does not have yet. Readers are about to see
            // it, and records to come say that it is durable.
            self.wal.sync_to(position)?;
        }
        for shard in &self.shards {
            recovery.indexes_rebuilt += u64::from(shard.replayed(&self.encryption, &self.hasher)?);
        }
        let sequence = self.writer.lock().unwrap().sequence;
        self.visible.store(sequence, Ordering::Release);
        Ok(recovery)
    }

    /// Keeps replay within `dirty_bytes`. Returns how many checkpoints that took.
    fn bound_replay(&self) -> Result<u64, Error> {
        let limit = self.options.dirty_bytes;
        if self.dirty() <= limit / 2 {
            return Ok(0);
        }
        match self.options.read_only {
            true if self.dirty() > limit => Err(Error::TooMuchToReplay(limit)),
            // An index that is yet to be made again is in no state that a checkpoint could keep.
            false if !self.shards.iter().any(Shard::is_incomplete) => {
                self.checkpoint(false)?;
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    /// The record at the end of a ledger that was closed, if there is one.
    fn read_whole(&self, position: u64, sequence: u64) -> Result<Option<Record>, Error> {
        let next = self
            .wal
            .continues(position, sequence, 0, &self.encryption)?;
        self.take_apart(next)
    }

    /// The record that continues the log.
    fn read(&self, position: u64, sequence: u64, epoch: u32) -> Result<Option<Record>, Error> {
        let next = self.wal.next(position, sequence, epoch, &self.encryption)?;
        self.take_apart(next)
    }

    fn take_apart(&self, next: Next) -> Result<Option<Record>, Error> {
        let Next::Record(header, body) = next else {
            return Ok(None);
        };
        let content = match header.kind {
            RecordKind::DurableUpTo | RecordKind::Continue => Some(Content::Nothing),
            RecordKind::Reclaim => reclaimed(&header, &body),
            RecordKind::Batch => self.changes(&header, &body),
        };
        match content {
            Some(content) => Ok(Some(Record { header, content })),
            None => Err(unreadable(&header)),
        }
    }

    fn changes(&self, header: &Header, body: &[u8]) -> Option<Content> {
        let (totals, digest) = Totals::decode(body)?;
        let all = body.get(TOTALS..)?;
        let (mut updates, mut undos) = all.split_at_checked(header.updates as usize)?;
        if blake3::hash(updates).as_bytes() != &digest {
            return None;
        }
        let end = header.position + HEADER as u64 + header.body;
        let room = (header.items as usize).min(body.len());
        let (mut items, mut changes) = (Vec::with_capacity(room), Vec::with_capacity(room));
        for item in 0..header.items {
            let (key, kind, words) = take_update(&mut updates)?;
            let position = end - undos.len() as u64;
            let undo = take_undo(&mut undos, &key, &words)?;
            changes.push(Change {
                hash: self.hash_of(&key, kind),
                given: item,
                item,
                number: undo.slot,
                added: undo.before.is_none(),
                undo: position,
            });
            items.push((key, Account::from_words(&words), kind));
        }
        Some(Content::Batch {
            totals,
            digest,
            items,
            changes,
        })
    }

    fn replay(&self, writer: &mut Writer, record: Record) -> Result<(), Error> {
        let header = record.header;
        match record.content {
            Content::Nothing => Ok(()),
            Content::Reclaim(slots) => slots.iter().try_for_each(|slot| self.reclaim(slot)),
            Content::Batch {
                totals,
                digest,
                items,
                changes,
            } => {
                let there = |change: &Change| change.number < self.shard(change.hash).count();
                if !changes.iter().all(|change| change.added || there(change)) {
                    return Err(unreadable(&header));
                }
                self.apply(&items[..], &changes, &header)?;
                writer.advance(&header, totals);
                let batch = writer.batch(&header, digest);
                self.batches.push(&batch, header.epoch)
            }
        }
    }
}

fn reclaimed(header: &Header, mut body: &[u8]) -> Option<Content> {
    let slots = (0..header.items).map(|_| take_reclaimed(&mut body));
    slots.collect::<Option<_>>().map(Content::Reclaim)
}

fn unreadable(header: &Header) -> Error {
    let place = format!("position {}", header.position);
    Error::damaged("the write-ahead log", place, "the record cannot be read")
}
