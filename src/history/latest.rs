//! The latest entry of each key of a source, among the entries before a leaf index, in bounded memory.
//!
//! Entries are read from the newest to the oldest, so the first entry of a key that comes is its latest. Keys that came
//! are remembered by the first half of their SHA-256. When they take more memory than is allowed, those whose hashes are
//! in the upper half of the range are forgotten and left to a later pass, which reads the entries once more.

use crate::capture::key_equality::KeyEquality;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use std::collections::{HashMap, HashSet};
use std::ops::{Range, RangeInclusive};

/// Entries that are read at once.
const PAGE: i64 = 1024;
/// Bytes that a hash takes in a set of them, and a key that is remembered as text, beside the text.
const HASH_BYTES: usize = 40;
const KEY_BYTES: usize = 120;

pub struct Latest {
    log: Log,
    shape: Shape,
    has_labels: bool,
    equality: KeyEquality,
    /// The entries among which it is looked.
    entries: Range<i64>,
    /// The last one is under way.
    passes: Vec<Pass>,
    /// Bytes.
    memory: usize,
}

/// One reading of all entries, for the keys whose hashes are in a range.
struct Pass {
    hashes: RangeInclusive<u128>,
    /// Those of its keys whose latest entry is not before this one were found by an earlier pass.
    found_from: i64,
    /// Entries before this one are still to be read.
    next: i64,
    seen: Seen,
}

/// The keys that came.
enum Seen {
    Hashes(HashSet<u128>),
    /// Where the hash is the server's, unequal keys may share it.
    Keys {
        by_hash: HashMap<u128, Vec<String>>,
        bytes: usize,
    },
}

impl Latest {
    /// `memory`: bytes that may be used to remember keys.
    pub fn new(log: Log, shape: Shape, entries: Range<i64>, memory: usize) -> Latest {
        let equality = KeyEquality::of(&shape);
        let first = Pass {
            hashes: 0..=u128::MAX,
            found_from: entries.end,
            next: entries.end,
            seen: Seen::nothing(&equality),
        };
        Latest {
            has_labels: row_key::has_labels(&shape),
            log,
            shape,
            equality,
            entries,
            passes: vec![first],
            memory,
        }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Some more of the entries, in the order of the log; `None` when there are no more.
    pub fn page(&mut self, session: &Session) -> Result<Option<Vec<Entry>>, Error> {
        while let Some(pass) = self.passes.last_mut() {
            pgrx::check_for_interrupts!();
            if pass.next <= self.entries.start {
                self.passes.pop();
                continue;
            }
            let from = self.entries.start.max(pass.next - PAGE);
            let mut page = entries::between(session, &self.log, from, pass.next)?;
            page.retain(|entry| entry.source_id == self.shape.source.id);
            page.reverse();
            page.retain(|entry| {
                let key = match self.has_labels {
                    true => {
                        &row_key::name_then(&self.shape, &entry.key, entry.leaf_index, i64::MAX)
                    }
                    false => &entry.key,
                };
                pass.is_first(&self.equality, key) && entry.leaf_index < pass.found_from
            });
            page.reverse();
            pass.next = from;
            if pass.seen.bytes() > self.memory
                && let Some(rest) = pass.leave_half(&self.equality, self.entries.end)
            {
                self.passes.insert(self.passes.len() - 1, rest);
            }
            return Ok(Some(page));
        }
        Ok(None)
    }
}

impl Pass {
    /// True if the key is one of the pass, and did not come before.
    fn is_first(&mut self, equality: &KeyEquality, key: &str) -> bool {
        let hash = equality.long_hash(key);
        if !self.hashes.contains(&hash) {
            return false;
        }
        match &mut self.seen {
            Seen::Hashes(hashes) => hashes.insert(hash),
            Seen::Keys { by_hash, bytes } => {
                let of_hash = by_hash.entry(hash).or_default();
                let is_first = !of_hash.iter().any(|seen| equality.same(seen, key));
                if is_first {
                    *bytes += key.len() + KEY_BYTES;
                    of_hash.push(key.to_owned());
                }
                is_first
            }
        }
    }

    /// Restricts the pass to the lower half of its hashes; the pass for the upper half, which reads from `end` down.
    fn leave_half(&mut self, equality: &KeyEquality, end: i64) -> Option<Pass> {
        let (first, last) = (*self.hashes.start(), *self.hashes.end());
        let middle = first + (last - first) / 2;
        if middle == last {
            return None;
        }
        self.hashes = first..=middle;
        self.seen.forget_above(middle);
        Some(Pass {
            hashes: middle + 1..=last,
            found_from: self.found_from.min(self.next),
            next: end,
            seen: Seen::nothing(equality),
        })
    }
}

impl Seen {
    fn nothing(equality: &KeyEquality) -> Seen {
        match equality.is_by_server() {
            false => Seen::Hashes(HashSet::new()),
            true => Seen::Keys {
                by_hash: HashMap::new(),
                bytes: 0,
            },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Seen::Hashes(hashes) => hashes.len() * HASH_BYTES,
            Seen::Keys { bytes, .. } => *bytes,
        }
    }

    fn forget_above(&mut self, last: u128) {
        match self {
            Seen::Hashes(hashes) => hashes.retain(|hash| *hash <= last),
            Seen::Keys { by_hash, bytes } => {
                by_hash.retain(|hash, _| *hash <= last);
                let lengths = by_hash.values().flatten().map(|key| key.len() + KEY_BYTES);
                *bytes = lengths.sum();
            }
        }
    }
}
