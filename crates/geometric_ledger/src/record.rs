//! A record of the write-ahead log: a header, and a body that is sealed. An encrypted body is sealed in
//! chunks, so that one undo can be read without the rest of its batch.
//!
//! A batch's body is its totals and digest, the *updates* (what the digest is over: nothing in them
//! depends on where anything is stored), and for each update an *undo*: the slot it went to and the
//! account as it was before. `docs/geometric-ledger-format.md` has every byte.

use crate::account::{Key, WORDS};
use crate::seal::{Place, Purpose, Seal, Tag, checksum};
use crate::slot::{Kind, SLOT, Slot, Words, read_words, write_words};
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut, Range};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub const HEADER: usize = 88;
const MAGIC: u32 = u32::from_le_bytes(*b"GLR1");
/// Bytes of a batch's body before its updates.
pub const TOTALS: usize = 72;
/// Bytes of an encrypted body that are sealed together.
pub const CHUNK: usize = 4096;
const TAG: usize = size_of::<Tag>();

/// Bytes that a record takes in the log.
pub fn record_len(body: u64, encrypted: bool) -> u64 {
    HEADER as u64 + stored_len(body, encrypted)
}

/// Bytes that a body takes in the log: padded, and followed by the tags of its chunks.
fn stored_len(body: u64, encrypted: bool) -> u64 {
    let tags = match encrypted {
        true => body.div_ceil(CHUNK as u64) * TAG as u64,
        false => 0,
    };
    body.next_multiple_of(8) + tags
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    Batch = 1,
    /// Slots of what can no longer be asked for were given to others.
    Reclaim = 2,
    /// Says only how far the log is durable.
    Mark = 3,
    /// The last record of a segment: the log goes on in the next one, which is there.
    Continue = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: RecordKind,
    pub epoch: u32,
    /// How many records of this epoch could not be written before this one.
    pub attempt: u16,
    pub items: u32,
    pub encrypted: bool,
    /// Bytes of the body, and of the updates in it. Of [`RecordKind::Continue`], which has no body,
    /// `updates` is the length of the next segment.
    pub body: u64,
    pub updates: u64,
    /// Where in the log the record begins.
    pub position: u64,
    /// The batch's own, or the last one before.
    pub sequence: u64,
    /// The log was durable up to here when the record was written.
    pub durable: u64,
    /// Microseconds since 1970.
    pub time: i64,
    pub tag: Tag,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = u8::from(self.encrypted);
        bytes[6..8].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.items.to_le_bytes());
        let words = [
            self.body,
            self.updates,
            self.position,
            self.sequence,
            self.durable,
            self.time as u64,
        ];
        write_words(&mut bytes[16..64], &words);
        bytes[64..80].copy_from_slice(&self.tag);
        let check = xxh3_64(&bytes[..80]);
        bytes[80..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        if bytes[..4] != MAGIC.to_le_bytes() || bytes[80..] != xxh3_64(&bytes[..80]).to_le_bytes() {
            return None;
        }
        let mut words = [0; 6];
        read_words(&bytes[16..64], &mut words);
        let kinds = [
            RecordKind::Batch,
            RecordKind::Reclaim,
            RecordKind::Mark,
            RecordKind::Continue,
        ];
        Some(Header {
            kind: kinds.into_iter().find(|kind| *kind as u8 == bytes[4])?,
            encrypted: bytes[5] != 0,
            attempt: u16::from_le_bytes(bytes[6..8].try_into().unwrap()),
            epoch: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            items: u32::from_le_bytes(bytes[12..16].try_into().unwrap()),
            body: words[0],
            updates: words[1],
            position: words[2],
            sequence: words[3],
            durable: words[4],
            time: words[5] as i64,
            tag: bytes[64..80].try_into().unwrap(),
        })
    }

    /// Bytes of the body in the log, with its padding and the tags of its chunks.
    pub fn stored(&self) -> u64 {
        stored_len(self.body, self.encrypted)
    }

    /// The position after the record.
    pub fn end(&self) -> u64 {
        self.position + HEADER as u64 + self.stored()
    }

    /// Encrypts a body, and adds the tags of its chunks to it.
    pub fn encrypt(&mut self, seal: &Seal, body: &mut Vec<u8>) {
        let bound = self.bound();
        self.tag = seal.seal(Purpose::Record, self.place(self.position), &bound, &mut []);
        let mut tags = Vec::new();
        for (number, chunk) in body.chunks_mut(CHUNK).enumerate() {
            let place = self.chunk_place(number as u64);
            tags.extend(seal.seal(Purpose::Record, place, &bound, chunk));
        }
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend(tags);
    }

    /// The tag of a body that is not encrypted.
    pub fn check(&self, body: &[u8]) -> Tag {
        checksum(&self.bound(), body)
    }

    /// Makes the stored form of a body, as long as [`Header::stored`] says, the body; false if it is
    /// not what was written.
    pub fn open(&self, seal: &Seal, stored: &mut Vec<u8>) -> bool {
        if self.encrypted != seal.encrypts() || stored.len() as u64 != self.stored() {
            return false;
        }
        let bound = self.bound();
        let len = self.body as usize;
        if !self.encrypted {
            stored.truncate(len);
            return checksum(&bound, stored) == self.tag;
        }
        let tags = stored.split_off(len.next_multiple_of(8));
        stored.truncate(len);
        let place = self.place(self.position);
        let whole = seal.open(Purpose::Record, place, &bound, &mut [], &self.tag);
        whole && self.open_chunks(seal, 0, stored, &tags)
    }

    /// The bytes of an encrypted record that have `longest` bytes of the body from `offset` on, or as
    /// many as there are: the range of whole chunks, and that of their tags. Both count from the
    /// record's beginning.
    pub fn chunks(&self, offset: u64, longest: usize) -> Option<(Range<u64>, Range<u64>)> {
        if offset >= self.body {
            return None;
        }
        let end = self.body.min(offset + longest as u64);
        let (first, last) = (offset / CHUNK as u64, end.div_ceil(CHUNK as u64));
        let body = first * CHUNK as u64..self.body.min(last * CHUNK as u64);
        let tags = HEADER as u64 + self.body.next_multiple_of(8);
        let tag = |number: u64| tags + number * TAG as u64;
        let place = |at: u64| HEADER as u64 + at;
        Some((place(body.start)..place(body.end), tag(first)..tag(last)))
    }

    /// Decrypts chunks of a body, from the one of number `first` on.
    pub fn open_chunks(&self, seal: &Seal, first: u64, chunks: &mut [u8], tags: &[u8]) -> bool {
        let bound = self.bound();
        let tags = tags.chunks_exact(TAG);
        chunks.len().div_ceil(CHUNK) == tags.len()
            && chunks
                .chunks_mut(CHUNK)
                .zip(tags)
                .enumerate()
                .all(|(number, (chunk, tag))| {
                    let place = self.chunk_place(first + number as u64);
                    let tag = tag.try_into().expect("as long as a tag");
                    seal.open(Purpose::Record, place, &bound, chunk, tag)
                })
    }

    /// Positions never come again, and each chunk is sealed at its own.
    fn chunk_place(&self, number: u64) -> Place {
        self.place(self.position + HEADER as u64 + number * CHUNK as u64)
    }

    fn place(&self, position: u64) -> Place {
        Place {
            epoch: self.epoch,
            major: position,
            minor: u32::from(self.attempt),
        }
    }

    fn bound(&self) -> [u8; 64] {
        let untagged = Header {
            tag: [0; 16],
            ..*self
        };
        untagged.encode()[..64].try_into().unwrap()
    }
}

