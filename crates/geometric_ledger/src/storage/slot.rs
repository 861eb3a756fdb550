//! A slot: 128 bytes that hold one account, or what is left of one.
//!
//! Words, little-endian: the stamp (sequence × 2, see [`seqlock`](crate::storage::seqlock)); four of key;
//! seven of account; the position in the write-ahead log of what undoes the last change; kind,
//! epoch and number within the batch; two of tag. With a key, key and account are encrypted and the
//! rest is bound to them; without, the tag is a checksum of the 14 words before it.

use crate::account::{Account, Key, WORDS};
use crate::storage::encryption::{Encryption, Nonce, Purpose};
use crate::storage::seqlock;
use std::sync::atomic::AtomicU64;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

#[cfg(target_endian = "big")]
compile_error!("slots are mapped as they are in the file: little-endian");

/// Words of a slot.
pub const SLOT: usize = 16;
pub type Words = [u64; SLOT];
/// Where a slot is in memory.
pub type Cell = [AtomicU64; SLOT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Account = 1,
    /// The account was deleted; the slot is kept as long as its history can be asked for.
    Tombstone = 2,
    /// A batch with this idempotency key was applied.
    Receipt = 3,
    /// A part of a recorded transfer.
    Transfer = 4,
    /// An entry of an account's statement.
    Entry = 5,
    /// How many entries an account's statement has.
    Statement = 6,
    /// A pending transfer that is open.
    Pending = 7,
    /// One that was; the slot is kept as long as its history can be asked for.
    Ended = 8,
}

impl Kind {
    pub fn from_code(code: u8) -> Option<Self> {
        use Kind::*;
        [
            Account, Tombstone, Receipt, Transfer, Entry, Statement, Pending, Ended,
        ]
        .get(usize::from(code).checked_sub(1)?)
        .copied()
    }

    /// Whether slots of this kind are what they are for ever.
    pub fn is_immutable(self) -> bool {
        matches!(self, Kind::Receipt | Kind::Transfer | Kind::Entry)
    }
}

/// The state of an account before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub kind: Kind,
    pub words: [u64; WORDS],
    pub sequence: u64,
    pub undo: u64,
}

/// A slot's words, decrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(Words);

impl Slot {
    /// What a change makes of an account; [`Slot::commit`] says which change it was.
    #[inline]
    pub fn new(key: &Key, account: &[u64; WORDS], kind: Kind) -> Self {
        let mut words = [0; SLOT];
        read_words(key, &mut words[1..5]);
        words[5..12].copy_from_slice(account);
        words[13] = u64::from(kind as u8);
        Slot(words)
    }

    /// Says which change made the slot what it is: of what batch, where it can be undone, in what
    /// epoch, as which item.
    #[inline]
    pub fn commit(&mut self, sequence: u64, undo: u64, epoch: u32, item: u32) {
        self.0[0] = sequence << 1;
        self.0[12] = undo;
        self.0[13] = self.0[13] & 0xff | u64::from(epoch) << 8 | u64::from(item) << 32;
    }

    /// The slot as it was before its last change.
    pub fn restore(&mut self, before: &Before) {
        self.0[5..12].copy_from_slice(&before.words);
        self.0[13] = u64::from(before.kind as u8);
        (self.0[0], self.0[12]) = (before.sequence << 1, before.undo);
    }

    pub fn key(&self) -> Key {
        let mut key = [0; 32];
        write_words(&mut key, &self.0[1..5]);
        key
    }

    #[inline]
    pub fn has_key(&self, key: &Key) -> bool {
        let mut words = [0; 4];
        read_words(key, &mut words);
        // Word by word, as they were just written.
        let differ = |word: usize| self.0[1 + word] ^ words[word];
        differ(0) | differ(1) | differ(2) | differ(3) == 0
    }

    #[inline]
    pub fn words(&self) -> &[u64; WORDS] {
        self.0[5..12].try_into().expect("seven words")
    }

    pub fn account(&self) -> Account {
        Account::from_words(self.words())
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        Kind::from_code(self.0[13] as u8).expect("it was checked when the slot was opened")
    }

