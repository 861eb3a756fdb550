//! Which shard something is in.
//!
//! Shards are in groups, one for each kind of thing, so that what one kind has a key of never leads to
//! another: accounts, receipts, parts of transfers, entries of statements, statements, pending transfers.

use crate::account::{Hex, Key};
use crate::storage::disk::DiskFile;
use crate::storage::index::{self, LINE};
use crate::storage::slot::{Kind, SLOT, Words, read_words};
use siphasher::sip::SipHasher13;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

/// What a shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    Accounts = 0,
    Receipts = 1,
    Transfers = 2,
    Entries = 3,
    Statements = 4,
    Pending = 5,
}

const GROUPS: [Group; 6] = [
    Group::Accounts,
    Group::Receipts,
    Group::Transfers,
    Group::Entries,
    Group::Statements,
    Group::Pending,
];

impl Group {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Account | Kind::Tombstone => Group::Accounts,
            Kind::Receipt => Group::Receipts,
            Kind::Transfer => Group::Transfers,
            Kind::Entry => Group::Entries,
            Kind::Statement => Group::Statements,
            Kind::Pending | Kind::Ended => Group::Pending,
        }
    }

    /// The byte that is hashed behind a key.
    fn salt(self) -> u8 {
        self as u8 + 2
    }
}

/// How many shards there are of each group. The numbers of accounts' shards and of those of transfers,
/// entries and statements are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    accounts: u16,
    records: u16,
}

impl Layout {
    pub fn new(accounts: u16) -> Self {
        let records = (accounts / 8).max(1);
        Layout { accounts, records }
    }

    fn group(&self, group: Group) -> Range<usize> {
        let (accounts, records) = (usize::from(self.accounts), usize::from(self.records));
        let start = |before: usize| accounts + 1 + before * records;
        match group {
            Group::Accounts => 0..accounts,
            Group::Receipts => accounts..start(0),
            Group::Transfers => start(0)..start(1),
            Group::Entries => start(1)..start(2),
            Group::Statements => start(2)..start(3),
            Group::Pending => start(3)..start(3) + 1,
        }
    }

    /// The shards of a group.
    pub fn of<'a, T>(&self, shards: &'a [T], group: Group) -> &'a [T] {
        &shards[self.group(group)]
    }

    /// The shards of transfers, their entries, statements and what is pending.
    pub fn records<'a, T>(&self, shards: &'a [T]) -> &'a [T] {
        &shards[self.group(Group::Transfers).start..]
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.group(Group::Pending).end
    }

    /// Where the shard of a hash is among all.
    #[inline]
    pub fn shard(&self, hash: KeyHash) -> usize {
        let spread = (hash.0 >> 48) as usize;
        match hash.0 >> GROUP_SHIFT {
            0 => spread & usize::from(self.accounts - 1),
            group => {
                let range = self.group(GROUPS[group as usize]);
                range.start + (spread & (range.len() - 1))
            }
        }
    }

    /// The shards' identities, of one ledger.
    pub fn identities(&self, ledger: [u8; 16]) -> Vec<Identity> {
        let of_group = |group: Group| {
            let range = self.group(group);
            let start = range.start;
            range.map(move |number| Identity {
                ledger,
                number: number as u16,
                group,
                within: (number - start) as u8,
            })
        };
        GROUPS.into_iter().flat_map(of_group).collect()
    }
}

/// A key's hash under the ledger's secret, so that nobody can choose keys that collide, and its group in
/// the three highest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

const GROUP_SHIFT: u32 = 61;

impl KeyHash {
    #[inline]
    pub fn account(hasher: &SipHasher13, key: &Key) -> Self {
        KeyHash(hasher.hash(key) << 3 >> 3)
    }

    #[inline]
    pub fn new(hasher: &SipHasher13, key: &Key, kind: Kind) -> Self {
        match Group::of(kind) {
            Group::Accounts => Self::account(hasher, key),
            group => {
                let mut bytes = [group.salt(); 33];
                bytes[..32].copy_from_slice(key);
                KeyHash(hasher.hash(&bytes) << 3 >> 3 | (group as u64) << GROUP_SHIFT)
            }
        }
    }

    /// What the shard's table goes by.
    pub fn tag(self) -> u32 {
        self.0 as u32
    }

    pub fn whole(self) -> u64 {
        self.0
    }
}

/// Which ledger and which of its shards a file belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    ledger: [u8; 16],
    /// Among all shards.
    pub number: u16,
    group: Group,
    /// Among those of its group.
    within: u8,
}

impl Identity {
    pub fn is_of_accounts(&self) -> bool {
        self.group == Group::Accounts
    }

    pub fn slots_name(&self) -> String {
        format!("{}.slots", self.name())
    }

    pub fn index_name(&self) -> String {
        format!("{}.index", self.name())
    }

    pub fn name(&self) -> String {
        let number = Hex(&[self.within]).to_string();
        match self.group {
            Group::Accounts => format!("shard-{number}"),
            Group::Receipts => "receipts".into(),
            Group::Transfers => format!("transfers-{number}"),
            Group::Entries => format!("entries-{number}"),
            Group::Statements => format!("statements-{number}"),
            Group::Pending => "pending".into(),
        }
    }

    /// What the index's stamp says after a checkpoint, and with a checksum the slots'.
    pub fn stamp(&self, checkpoint: u64) -> [u64; LINE - 1] {
        let mut stamp = [0; LINE - 1];
        read_words(&self.ledger, &mut stamp[..2]);
        stamp[2] = u64::from(self.number) | (self.group as u64) << 16;
        stamp[3] = checkpoint;
        stamp
    }

    /// Whether an index's file is of a checkpoint or of the one before.
    pub fn stamped(&self, file: &dyn DiskFile, checkpoint: u64) -> bool {
        let stamp = index::stamp_in(file);
        [checkpoint - 1, checkpoint]
            .iter()
            .any(|it| stamp == Some(self.stamp(*it)))
    }

    pub fn slots_stamp(&self, checkpoint: u64) -> Words {
        let mut words = [0; SLOT];
        words[1..LINE].copy_from_slice(&self.stamp(checkpoint));
        words[15] = xxh3_64(words[..15].as_bytes());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_in_one_group_and_every_group_has_its_own() {
        for accounts in [1, 2, 8, 64, 256] {
            let layout = Layout::new(accounts);
            let ends: Vec<_> = GROUPS.iter().map(|group| layout.group(*group)).collect();
            assert_eq!(ends[0].start, 0);
            assert!(ends.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(ends[5].end, layout.shards());
            assert_eq!(layout.identities([0; 16]).len(), layout.shards());
            let hasher = SipHasher13::new_with_key(&[1; 16]);
            for key in 0..100 {
                for code in 1..=8 {
                    let kind = Kind::from_code(code).unwrap();
                    let shard = layout.shard(KeyHash::new(&hasher, &[key; 32], kind));
                    assert!(layout.group(Group::of(kind)).contains(&shard));
                }
            }
        }
    }

    #[test]
    fn names_of_files_are_different() {
        let identities = Layout::new(256).identities([0; 16]);
        let mut names: Vec<_> = identities.iter().map(Identity::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), identities.len());
    }
}
