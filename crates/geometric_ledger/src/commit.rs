//! The one path of a batch: look up → encode → append → apply → sync.
//!
//! Everything up to *apply* happens under the writer's lock, on both sides of the look-up in
//! parallel; the sync does not, so the next batch is made while this one is written, and batches
//! that wait share a sync. Memory has a batch before the disk has, but readers do not see it before
//! (see `history`), and no data file gets it before (see `checkpoint`).

use crate::account::{Account, Key, WORDS};
use crate::batches::Batch;
use crate::error::{Error, Refusal};
use crate::ledger::{Core, GeometricLedger};
use crate::options::Durability;
use crate::record::{
    Before, HEADER, Header, Reclaimed, RecordKind, TOTALS, Totals, UNKNOWN, Undo, push_undo,
    push_update,
};
use crate::seal::Seal;
use crate::shard::KeyHash;
use crate::slot::{Kind, Slot, Words};
use crate::superblock::Superblock;
use crate::telemetry;
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
    /// What it becomes.
    pub slot: Slot,
    pub number: u64,
    /// The slot is new.
    pub added: bool,
    /// The position of the undo.
    pub undo: u64,
    pub item: u32,
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

/// A piece of a batch, looked up and encoded.
#[derive(Default)]
struct Piece {
    changes: Vec<Change>,
    updates: Vec<u8>,
    undos: Vec<u8>,
    minted: u128,
    burned: u128,
    created: i64,
}

/// Items per piece, of batches large enough to be worth several threads.
const PIECE: usize = 1_024;
/// How many items ahead memory is asked for.
const AHEAD: usize = 16;

/// Look-ups one after another, each of whose memory is asked for some time before it is needed.
#[derive(Default)]
pub(crate) struct Guesses {
    ring: [Option<u64>; AHEAD],
}

