//! The accounts of a batch of transfers: which there are, and what they hold. Which there are is found
//! out, and their memory asked for, before anybody has to wait for it.

use crate::account::{Account, Key};
use crate::engine::look_up::{Guesses, Order};
use crate::engine::state::Core;
use crate::error::Error;
use crate::storage::layout::KeyHash;
use crate::storage::shard::Found;
use crate::storage::slot::Kind;
use crate::workers::{self, PIECE};
use rayon::prelude::*;

/// Each account once, in the order in which they come first.
pub struct Parties {
    pub keys: Vec<Key>,
    hashes: Vec<KeyHash>,
    /// Payer and payee of each transfer, by their numbers among the keys.
    pub pairs: Vec<(u32, u32)>,
}

impl Parties {
    /// Those of `count` transfers, of which `pair` gives payer and payee.
    pub fn new<'k>(
        core: &Core,
        count: usize,
        pair: impl Fn(usize) -> (&'k Key, &'k Key) + Sync,
    ) -> Self {
        let hash = |at: usize| {
            let (debit, credit) = pair(at);
            (core.hash(debit), core.hash(credit))
        };
        let hashes: Vec<_> = match workers::for_items(count) {
            Some(pool) => pool.install(|| {
                let transfers = (0..count).into_par_iter();
                transfers.with_min_len(PIECE).map(hash).collect()
            }),
            None => (0..count).map(hash).collect(),
        };
        let mut parties = Parties {
            keys: Vec::with_capacity(2 * count),
            hashes: Vec::with_capacity(2 * count),
            pairs: Vec::with_capacity(count),
        };
        let mut table = vec![NONE; (4 * count).next_power_of_two().max(2)];
        for (at, (debit_hash, credit_hash)) in hashes.into_iter().enumerate() {
            let (debit, credit) = pair(at);
            let debit = parties.number(&mut table, debit, debit_hash);
            let credit = parties.number(&mut table, credit, credit_hash);
            parties.pairs.push((debit, credit));
        }
        parties
    }

    /// The number of a key, which may be a new one.
    fn number(&mut self, table: &mut [u32], key: &Key, hash: KeyHash) -> u32 {
        // As in `look_up`, other bits choose here than in the index.
        let mut at = (hash.whole() >> 20) as usize & (table.len() - 1);
        while table[at] != NONE {
            let number = table[at];
            if self.hashes[number as usize] == hash && self.keys[number as usize] == *key {
                return number;
            }
            at = (at + 1) & (table.len() - 1);
        }
        table[at] = self.keys.len() as u32;
        self.keys.push(*key);
        self.hashes.push(hash);
        table[at]
    }

    /// How they are put into a batch, of which they are the first items: with what was found of them, and
    /// with the hashes of other items after them.
    pub fn order(self, found: Vec<(bool, Found)>, others: &[KeyHash]) -> Order {
        let mut hashes = self.hashes;
        hashes.extend(others);
        Order::known(hashes, found)
    }
}

const NONE: u32 = u32::MAX;

impl Core {
    /// Asks for the memory that look-ups will read, without any lock.
    pub fn warm(&self, hashes: &[KeyHash]) {
        let warm = |hashes: &[KeyHash]| {
            let mut guesses = Guesses::default();
            for at in 0..hashes.len() {
                std::hint::black_box(guesses.next(self, at, |at| hashes.get(at).copied()));
            }
        };
        match workers::for_items(hashes.len()) {
            Some(pool) => pool.install(|| hashes.par_chunks(PIECE).for_each(warm)),
            None => warm(hashes),
        }
    }

    /// As [`Core::warm`], for accounts.
    pub fn warm_parties(&self, parties: &Parties) {
        self.warm(&parties.hashes);
    }

    /// The accounts, and the slots that they were found in. Nobody may write meanwhile.
    pub fn find_parties(&self, parties: &Parties) -> Result<Vec<(bool, Found)>, Error> {
        let piece = |(keys, hashes): (&[Key], &[KeyHash])| {
            let mut guesses = Guesses::default();
            let mut all = Vec::with_capacity(keys.len());
            for (at, key) in keys.iter().enumerate() {
                let guess = guesses.next(self, at, |at| hashes.get(at).copied());
                let mut found = Found::default();
                let shard = self.shard(hashes[at]);
                let encryption = &self.encryption;
                let (there, _) = shard.find_at(guess, hashes[at], key, encryption, &mut found)?;
                all.push((there, found));
            }
            Ok(all)
        };
        match workers::for_items(parties.keys.len()) {
            Some(pool) => pool.install(|| {
                let keys = parties.keys.par_chunks(PIECE);
                let pieces = keys.zip(parties.hashes.par_chunks(PIECE)).map(piece);
                let pieces: Result<Vec<Vec<_>>, Error> = pieces.collect();
                Ok(pieces?.into_iter().flatten().collect())
            }),
            None => piece((&parties.keys, &parties.hashes)),
        }
    }
}

/// The account that was found, if it is one.
pub fn account_of((there, found): &(bool, Found)) -> Option<Account> {
    let account = *there && found.slot.kind() == Kind::Account;
    account.then(|| found.slot.account())
}
