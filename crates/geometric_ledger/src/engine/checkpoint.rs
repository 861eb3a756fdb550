//! Bringing memory to the files, so that what came before need not be replayed.
//!
//! 1. Under the writer's lock, the state is noted, and which pages were written: a moment, whatever the
//!    size.
//! 2. Frozen index pages go to the journal, as they were. It is synced.
//! 3. Pages of slots go to their files, as they are. Later changes among them do no harm, since the
//!    log has them; but the log must be durable first. The next checkpoint writes them again. The files are
//!    synced, and those of batches.
//! 4. The superblock says so. From here on, recovery begins at the noted state.
//! 5. The journal's pages go to the index files; the superblock says that this is done, and which old
//!    batches are pruned.
//!
//! The index is so exact because replay builds on it: where an entry goes depends on all before it.
//! Slots are replayed whole, so for them any later state will do.

use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::Error;
use crate::storage::disk::{Disk, DiskFile, existing};
use crate::storage::record::RecordKind;
use crate::storage::region::{PAGE, Page};
use crate::storage::shard::Shard;
use crate::storage::superblock::Superblock;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Pages copied at a time, with writers waiting; and slots' pages written at a time.
const FROZEN: usize = 64;
const RUN: u64 = 256;
/// Bytes written between syncs: what a batch that waits for its own sync may have to wait for.
const WRITE: usize = 4 << 20;
/// Bytes of the journal's header, and of an entry.
const HEAD: u64 = 4096;
const ENTRY: usize = 16 + PAGE;

impl Core {
    /// Makes a checkpoint. `clean` says that nothing will be written after it.
    #[tracing::instrument(skip_all)]
    pub fn checkpoint(&self, clean: bool) -> Result<(), Error> {
        let start = Instant::now();
        let mut superblock = self.superblock.lock().unwrap();
        let mut block = superblock.block.clone();
        {
            let writer = self.writer.lock().unwrap();
            block.checkpoint += 1;
            block.sequence = writer.sequence;
            block.position = self.wal.appended();
            block.segment = self.wal.present().unwrap_or((block.position, 0));
            block.time = writer.time;
            block.accounts = writer.totals.accounts;
            block.minted = writer.totals.minted.to_le_bytes();
            block.burned = writer.totals.burned.to_le_bytes();
            block.root = *self.batches.root().1.as_bytes();
            block.shards = self.shards.iter().map(Shard::state).collect();
            for shard in &self.shards {
                shard.set_stamp(block.checkpoint);
                shard.index.freeze();
                shard.slots.freeze();
            }
        }
        self.wal.sync_to(block.position)?;
        let journaled = self.write_journal(block.checkpoint)?;
        let slots = self.write_slots()?;
        self.batches.sync()?;
        self.disk
            .sync()
            .map_err(Error::io("the ledger's directory"))?;
        block.journal = true;
        block.clean = false;
        superblock.block = block;
        superblock.write()?;
        let mut unsynced = 0;
        read_journal(
            &*self.disk,
            superblock.block.checkpoint,
            |shard, page, image| {
                let index = self.shards[usize::from(shard)].index.file();
                let written = index.write_at(image, page * PAGE as u64);
                unsynced += PAGE;
                let synced = written.and_then(|()| sync_some(index, &mut unsynced));
                synced.map_err(Error::io("an index"))
            },
        )?;
        for shard in &self.shards {
            shard.index.file().sync().map_err(Error::io("an index"))?;
        }
        superblock.block.journal = false;
        superblock.block.clean = clean;
        let (oldest, first) = self.history_bound(&superblock.block)?;
        superblock.block.oldest = oldest;
        let pruned = superblock.block.pruned;
        let prunable = self.prunable(&superblock.block);
        superblock.block.pruned = self.batches.prune(prunable)?;
        superblock.write()?;
        if superblock.block.pruned > pruned
            && let Err(error) = self.batches.reclaim()
        {
            tracing::warn!(%error, "the space of pruned batches could not be given back");
        }
        // As many as the next checkpoint will let go again.
        let spares = match clean {
            true => 1,
            false => self.options.checkpoint_bytes / self.options.segment_bytes + 1,
        };
        self.wal.segments.trim(first, spares as usize)?;
        self.release();
        let position = superblock.block.position;
        self.writer.lock().unwrap().checkpoint_position = position;
        telemetry::checkpointed(journaled + slots, start.elapsed());
        tracing::info!(
            sequence = superblock.block.sequence,
            journaled,
            slots,
            "checkpoint"
        );
        Ok(())
    }

