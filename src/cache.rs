//! The node cache: tree hashes over ranges of committed entries, in shared memory.
//!
//! Such a hash can never change, so whatever the cache holds is right, whatever it has evicted, and a
//! miss is only slower. Two rules keep it so: a transaction that has written anything itself does not
//! fill the cache from what it reads, for it may see what will never commit; and a batch puts in what it
//! knows when it has committed. Logs are told apart by database, extension and log id, none of which is
//! used a second time.
//!
//! Memory is divided into sets of eight places of 64 bytes; a hash can lie in one set only, and takes
//! the place that was used least recently.

use crate::catalog::logs::Log;
use crate::pg::shmem::{self, Mode};
use crate::pg::xact;
use crate::session::Session;
use crate::settings;
use crate::shared::{self, LogCounters, Shared};
use merkle_tree::Hash;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks: the sets are dealt out among them.
pub const LOCKS: usize = 64;
const WAYS: usize = 8;
/// Above every height of a complete subtree.
const RAGGED: u32 = 64;

/// Plain reads and writes: the locks order them.
const PLAIN: Ordering = Ordering::Relaxed;

#[repr(C, align(64))]
struct Place {
    owner: AtomicU64,
    /// Log id and height.
    log: AtomicU64,
    index: AtomicU64,
    hash: [AtomicU64; 4],
    /// The cache's clock when it was last used; 0 for a free place.
    used: AtomicU64,
}

type Set = [Place; WAYS];

/// Bytes that the cache takes, by its setting.
pub fn size() -> usize {
    sets() * size_of::<Set>()
}

fn sets() -> usize {
    settings::cache_size() / size_of::<Set>()
}

/// The cache as one log sees it; empty and deaf where there is none.
#[derive(Clone, Copy)]
pub struct Cache {
    shared: Option<(&'static Shared, &'static [Set])>,
    counters: Option<&'static LogCounters>,
    owner: u64,
    log_id: i32,
    fill: bool,
}

impl Cache {
    /// For reading what has been committed; a transaction that has written does not fill it.
    pub fn of(session: &Session, log: &Log) -> Cache {
        // SAFETY: atomics; `lib.rs` asks for as much behind what is shared.
        let sets = unsafe { shmem::parts(shared::SIZE, sets()) };
        let shared = shared::get().zip(sets).filter(|(_, sets)| !sets.is_empty());
        Cache {
            shared,
            counters: shared.and_then(|(shared, _)| shared.counters(session, log.id)),
            owner: shared::owner(session),
            log_id: log.id,
            fill: xact::has_written_nothing(),
        }
    }

    /// No cache: for those who check what is stored.
    pub fn none() -> Cache {
        Cache {
            shared: None,
            counters: None,
            owner: 0,
            log_id: 0,
            fill: false,
        }
    }

    /// The tree hash over `leaves`, if it is here.
    pub fn recall(&self, leaves: &Range<u64>) -> Option<Hash> {
        let (shared, sets) = self.shared?;
        let (height, index) = name(leaves);
        let (number, way) = self.home(height, index, sets.len());
        let held = shmem::lock(number % LOCKS, Mode::Shared);
        let place = self.find(&sets[number], way, height, index);
        let words = place.map(|place| {
            place
                .used
                .store(shared.cache_clock.load(PLAIN).max(1), PLAIN);
            [0, 1, 2, 3].map(|i: usize| place.hash[i].load(PLAIN))
        });
        drop(held);
        if let Some(counters) = self.counters {
            let counter = match words {
                Some(_) => &counters.cache_hits,
                None => &counters.cache_misses,
            };
            counter.fetch_add(1, PLAIN);
        }
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words?) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(Hash::from(bytes))
    }

    /// Puts in what was read, if all that this transaction can see is committed.
    pub fn learn(&self, leaves: &Range<u64>, hash: &Hash) {
        if self.fill {
            self.put(leaves, hash);
        }
    }

    fn put(&self, leaves: &Range<u64>, hash: &Hash) {
        let Some((shared, sets)) = self.shared else {
            return;
        };
        let (height, index) = name(leaves);
        let (number, way) = self.home(height, index, sets.len());
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(hash.as_bytes().as_chunks().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        let now = shared.cache_clock.fetch_add(1, PLAIN) + 1;
        let _held = shmem::lock(number % LOCKS, Mode::Exclusive);
        let set = &sets[number];
        let oldest = || places(set, way).min_by_key(|p| p.used.load(PLAIN));
        let Some(place) = self.find(set, way, height, index).or_else(oldest) else {
            return;
        };
        place.owner.store(self.owner, PLAIN);
        place.log.store(self.log_and(height), PLAIN);
        place.index.store(index, PLAIN);
        for (to, word) in place.hash.iter().zip(words) {
            to.store(word, PLAIN);
        }
        place.used.store(now, PLAIN);
    }

    fn find<'s>(&self, set: &'s Set, way: usize, height: u32, index: u64) -> Option<&'s Place> {
        places(set, way).find(|place| {
            place.used.load(PLAIN) != 0
                && place.index.load(PLAIN) == index
                && place.log.load(PLAIN) == self.log_and(height)
                && place.owner.load(PLAIN) == self.owner
        })
    }

    fn log_and(&self, height: u32) -> u64 {
        u64::from(self.log_id as u32) << 32 | u64::from(height)
    }

    /// The set that a hash lies in, and the place of it that is looked at first.
    fn home(&self, height: u32, index: u64, sets: usize) -> (usize, usize) {
        let mut mixed = self.owner ^ self.log_and(height).rotate_left(17);
        mixed = (mixed ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
        mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let set = (mixed >> 20) % sets as u64;
        (set as usize, (mixed >> 10) as usize % WAYS)
    }
}

/// The places of a set, from one on: each lies in a cache line of its own, so the first should be it.
fn places(set: &Set, from: usize) -> impl Iterator<Item = &Place> {
    set[from..].iter().chain(&set[..from])
}

/// What a range of leaves is known by: a complete subtree by its height and place, the ragged end of a
/// tree by the height it would have, and where it ends.
fn name(leaves: &Range<u64>) -> (u32, u64) {
    let length = leaves.end - leaves.start;
    let height = length.next_power_of_two().trailing_zeros();
    match length.is_power_of_two() {
        true => (height, leaves.start >> height),
        false => (RAGGED + height, leaves.end),
    }
}

/// Puts in the tree hashes that a batch has made, once it has committed.
pub fn learn_after_commit(session: &Session, log: &Log, nodes: Vec<(Range<u64>, Hash)>) {
    let cache = Cache::of(session, log);
    if cache.shared.is_some() {
        xact::after_commit(move || {
            nodes
                .iter()
                .for_each(|(leaves, hash)| cache.put(leaves, hash));
        });
    }
}

/// How many hashes the cache holds, of how many that it has room for; `None` without a cache.
pub fn occupancy() -> Option<(u64, u64)> {
    // SAFETY: as in `Cache::of`.
    let sets = unsafe { shmem::parts::<Set>(shared::SIZE, sets()) }?;
    let places = || sets.iter().flatten();
    let taken = places().filter(|p| p.used.load(PLAIN) != 0).count();
    Some((taken as u64, places().count() as u64))
}
