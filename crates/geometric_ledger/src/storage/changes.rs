//! What the bodies of records are made of: updates, undos, reclaimed slots. Each is written into memory
//! that is there, and read from the front of bytes that may be any. `docs/geometric-ledger-format.md`
//! has every byte.

use crate::account::{Key, WORDS};
use crate::storage::slot::{Before, Kind, SLOT, Slot, Words, read_words, write_words};
use std::ops::{Deref, DerefMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes to which one item after another is added, in memory that stays when they are cleared.
#[derive(Default)]
pub struct Bytes {
    memory: Vec<u8>,
    len: usize,
}

impl Bytes {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds as many of `N` bytes as `fill` says. It finds any bytes there.
    #[inline]
    pub fn push<const N: usize>(&mut self, fill: impl FnOnce(&mut [u8; N]) -> usize) {
        if self.memory.len() < self.len + N {
            self.memory.resize(2 * (self.len + N), 0);
        }
        let place = self.memory[self.len..].first_chunk_mut();
        self.len += fill(place.expect("there is room"));
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

/// Writes what the digest is over: the key; kind and which words are not zero; those words. Returns
/// how many bytes that were.
#[inline]
pub fn put_update(
    bytes: &mut [u8; LONGEST_UPDATE],
    key: &Key,
    kind: Kind,
    words: &[u64; WORDS],
) -> usize {
    bytes[..32].copy_from_slice(key);
    let (mask, len) = pack(words, &mut bytes[40..]);
    bytes[32..40].copy_from_slice(&[kind as u8, mask, 0, 0, 0, 0, 0, 0]);
    40 + len
}

/// Reads what [`put_update`] wrote, from the front of `bytes`.
pub fn take_update(bytes: &mut &[u8]) -> Option<(Key, Kind, [u64; WORDS])> {
    let (head, rest) = bytes.split_at_checked(40)?;
    let kind = Kind::from_code(head[32])?;
    if head[34..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let (words, rest) = unpack(head[33], rest)?;
    *bytes = rest;
    Some((head[..32].try_into().unwrap(), kind, words))
}

/// Where a change went, and what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undo {
    pub shard: u16,
    pub slot: u64,
    /// `None` where the change added the slot.
    pub before: Option<Before>,
}

/// Bytes of an undo before its words.
const UNDO: usize = 32;
/// The slot is filled in when it is known.
pub const UNKNOWN: u64 = u32::MAX as u64;
/// The longest update and undo, in bytes.
pub const LONGEST_UPDATE: usize = 40 + 8 * WORDS;
pub const LONGEST_UNDO: usize = UNDO + 8 * WORDS;

/// Writes an undo: checksum; slot, shard, kind and which words differ; sequence and position of the
/// change before; the words that differ, as their difference by exclusive or. The checksum is left to
/// [`complete_undo`]. Returns how many bytes that were.
#[inline]
pub fn put_undo(
    bytes: &mut [u8; LONGEST_UNDO],
    shard: u16,
    slot: u64,
    before: Option<&Slot>,
    now: &[u64; WORDS],
) -> usize {
    let (mut kind, mut mask, mut len, mut numbers) = (0, 0, 0, [0; 2]);
    if let Some(before) = before {
        let difference = std::array::from_fn(|word| before.words()[word] ^ now[word]);
        (mask, len) = pack(&difference, &mut bytes[UNDO..]);
        kind = before.kind() as u8;
        numbers = [before.sequence(), before.undo()];
    }
    let place =
        slot & 0xffff_ffff | u64::from(shard) << 32 | u64::from(kind) << 48 | u64::from(mask) << 56;
    write_words(&mut bytes[..32], &[0, place, numbers[0], numbers[1]]);
    UNDO + len
}

/// Completes the undo that begins where `bytes` do.
#[inline]
pub fn complete_undo(bytes: &mut [u8], key: &Key) {
    let len = UNDO + 8 * bytes[15].count_ones() as usize;
    let check = undo_check(key, &bytes[..len]);
    bytes[..8].copy_from_slice(&check.to_le_bytes());
}

/// Reads what [`put_undo`] wrote, from the front of `bytes`. `now` is the account after the change.
pub fn take_undo(bytes: &mut &[u8], key: &Key, now: &[u64; WORDS]) -> Option<Undo> {
    let whole = *bytes;
    let (head, rest) = bytes.split_at_checked(UNDO)?;
    let (difference, rest) = unpack(head[15], rest)?;
    let entry = &whole[..whole.len() - rest.len()];
    if head[..8] != undo_check(key, entry).to_le_bytes() {
        return None;
    }
    *bytes = rest;
    let mut numbers = [0; 2];
    read_words(&head[16..32], &mut numbers);
    let before = match head[14] {
        0 => None,
        code => Some(Before {
            kind: Kind::from_code(code)?,
            words: std::array::from_fn(|word| now[word] ^ difference[word]),
            sequence: numbers[0],
            undo: numbers[1],
        }),
    };
    Some(Undo {
        shard: u16::from_le_bytes(head[12..14].try_into().unwrap()),
        slot: u64::from(u32::from_le_bytes(head[8..12].try_into().unwrap())),
        before,
    })
}

/// Over all but the slot, which is filled in later and which no history needs.
#[inline]
fn undo_check(key: &Key, undo: &[u8]) -> u64 {
    let seed = u64::from_le_bytes(key[..8].try_into().unwrap())
        ^ u64::from_le_bytes(key[24..].try_into().unwrap());
    xxh3_64_with_seed(&undo[12..], seed)
}

fn pack(words: &[u64; WORDS], out: &mut [u8]) -> (u8, usize) {
    let (mut mask, mut len) = (0, 0);
    for (bit, word) in words.iter().enumerate() {
        if *word != 0 {
            out[len..len + 8].copy_from_slice(&word.to_le_bytes());
            mask |= 1 << bit;
            len += 8;
        }
    }
    (mask, len)
}

fn unpack(mask: u8, bytes: &[u8]) -> Option<([u64; WORDS], &[u8])> {
    if mask >> WORDS != 0 {
        return None;
    }
    let (packed, rest) = bytes.split_at_checked(8 * mask.count_ones() as usize)?;
    let mut packed = packed.chunks_exact(8);
    let mut words = [0; WORDS];
    for (bit, word) in words.iter_mut().enumerate() {
        if mask >> bit & 1 == 1 {
            *word = u64::from_le_bytes(packed.next()?.try_into().unwrap());
            // There is one encoding of an account.
            if *word == 0 {
                return None;
            }
        }
    }
    Some((words, rest))
}

/// One slot given to another, as a record of kind reclaim holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    pub shard: u16,
    pub slot: u64,
    pub tag: u32,
    /// The hash and words of the slot that moved to its place.
    pub moved: Option<(u32, Words)>,
}

/// Bytes of a reclaimed slot.
const RECLAIMED: usize = 24 + 8 * SLOT;

pub fn push_reclaimed(out: &mut Vec<u8>, reclaimed: &Reclaimed) {
    let mut bytes = [0; RECLAIMED];
    bytes[..4].copy_from_slice(&(reclaimed.slot as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&reclaimed.tag.to_le_bytes());
    bytes[8..10].copy_from_slice(&reclaimed.shard.to_le_bytes());
    if let Some((tag, words)) = &reclaimed.moved {
        bytes[10] = 1;
        bytes[12..16].copy_from_slice(&tag.to_le_bytes());
        write_words(&mut bytes[24..], words);
    }
    let check = xxh3_64_with_seed(&bytes, 1);
    bytes[16..24].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(&bytes);
}

pub fn take_reclaimed(bytes: &mut &[u8]) -> Option<Reclaimed> {
    let (entry, rest) = bytes.split_at_checked(RECLAIMED)?;
    let mut plain: [u8; RECLAIMED] = entry.try_into().unwrap();
    plain[16..24].fill(0);
    if entry[16..24] != xxh3_64_with_seed(&plain, 1).to_le_bytes() {
        return None;
    }
    *bytes = rest;
    let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
    let mut words = [0; SLOT];
    read_words(&entry[24..], &mut words);
    Some(Reclaimed {
        shard: u16::from_le_bytes(entry[8..10].try_into().unwrap()),
        slot: u64::from(number(0)),
        tag: number(4),
        moved: (entry[10] == 1).then(|| (number(12), words)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn account()(words in proptest::array::uniform7(prop_oneof![Just(0u64), any::<u64>()])) -> [u64; WORDS] {
            words
        }
    }

    proptest! {
        #[test]
        fn updates_and_undos_are_read_as_written(
            key: [u8; 32], now in account(), was in account(), sequence in 0..1u64 << 63, undo: u64, slot: u32, shard: u16,
            new: bool,
        ) {
            let mut bytes = Bytes::default();
            bytes.push(|bytes| put_update(bytes, &key, Kind::Account, &now));
            let mut rest = &bytes[..];
            prop_assert_eq!(take_update(&mut rest), Some((key, Kind::Account, now)));
            prop_assert!(rest.is_empty());

            let before = (!new).then_some(Before { kind: Kind::Tombstone, words: was, sequence, undo });
            let undo = Undo { shard, slot: u64::from(slot), before };
            let mut bytes = Bytes::default();
            let mut old = Slot::new(&key, &now, Kind::Account);
            undo.before.iter().for_each(|before| old.restore(before));
            let old = undo.before.map(|_| old);
            bytes.push(|bytes| put_undo(bytes, shard, undo.slot, old.as_ref(), &now));
            complete_undo(&mut bytes, &key);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_undo(&mut rest, &key, &now), Some(undo));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), key: [u8; 32]) {
            take_update(&mut &bytes[..]);
            take_undo(&mut &bytes[..], &key, &[0; WORDS]);
            take_reclaimed(&mut &bytes[..]);
        }
    }
}