    fn write_journal(&self, checkpoint: u64) -> Result<u64, Error> {
        let journal = self
            .disk
            .open("journal", true)
            .map_err(Error::io("journal"))?;
        let write = |bytes: &[u8], offset| {
            journal
                .write_at(bytes, offset)
                .map_err(Error::io("journal"))
        };
        let (mut count, mut unsynced, mut hasher) = (0, 0, Xxh3::new());
        for shard in &self.shards {
            loop {
                let pages = {
                    let _unchanged = shard.lock();
                    shard.index.take_frozen(FROZEN)
                };
                if pages.is_empty() {
                    break;
                }
                let mut bytes = Vec::with_capacity(pages.len() * ENTRY);
                for (page, image) in &pages {
                    bytes.extend(u64::from(shard.identity.number).to_le_bytes());
                    bytes.extend(page.to_le_bytes());
                    bytes.extend(&image[..]);
                }
                hasher.update(&bytes);
                write(&bytes, HEAD + count * ENTRY as u64)?;
                count += pages.len() as u64;
                unsynced += bytes.len();
                sync_some(&*journal, &mut unsynced).map_err(Error::io("journal"))?;
            }
        }
        let mut head = [0; 40];
        head[..8].copy_from_slice(b"GLJOURN1");
        head[8..16].copy_from_slice(&checkpoint.to_le_bytes());
        head[16..24].copy_from_slice(&count.to_le_bytes());
        head[24..].copy_from_slice(&hasher.digest128().to_le_bytes());
        write(&head, 0)?;
        journal.sync().map_err(Error::io("journal"))?;
        Ok(count)
    }

    fn write_slots(&self) -> Result<u64, Error> {
        let mut count = 0;
        let mut bytes = vec![0; WRITE + RUN as usize * PAGE];
        for shard in &self.shards {
            let (mut runs, mut filled) = (Vec::new(), 0);
            let write = |runs: &mut Vec<Range<u64>>, bytes: &[u8]| {
                // No file may have what the log might lose.
                self.wal
                    .sync_to(self.wal.appended())
                    .map_err(io::Error::other)?;
                let mut from = 0;
                for run in runs.drain(..) {
                    let len = (run.end - run.start) as usize * PAGE;
                    let file = shard.slots.file();
                    file.write_at(&bytes[from..from + len], run.start * PAGE as u64)?;
                    from += len;
                }
                shard.slots.file().sync()
            };
            let written = shard.slots.each_frozen(RUN, |run| {
                count += run.end - run.start;
                for (page, image) in run.clone().zip(bytes[filled..].chunks_exact_mut(PAGE)) {
                    let image = image.try_into().expect("it is as long as a page");
                    shard.slots.copy_page(page, image);
                    filled += PAGE;
                }
                runs.push(run);
                if filled >= WRITE {
                    filled = 0;
                    return write(&mut runs, &bytes);
                }
                Ok(())
            });
            written
                .and_then(|()| write(&mut runs, &bytes))
                .map_err(Error::io(shard.identity.slots_name()))?;
        }
        Ok(count)
    }

