//! Which slots a key may be in: linear hashing (Litwin, 1980) over lines of 64 bytes.
//!
//! A line holds seven entries, each 32 bits of the key's hash and a slot number, behind a header of
//! checksum and link. Seven buckets and one overflow line make a group, one sector of the file. The
//! table grows by one bucket for every [`LOAD`] entries, in the order of bucket numbers, so each
//! insertion does a bounded piece of the growing. An entry carries the hash that decides where it
//! goes, so growing touches no slot.
//!
//! Changes are made under the shard's lock and inside [`Version::change`]; the caller's reads are
//! right if the version has not moved.

use crate::storage::disk::DiskFile;
use crate::storage::region::Region;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const LINE: usize = 8;
const GROUP: u64 = 7;
/// The first overflow line, which no bucket uses: it says which checkpoint the file is of.
const STAMP: u64 = GROUP;
/// Entries per bucket: above it the table grows by a bucket, below a quarter of it shrinks by one.
const LOAD: u64 = 4;
/// The fewest buckets.
pub const LEAST: u64 = 7;

/// Lines that are asked for at a time where all are read: a mebibyte.
const READ_AHEAD: u64 = 16_384;

type Line = [u64; LINE];

/// The state of a shard's table, as a checkpoint keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub buckets: u64,
    pub entries: u64,
    /// Groups that were ever needed: a table that shrinks keeps them.
    groups: u64,
    /// Overflow lines in use or free, of one per group.
    overflow: u64,
    /// The first free overflow line plus 1.
    free: u64,
}

/// A line is not what was written.
#[derive(Clone, Copy, Debug)]
pub struct DamagedLine(pub u64);

/// What can go wrong with a change.
#[derive(Debug)]
pub enum ChangeError {
    Io(io::Error),
    Line(DamagedLine),
    /// The entry to be changed is not there.
    Missing,
}

impl From<DamagedLine> for ChangeError {
    fn from(line: DamagedLine) -> Self {
        ChangeError::Line(line)
    }
}

impl From<io::Error> for ChangeError {
    fn from(error: io::Error) -> Self {
        ChangeError::Io(error)
    }
}

type Change<T = ()> = Result<T, ChangeError>;

fn entry(tag: u32, slot: u64) -> u64 {
    u64::from(tag) << 32 | (slot + 1)
}

/// Of no entry, a slot that no shard has.
fn slot_of(entry: u64) -> u64 {
    u64::from((entry as u32).wrapping_sub(1))
}

/// The bucket of a hash in a table of so many buckets.
fn bucket(tag: u32, buckets: u64) -> u64 {
    let level = 1 << buckets.ilog2();
    let bucket = u64::from(tag) & (2 * level - 1);
    if bucket < buckets {
        bucket
    } else {
        bucket & (level - 1)
    }
}

fn primary(bucket: u64) -> u64 {
    bucket / GROUP * 8 + bucket % GROUP
}

#[inline]
fn check(number: u64, line: &Line) -> u64 {
    let mut bytes = [0; 60];
    // The link is checked, the checksum itself is not; a line in another's place is damage.
    bytes[..4].copy_from_slice(&((line[0] >> 32) as u32).to_le_bytes());
    crate::storage::slot::write_words(&mut bytes[4..], &line[1..]);
    xxh3_64_with_seed(&bytes, number) & 0xffff_ffff
}

fn link(line: &Line) -> Option<u64> {
    (line[0] >> 32)
        .checked_sub(1)
        .map(|overflow| overflow * 8 + GROUP)
}

fn load(region: &Region, number: u64) -> Result<Line, DamagedLine> {
    let cell = region.cell::<LINE>(number).ok_or(DamagedLine(number))?;
    let line: Line = std::array::from_fn(|word| cell[word].load(Ordering::Relaxed));
    if line[0] & 0xffff_ffff == check(number, &line) {
        Ok(line)
    } else {
        Err(DamagedLine(number))
    }
}

