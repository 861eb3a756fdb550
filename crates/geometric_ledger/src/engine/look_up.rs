//! The first half of a batch's path: which items count, where their accounts are, and what the record
//! says of them. In pieces, on as many processors as there are; nothing is changed yet.

use crate::account::{Account, Flags, Key, WORDS};
use crate::engine::items::{Change, Items, Piece, Rule};
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::{Error, Refusal};
use crate::storage::changes::{UNKNOWN, put_undo, put_update};
use crate::storage::index::LINE;
use crate::storage::layout::KeyHash;
use crate::storage::shard::{Found, Guess};
use crate::storage::slot::Kind;
use crate::workers::{self, PIECE};
use rayon::prelude::*;
use std::sync::atomic::AtomicU64;

/// The items of a batch that count, and the hashes of all. Known before anything is looked up.
pub(crate) struct Order {
    hashes: Vec<KeyHash>,
    /// The last item of each key.
    items: Vec<u32>,
    /// What was found of the first items already, while nobody else could write.
    found: Vec<(bool, Found)>,
}

impl Order {
    /// Of items that are all of different keys, the first ones of which were found already.
    pub fn known(hashes: Vec<KeyHash>, found: Vec<(bool, Found)>) -> Self {
        Order {
            items: (0..hashes.len() as u32).collect(),
            hashes,
            found,
        }
    }
}

/// How many items ahead memory is asked for.
pub(crate) const PREFETCH_DISTANCE: usize = 32;

/// Look-ups one after another, each of whose memory is asked for some time before it is needed: for so
/// many at once, so that the processor finds the pages of several at a time.
pub(crate) struct Guesses<'a> {
    lines: [Option<&'a [AtomicU64; LINE]>; PREFETCH_DISTANCE],
    slots: [Option<Guess<'a>>; 2 * PREFETCH_DISTANCE],
}

impl Default for Guesses<'_> {
    fn default() -> Self {
        Guesses {
            lines: [None; PREFETCH_DISTANCE],
            slots: [None; 2 * PREFETCH_DISTANCE],
        }
    }
}

impl<'a> Guesses<'a> {
    /// The slot that the hash at `at` is probably in; to be asked for 0, 1, 2 and so on.
    #[inline]
    pub fn next(
        &mut self,
        core: &'a Core,
        at: usize,
        hash: impl Fn(usize) -> Option<KeyHash>,
    ) -> Option<Guess<'a>> {
        if at == 0 {
            self.prefetch(core, 0, &hash);
            self.guess(core, 0, &hash);
            self.prefetch(core, PREFETCH_DISTANCE, &hash);
        }
        if at.is_multiple_of(PREFETCH_DISTANCE) {
            self.guess(core, at + PREFETCH_DISTANCE, &hash);
            self.prefetch(core, at + 2 * PREFETCH_DISTANCE, &hash);
        }
        self.slots[at % (2 * PREFETCH_DISTANCE)]
    }

    fn prefetch(&mut self, core: &'a Core, from: usize, hash: impl Fn(usize) -> Option<KeyHash>) {
        for (line, hash) in self.lines.iter_mut().zip((from..).map_while(hash)) {
            *line = core.shard(hash).prefetch_line(hash.tag());
        }
    }

    fn guess(&mut self, core: &'a Core, from: usize, hash: impl Fn(usize) -> Option<KeyHash>) {
        let slots = self.slots[from % (2 * PREFETCH_DISTANCE)..].iter_mut();
        for ((slot, line), hash) in slots.zip(&self.lines).zip((from..).map_while(hash)) {
            *slot = line.and_then(|line| core.shard(hash).guess(line, hash.tag()));
        }
    }
}

/// Pieces whose memory is kept for the next batch.
const SPARE: usize = 64;

impl Core {
    /// Which items of a batch count.
    pub fn order<I: Items + ?Sized>(&self, items: &I) -> Order {
        let hash = |item| {
            let (key, _, kind) = items.get(item);
            self.hash_of(key, kind)
        };
        let hashes: Vec<KeyHash> = match workers::for_items(items.len()) {
            Some(pool) => pool.install(|| {
                let numbers = (0..items.len()).into_par_iter();
                numbers.with_min_len(PIECE).map(hash).collect()
            }),
            None => (0..items.len()).map(hash).collect(),
        };
        Order {
            items: last_of_each(items, &hashes),
            hashes,
            found: Vec::new(),
        }
    }

    /// Finds the slot of each item, and encodes it.
    pub fn look_up<I: Items + ?Sized>(
        &self,
        items: &I,
        order: &Order,
        rule: Rule,
    ) -> Result<Vec<Piece>, Error> {
        let piece = |chunk: &[u32]| self.look_up_piece(items, order, chunk, rule);
        match workers::for_items(order.items.len()) {
            Some(pool) => pool.install(|| order.items.par_chunks(PIECE).map(piece).collect()),
            None => Ok(vec![piece(&order.items)?]),
        }
    }

    /// Keeps the memory of pieces for the next batch: to ask the kernel for it anew costs more than
    /// what goes into it.
    pub fn recycle(&self, pieces: Vec<Piece>) {
        let mut spare = self.spare.lock().unwrap();
        let room = SPARE - spare.len();
        let usual = |piece: &Piece| piece.changes.capacity() <= 2 * PIECE;
        for mut piece in pieces.into_iter().filter(usual).take(room) {
            piece.changes.clear();
            piece.updates.clear();
            piece.undos.clear();
            spare.push(Piece {
                changes: piece.changes,
                updates: piece.updates,
                undos: piece.undos,
                ..Piece::default()
            });
        }
    }

