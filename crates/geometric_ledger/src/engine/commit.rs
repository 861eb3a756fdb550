//! The one path of a batch: look up → encode → append → apply → sync.
//!
//! Everything up to *apply* happens under the writer's lock, on both sides of the look-up in
//! parallel; the sync does not, so the next batch is made while this one is written, and batches
//! that wait share a sync. Memory has a batch before the disk has, but readers do not see it before
//! (see `history`), and no data file gets it before (see `checkpoint`).

use crate::engine::items::{Change, Items, Piece, Rule};
use crate::engine::look_up::{Order, PREFETCH_DISTANCE};
use crate::engine::state::{Core, Writer};
use crate::engine::telemetry;
use crate::error::{Error, Refusal};
use crate::options::Durability;
use crate::storage::batch::Batch;
use crate::storage::encryption::Encryption;
use crate::storage::record::{HEADER, Header, RecordKind, TOTALS, Totals};
use crate::storage::region::PAGE;
use crate::storage::shard::Shard;
use crate::storage::slot::{Slot, Words};
use crate::workers::{self, PIECE};
use rayon::prelude::*;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Core {
    pub fn commit<I: Items + ?Sized>(&self, items: &I, rule: Rule) -> Result<Batch, Error> {
        let start = Instant::now();
        let (batch, end) = self.submit(items, rule)?;
        self.wait(batch.sequence, end)?;
        telemetry::committed(batch.updates, start.elapsed());
        Ok(batch)
    }

    /// Makes a batch, which is not durable yet. Returns it and the position after it.
    pub fn submit<I: Items + ?Sized>(&self, items: &I, rule: Rule) -> Result<(Batch, u64), Error> {
        let order = self.order(items);
        self.append(self.write()?, items, &order, rule)
    }

    /// The writer, when the ledger may be written to.
    pub fn write(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        if self.options.read_only || self.following.load(Ordering::Acquire) {
            return Err(Error::ReadOnly);
        }
        self.write_always()
    }

    /// As [`Core::write`], of a ledger that only follows another as well.
    pub fn write_always(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        loop {
            let mut writer = self.writer.lock().unwrap();
            self.wal.check()?;
            // A checkpoint that cannot keep up is waited for, gently at first.
            if self.has_room(&mut writer) {
                let limit = self.options.checkpoint_bytes;
                if self.since_checkpoint(&writer) > limit + limit / 2 {
                    std::thread::sleep(Duration::from_micros(500));
                }
                return Ok(writer);
            }
            drop(writer);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The writer, unless a checkpoint would have to be waited for: for who makes them.
    pub fn write_unless_full(&self) -> Result<Option<MutexGuard<'_, Writer>>, Error> {
        let mut writer = self.writer.lock().unwrap();
        self.wal.check()?;
        Ok(self.has_room(&mut writer).then_some(writer))
    }

    fn since_checkpoint(&self, writer: &Writer) -> u64 {
        self.wal.appended() - writer.checkpoint_position
    }

    /// Whether the log and memory have room before the next checkpoint, which is asked for in time.
    fn has_room(&self, writer: &mut Writer) -> bool {
        let since = self.since_checkpoint(writer);
        let limit = self.options.checkpoint_bytes;
        let full = self.is_memory_full(writer);
        if since > limit || full {
            self.signal.raise();
        }
        since < 2 * limit && !full
    }

    /// Whether `dirty_bytes` are reached. Asks for a checkpoint when half of it is.
    fn is_memory_full(&self, writer: &mut Writer) -> bool {
        if writer.unchecked > 0 {
            return false;
        }
        let limit = self.options.dirty_bytes;
        if self.dirty() > limit / 2 {
            self.signal.raise();
        }
        let full = self.unwritten() > limit;
        if !full {
            // An item writes to a few pages at the most.
            writer.unchecked = (limit / PAGE as u64 / 16).clamp(1, PIECE as u64);
        }
        full
    }

    /// Appends a batch and applies it to memory. Returns it and the position after it.
    pub fn append<I: Items + ?Sized>(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        items: &I,
        order: &Order,
        rule: Rule,
    ) -> Result<(Batch, u64), Error> {
        self.reclaim_receipts(&mut writer)?;
        let mut pieces = self.look_up(items, order, rule)?;
        let totals = sum_up(writer.totals, &pieces, rule)?;
        self.assign_slots(&mut pieces)?;
        let mut body = std::mem::take(&mut writer.body);
        let (updates, digest) = assemble(&pieces, totals, &mut body);
        let mut header = self.header(&writer, RecordKind::Batch, body.len() as u64)?;
        header.sequence += 1;
        header.updates = updates as u64;
        header.items = pieces.iter().map(|piece| piece.changes.len() as u32).sum();
        writer.unchecked = writer.unchecked.saturating_sub(header.items.into());
        if let Rule::Record(time) = rule {
            header.time = time;
        }
        if let Rule::Follow(_, then, theirs) = rule {
            header.time = then;
            if theirs != digest {
                let what = format!("batch {} differs from the one followed", header.sequence);
                return Err(Error::Follow(what));
            }
        }
        self.wal.append(&mut header, &self.encryption, &mut body)?;
        writer.body = body;
        // From here on the batch is in the log: what fails now is for recovery to mend.
        writer.advance(&header, totals);
        let batch = writer.batch(&header, digest);
        // A reader who finds a slot of the batch looks for the batch's row.
        let pushed = self.batches.push(&batch, header.epoch);
        pushed
            .and_then(|()| self.apply_all(items, &mut pieces, &header))
            .inspect_err(|error| self.wal.stop(&error.to_string()))?;
        self.recycle(pieces);
        if self.durability() != Durability::Sync {
            self.visible.fetch_max(batch.sequence, Ordering::AcqRel);
        }
        Ok((batch, header.end()))
    }

    /// Gives new accounts their slots, in the order of the batch, having made room for them.
    fn assign_slots(&self, pieces: &mut [Piece]) -> Result<(), Error> {
        if pieces.iter().all(|piece| piece.added == 0) {
            return Ok(());
        }
        let count = self.shards.len();
        let mut added = vec![0; count];
        for change in pieces
            .iter()
            .flat_map(|piece| &piece.changes)
            .filter(|change| change.added)
        {
            added[self.layout.shard(change.hash)] += 1;
        }
        let mut next = vec![0; count];
        for ((shard, added), next) in self.shards.iter().zip(&added).zip(&mut next) {
            if *added > 0 {
                shard.reserve(*added)?;
                *next = shard.count();
            }
        }
        for piece in pieces {
            for change in piece.changes.iter_mut().filter(|change| change.added) {
                let next = &mut next[self.layout.shard(change.hash)];
                change.number = *next;
                *next += 1;
                let slot = change.undo as usize + 8;
                piece.undos[slot..slot + 4].copy_from_slice(&(change.number as u32).to_le_bytes());
            }
        }
        Ok(())
    }

    fn apply_all<I: Items + ?Sized>(
        &self,
        items: &I,
        pieces: &mut [Piece],
        header: &Header,
    ) -> Result<(), Error> {
        let mut places = Vec::with_capacity(pieces.len());
        let mut next = (
            0,
            header.position + (HEADER + TOTALS) as u64 + header.updates,
        );
        for piece in &*pieces {
            places.push(next);
            next.0 += piece.changes.len() as u32;
            next.1 += piece.undos.len() as u64;
        }
        let put = |(piece, (item, undos)): (&mut Piece, (u32, u64))| {
            piece.number(item, undos);
            self.put_all(items, &piece.changes, header);
        };
        match workers::for_items(next.0 as usize) {
            Some(pool) => pool.install(|| pieces.par_iter_mut().zip(places).for_each(put)),
            None => pieces.iter_mut().zip(places).for_each(put),
        }
        if pieces.iter().all(|piece| piece.added == 0) {
            return Ok(());
        }
        let changes = pieces.iter().flat_map(|piece| &piece.changes);
        self.add_all(items, changes, header)
    }

    /// Writes a batch into memory.
    pub fn apply<I: Items + ?Sized>(
        &self,
        items: &I,
        changes: &[Change],
        header: &Header,
    ) -> Result<(), Error> {
        match workers::for_items(changes.len()) {
            Some(pool) => pool.install(|| {
                let chunks = changes.par_chunks(PIECE);
                chunks.for_each(|changes| self.put_all(items, changes, header));
            }),
            None => self.put_all(items, changes, header),
        }
        self.add_all(items, changes.iter(), header)
    }

    fn put_all<I: Items + ?Sized>(&self, items: &I, changes: &[Change], header: &Header) {
        let mut ahead = changes.chunks(PREFETCH_DISTANCE);
        let mut prefetch = || {
            for change in ahead.next().unwrap_or_default() {
                self.shard(change.hash).prefetch(change.number);
            }
        };
        prefetch();
        for changes in changes.chunks(PREFETCH_DISTANCE) {
            // What was looked up a thousand items ago has left the nearest cache again.
            prefetch();
            for change in changes.iter().filter(|change| !change.added) {
                let words = change.encode_slot(items, header, &self.encryption);
                self.shard(change.hash).put(change.number, &words);
            }
        }
    }

    fn add_all<'a, I: Items + ?Sized>(
        &self,
        items: &I,
        changes: impl Iterator<Item = &'a Change>,
        header: &Header,
    ) -> Result<(), Error> {
        let mut added = vec![Vec::new(); self.shards.len()];
        let mut count = 0;
        for change in changes.filter(|change| change.added) {
            added[self.layout.shard(change.hash)].push(change);
            count += 1;
        }
        let add = |(shard, changes): (&Shard, &Vec<&Change>)| {
            if changes.is_empty() {
                return Ok(());
            }
            shard.reserve(changes.len() as u64)?;
            let mut state = shard.lock();
            for (at, change) in changes.iter().enumerate() {
                if let Some(ahead) = changes.get(at + PREFETCH_DISTANCE) {
                    shard.prefetch_line(ahead.hash.tag());
                }
                if change.number != state.slots {
                    let name = shard.identity.slots_name();
                    return Err(Error::damaged(&name, "its end", "slots are missing"));
                }
                let words = change.encode_slot(items, header, &self.encryption);
                shard.add(&mut state, change.hash.tag(), &words)?;
            }
            Ok(())
        };
        match workers::for_items(count) {
            Some(pool) => pool.install(|| {
                let shards = self.shards.par_iter().zip(&added);
                shards.with_min_len(4).map(add).collect()
            }),
            None => self.shards.iter().zip(&added).try_for_each(add),
        }
    }
}