impl Guesses {
    /// The slot that the hash at `at` is probably in; to be asked for 0, 1, 2 and so on.
    #[inline]
    pub fn next(
        &mut self,
        core: &Core,
        at: usize,
        hash: impl Fn(usize) -> Option<KeyHash>,
    ) -> Option<u64> {
        if at == 0 {
            for hash in (0..2 * AHEAD).map_while(&hash) {
                core.shard(hash).prefetch_bucket(hash.tag());
            }
            for (hash, guess) in (0..AHEAD).map_while(&hash).zip(&mut self.ring) {
                *guess = core.shard(hash).guess(hash.tag());
            }
        }
        let guess = self.ring[at % AHEAD];
        if let Some(hash) = hash(at + 2 * AHEAD) {
            core.shard(hash).prefetch_bucket(hash.tag());
        }
        if let Some(hash) = hash(at + AHEAD) {
            self.ring[at % AHEAD] = core.shard(hash).guess(hash.tag());
        }
        guess
    }
}

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
        let writer = self.write()?;
        let (batch, end) = self.append(writer, items, Rule::Mint)?;
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
        rule: Rule,
    ) -> Result<(Batch, u64), Error> {
        let mut pieces = self.look_up(items)?;
        let mut totals = writer.totals;
        for piece in pieces.iter().filter(|_| matches!(rule, Rule::Mint)) {
            let add = |total: u128, more| {
                total
                    .checked_add(more)
                    .filter(|sum| *sum <= i128::MAX as u128)
            };
            let minted = add(totals.minted, piece.minted);
            let burned = add(totals.burned, piece.burned);
            (totals.minted, totals.burned) = minted.zip(burned).ok_or(Error::Item {
                item: 0,
                reason: Refusal::TotalOverflow,
            })?;
        }
        totals.accounts = pieces.iter().fold(totals.accounts, |sum, piece| {
            sum.wrapping_add_signed(piece.created)
        });
        let mut time = now().max(writer.time);
        if let Rule::Follow(theirs, then, _) = rule {
            (totals.minted, totals.burned, time) = (theirs.minted, theirs.burned, then);
            if totals != theirs {
                return Err(Error::Follow(
                    "the number of accounts differs from the ledger followed".into(),
                ));
            }
        }
        self.allot(&mut pieces)?;

        let len = |bytes: fn(&Piece) -> &Vec<u8>| {
            pieces.iter().map(|piece| bytes(piece).len()).sum::<usize>()
        };
        let (updates, undos) = (len(|piece| &piece.updates), len(|piece| &piece.undos));
        let body = TOTALS + updates + undos;
        let position = self.wal.place((HEADER + body.next_multiple_of(8)) as u64)?;
        let mut header = Header {
            kind: RecordKind::Batch,
            epoch: writer.epoch,
            attempt: 0,
            items: pieces
                .iter()
                .map(|piece| piece.changes.len())
                .sum::<usize>() as u32,
            body: body as u64,
            updates: updates as u64,
            position,
            sequence: writer.sequence + 1,
            durable: 0,
            time,
            tag: [0; 16],
        };
        let digest = {
            let bytes = &mut writer.body;
            bytes.clear();
            bytes.resize(TOTALS, 0);
            pieces
                .iter()
                .for_each(|piece| bytes.extend_from_slice(&piece.updates));
            let digest = *blake3::hash(&bytes[TOTALS..]).as_bytes();
            pieces
                .iter()
                .for_each(|piece| bytes.extend_from_slice(&piece.undos));
            bytes[..TOTALS].copy_from_slice(&totals.encode(&digest));
            digest
        };
        if let Rule::Follow(_, _, theirs) = rule
            && theirs != digest
        {
            return Err(Error::Follow(
                "a batch differs from the ledger followed".into(),
            ));
        }
        let (mut item, mut undo) = (0, position + (HEADER + TOTALS + updates) as u64);
        for piece in &mut pieces {
            for change in &mut piece.changes {
                change.undo += undo;
                change.item = item;
                item += 1;
            }
            undo += piece.undos.len() as u64;
        }
        let mut bytes = std::mem::take(&mut writer.body);
        let appended = self.wal.append(&mut header, &self.seal, &mut bytes);
        writer.body = bytes;
        appended?;
        // From here on the batch is in the log: what fails now is for recovery to mend.
        let applied = self.apply_all(&pieces, &header).and_then(|()| {
            writer.advance(&header, totals);
            let batch = writer.batch(&header, digest);
            self.batches.push(&batch, header.epoch)?;
            Ok(batch)
        });
        let batch = applied.inspect_err(|error| self.wal.stop(&error.to_string()))?;
        if self.durability() != Durability::Sync {
            self.visible.fetch_max(batch.sequence, Ordering::AcqRel);
        }
        Ok((batch, header.end()))
    }

    /// Finds the slot of each item, and encodes it.
    fn look_up<I: Items + ?Sized>(&self, items: &I) -> Result<Vec<Piece>, Error> {
        let hashes: Vec<KeyHash> = match items.len() > PIECE {
            true => (0..items.len())
                .into_par_iter()
                .with_min_len(PIECE)
                .map(|item| self.hash(items.get(item).0))
                .collect(),
            false => (0..items.len())
                .map(|item| self.hash(items.get(item).0))
                .collect(),
        };
        let order = last_of_each(items, &hashes);
        let piece = |order: &[u32]| self.look_up_piece(items, &hashes, order);
        match order.len() > PIECE {
            true => order.par_chunks(PIECE).map(piece).collect(),
            false => Ok(vec![piece(&order)?]),
        }
    }

    fn look_up_piece<I: Items + ?Sized>(
        &self,
        items: &I,
        hashes: &[KeyHash],
        order: &[u32],
    ) -> Result<Piece, Error> {
        let mut probes = [0; telemetry::DEPTHS];
        let mut piece = Piece {
            changes: Vec::with_capacity(order.len()),
            updates: Vec::with_capacity(order.len() * 64),
            undos: Vec::with_capacity(order.len() * 64),
            ..Piece::default()
        };
        let mut guesses = Guesses::default();
        for (at, item) in order.iter().enumerate() {
            let hash_at = |at: usize| order.get(at).map(|item| hashes[*item as usize]);
            let guess = guesses.next(self, at, hash_at);
            let (key, account, kind) = items.get(*item as usize);
            let hash = hashes[*item as usize];
            let shard = self.shard(hash);
            let (found, looks) = shard.find_at(guess, hash, key, &self.seal)?;
            probes[(looks as usize).min(probes.len()) - 1] += 1;
            let was_there = matches!(&found, Some(found) if found.slot.kind() == Kind::Account);
            if kind == Kind::Tombstone && !was_there {
                continue;
            }
            let before = found.as_ref().map(|found| Before {
                kind: found.slot.kind(),
                words: *found.slot.words(),
                sequence: found.slot.sequence(),
                undo: found.slot.undo(),
            });
            let old = before.as_ref().map_or(0, |before| balance(&before.words));
            let difference = account.balance.abs_diff(old);
            let sum = match account.balance > old {
                true => &mut piece.minted,
                false => &mut piece.burned,
            };
            *sum = sum.checked_add(difference).ok_or(Error::Item {
                item: *item as usize,
                reason: Refusal::TotalOverflow,
            })?;
            piece.created += i64::from(kind == Kind::Account && !was_there);
            piece.created -= i64::from(kind == Kind::Tombstone);
            let words = account.to_words();
            let number = found.as_ref().map_or(UNKNOWN, |found| found.number);
            let undo = Undo {
                shard: shard.number,
                slot: number,
                before,
            };
            piece.changes.push(Change {
                hash,
                slot: Slot::new(key, &words, kind),
                number,
                added: undo.before.is_none(),
                undo: piece.undos.len() as u64,
                item: 0,
            });
            push_update(&mut piece.updates, key, kind, &words);
            push_undo(&mut piece.undos, key, &undo, &words);
        }
        telemetry::probed(&probes);
        Ok(piece)
    }

    /// Gives new accounts their slots, in the order of the batch, having made room for them.
    fn allot(&self, pieces: &mut [Piece]) -> Result<(), Error> {
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

    fn apply_all(&self, pieces: &[Piece], header: &Header) -> Result<(), Error> {
        match pieces {
            [piece] => self.apply(&piece.changes, header.sequence, header.epoch),
            pieces => {
                pieces
                    .par_iter()
                    .for_each(|piece| self.put_all(&piece.changes, header.sequence, header.epoch));
                self.add_all(
                    pieces.iter().flat_map(|piece| &piece.changes),
                    header.sequence,
                    header.epoch,
                )
            }
        }
    }

    /// Writes a batch into memory.
    pub fn apply(&self, changes: &[Change], sequence: u64, epoch: u32) -> Result<(), Error> {
        self.put_all(changes, sequence, epoch);
        self.add_all(changes.iter(), sequence, epoch)
    }

    fn put_all(&self, changes: &[Change], sequence: u64, epoch: u32) {
        for (at, change) in changes.iter().enumerate() {
            // What was looked up a thousand items ago has left the nearest cache again.
            if let Some(ahead) = changes.get(at + AHEAD) {
                self.shard(ahead.hash).prefetch(ahead.number);
            }
            if !change.added {
                let words = change.seal(sequence, epoch, &self.seal);
                self.shard(change.hash).put(change.number, &words);
            }
        }
    }

    fn add_all<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        sequence: u64,
        epoch: u32,
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
                    shard.prefetch_bucket(ahead.hash.tag());
                }
                if change.number != state.slots {
                    let place = format!("shard {}", shard.number);
                    return Err(Error::damaged(
                        "the write-ahead log",
                        place,
                        "slots are missing",
                    ));
                }
                let words = change.seal(sequence, epoch, &self.seal);
                shard.add(&mut state, change.hash.tag(), &words)?;
            }
            Ok(())
        };
        match count > PIECE {
            true => self
                .shards
                .par_iter()
                .zip(&added)
                .with_min_len(4)
                .map(add)
                .collect(),
            false => self.shards.iter().zip(&added).try_for_each(add),
        }
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

