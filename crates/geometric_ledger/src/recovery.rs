//! Doing again what the write-ahead log has beyond the last checkpoint: each record in its turn, the
//! next one being read and taken apart meanwhile.

use crate::account::{Account, Key};
use crate::commit::{Change, Writer};
use crate::error::Error;
use crate::ledger::Core;
use crate::record::{
    HEADER, Header, Reclaimed, RecordKind, TOTALS, Totals, take_reclaimed, take_undo, take_update,
};
use crate::slot::Kind;
use crate::superblock::Superblock;
use crate::wal::Next;
use crate::workers;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What opening the ledger had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The ledger had been closed, so nothing was left to do.
    pub clean: bool,
    /// Batches that were done again from the write-ahead log, and the bytes of it that were read.
    pub batches: u64,
    pub bytes: u64,
    /// Pages of the index that were set from the checkpoint's journal.
    pub pages: u64,
    pub duration: Duration,
}

/// A record, taken apart.
struct Record {
    header: Header,
    content: Content,
}

enum Content {
    Mark,
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
        let mut writer = self.writer.lock().unwrap();
        let writer = &mut *writer;
        let mut recovery = Recovery {
            clean: block.clean,
            ..Recovery::default()
        };
        // After a clean end the log has nothing that could be read, or looked for in vain.
        let mut next = match block.clean {
            true => None,
            false => self.read(block.position, writer.sequence, 0)?,
        };
        let mut position = block.position;
        while let Some(record) = next {
            let header = record.header;
            recovery.batches += u64::from(header.kind == RecordKind::Batch);
            recovery.bytes += header.end() - position;
            position = header.end();
            let (done, following) = workers::both(
                usize::MAX,
                || self.replay(writer, record),
                || self.read(position, header.sequence, header.epoch),
            );
            done?;
            next = following?;
        }
        self.wal.end_at(position, block.position);
        if !self.options.read_only {
            // A process that was killed leaves what the disk does not have yet. Readers are about to see
            // it, and records to come say that it is durable.
            self.wal.sync_to(position)?;
        }
        self.visible.store(writer.sequence, Ordering::Release);
        Ok(recovery)
    }

    /// The record that continues the log.
    fn read(&self, position: u64, sequence: u64, epoch: u32) -> Result<Option<Record>, Error> {
        let next = self.wal.next(position, sequence, epoch, &self.seal)?;
        let Next::Record(header, body) = next else {
            return Ok(None);
        };
        let content = match header.kind {
            RecordKind::Mark => Some(Content::Mark),
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
                hash: self.hash(&key),
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
            Content::Mark => Ok(()),
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
