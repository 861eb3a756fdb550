//! Which chunk and bit is a page's, and sets of bits that threads share.

use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of a block: of a huge page.
pub const BLOCK: u64 = 512;
/// Pages of the first chunk, and of the second.
const FIRST: u64 = BLOCK;
/// Enough for 2^40 pages.
pub const CHUNKS: usize = 33;

/// First page and number of pages of a chunk.
pub fn extent(chunk: usize) -> (u64, u64) {
    match chunk {
        0 => (0, FIRST),
        n => (FIRST << (n - 1), FIRST << (n - 1)),
    }
}

#[inline]
pub fn chunk_of(page: u64) -> usize {
    (u64::BITS - (page / FIRST).leading_zeros()) as usize
}

/// The chunk a page is in, and which of its pages it is.
pub fn chunk_and_bit(page: u64) -> (usize, u64) {
    let chunk = chunk_of(page);
    (chunk, page - extent(chunk).0)
}

/// Whether the bit was not set before.
pub fn set(bits: &[AtomicU64], bit: u64) -> bool {
    let (word, mask) = (&bits[bit as usize / 64], 1 << (bit % 64));
    // Reading first keeps the line shared where the bit is set already, which is the common case.
    word.load(Ordering::Relaxed) & mask == 0 && word.fetch_or(mask, Ordering::Relaxed) & mask == 0
}

/// How many bits are set.
pub fn ones(bits: &[AtomicU64]) -> u64 {
    let ones = |word: &AtomicU64| word.load(Ordering::Relaxed).count_ones();
    bits.iter().map(|word| u64::from(ones(word))).sum()
}

pub fn is_set(bits: &[AtomicU64], bit: u64) -> bool {
    bits[bit as usize / 64].load(Ordering::Relaxed) & 1 << (bit % 64) != 0
}

pub fn clear(bits: &[AtomicU64], bit: u64) -> bool {
    let (word, mask) = (&bits[bit as usize / 64], 1 << (bit % 64));
    word.load(Ordering::Relaxed) & mask != 0 && word.fetch_and(!mask, Ordering::Relaxed) & mask != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_in_one_chunk() {
        let mut next = 0;
        for chunk in 0..20 {
            let (start, count) = extent(chunk);
            assert_eq!(start, next);
            assert_eq!(chunk_and_bit(start), (chunk, 0));
            assert_eq!(chunk_and_bit(start + count - 1), (chunk, count - 1));
            next = start + count;
        }
    }
}