fn store(region: &Region, number: u64, mut line: Line) {
    line[0] = line[0] >> 32 << 32;
    line[0] |= check(number, &line);
    region.touch::<LINE>(number);
    let cell = region
        .cell::<LINE>(number)
        .expect("the table is within the region");
    for (place, word) in cell.iter().zip(line) {
        place.store(word, Ordering::Relaxed);
    }
}

/// The slot that a hash is probably in, by a line that is not checked.
#[inline]
pub fn guess(line: &[AtomicU64; LINE], tag: u32) -> Option<u64> {
    let line: Line = std::array::from_fn(|word| line[word].load(Ordering::Relaxed));
    let hits = hits(&line, tag);
    (hits != 0).then(|| slot_of(line[1 + hits.trailing_zeros() as usize]))
}

/// The entries of a line with a hash, a bit each; places without an entry are as if of hash 0. Which match
/// is not known to a branch predictor, so there is no branch on each.
#[inline]
fn hits(line: &Line, tag: u32) -> u32 {
    line[1..]
        .iter()
        .enumerate()
        .fold(0, |hits, (place, entry)| {
            let hit = (entry >> 32) as u32 == tag;
            hits | u32::from(hit) << place
        })
}

/// The slots that a hash may be in, the lines that were read to find them being counted.
#[inline]
pub fn candidates(
    region: &Region,
    buckets: u64,
    tag: u32,
    mut each: impl FnMut(u64) -> bool,
) -> Result<u32, DamagedLine> {
    let mut number = primary(bucket(tag, buckets));
    let mut lines = 0;
    loop {
        let line = load(region, number)?;
        lines += 1;
        let mut hits = hits(&line, tag);
        while hits != 0 {
            let entry = line[1 + hits.trailing_zeros() as usize];
            if entry != 0 && each(slot_of(entry)) {
                return Ok(lines);
            }
            hits &= hits - 1;
        }
        match link(&line) {
            // A reader may be led in a circle by lines that change under it.
            Some(next) if lines < 1_000 => number = next,
            Some(_) => return Err(DamagedLine(number)),
            None => return Ok(lines),
        }
    }
}

/// The line that a hash is probably in, which is asked for.
#[inline]
pub fn prefetch(region: &Region, buckets: u64, tag: u32) -> Option<&[AtomicU64; LINE]> {
    region.prefetch(primary(bucket(tag, buckets)))
}

impl Table {
    /// An empty table.
    pub fn create(region: &Region) -> io::Result<Self> {
        let mut table = Table {
            // That of the stamp.
            overflow: 1,
            ..Table::default()
        };
        for _ in 0..LEAST {
            table.open_bucket(region)?;
        }
        Ok(table)
    }

    /// Bytes of the file that the table uses.
    pub fn bytes(&self) -> u64 {
        self.groups * 8 * LINE as u64 * 8
    }

    /// Makes room for one more insertion: all that can fail of it for want of space.
    pub fn reserve(&self, region: &Region, insertions: u64) -> io::Result<()> {
        // Insertions may need buckets, and buckets more overflow lines; twice is enough for both.
        let buckets =
            self.buckets.max((self.entries + insertions) / LOAD + 1) + 2 * GROUP + insertions / 2;
        region.ensure((buckets / GROUP + 2) * 8 * LINE as u64 * 8)
    }

    pub fn insert(&mut self, region: &Region, tag: u32, slot: u64) -> Change {
        if self.entries >= self.buckets * LOAD {
            self.split(region)?;
        }
        while self.free == 0 && self.overflow == self.groups {
            self.split(region)?;
        }
        self.place(region, tag, slot)?;
        self.entries += 1;
        Ok(())
    }

    pub fn remove(&mut self, region: &Region, tag: u32, slot: u64) -> Change {
        self.change(region, tag, slot, 0)?;
        self.entries -= 1;
        if self.buckets > LEAST && self.entries < self.buckets * LOAD / 4 {
            self.merge(region)?;
        }
        Ok(())
    }