    fn look_up_piece<I: Items + ?Sized>(
        &self,
        items: &I,
        order: &Order,
        chunk: &[u32],
        rule: Rule,
    ) -> Result<Piece, Error> {
        let hashes = &order.hashes;
        let mut probes = [0; telemetry::DEPTHS];
        let mut piece = self.spare.lock().unwrap().pop().unwrap_or_default();
        piece.changes.reserve(chunk.len());
        let mut guesses = Guesses::default();
        let hash_at = |at: usize| chunk.get(at).map(|item| hashes[*item as usize]);
        let mut found = [Found::default(); PREFETCH_DISTANCE];
        let mut there = [false; PREFETCH_DISTANCE];
        // Each step for some items before the next one: a processor waits when it reads words of one
        // length that it has just written in another.
        for (turn, burst) in chunk.chunks(PREFETCH_DISTANCE).enumerate() {
            for (at, item) in burst.iter().enumerate() {
                if let Some(known) = order.found.get(*item as usize) {
                    (there[at], found[at]) = *known;
                    continue;
                }
                let guess = guesses.next(self, turn * PREFETCH_DISTANCE + at, hash_at);
                let (key, ..) = items.get(*item as usize);
                let hash = hashes[*item as usize];
                let shard = self.shard(hash);
                let looks;
                (there[at], looks) =
                    shard.find_at(guess, hash, key, &self.encryption, &mut found[at])?;
                probes[(looks as usize).min(probes.len()) - 1] += 1;
            }
            let first = piece.changes.len();
            for (item, (found, there)) in burst.iter().zip(found.iter().zip(there)) {
                let found = there.then_some(found);
                let (_, account, kind) = items.get(*item as usize);
                check(account, kind, found, rule).map_err(|refused| {
                    let key = *items.get(*item as usize).0;
                    refused.error(*item as usize, key, account.balance)
                })?;
                self.encode(&mut piece, items, *item, hashes[*item as usize], found)?;
            }
            piece.complete_undos(items, first);
        }
        telemetry::probed(&probes);
        Ok(piece)
    }

    /// Adds what becomes of an item to a piece.
    #[inline]
    fn encode<I: Items + ?Sized>(
        &self,
        piece: &mut Piece,
        items: &I,
        item: u32,
        hash: KeyHash,
        found: Option<&Found>,
    ) -> Result<(), Error> {
        let (key, account, kind) = items.get(item as usize);
        let was_there = found.is_some_and(|found| found.slot.kind() == Kind::Account);
        if kind == Kind::Tombstone && !was_there {
            return Ok(());
        }
        if is_account(kind) {
            let old = found.map_or(0, |found| balance(found.slot.words()));
            let overflow = || Error::Item {
                item: item as usize,
                reason: Refusal::TotalOverflow,
            };
            piece.sum(account.balance, old).ok_or_else(overflow)?;
        }
        piece.created += i64::from(kind == Kind::Account && !was_there);
        piece.created -= i64::from(kind == Kind::Tombstone);
        let number = found.map_or(UNKNOWN, |found| found.number);
        piece.added += usize::from(found.is_none());
        piece.changes.push(Change {
            hash,
            given: item,
            item: 0,
            number,
            added: found.is_none(),
            undo: piece.undos.len() as u64,
        });
        let words = account.to_words();
        let shard = self.layout.shard(hash) as u16;
        let before = found.map(|found| &found.slot);
        piece
            .updates
            .push(|bytes| put_update(bytes, key, kind, &words));
        piece
            .undos
            .push(|bytes| put_undo(bytes, shard, number, before, &words));
        Ok(())
    }
}

/// Why an account may not become another.
enum Refused {
    Overflow,
    Frozen,
    Overdrawn,
}

impl Refused {
    #[cold]
    fn error(self, item: usize, key: Key, balance: i128) -> Error {
        let reason = match self {
            Refused::Overflow => Refusal::Overflow(key),
            Refused::Frozen => Refusal::Frozen(key),
            Refused::Overdrawn => Refusal::Overdrawn { key, balance },
        };
        Error::Item { item, reason }
    }
}

/// The rules that hold for every account, whichever call writes it; those of its flags do not for an
/// import. A ledger that follows another takes what that one has accepted.
#[inline]
fn check(account: &Account, kind: Kind, found: Option<&Found>, rule: Rule) -> Result<(), Refused> {
    if !is_account(kind) || matches!(rule, Rule::Follow(..)) {
        return Ok(());
    }
    if account.balance.unsigned_abs() > Account::MAX_BALANCE as u128 {
        return Err(Refused::Overflow);
    }
    // A transfer has seen to it that payers may pay; who is below zero may be paid.
    if matches!(rule, Rule::Import | Rule::Transfer | Rule::Record(_)) {
        return Ok(());
    }
    if account.balance < 0 && !account.flags.contains(Flags::OVERDRAFT) {
        return Err(Refused::Overdrawn);
    }
    let before = found
        .filter(|found| found.slot.kind() == Kind::Account)
        .map(|found| found.slot.account())
        .filter(|before| before.flags.contains(Flags::FROZEN));
    let allowed = |before: Account| {
        let flags = account.flags;
        kind == Kind::Account && *account == Account { flags, ..before }
    };
    match before.is_none_or(allowed) {
        true => Ok(()),
        false => Err(Refused::Frozen),
    }
}

fn is_account(kind: Kind) -> bool {
    matches!(kind, Kind::Account | Kind::Tombstone)
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
