//! A record of the write-ahead log: a header, and a body with a tag. An encrypted body is encrypted in
//! chunks, so that one undo can be read without the rest of its batch.
//!
//! A batch's body is its totals and digest, the *updates* (what the digest is over: nothing in them
//! depends on where anything is stored), and for each update an *undo*: the slot it went to and the
//! account as it was before. `docs/geometric-ledger-format.md` has every byte.

use crate::storage::encryption::{Encryption, Nonce, Purpose, Tag, checksum};
use crate::storage::slot::{read_words, write_words};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

pub const HEADER: usize = 88;
const MAGIC: u32 = u32::from_le_bytes(*b"GLR1");
/// Bytes of a batch's body before its updates.
pub const TOTALS: usize = 72;
/// Bytes of an encrypted body that have one tag.
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
    DurableUpTo = 3,
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
            RecordKind::DurableUpTo,
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
    pub fn encrypt(&mut self, encryption: &Encryption, body: &mut Vec<u8>) {
        let bound = self.bound();
        self.tag = encryption.encrypt(Purpose::Record, self.nonce(self.position), &bound, &mut []);
        let mut tags = Vec::new();
        for (number, chunk) in body.chunks_mut(CHUNK).enumerate() {
            let nonce = self.chunk_nonce(number as u64);
            tags.extend(encryption.encrypt(Purpose::Record, nonce, &bound, chunk));
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
    pub fn open(&self, encryption: &Encryption, stored: &mut Vec<u8>) -> bool {
        if self.encrypted != encryption.encrypts() || stored.len() as u64 != self.stored() {
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
        let nonce = self.nonce(self.position);
        let whole = encryption.decrypt(Purpose::Record, nonce, &bound, &mut [], &self.tag);
        whole && self.open_chunks(encryption, 0, stored, &tags)
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
    pub fn open_chunks(
        &self,
        encryption: &Encryption,
        first: u64,
        chunks: &mut [u8],
        tags: &[u8],
    ) -> bool {
        let bound = self.bound();
        let tags = tags.chunks_exact(TAG);
        chunks.len().div_ceil(CHUNK) == tags.len()
            && chunks
                .chunks_mut(CHUNK)
                .zip(tags)
                .enumerate()
                .all(|(number, (chunk, tag))| {
                    let nonce = self.chunk_nonce(first + number as u64);
                    let tag = tag.try_into().expect("as long as a tag");
                    encryption.decrypt(Purpose::Record, nonce, &bound, chunk, tag)
                })
    }

    /// Positions never come again, and each chunk is encrypted under its own.
    fn chunk_nonce(&self, number: u64) -> Nonce {
        self.nonce(self.position + HEADER as u64 + number * CHUNK as u64)
    }

    fn nonce(&self, position: u64) -> Nonce {
        Nonce {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let encryption = match encrypted {
                true => Encryption::encrypted(vec![(
                    0,
                    crate::storage::encryption::Secret::new([1; 32]),
                )]),
                false => Encryption::plain(),
            };
            let mut body = vec![5; 304];
            let mut header = header(encrypted, 304);
            match encrypted {
                true => header.encrypt(&encryption, &mut body),
                false => header.tag = header.check(&body),
            }
            let bytes = [&header.encode()[..], &body].concat();
            assert_eq!(bytes.len() as u64, header.end() - header.position);
            let open = |bytes: &[u8]| {
                let mut body = bytes[HEADER..].to_vec();
                let header = Header::decode(bytes)?;
                (header.body < 10_000 && header.open(&encryption, &mut body)).then_some(body)
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
        let encryption =
            Encryption::encrypted(vec![(0, crate::storage::encryption::Secret::new([1; 32]))]);
        let plain: Vec<u8> = (0..3 * CHUNK + 100).map(|at| (at % 251) as u8).collect();
        let mut header = header(true, plain.len() as u64);
        let mut body = plain.clone();
        header.encrypt(&encryption, &mut body);
        let bytes = [&header.encode()[..], &body].concat();
        for offset in [0, 1, CHUNK - 3, CHUNK, 2 * CHUNK + 7, plain.len() - 1] {
            let (chunks, tags) = header.chunks(offset as u64, 88).unwrap();
            assert!(chunks.end - chunks.start <= 2 * CHUNK as u64);
            let first = (chunks.start - HEADER as u64) / CHUNK as u64;
            let mut part = bytes[chunks.start as usize..chunks.end as usize].to_vec();
            let tags = &bytes[tags.start as usize..tags.end as usize];
            assert!(header.open_chunks(&encryption, first, &mut part, tags));
            let from = offset - first as usize * CHUNK;
            let len = 88.min(plain.len() - offset);
            assert_eq!(part[from..from + len], plain[offset..offset + len]);
            assert!(!header.open_chunks(&encryption, first + 1, &mut part, tags));
        }
        assert_eq!(header.chunks(plain.len() as u64, 1), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(0u8.., 0..400)) {
            Header::decode(&bytes);
            Totals::decode(&bytes);
        }
    }
}