impl Change {
    /// What the slot becomes.
    #[inline]
    fn encode_slot<I: Items + ?Sized>(
        &self,
        items: &I,
        header: &Header,
        encryption: &Encryption,
    ) -> Words {
        let (key, account, kind) = items.get(self.given as usize);
        let mut slot = Slot::new(key, &account.to_words(), kind);
        slot.commit(header.sequence, self.undo, header.epoch, self.item);
        slot.encode(encryption)
    }
}

/// The totals after a batch. What was minted and burned counts modulo 2^128, so that it can go on for
/// ever; the difference, which is the sum of all balances, has to fit.
fn sum_up(mut totals: Totals, pieces: &[Piece], rule: Rule) -> Result<Totals, Error> {
    let overflow = || Error::Item {
        item: 0,
        reason: Refusal::TotalOverflow,
    };
    let (mut minted, mut burned) = (0u128, 0u128);
    for piece in pieces {
        totals.accounts = totals.accounts.wrapping_add_signed(piece.created);
        minted = minted.checked_add(piece.minted).ok_or_else(overflow)?;
        burned = burned.checked_add(piece.burned).ok_or_else(overflow)?;
    }
    match rule {
        Rule::Mint | Rule::Import => {
            let rises = minted >= burned;
            let by = i128::try_from(minted.abs_diff(burned)).map_err(|_| overflow())?;
            let sum = match rises {
                true => totals.balances().checked_add(by),
                false => totals.balances().checked_sub(by),
            };
            sum.ok_or_else(overflow)?;
            totals.minted = totals.minted.wrapping_add(minted);
            totals.burned = totals.burned.wrapping_add(burned);
        }
        Rule::Transfer | Rule::Record(_) => {}
        Rule::Follow(theirs, ..) => {
            (totals.minted, totals.burned) = (theirs.minted, theirs.burned);
            if totals != theirs {
                let what = "the number of accounts differs from the ledger followed";
                return Err(Error::Follow(what.into()));
            }
        }
    }
    Ok(totals)
}