    /// Makes an entry name another slot.
    pub fn replace(&mut self, region: &Region, tag: u32, from: u64, to: u64) -> Change {
        self.change(region, tag, from, entry(tag, to))
    }

    fn change(&self, region: &Region, tag: u32, slot: u64, to: u64) -> Change {
        let mut number = primary(bucket(tag, self.buckets));
        loop {
            let mut line = load(region, number)?;
            if let Some(place) = line[1..]
                .iter()
                .position(|found| *found == entry(tag, slot))
            {
                line[1 + place] = to;
                store(region, number, line);
                return Ok(());
            }
            number = link(&line).ok_or(ChangeError::Missing)?;
        }
    }

    fn place(&mut self, region: &Region, tag: u32, slot: u64) -> Change {
        let mut number = primary(bucket(tag, self.buckets));
        loop {
            let mut line = load(region, number)?;
            if let Some(place) = line[1..].iter().position(|found| *found == 0) {
                line[1 + place] = entry(tag, slot);
                store(region, number, line);
                return Ok(());
            }
            match link(&line) {
                Some(next) => number = next,
                None => {
                    let overflow = self.allocate(region)?;
                    let mut more = [0; LINE];
                    more[1] = entry(tag, slot);
                    store(region, overflow * 8 + GROUP, more);
                    line[0] = (overflow + 1) << 32;
                    store(region, number, line);
                    return Ok(());
                }
            }
        }
    }

    fn allocate(&mut self, region: &Region) -> Change<u64> {
        match self.free.checked_sub(1) {
            Some(overflow) => {
                self.free = load(region, overflow * 8 + GROUP)?[0] >> 32;
                Ok(overflow)
            }
            None => {
                self.overflow += 1;
                Ok(self.overflow - 1)
            }
        }
    }

    /// The next bucket, empty; the lines of its group, if it is the first of it.
    fn open_bucket(&mut self, region: &Region) -> io::Result<()> {
        if self.buckets == self.groups * GROUP {
            region.ensure((self.groups + 1) * 8 * LINE as u64 * 8)?;
            for line in 0..8 {
                store(region, self.groups * 8 + line, [0; LINE]);
            }
            self.groups += 1;
        }
        self.buckets += 1;
        Ok(())
    }

    fn split(&mut self, region: &Region) -> Change {
        let from = self.buckets - (1 << self.buckets.ilog2());
        let entries = self.empty(region, from)?;
        self.open_bucket(region)?;
        self.refill(region, &entries)
    }

    fn merge(&mut self, region: &Region) -> Change {
        let last = self.buckets - 1;
        // Two buckets in one may need a line more than they did; if there is none, it can wait.
        if self.free == 0 && self.overflow == self.groups {
            return Ok(());
        }
        let mut entries = self.empty(region, last)?;
        entries.extend(self.empty(region, last - (1 << last.ilog2()))?);
        self.buckets = last;
        self.refill(region, &entries)
    }

    /// Takes all entries out of a bucket, its overflow lines becoming free.
    fn empty(&mut self, region: &Region, bucket: u64) -> Change<Vec<u64>> {
        let mut entries = Vec::new();
        let mut number = primary(bucket);
        loop {
            let line = load(region, number)?;
            entries.extend(line[1..].iter().filter(|entry| **entry != 0));
            let mut emptied = [0; LINE];
            if number % 8 == GROUP {
                emptied[0] = self.free << 32;
                self.free = number / 8 + 1;
            }
            store(region, number, emptied);
            match link(&line) {
                Some(next) => number = next,
                None => return Ok(entries),
            }
        }
    }

    fn refill(&mut self, region: &Region, entries: &[u64]) -> Change {
        entries
            .iter()
            .try_for_each(|entry| self.place(region, (entry >> 32) as u32, slot_of(*entry)))
    }
}

/// Puts a stamp into the file's first group.
pub fn set_stamp(region: &Region, stamp: &[u64; LINE - 1]) {
    let mut line = [0; LINE];
    line[1..].copy_from_slice(stamp);
    store(region, STAMP, line);
}

