//! The one path of a batch: look up → encode → append → apply → sync.
//!
//! Everything up to *apply* happens under the writer's lock, on both sides of the look-up in
//! parallel; the sync does not, so the next batch is made while this one is written, and batches
//! that wait share a sync. Memory has a batch before the disk has, but readers do not see it before
//! (see `history`), and no data file gets it before (see `checkpoint`).

use crate::account::{Account, Key};
use crate::batches::Batch;
use crate::error::{Error, Refusal};
use crate::ledger::{Core, GeometricLedger};
use crate::look_up::{AHEAD, Order, Piece};
use crate::options::Durability;
use crate::record::{HEADER, Header, RecordKind, TOTALS, Totals};
use crate::seal::Seal;
use crate::shard::KeyHash;
use crate::slot::{Kind, Slot, Words};
use crate::superblock::Superblock;
use crate::telemetry;
use crate::workers::{self, PIECE};
use rayon::prelude::*;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a batch does to one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Sets the account, creating it if it is not there.
    Put(Key, Account),
    /// Deletes the account; its balance is burned. Nothing happens if it is not there.
    Delete(Key),
}

/// What the writing thread knows.
pub(crate) struct Writer {
    pub sequence: u64,
    pub time: i64,
    pub totals: Totals,
    pub epoch: u32,
    pub checkpoint_position: u64,
    /// Where each shard is next looked at for slots to reclaim.
    pub hand: (usize, u64),
    body: Vec<u8>,
}

/// What a batch does to the totals, and when it is.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// What balances rise by is minted, what they fall by is burned.
    Mint,
    /// Balances rise by what others fall by.
    Transfer,
    /// As another ledger did it, with this digest.
    Follow(Totals, i64, [u8; 32]),
}

/// An update that found its slot.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub hash: KeyHash,
    /// Which of the items it was given as.
    pub given: u32,
    /// Which of the changes it is.
    pub item: u32,
    pub number: u64,
    /// The slot is new.
    pub added: bool,
    /// The position of the undo.
    pub undo: u64,
}

/// The items of a batch, however they are given.
pub(crate) trait Items: Sync {
    fn len(&self) -> usize;
    fn get(&self, item: usize) -> (&Key, &Account, Kind);
}

impl Items for [(Key, Account)] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn get(&self, item: usize) -> (&Key, &Account, Kind) {
        let (key, account) = &self[item];
        (key, account, Kind::Account)
    }
}

impl Items for [Update] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn get(&self, item: usize) -> (&Key, &Account, Kind) {
        match &self[item] {
            Update::Put(key, account) => (key, account, Kind::Account),
            Update::Delete(key) => (key, &NOTHING, Kind::Tombstone),
        }
    }
}

impl Items for [(Key, Account, Kind)] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn get(&self, item: usize) -> (&Key, &Account, Kind) {
        let (key, account, kind) = &self[item];
        (key, account, *kind)
    }
}

/// What is left of an account that is deleted.
const NOTHING: Account = Account {
    balance: 0,
    nonce: 0,
    flags: crate::account::Flags::NONE,
    code: 0,
    data: [0; 24],
};

impl GeometricLedger {
    /// Sets accounts, all or none. Of several updates of one key the last counts. What balances rise
    /// by is minted, what they fall by is burned.
    ///
    /// When it returns, the batch is as durable as [`Options::durability`](crate::Options) says, and
    /// every reader sees it.
    ///
    /// # Errors
    /// [`Error::Item`] or [`Error::Io`]: nothing was done. [`Error::Stopped`]: whether the batch was
    /// done is known after opening the ledger again.
    pub fn update_batch(&self, updates: &[(Key, Account)]) -> Result<Batch, Error> {
        self.core.commit(updates)
    }

    /// Sets and deletes accounts, all or none. Otherwise as [`GeometricLedger::update_batch`].
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn apply(&self, updates: &[Update]) -> Result<Batch, Error> {
        self.core.commit(updates)
    }
}

impl Writer {
    pub fn new(block: &Superblock) -> Self {
        Writer {
            sequence: block.sequence,
            time: block.time,
            totals: block.totals(),
            epoch: block.epoch,
            checkpoint_position: block.position,
            hand: (0, 0),
            body: Vec::new(),
        }
    }

    pub fn advance(&mut self, header: &Header, totals: Totals) {
        (self.sequence, self.time, self.totals) = (header.sequence, header.time, totals);
    }

    pub fn batch(&self, header: &Header, digest: [u8; 32]) -> Batch {
        Batch {
            sequence: header.sequence,
            time: header.time,
            digest,
            updates: header.items.into(),
            totals: self.totals,
            position: header.position,
        }
    }
}

