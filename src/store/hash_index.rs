//! `merkle_hash_index`: where leaf hashes are, of logs that are to be asked for them (`find_by_hash`).
//!
//! A B-tree over every hash would cost more than all else that a batch writes. So each run of 16,384 entries has one
//! row: the first four bytes of each hash with the entry's place in the run, sorted. Hashes are evenly spread, so a
//! look-up goes to where its prefix should be and reads a few kilobytes of a run. What it finds is compared with the
//! entry. Entries behind the last complete run, or of a log without the index, are read themselves.

use super::entries;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::memory::Scratch;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::{HASH_SIZE, Hash};
use std::ops::Range;

/// Entries of a run.
const RUN: i64 = 16_384;
/// Runs that one batch indexes at most: of a log that gets the index late, the next batches do the rest.
const RUNS_OF_BATCH: i64 = 64;
/// Entries that are read at once where there is no index.
const CHUNK: i64 = 4096;
const PREFIX: usize = 4;
/// A prefix and a place.
const ITEM: usize = PREFIX + 2;
/// Items that are read at first. Of 16,384 evenly spread values one is seldom 200 places from where it should be.
const WINDOW: usize = 512;

/// The items of a run, sorted.
fn items(hashes: &[Hash], first_place: usize) -> Vec<u8> {
    let item = |(place, hash): (usize, &Hash)| {
        let mut item = [0; ITEM];
        item[..PREFIX].copy_from_slice(&hash.as_bytes()[..PREFIX]);
        item[PREFIX..].copy_from_slice(&((first_place + place) as u16).to_be_bytes());
        item
    };
    let mut items: Vec<[u8; ITEM]> = hashes.iter().enumerate().map(item).collect();
    items.sort_unstable();
    items.concat()
}

/// The items of a run of which all entries are there, but for pruned ones.
fn of_run(session: &Session, snapshot: Snapshot, log: &Log, run: i64) -> Result<Vec<u8>, Error> {
    let first = (run * RUN).max(log.pruned_to);
    let count = ((run + 1) * RUN - first) as usize;
    let mut open = entries::open(session)?;
    let hashes = entries::leaf_hashes(&mut open, snapshot, log, first, count)?;
    Ok(items(&hashes, (first % RUN) as usize))
}

/// The first run that has no row.
fn next_run(session: &Session, snapshot: Snapshot, log: &Log) -> i64 {
    let last = session.query(
        snapshot,
        "SELECT pg_catalog.max(x.run) FROM @extschema@.merkle_hash_index x WHERE x.log_id = $1",
        &[log.id.into()],
        |row| row.get::<i64>(0),
    );
    let next = last.into_iter().flatten().next().map_or(0, |run| run + 1);
    next.max(log.pruned_to / RUN)
}