/// The stamp, if it is what was written.
pub fn stamp(region: &Region) -> Option<[u64; LINE - 1]> {
    load(region, STAMP).ok()?[1..].try_into().ok()
}

/// The stamp in a file that is not mapped.
pub fn stamp_in(file: &dyn DiskFile) -> Option<[u64; LINE - 1]> {
    let mut bytes = [0; LINE * 8];
    file.read_at(&mut bytes, STAMP * (LINE as u64) * 8).ok()?;
    let mut line = [0; LINE];
    crate::storage::slot::read_words(&bytes, &mut line);
    (line[0] & 0xffff_ffff == check(STAMP, &line)).then_some(line[1..].try_into().ok()?)
}

/// Every entry of some buckets of a table, as (hash, slot), and the lines that are damaged. Nobody may
/// change the table meanwhile.
pub fn entries(region: &Region, buckets: Range<u64>) -> (Vec<(u32, u64)>, Vec<u64>) {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for bucket in buckets {
        let mut number = primary(bucket);
        if bucket.is_multiple_of(READ_AHEAD) {
            region.will_need::<LINE>(number..number + 2 * READ_AHEAD);
        }
        for _ in 0..1_000 {
            match load(region, number) {
                Err(DamagedLine(line)) => {
                    damaged.push(line);
                    break;
                }
                Ok(line) => {
                    let entries = line[1..].iter().filter(|entry| **entry != 0);
                    found.extend(entries.map(|entry| ((entry >> 32) as u32, slot_of(*entry))));
                    match link(&line) {
                        Some(next) => number = next,
                        None => break,
                    }
                }
            }
        }
    }
    (found, damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn region() -> Region {
        Region::open(
            Arc::new(crate::storage::disk::OpenFile(
                tempfile::tempfile().unwrap(),
            )),
            crate::storage::region::Memory::Mapped,
        )
        .unwrap()
    }

    proptest! {
        /// Hashes of few bits make buckets that overflow, and overflow lines that run out.
        #[test]
        fn a_table_holds_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((any::<bool>(), any::<u32>()), 1..2_000),
            bits in 3u32..32,
        ) {
            let region = region();
            let mut table = Table::create(&region).unwrap();
            let mut model = BTreeSet::new();
            for (slot, (insert, number)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    // Some bits must differ for more than a hundred entries to find a place.
                    let tag = (number & ((1 << bits) - 1)) | (slot as u32).reverse_bits();
                    table.insert(&region, tag, slot as u64).unwrap();
                    model.insert((tag, slot as u64));
                } else {
                    let (tag, slot) = *model.iter().nth(number as usize % model.len()).unwrap();
                    table.remove(&region, tag, slot).unwrap();
                    model.remove(&(tag, slot));
                }
            }
            let (found, damaged) = entries(&region, 0..table.buckets);
            prop_assert!(damaged.is_empty());
            prop_assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(table.entries, model.len() as u64);
            for (tag, slot) in &model {
                let mut hit = false;
                candidates(&region, table.buckets, *tag, |found| { hit |= found == *slot; hit }).unwrap();
                prop_assert!(hit);
            }
        }
    }

    #[test]
    fn the_table_is_as_large_as_its_entries_ask_for() {
        let region = region();
        let mut table = Table::create(&region).unwrap();
        let tag = |slot: u64| xxh3_64_with_seed(&slot.to_le_bytes(), 0) as u32;
        for slot in 0..100_000 {
            table.insert(&region, tag(slot), slot).unwrap();
        }
        let lines: u32 = (0..100_000)
            .map(|slot| {
                candidates(&region, table.buckets, tag(slot), |found| found == slot).unwrap()
            })
            .sum();
        assert!(lines < 125_000, "{lines} lines for 100,000 entries");
        assert!((24_990..25_010).contains(&table.buckets), "{table:?}");
        for slot in 1_000..100_000 {
            table.remove(&region, tag(slot), slot).unwrap();
        }
        assert!(table.buckets < 1_100, "{table:?}");
    }
}
