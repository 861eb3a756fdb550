//! A slot: 128 bytes that hold one account, or what is left of one.
//!
//! Words, little-endian: the stamp (sequence × 2, see [`seqlock`](crate::seqlock)); four of key;
//! seven of account; the position in the write-ahead log of what undoes the last change; kind,
//! epoch and number within the batch; two of tag. Key and account are sealed, the rest is bound.

use crate::account::{Account, Key, WORDS};
use crate::seal::{Place, Purpose, Seal};

/// Words of a slot.
pub const SLOT: usize = 16;
pub type Words = [u64; SLOT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Account = 1,
    /// The account was deleted; the slot is kept as long as its history can be asked for.
    Tombstone = 2,
    /// A batch with this idempotency key was applied.
    Receipt = 3,
}

impl Kind {
    pub fn from_code(code: u8) -> Option<Self> {
        [Kind::Account, Kind::Tombstone, Kind::Receipt]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub key: Key,
    pub account: Account,
    pub kind: Kind,
    /// The batch that last changed it.
    pub sequence: u64,
    /// Where in the write-ahead log the change can be undone.
    pub undo: u64,
    pub epoch: u32,
    /// The change's number within its batch.
    pub item: u32,
}

impl Slot {
    pub fn seal(&self, seal: &Seal) -> Words {
        let mut body = [0; 88];
        body[..32].copy_from_slice(&self.key);
        write_words(&mut body[32..], &self.account.to_words());
        let open = [
            self.sequence << 1,
            self.undo,
            u64::from(self.kind as u8) | u64::from(self.epoch) << 8 | u64::from(self.item) << 32,
        ];
        let tag = seal.seal(Purpose::Slot, self.place(), &bound(&open), &mut body);
        let mut words = [0; SLOT];
        words[0] = open[0];
        read_words(&body, &mut words[1..12]);
        words[12..14].copy_from_slice(&open[1..]);
        read_words(&tag, &mut words[14..]);
        words
    }

    /// The slot, if its tag is right.
    pub fn open(words: &Words, seal: &Seal) -> Option<Self> {
        let open = [words[0], words[12], words[13]];
        let place = Place {
            epoch: (open[2] >> 8) as u32 & MAX_EPOCH,
            major: open[0] >> 1,
            minor: (open[2] >> 32) as u32,
        };
        let (mut body, mut tag) = ([0; 88], [0; 16]);
        write_words(&mut body, &words[1..12]);
        write_words(&mut tag, &words[14..]);
        if !seal.open(Purpose::Slot, place, &bound(&open), &mut body, &tag) {
            return None;
        }
        let mut account = [0; WORDS];
        read_words(&body[32..], &mut account);
        Some(Slot {
            key: body[..32].try_into().unwrap(),
            account: Account::from_words(&account),
            kind: Kind::from_code(open[2] as u8)?,
            sequence: place.major,
            undo: open[1],
            epoch: place.epoch,
            item: place.minor,
        })
    }

    fn place(&self) -> Place {
        Place {
            epoch: self.epoch,
            major: self.sequence,
            minor: self.item,
        }
    }
}

/// Epochs have 24 bits: a ledger can be opened sixteen million times.
pub const MAX_EPOCH: u32 = (1 << 24) - 1;

fn bound(words: &[u64; 3]) -> [u8; 24] {
    let mut bytes = [0; 24];
    write_words(&mut bytes, words);
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
    use crate::seal::Secret;

    fn slot() -> Slot {
        Slot {
            key: [7; 32],
            account: Account {
                balance: -5,
                nonce: 3,
                data: [9; 24],
                ..Account::default()
            },
            kind: Kind::Account,
            sequence: 1 << 40,
            undo: 77,
            epoch: 12,
            item: 9_999,
        }
    }

    #[test]
    fn any_flipped_bit_of_a_slot_is_found() {
        for seal in [Seal::plain(), Seal::encrypted(vec![(0, Secret::new([1; 32]))])] {
            let words = slot().seal(&seal);
            assert_eq!(Slot::open(&words, &seal), Some(slot()));
            for bit in 0..SLOT * 64 {
                let mut changed = words;
                changed[bit / 64] ^= 1 << (bit % 64);
                assert_eq!(Slot::open(&changed, &seal), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn an_encrypted_slot_shows_neither_key_nor_account() {
        let seal = Seal::encrypted(vec![(0, Secret::new([1; 32]))]);
        let plain = slot().seal(&Seal::plain());
        let words = slot().seal(&seal);
        assert!(words[1..12].iter().all(|word| !plain[1..12].contains(word)));
    }
}