    /// The batch that last changed it.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.0[0] >> 1
    }

    /// Where in the write-ahead log the change can be undone.
    #[inline]
    pub fn undo(&self) -> u64 {
        self.0[12]
    }

    #[inline(always)]
    pub fn encode(mut self, encryption: &Encryption) -> Words {
        if encryption.encrypts() {
            return self.encrypt(encryption);
        }
        self.0[14] = check(&self.0);
        self.0[15] = 0;
        self.0
    }

    #[inline(never)]
    fn encrypt(&self, encryption: &Encryption) -> Words {
        let mut words = self.0;
        let (mut body, bound) = (body(&words), bound(&words));
        let tag = encryption.encrypt(Purpose::Slot, self.nonce(), &bound, &mut body);
        read_words(&body, &mut words[1..12]);
        read_words(&tag, &mut words[14..]);
        words
    }

    /// The slot, if its tag is right.
    pub fn decode(words: Words, encryption: &Encryption) -> Option<Self> {
        let mut slot = Slot(words);
        slot.decrypt_in_place(encryption).then_some(slot)
    }

    /// Reads a cell; false, and any slot, if its tag is not right.
    #[inline(always)]
    pub fn read(&mut self, cell: &Cell, encryption: &Encryption) -> bool {
        (seqlock::read(cell, &mut self.0) || self.read_later(cell))
            && self.decrypt_in_place(encryption)
    }

    #[cold]
    fn read_later(&mut self, cell: &Cell) -> bool {
        // A writer is done with a cell after sixteen stores; one that a crash left half written is no
        // cell that recovery did not write again.
        (0..1 << 20).any(|_| {
            std::hint::spin_loop();
            seqlock::read(cell, &mut self.0)
        })
    }

    #[inline(always)]
    fn decrypt_in_place(&mut self, encryption: &Encryption) -> bool {
        let right = match encryption.encrypts() {
            true => self.decrypt(encryption),
            false => self.0[14] == check(&self.0) && self.0[15] == 0,
        };
        right && Kind::from_code(self.0[13] as u8).is_some()
    }

    #[inline(never)]
    fn decrypt(&mut self, encryption: &Encryption) -> bool {
        let mut tag = [0; 16];
        write_words(&mut tag, &self.0[14..]);
        let (mut body, bound) = (body(&self.0), bound(&self.0));
        let right = encryption.decrypt(Purpose::Slot, self.nonce(), &bound, &mut body, &tag);
        read_words(&body, &mut self.0[1..12]);
        right
    }

    fn nonce(&self) -> Nonce {
        Nonce {
            epoch: (self.0[13] >> 8) as u32 & MAX_EPOCH,
            major: self.sequence(),
            minor: (self.0[13] >> 32) as u32,
        }
    }
}

/// Epochs have 24 bits: a ledger can be opened sixteen million times.
pub const MAX_EPOCH: u32 = (1 << 24) - 1;

#[inline(always)]
fn check(words: &Words) -> u64 {
    xxh3_64(words[..14].as_bytes())
}

fn body(words: &Words) -> [u8; 88] {
    let mut bytes = [0; 88];
    write_words(&mut bytes, &words[1..12]);
    bytes
}

fn bound(words: &Words) -> [u8; 24] {
    let mut bytes = [0; 24];
    write_words(&mut bytes, &[words[0], words[12], words[13]]);
    bytes
}

pub fn write_words(bytes: &mut [u8], words: &[u64]) {
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

pub fn read_words(bytes: &[u8], words: &mut [u64]) {
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::encryption::Secret;

    fn slot() -> Slot {
        let account = Account {
            balance: -5,
            nonce: 3,
            data: [9; 24],
            ..Account::default()
        };
        let mut slot = Slot::new(&[7; 32], &account.to_words(), Kind::Account);
        slot.commit(1 << 40, 77, 12, 9_999);
        slot
    }

    #[test]
    fn any_flipped_bit_of_a_slot_is_found() {
        for encryption in [
            Encryption::plain(),
            Encryption::encrypted(vec![(0, Secret::new([1; 32]))]),
        ] {
            let words = slot().encode(&encryption);
            let opened = Slot::decode(words, &encryption).unwrap();
            assert_eq!(opened.0[..14], slot().0[..14]);
            for bit in 0..SLOT * 64 {
                let mut changed = words;
                changed[bit / 64] ^= 1 << (bit % 64);
                assert_eq!(Slot::decode(changed, &encryption), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn an_encrypted_slot_shows_neither_key_nor_account() {
        let encryption = Encryption::encrypted(vec![(0, Secret::new([1; 32]))]);
        let plain = slot().encode(&Encryption::plain());
        let words = slot().encode(&encryption);
        assert!(words[1..12].iter().all(|word| !plain[1..12].contains(word)));
    }
}