impl Change {
    #[inline]
    fn seal(&self, sequence: u64, epoch: u32, seal: &Seal) -> Words {
        let mut slot = self.slot;
        slot.commit(sequence, self.undo, epoch, self.item);
        slot.seal(seal)
    }
}

fn balance(words: &[u64; WORDS]) -> i128 {
    (u128::from(words[1]) << 64 | u128::from(words[0])) as i128
}

/// The items that count: the last of each key, in order.
fn last_of_each<I: Items + ?Sized>(items: &I, hashes: &[KeyHash]) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let mask = (2 * hashes.len()).next_power_of_two().max(2) - 1;
    let mut table = vec![NONE; mask + 1];
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    let mut repeated = false;
    for (item, hash) in hashes.iter().enumerate() {
        // The low bits choose buckets; here the high ones do, so that neither gives the other away.
        let mut at = (hash.whole() >> 20) as usize & mask;
        loop {
            let other = table[at];
            if other == NONE {
                break;
            }
            if hashes[other as usize] == *hash && items.get(other as usize).0 == items.get(item).0 {
                order[other as usize] = NONE;
                repeated = true;
                break;
            }
            at = (at + 1) & mask;
        }
        table[at] = item as u32;
    }
    if repeated {
        order.retain(|item| *item != NONE);
    }
    order
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
