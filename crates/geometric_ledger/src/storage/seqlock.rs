//! Reading a few words that another thread may be writing, without waiting for it.
//!
//! A cell is an array of words whose first is its *stamp*: odd while the cell is being written. A
//! reader that finds the same even stamp before and after has read one state of the cell (Boehm,
//! "Can seqlocks get along with programming language memory models?", 2012). Writers of one cell
//! exclude each other by other means.

use super::atomic::{AtomicU64, Ordering, fence};

/// Replaces a cell's words by `words`, whose first is even.
#[inline]
pub fn write<const N: usize>(cell: &[AtomicU64; N], words: &[u64; N]) {
    debug_assert!(words[0] & 1 == 0);
    cell[0].store(words[0] | 1, Ordering::Relaxed);
    fence(Ordering::Release);
    for (place, word) in cell.iter().zip(words).skip(1) {
        place.store(*word, Ordering::Relaxed);
    }
    cell[0].store(words[0], Ordering::Release);
}

/// Reads the cell's words; false, and any words, if they are just being written.
#[inline(always)]
pub fn read<const N: usize>(cell: &[AtomicU64; N], words: &mut [u64; N]) -> bool {
    let stamp = cell[0].load(Ordering::Acquire);
    words[0] = stamp;
    for (word, place) in words.iter_mut().zip(cell).skip(1) {
        *word = place.load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    stamp & 1 == 0 && cell[0].load(Ordering::Relaxed) == stamp
}

/// A counter that is odd while what it guards is being changed.
pub struct Version(AtomicU64);

impl Version {
    pub fn new() -> Self {
        Version(AtomicU64::new(0))
    }

    /// Runs a change of what is guarded. Writers exclude each other by other means.
    pub fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let version = self.0.load(Ordering::Relaxed);
        self.0.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        self.0.store(version + 2, Ordering::Release);
        result
    }

    /// The version before a read, to be given to [`Version::unchanged`] after it.
    pub fn begin(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether what was read since [`Version::begin`] was one state.
    pub fn unchanged(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        version & 1 == 0 && self.0.load(Ordering::Relaxed) == version
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Also run under Miri, which looks for data races and what weak memory allows.
    #[test]
    fn a_reader_never_sees_half_of_two_states() {
        let cell: [AtomicU64; 4] = std::array::from_fn(|_| AtomicU64::new(0));
        let version = Version::new();
        let rounds = if cfg!(miri) { 50 } else { 100_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    write(&cell, &[round << 1, round, round, round]);
                    version.change(|| {});
                }
            });
            let (mut last, mut read_words) = (0, [0; 4]);
            while last < rounds {
                let before = version.begin();
                if read(&cell, &mut read_words) {
                    let [stamp, words @ ..] = read_words;
                    assert!(
                        words.iter().all(|word| *word == stamp >> 1),
                        "{stamp} {words:?}"
                    );
                    assert!(stamp >> 1 >= last);
                    last = stamp >> 1;
                }
                version.unchanged(before);
                std::thread::yield_now();
            }
        });
    }
}