impl Core {
    pub fn commit<I: Items + ?Sized>(&self, items: &I) -> Result<Batch, Error> {
        let start = Instant::now();
        let order = self.order(items);
        let writer = self.write()?;
        let (batch, end) = self.append(writer, items, &order, Rule::Mint)?;
        self.wait(batch.sequence, end)?;
        telemetry::committed(&batch, start.elapsed());
        Ok(batch)
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
            let writer = self.writer.lock().unwrap();
            self.wal.check()?;
            let since = self.wal.appended() - writer.checkpoint_position;
            let limit = self.options.checkpoint_bytes;
            if since > limit {
                self.signal.raise();
            }
            // A checkpoint that cannot keep up is waited for, gently at first.
            if since < 2 * limit {
                if since > limit + limit / 2 {
                    std::thread::sleep(Duration::from_micros(500));
                }
                return Ok(writer);
            }
            drop(writer);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Makes a batch durable and visible.
    pub fn wait(&self, sequence: u64, end: u64) -> Result<(), Error> {
        if self.durability() == Durability::Sync {
            self.wal.sync_to(end)?;
        }
        self.visible.fetch_max(sequence, Ordering::AcqRel);
        Ok(())
    }

    /// Appends a batch and applies it to memory. Returns it and the position after it.
    pub fn append<I: Items + ?Sized>(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        items: &I,
        order: &Order,
        rule: Rule,
    ) -> Result<(Batch, u64), Error> {
        let mut pieces = self.look_up(items, order)?;
        let totals = sum_up(writer.totals, &pieces, rule)?;
        self.allot(&mut pieces)?;
        let mut body = std::mem::take(&mut writer.body);
        let (updates, digest) = assemble(&pieces, totals, &mut body);
        let mut header = Header {
            kind: RecordKind::Batch,
            epoch: writer.epoch,
            attempt: 0,
            items: pieces.iter().map(|piece| piece.changes.len() as u32).sum(),
            body: body.len() as u64,
            updates: updates as u64,
            position: self
                .wal
                .place((HEADER + body.len().next_multiple_of(8)) as u64)?,
            sequence: writer.sequence + 1,
            durable: 0,
            time: now().max(writer.time),
            tag: [0; 16],
        };
        if let Rule::Follow(_, then, theirs) = rule {
            header.time = then;
            if theirs != digest {
                let what = format!("batch {} differs from the one followed", header.sequence);
                return Err(Error::Follow(what));
            }
        }
        self.wal.append(&mut header, &self.seal, &mut body)?;
        writer.body = body;
        // From here on the batch is in the log: what fails now is for recovery to mend.
        let applied = self.apply_all(items, &mut pieces, &header).and_then(|()| {
            writer.advance(&header, totals);
            let batch = writer.batch(&header, digest);
            self.batches.push(&batch, header.epoch)?;
            Ok(batch)
        });
        let batch = applied.inspect_err(|error| self.wal.stop(&error.to_string()))?;
        self.put_back(pieces);
        if self.durability() != Durability::Sync {
            self.visible.fetch_max(batch.sequence, Ordering::AcqRel);
        }
        Ok((batch, header.end()))
    }

    /// Gives new accounts their slots, in the order of the batch, having made room for them.
    fn allot(&self, pieces: &mut [Piece]) -> Result<(), Error> {
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
            added[change.hash.shard(count)] += 1;
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
                let next = &mut next[change.hash.shard(count)];
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
        let mut ahead = changes.chunks(AHEAD);
        let mut prefetch = || {
            for change in ahead.next().unwrap_or_default() {
                self.shard(change.hash).prefetch(change.number);
            }
        };
        prefetch();
        for changes in changes.chunks(AHEAD) {
            // What was looked up a thousand items ago has left the nearest cache again.
            prefetch();
            for change in changes.iter().filter(|change| !change.added) {
                let words = change.seal(items, header, &self.seal);
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
            added[change.hash.shard(self.shards.len())].push(change);
            count += 1;
        }
        let add = |(shard, changes): (&crate::shard::Shard, &Vec<&Change>)| {
            if changes.is_empty() {
                return Ok(());
            }
            shard.reserve(changes.len() as u64)?;
            let mut state = shard.lock();
            for (at, change) in changes.iter().enumerate() {
                if let Some(ahead) = changes.get(at + AHEAD) {
                    shard.prefetch_line(ahead.hash.tag());
                }
                if change.number != state.slots {
                    let place = format!("shard {}", shard.number);
                    return Err(Error::damaged(
                        "the write-ahead log",
                        place,
                        "slots are missing",
                    ));
                }
                let words = change.seal(items, header, &self.seal);
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
    fn seal<I: Items + ?Sized>(&self, items: &I, header: &Header, seal: &Seal) -> Words {
        let (key, account, kind) = items.get(self.given as usize);
        let mut slot = Slot::new(key, &account.to_words(), kind);
        slot.commit(header.sequence, self.undo, header.epoch, self.item);
        slot.seal(seal)
    }
}

/// The totals after a batch.
fn sum_up(mut totals: Totals, pieces: &[Piece], rule: Rule) -> Result<Totals, Error> {
    let overflow = Error::Item {
        item: 0,
        reason: Refusal::TotalOverflow,
    };
    for piece in pieces {
        totals.accounts = totals.accounts.wrapping_add_signed(piece.created);
        if matches!(rule, Rule::Mint) {
            // Of each at most as much as a balance holds, so that their difference does as well.
            let add = |total: u128, more| {
                total
                    .checked_add(more)
                    .filter(|sum| *sum <= i128::MAX as u128)
            };
            let sums = add(totals.minted, piece.minted).zip(add(totals.burned, piece.burned));
            match sums {
                Some(sums) => (totals.minted, totals.burned) = sums,
                None => return Err(overflow),
            }
        }
    }
    if let Rule::Follow(theirs, ..) = rule {
        (totals.minted, totals.burned) = (theirs.minted, theirs.burned);
        if totals != theirs {
            let what = "the number of accounts differs from the ledger followed";
            return Err(Error::Follow(what.into()));
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

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
