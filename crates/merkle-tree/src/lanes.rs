//! SHA-256 (FIPS 180-4 §6.2) of many messages, several at once, one a vector lane.
//!
//! Each step of SHA-256 waits for the one before it, so one message leaves most of a processor idle,
//! and messages beside it cost little. Where there are SHA instructions, or no wide vectors, `sha2`
//! hashes one message after the other; its results are the tests' oracle for these.

use crate::hash::HASH_SIZE;
use sha2::{Digest, Sha256};

const BLOCK: usize = 64;
/// Twice the width of an AVX2 register: two independent chains of instructions.
const WIDTH: usize = 16;
/// Fewer messages than this are faster one by one.
const WORTH: usize = 8;

/// One word of each message.
type Words = [u32; WIDTH];

/// A message: one byte, and what follows it.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    pub prefix: u8,
    pub parts: [&'a [u8]; 2],
}

impl Message<'_> {
    const EMPTY: Message<'static> = Message {
        prefix: 0,
        parts: [&[], &[]],
    };

    fn len(&self) -> usize {
        1 + self.parts[0].len() + self.parts[1].len()
    }

    /// With the padding: a 1 bit, and the length in 64 bits at the end.
    fn blocks(&self) -> usize {
        (self.len() + 1 + 8).div_ceil(BLOCK)
    }

    fn digest(&self) -> [u8; HASH_SIZE] {
        Sha256::new_with_prefix([self.prefix])
            .chain_update(self.parts[0])
            .chain_update(self.parts[1])
            .finalize()
            .into()
    }

    /// Block `number` of the padded message.
    #[inline(always)]
    fn block(&self, number: usize) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let start = number * BLOCK;
        let mut at = 1;
        if number == 0 {
            block[0] = self.prefix;
        }
        for part in self.parts {
            let from = start.max(at);
            let to = (start + BLOCK).min(at + part.len());
            if from < to {
                block[from - start..to - start].copy_from_slice(&part[from - at..to - at]);
            }
            at += part.len();
        }
        if (start..start + BLOCK).contains(&at) {
            block[at - start] = 0x80;
        }
        if number + 1 == self.blocks() {
            block[BLOCK - 8..].copy_from_slice(&(self.len() as u64 * 8).to_be_bytes());
        }
        block
    }
}

/// Hands the SHA-256 of each message to `take`, in order.
pub fn digests<'a>(
    messages: impl Iterator<Item = Message<'a>>,
    mut take: impl FnMut([u8; HASH_SIZE]),
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && !is_x86_feature_detected!("sha") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { in_avx2_lanes(messages, take) };
    }
    messages.for_each(|m| take(m.digest()));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn in_avx2_lanes<'a>(
    messages: impl Iterator<Item = Message<'a>>,
    take: impl FnMut([u8; HASH_SIZE]),
) {
    in_lanes(messages, take);
}

/// Compiled into its caller, for the processor that the caller is compiled for.
#[inline(always)]
fn in_lanes<'a>(
    mut messages: impl Iterator<Item = Message<'a>>,
    mut take: impl FnMut([u8; HASH_SIZE]),
) {
    let mut lanes = [Message::EMPTY; WIDTH];
    loop {
        let mut filled = 0;
        for (lane, message) in lanes.iter_mut().zip(&mut messages) {
            *lane = message;
            filled += 1;
        }
        match filled {
            0 => return,
            1..WORTH => lanes[..filled].iter().for_each(|m| take(m.digest())),
            _ => {
                let digests = digest_all(&lanes);
                digests[..filled].iter().for_each(|d| take(*d));
            }
        }
    }
}

/// Lanes whose message is at its end go on with nonsense until the longest is.
#[inline(always)]
fn digest_all(lanes: &[Message; WIDTH]) -> [[u8; HASH_SIZE]; WIDTH] {
    let mut digests = [[0; HASH_SIZE]; WIDTH];
    let mut state = INITIAL.map(|word| [word; WIDTH]);
    let longest = lanes.iter().map(Message::blocks).max().unwrap_or(0);
    for number in 0..longest {
        let mut words = [[0; WIDTH]; 16];
        for (lane, message) in lanes.iter().enumerate() {
            let block = message.block(number);
            for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
                word[lane] = u32::from_be_bytes(*bytes);
            }
        }
        compress(&mut state, words);
        for (lane, message) in lanes.iter().enumerate() {
            if number + 1 == message.blocks() {
                let digest = digests[lane].as_chunks_mut().0;
                for (bytes, word) in digest.iter_mut().zip(&state) {
                    *bytes = word[lane].to_be_bytes();
                }
            }
        }
    }
    digests
}