/// Indexes the runs that a log of `size` entries has completed, where the log is to have the index. The caller holds
/// the log's lock.
pub fn extend(session: &Session, log: &Log, size: i64) -> Result<(), Error> {
    if !log.find_by_hash {
        return Ok(());
    }
    let next = next_run(session, Snapshot::Fresh, log);
    let mut scratch = Scratch::new();
    for run in next..(size / RUN).min(next + RUNS_OF_BATCH) {
        pgrx::check_for_interrupts!();
        scratch.scope(|| {
            let items = of_run(session, Snapshot::Fresh, log, run)?;
            session.execute(
                "INSERT INTO @extschema@.merkle_hash_index (log_id, run, entries, hashes) VALUES ($1, $2, $3, $4)",
                &[
                    log.id.into(),
                    run.into(),
                    ((items.len() / ITEM) as i32).into(),
                    items.into(),
                ],
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Deletes the runs before an entry, or all.
pub fn delete(session: &Session, log: &Log, before: Option<i64>) {
    let runs = before.map_or(i64::MAX, |entry| entry / RUN);
    session.execute(
        "DELETE FROM @extschema@.merkle_hash_index x WHERE x.log_id = $1 AND x.run < $2",
        &[log.id.into(), runs.into()],
    );
}

/// A search for the entries with a leaf hash, in order, a run or chunk at a time.
pub struct Search {
    log: Log,
    hash: Hash,
    /// Where the search goes on.
    next: i64,
    /// Up to here there are rows of the index.
    indexed: i64,
    size: i64,
}

impl Search {
    pub fn start(session: &Session, log: Log, hash: Hash, size: i64) -> Search {
        let indexed = match log.find_by_hash {
            true => next_run(session, Snapshot::Statement, &log) * RUN,
            false => 0,
        };
        Search {
            next: log.pruned_to,
            indexed: indexed.min(size),
            log,
            hash,
            size,
        }
    }

    /// The next entries with the hash; `None` when there are no more.
    pub fn next(&mut self, session: &Session) -> Result<Option<Vec<i64>>, Error> {
        while self.next < self.size {
            pgrx::check_for_interrupts!();
            let found = match self.next < self.indexed {
                true => self.in_run(session)?,
                false => self.in_entries(session)?,
            };
            if !found.is_empty() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first entry with the hash.
    pub fn first(mut self, session: &Session) -> Result<Option<i64>, Error> {
        Ok(self.next(session)?.and_then(|found| found.first().copied()))
    }

    fn in_run(&mut self, session: &Session) -> Result<Vec<i64>, Error> {
        let run = self.next / RUN;
        let keys = [Key::int4(1, self.log.id), Key::int8(2, run)];
        let mut index = session.index(c"merkle_hash_index", c"merkle_hash_index_pkey")?;
        let prefix = &self.hash.as_bytes()[..PREFIX];
        let places = index.first(Snapshot::Statement, &keys, Direction::Forward, |row| {
            places(row, prefix)
        });
        // Of a row that somebody has taken out, the entries say the same.
        let Some(places) = places.flatten() else {
            self.indexed = self.next;
            return Ok(Vec::new());
        };
        let mut open = entries::open(session)?;
        let mut found = Vec::new();
        for at in places.into_iter().map(|place| run * RUN + i64::from(place)) {
            let here = entries::leaf_hashes(&mut open, Snapshot::Statement, &self.log, at, 1)?;
            if at >= self.next && here.first() == Some(&self.hash) {
                found.push(at);
            }
        }
        found.sort_unstable();
        self.next = (run + 1) * RUN;
        Ok(found)
    }

    fn in_entries(&mut self, session: &Session) -> Result<Vec<i64>, Error> {
        let (first, count) = (self.next, CHUNK.min(self.size - self.next));
        let mut open = entries::open(session)?;
        let snapshot = Snapshot::Statement;
        let hashes = entries::leaf_hashes(&mut open, snapshot, &self.log, first, count as usize)?;
        self.next += count;
        let here = hashes.iter().enumerate().filter(|(_, h)| **h == self.hash);
        Ok(here.map(|(place, _)| first + place as i64).collect())
    }
}

/// The places in a run, of which `row` is the index, of hashes with a prefix. `None` if it is no row of the index.
fn places(row: &Row, prefix: &[u8]) -> Option<Vec<u16>> {
    let count = usize::try_from(row.get::<i32>(2)?).ok()?;
    let number = u32::from_be_bytes(prefix.try_into().ok()?);
    let guess = ((u64::from(number) * count as u64) >> 32) as usize;
    let mut reach = WINDOW / 2;
    loop {
        let (from, to) = (guess.saturating_sub(reach), (guess + reach).min(count));
        let window = row.bytes(3, from * ITEM, (to - from) * ITEM)?;
        let (items, []) = window.as_chunks::<ITEM>() else {
            return None;
        };
        if items.len() != to - from {
            return None;
        }
        let before = from == 0 || items.first().is_some_and(|i| &i[..PREFIX] < prefix);
        let behind = to == count || items.last().is_some_and(|i| &i[..PREFIX] > prefix);
        if before && behind {
            let here = items.iter().filter(|i| &i[..PREFIX] == prefix);
            return Some(here.map(|i| u16::from_be_bytes([i[4], i[5]])).collect());
        }
        reach *= 4;
    }
}

/// The runs that have a row, or should have.
pub fn runs(session: &Session, log: &Log) -> Range<i64> {
    log.pruned_to / RUN..next_run(session, Snapshot::Statement, log)
}

/// The first entry of a run whose row is not what the entries say, of a log of `size` entries.
pub fn mismatch(session: &Session, log: &Log, run: i64, size: i64) -> Result<Option<i64>, Error> {
    let first = (run * RUN).max(log.pruned_to);
    let is_right: Result<bool, Error> = Scratch::new().scope(|| {
        if (run + 1) * RUN > size {
            return Ok(false);
        }
        let stored = session.read_one(
            "SELECT x.entries, x.hashes FROM @extschema@.merkle_hash_index x WHERE x.log_id = $1 AND x.run = $2",
            &[log.id.into(), run.into()],
            |row| (row.get::<i32>(0), row.get::<Vec<u8>>(1)),
        );
        let Some((Some(entries), Some(hashes))) = stored else {
            return Ok(false);
        };
        // A run that was pruned in part since still has the items of what is gone.
        let kept = |item: &[u8; ITEM]| {
            run * RUN + i64::from(u16::from_be_bytes([item[4], item[5]])) >= first
        };
        let items = hashes.as_chunks::<ITEM>().0;
        let left: Vec<u8> = items.iter().filter(|i| kept(i)).flatten().copied().collect();
        let whole = entries as usize * ITEM == hashes.len();
        Ok(whole && left == of_run(session, Snapshot::Statement, log, run)?)
    });
    Ok((!is_right?).then_some(first))
}

const _: () = assert!(HASH_SIZE >= PREFIX && RUN <= 1 << 16);