    /// How far the write-ahead log may go: the oldest sequence that can still be asked for then, and
    /// the position of the first record that is kept.
    fn history_bound(&self, block: &Superblock) -> Result<(u64, u64), Error> {
        let pins = self.pins.lock().unwrap();
        let pinned = pins.keys().next().copied().unwrap_or(u64::MAX);
        let target = block.position.saturating_sub(self.options.history_bytes);
        let (mut low, mut high) = (block.oldest, block.sequence.min(pinned));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.batches.get(middle + 1)? {
                Some(after) if after.position < target => low = middle + 1,
                _ => high = middle,
            }
        }
        // Views that begin from now on see the new bound, while they are kept out.
        self.oldest.store(low, Ordering::Release);
        let first = self.batches.get(low + 1)?;
        let first = first.map_or(block.position, |batch| batch.position.min(block.position));
        Ok((low, first))
    }

    /// How many of the first batches nobody may ask for any more: what is left are as many as the options
    /// say, and those that history needs.
    fn prunable(&self, block: &Superblock) -> u64 {
        let unwanted = block.sequence.saturating_sub(self.options.batches);
        // A view of the oldest state reads the totals after its batch.
        unwanted.min(block.oldest.saturating_sub(1))
    }

    /// Says in the log, when nothing else is written, how far it is durable.
    pub fn log_durable_position(&self, logged: &mut u64) -> Result<(), Error> {
        let Ok(writer) = self.writer.try_lock() else {
            return Ok(());
        };
        let appended = self.wal.appended();
        // The superblock says it of what came before a checkpoint.
        let said = writer.checkpoint_position.max(*logged);
        if appended == said || self.wal.durable() != appended {
            return Ok(());
        }
        let mut header = self.header(&writer, RecordKind::DurableUpTo, 0)?;
        self.wal
            .append(&mut header, &self.encryption, &mut Vec::new())?;
        *logged = header.end();
        drop(writer);
        self.wal.sync_to(header.end())
    }
}

/// Syncs a file, if enough was written for that.
fn sync_some(file: &dyn DiskFile, unsynced: &mut usize) -> io::Result<()> {
    if *unsynced < WRITE {
        return Ok(());
    }
    *unsynced = 0;
    file.sync()
}

/// Gives each page of a checkpoint's journal to `each`; how many there were.
pub fn read_journal(
    disk: &dyn Disk,
    checkpoint: u64,
    mut each: impl FnMut(u16, u64, &Page) -> Result<(), Error>,
) -> Result<u64, Error> {
    let damaged = |what: &str| Error::damaged("journal", "its pages", what);
    let journal = existing(disk, "journal").map_err(Error::io("journal"))?;
    let journal = journal.ok_or_else(|| damaged("it is not there"))?;
    let mut head = [0; 40];
    let read =
        |bytes: &mut [u8], offset| journal.read_at(bytes, offset).map_err(Error::io("journal"));
    read(&mut head, 0)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    if &head[..8] != b"GLJOURN1" || number(8) != checkpoint {
        return Err(damaged("it is another checkpoint's"));
    }
    let count = number(16);
    let chunks = || (0..count).step_by(FROZEN);
    let chunk = |from: u64| -> Result<Vec<u8>, Error> {
        let len = (count - from).min(FROZEN as u64) as usize * ENTRY;
        let mut bytes = vec![0; len];
        read(&mut bytes, HEAD + from * ENTRY as u64)?;
        Ok(bytes)
    };
    let mut hasher = Xxh3::new();
    for from in chunks() {
        hasher.update(&chunk(from)?);
    }
    if hasher.digest128().to_le_bytes() != head[24..] {
        return Err(damaged("their checksum is wrong"));
    }
    for from in chunks() {
        for entry in chunk(from)?.chunks_exact(ENTRY) {
            let shard = u64::from_le_bytes(entry[..8].try_into().unwrap());
            let page = u64::from_le_bytes(entry[8..16].try_into().unwrap());
            let image = entry[16..].try_into().unwrap();
            each(shard as u16, page, image)?;
        }
    }
    Ok(count)
}