/// `f` of each lane.
#[inline(always)]
fn each(f: impl Fn(usize) -> u32) -> Words {
    let mut words = [0; WIDTH];
    for (lane, word) in words.iter_mut().enumerate() {
        *word = f(lane);
    }
    words
}

/// The compression function, with the message schedule computed as it goes.
#[inline(always)]
fn compress(state: &mut [Words; 8], mut w: [Words; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for round in 0..64 {
        let place = round % 16;
        if round >= 16 {
            let back = |distance: usize| w[(round - distance) % 16];
            let (w16, w15, w7, w2) = (back(16), back(15), back(7), back(2));
            w[place] = each(|l| {
                let s0 = w15[l].rotate_right(7) ^ w15[l].rotate_right(18) ^ (w15[l] >> 3);
                let s1 = w2[l].rotate_right(17) ^ w2[l].rotate_right(19) ^ (w2[l] >> 10);
                w16[l].wrapping_add(s0).wrapping_add(w7[l]).wrapping_add(s1)
            });
        }
        let word = w[place];
        let t1 = each(|l| {
            let s1 = e[l].rotate_right(6) ^ e[l].rotate_right(11) ^ e[l].rotate_right(25);
            let choice = g[l] ^ (e[l] & (f[l] ^ g[l]));
            h[l].wrapping_add(s1)
                .wrapping_add(choice)
                .wrapping_add(K[round])
                .wrapping_add(word[l])
        });
        let t2 = each(|l| {
            let s0 = a[l].rotate_right(2) ^ a[l].rotate_right(13) ^ a[l].rotate_right(22);
            let majority = (a[l] & b[l]) | (c[l] & (a[l] | b[l]));
            s0.wrapping_add(majority)
        });
        (h, g, f) = (g, f, e);
        e = each(|l| d[l].wrapping_add(t1[l]));
        (d, c, b) = (c, b, a);
        a = each(|l| t1[l].wrapping_add(t2[l]));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = each(|l| word[l].wrapping_add(add[l]));
    }
}

/// The square roots' and cube roots' fractions of FIPS 180-4 §5.3.3 and §4.2.2.
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What hashes messages, and its name.
    type Way = (
        &'static str,
        fn(&mut dyn Iterator<Item = Message<'_>>) -> Vec<[u8; HASH_SIZE]>,
    );

    /// Every way there is on this machine, whichever of them `digests` would choose.
    fn ways() -> Vec<Way> {
        let mut ways: Vec<Way> = vec![("in lanes", |messages| {
            let mut all = Vec::new();
            in_lanes(messages, |digest| all.push(digest));
            all
        })];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            ways.push(("in AVX2 lanes", |messages| {
                let mut all = Vec::new();
                // SAFETY: the processor has what the function is compiled for.
                unsafe { in_avx2_lanes(messages, |digest| all.push(digest)) };
                all
            }));
        }
        ways.push(("chosen", |messages| {
            let mut all = Vec::new();
            digests(messages, |digest| all.push(digest));
            all
        }));
        ways
    }

    /// NIST's examples for SHA-256 (FIPS 180-2 appendix B), sixteen times each: nothing but lanes.
    #[test]
    fn lanes_give_the_digests_of_the_standard() {
        for (message, digest) in [
            (
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            let (first, rest) = message.as_bytes().split_at(1);
            let message = Message {
                prefix: first[0],
                parts: [&rest[..1], &rest[1..]],
            };
            for (name, way) in ways() {
                let digests = way(&mut std::iter::repeat_n(message, WIDTH));
                assert_eq!(digests.len(), WIDTH);
                for hash in digests {
                    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
                    assert_eq!(hex, digest, "{name}");
                }
            }
        }
    }

    #[test]
    fn every_way_gives_the_digests_of_sha2_for_all_lengths_and_numbers_of_messages() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        // Around the borders of blocks, and lanes of different lengths side by side.
        let lengths = (0..=200).chain([247, 248, 255, 256, 500, 999]);
        let message = |length: usize, cut: usize| Message {
            prefix: (length % 3) as u8,
            parts: [&bytes[..cut.min(length)], &bytes[cut.min(length)..length]],
        };
        let all: Vec<Message> = lengths.map(|n| message(n, n * 5 % 77)).collect();
        for (name, way) in ways() {
            for count in (0..=3 * WIDTH + 1).chain([all.len()]) {
                for from in [0, 40, 100] {
                    let some = &all[from.min(all.len() - count)..][..count];
                    let expected: Vec<_> = some.iter().map(Message::digest).collect();
                    let digests = way(&mut some.iter().copied());
                    assert!(digests == expected, "{name}: {count} messages from {from}");
                }
            }
        }
    }
}