/// Makes a record's body of a batch's pieces. Returns the length of the updates, and their digest.
fn assemble(pieces: &[Piece], totals: Totals, body: &mut Vec<u8>) -> (usize, [u8; 32]) {
    let items = pieces.iter().map(|piece| piece.changes.len()).sum();
    let updates = pieces.iter().map(|piece| piece.updates.len()).sum();
    let undos: usize = pieces.iter().map(|piece| piece.undos.len()).sum();
    body.resize(TOTALS + updates + undos, 0);
    let (head, rest) = body.split_at_mut(TOTALS);
    let (front, back) = rest.split_at_mut(updates);
    workers::both(
        items,
        || join(front, pieces.iter().map(|piece| &*piece.updates)),
        || join(back, pieces.iter().map(|piece| &*piece.undos)),
    );
    let mut hasher = blake3::Hasher::new();
    match workers::for_items(items) {
        Some(pool) => pool.install(|| hasher.update_rayon(front)),
        None => hasher.update(front),
    };
    let digest = *hasher.finalize().as_bytes();
    head.copy_from_slice(&totals.encode(&digest));
    (updates, digest)
}

/// Copies parts one after another.
fn join<'a>(mut to: &mut [u8], parts: impl Iterator<Item = &'a [u8]>) {
    for part in parts {
        let (place, rest) = to.split_at_mut(part.len());
        place.copy_from_slice(part);
        to = rest;
    }
}
