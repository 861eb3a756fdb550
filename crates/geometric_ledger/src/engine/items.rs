//! The items of a batch: how they are given, and what becomes of them on their way.

use crate::account::{Account, Flags, Key};
use crate::storage::changes::{Bytes, complete_undo};
use crate::storage::layout::KeyHash;
use crate::storage::record::Totals;
use crate::storage::slot::Kind;

/// What a batch does to one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Sets the account, creating it if it is not there.
    Put(Key, Account),
    /// Deletes the account; its balance is burned. Nothing happens if it is not there.
    Delete(Key),
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
    /// As `Transfer`, at this time; balances and what is pending together stay as they are.
    Record(i64),
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
    flags: Flags::NONE,
    code: 0,
    data: [0; 24],
};

/// A piece of a batch, looked up and encoded.
#[derive(Default)]
pub(crate) struct Piece {
    pub changes: Vec<Change>,
    pub updates: Bytes,
    pub undos: Bytes,
    /// How many of the changes add a slot.
    pub added: usize,
    pub minted: u128,
    pub burned: u128,
    /// Accounts there are more than before.
    pub created: i64,
}

impl Piece {
    /// Counts what a balance rises or falls by; `None` if that is too much to count.
    pub fn sum(&mut self, now: i128, before: i128) -> Option<()> {
        let sum = match now > before {
            true => &mut self.minted,
            false => &mut self.burned,
        };
        *sum = sum.checked_add(now.abs_diff(before))?;
        Some(())
    }

    /// Numbers the changes from `item` on, and makes the places of their undos positions in the log.
    pub fn number(&mut self, item: u32, undos: u64) {
        for (change, item) in self.changes.iter_mut().zip(item..) {
            change.undo += undos;
            change.item = item;
        }
    }

    /// Completes the undos of the changes from `first` on.
    pub fn complete_undos<I: Items + ?Sized>(&mut self, items: &I, first: usize) {
        for change in &self.changes[first..] {
            let (key, ..) = items.get(change.given as usize);
            complete_undo(&mut self.undos[change.undo as usize..], key);
        }
    }
}