/// What a ledger holds, and what it was given and gave back in its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub accounts: u64,
    /// The sum of all that balances rose by outside of transfers, modulo 2^128.
    pub minted: u128,
    /// The sum of all that balances fell by outside of transfers, modulo 2^128.
    pub burned: u128,
}

impl Totals {
    /// The sum of all balances: what was minted and not burned.
    pub fn balances(&self) -> i128 {
        self.minted.wrapping_sub(self.burned) as i128
    }

    pub fn encode(&self, digest: &[u8; 32]) -> [u8; TOTALS] {
        let mut bytes = [0; TOTALS];
        bytes[..8].copy_from_slice(&self.accounts.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.minted.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.burned.to_le_bytes());
        bytes[40..].copy_from_slice(digest);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        let bytes = bytes.get(..TOTALS)?;
        let totals = Totals {
            accounts: u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            minted: u128::from_le_bytes(bytes[8..24].try_into().unwrap()),
            burned: u128::from_le_bytes(bytes[24..40].try_into().unwrap()),
        };
        Some((totals, bytes[40..].try_into().unwrap()))
    }
}

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

/// The state of an account before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub kind: Kind,
    pub words: [u64; WORDS],
    pub sequence: u64,
    pub undo: u64,
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

/// One slot given to another, as a record of kind [`RecordKind::Reclaim`] holds it.
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
            Header::decode(&bytes);
            take_update(&mut &bytes[..]);
            take_undo(&mut &bytes[..], &key, &[0; WORDS]);
            take_reclaimed(&mut &bytes[..]);
            Totals::decode(&bytes);
        }
    }

    fn header(encrypted: bool, body: u64) -> Header {
        Header {
            kind: RecordKind::Batch,
            epoch: 1,
            attempt: 0,
            items: 1,
            encrypted,
            body,
            updates: 40,
            position: 4_096,
            sequence: 9,
            durable: 4_000,
            time: 1,
            tag: [0; 16],
        }
    }

    #[test]
    fn any_flipped_bit_of_a_record_is_found() {
        for encrypted in [false, true] {
            let seal = match encrypted {
                true => Seal::encrypted(vec![(0, crate::seal::Secret::new([1; 32]))]),
                false => Seal::plain(),
            };
            let mut body = vec![5; 304];
            let mut header = header(encrypted, 304);
            match encrypted {
                true => header.encrypt(&seal, &mut body),
                false => header.tag = header.check(&body),
            }
            let bytes = [&header.encode()[..], &body].concat();
            assert_eq!(bytes.len() as u64, header.end() - header.position);
            let open = |bytes: &[u8]| {
                let mut body = bytes[HEADER..].to_vec();
                let header = Header::decode(bytes)?;
                (header.body < 10_000 && header.open(&seal, &mut body)).then_some(body)
            };
            assert_eq!(open(&bytes), Some(vec![5; 304]));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                // Padding in the header is covered by its checksum all the same.
                assert_eq!(open(&changed), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_part_of_an_encrypted_body_is_read_by_itself() {
        let seal = Seal::encrypted(vec![(0, crate::seal::Secret::new([1; 32]))]);
        let plain: Vec<u8> = (0..3 * CHUNK + 100).map(|at| (at % 251) as u8).collect();
        let mut header = header(true, plain.len() as u64);
        let mut body = plain.clone();
        header.encrypt(&seal, &mut body);
        let bytes = [&header.encode()[..], &body].concat();
        for offset in [0, 1, CHUNK - 3, CHUNK, 2 * CHUNK + 7, plain.len() - 1] {
            let (chunks, tags) = header.chunks(offset as u64, 88).unwrap();
            assert!(chunks.end - chunks.start <= 2 * CHUNK as u64);
            let first = (chunks.start - HEADER as u64) / CHUNK as u64;
            let mut part = bytes[chunks.start as usize..chunks.end as usize].to_vec();
            let tags = &bytes[tags.start as usize..tags.end as usize];
            assert!(header.open_chunks(&seal, first, &mut part, tags));
            let from = offset - first as usize * CHUNK;
            let len = 88.min(plain.len() - offset);
            assert_eq!(part[from..from + len], plain[offset..offset + len]);
            assert!(!header.open_chunks(&seal, first + 1, &mut part, tags));
        }
        assert_eq!(header.chunks(plain.len() as u64, 1), None);
    }
}
