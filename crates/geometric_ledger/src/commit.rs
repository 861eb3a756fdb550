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
use crate::record::{HEADER, Header, RecordKind, TOTALS, Totals, record_len};
use crate::region::PAGE;
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
    /// Where receipts are next looked at, and how many there are when that is next done.
    pub receipts_hand: u64,
    pub receipts_due: u64,
    /// Items until memory is next looked at.
    unchecked: u64,
    body: Vec<u8>,
}

/// What a batch does to the totals, and when it is.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// What balances rise by is minted, what they fall by is burned.
    Mint,
    /// As `Mint`, whatever the accounts' flags say.
    Import,
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
    /// The rules of transfers hold: a balance may be below zero only with [`Flags::OVERDRAFT`], and of an
    /// account with [`Flags::FROZEN`] only the flags may change, which is how it is released.
    ///
    /// When it returns, the batch is as durable as [`Options::durability`](crate::Options) says, and
    /// every reader sees it.
    ///
    /// # Errors
    /// [`Error::Item`] or [`Error::Io`]: nothing was done. [`Error::Stopped`]: whether the batch was
    /// done is known after opening the ledger again.
    pub fn update_batch(&self, updates: &[(Key, Account)]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Mint)
    }

    /// Sets and deletes accounts, all or none. Otherwise as [`GeometricLedger::update_batch`]; a frozen
    /// account cannot be deleted.
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn apply(&self, updates: &[Update]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Mint)
    }

    /// As [`GeometricLedger::apply`], for accounts that come from elsewhere: they are set as they are,
    /// frozen or below zero, over whatever was there. Balances keep within
    /// [`Account::MAX_BALANCE`](crate::Account::MAX_BALANCE).
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn import(&self, updates: &[Update]) -> Result<Batch, Error> {
        self.core.commit(updates, Rule::Import)
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
            receipts_hand: 0,
            receipts_due: 0,
            unchecked: 0,
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
    pub fn commit<I: Items + ?Sized>(&self, items: &I, rule: Rule) -> Result<Batch, Error> {
        let start = Instant::now();
        let order = self.order(items);
        let writer = self.write()?;
        let (batch, end) = self.append(writer, items, &order, rule)?;
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
            let mut writer = self.writer.lock().unwrap();
            self.wal.check()?;
            let since = self.wal.appended() - writer.checkpoint_position;
            let limit = self.options.checkpoint_bytes;
            let full = self.is_memory_full(&mut writer);
            if since > limit || full {
                self.signal.raise();
            }
            // A checkpoint that cannot keep up is waited for, gently at first.
            if since < 2 * limit && !full {
                if since > limit + limit / 2 {
                    std::thread::sleep(Duration::from_micros(500));
                }
                return Ok(writer);
            }
            drop(writer);
            std::thread::sleep(Duration::from_millis(2));
        }
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

    /// The header of a record that comes next, with a body of so many bytes.
    pub fn header(&self, writer: &Writer, kind: RecordKind, body: u64) -> Result<Header, Error> {
        let encrypted = self.seal.encrypts();
        Ok(Header {
            kind,
            epoch: writer.epoch,
            attempt: 0,
            items: 0,
            encrypted,
            body,
            updates: 0,
            position: self.wal.place(record_len(body, encrypted))?,
            sequence: writer.sequence,
            durable: 0,
            time: now().max(writer.time),
            tag: [0; 16],
        })
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
        self.reclaim_receipts(&mut writer)?;
        let mut pieces = self.look_up(items, order, rule)?;
        let totals = sum_up(writer.totals, &pieces, rule)?;
        self.allot(&mut pieces)?;
        let mut body = std::mem::take(&mut writer.body);
        let (updates, digest) = assemble(&pieces, totals, &mut body);
        let mut header = self.header(&writer, RecordKind::Batch, body.len() as u64)?;
        header.sequence += 1;
        header.updates = updates as u64;
        header.items = pieces.iter().map(|piece| piece.changes.len() as u32).sum();
        writer.unchecked = writer.unchecked.saturating_sub(header.items.into());
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
        writer.advance(&header, totals);
        let batch = writer.batch(&header, digest);
        // A reader who finds a slot of the batch looks for the batch's row.
        let pushed = self.batches.push(&batch, header.epoch);
        pushed
            .and_then(|()| self.apply_all(items, &mut pieces, &header))
            .inspect_err(|error| self.wal.stop(&error.to_string()))?;
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
                    let name = shard.identity.slots_name();
                    return Err(Error::damaged(&name, "its end", "slots are missing"));
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
        Rule::Transfer => {}
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

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
