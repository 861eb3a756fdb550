//! Reading everything to see whether it is as it was written, while batches go on.
//!
//! It goes in small steps, and takes a lock that a batch may wait for only for one of them. What seems
//! wrong, and may only have been in motion, is looked at again with the writer kept out.

use crate::engine::state::Core;
use crate::error::Error;
use crate::storage::index;
use crate::storage::record::Totals;
use crate::storage::row_scrub::RowScrub;
use crate::storage::shard::{Found, Shard};
use crate::storage::slot::{Kind, SLOT};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub file: String,
    pub location: Option<Location>,
    pub what: Cow<'static, str>,
}

/// Where in a file something is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// A copy of the superblock.
    Copy(u64),
    Slot(u64),
    /// A line of an index.
    Line(u64),
    /// A row of `batches`, or a hash of the tree above or of the frontier of what was pruned.
    Row(u64),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match self.location {
            Some(Location::Copy(number)) => write!(f, ", copy {number}")?,
            Some(Location::Slot(number)) => write!(f, ", slot {number}")?,
            Some(Location::Line(number)) => write!(f, ", line {number}")?,
            Some(Location::Row(number)) => write!(f, ", row {number}")?,
            None => {}
        }
        write!(f, ": {}", self.what)
    }
}

/// What an audit summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub sequence: u64,
    pub accounts: u64,
    pub totals: Totals,
    /// The sum of all balances. With what is pending, it is what was minted and not burned.
    pub balances: i128,
    /// The sum of what open transfers have taken off balances.
    pub pending: i128,
}

/// Is told how many bytes of how many were read, after each step; an error ends what it is told of.
pub type Pace<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), Error>;

/// Buckets, slots and rows of a step.
const BUCKETS: u64 = 512;
const SLOTS: u64 = 1_024;
const ROWS: u64 = 256;
/// Bytes of a slot, of a row, and of a bucket.
const SLOT_BYTES: u64 = SLOT as u64 * 8;
const ROW_BYTES: u64 = 160;
const BUCKET_BYTES: u64 = 64;

struct Steps<'a> {
    done: u64,
    total: u64,
    pace: Pace<'a>,
}

impl Steps<'_> {
    fn step(&mut self, bytes: u64) -> Result<(), Error> {
        self.done += bytes;
        // What is added meanwhile is read as well.
        (self.pace)(self.done, self.total.max(self.done))
    }
}

impl Core {
    /// Reads the superblock, every line of the indexes, every slot, every batch's row and every hash above
    /// them.
    pub fn scrub(&self, pace: Pace) -> Result<Vec<Finding>, Error> {
        let shards = self.shards.iter().map(|shard| {
            let state = shard.state();
            state.slots * SLOT_BYTES + state.table.buckets * BUCKET_BYTES
        });
        let rows = self.batches.root().0.get() - self.batches.pruned();
        let mut steps = Steps {
            done: 0,
            total: shards.sum::<u64>() + rows * ROW_BYTES,
            pace,
        };
        let mut findings = self.scrub_superblock()?;
        for shard in &self.shards {
            self.scrub_index(shard, &mut steps, &mut findings)?;
            self.scrub_slots(shard, &mut steps, &mut findings)?;
        }
        let mut rows = RowScrub::new(&self.batches);
        while let Some(more) = rows.next(&self.batches, ROWS)? {
            findings.extend(more.into_iter().map(|(file, row, what)| Finding {
                file,
                location: Some(Location::Row(row)),
                what: what.into(),
            }));
            steps.step(ROWS * ROW_BYTES)?;
        }
        Ok(findings)
    }

    fn scrub_superblock(&self) -> Result<Vec<Finding>, Error> {
        let superblock = self.superblock.lock().unwrap();
        let dead = superblock.dead_copies()?.into_iter().map(|copy| Finding {
            file: "ledger".into(),
            location: Some(Location::Copy(copy as u64)),
            what: "this copy of the superblock cannot be read".into(),
        });
        Ok(dead.collect())
    }

    fn scrub_index(
        &self,
        shard: &Shard,
        steps: &mut Steps,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let mut find = |location, what: &'static str| {
            findings.push(Finding {
                file: shard.identity.index_name(),
                location,
                what: what.into(),
            });
        };
        let (mut from, mut count) = (0, 0);
        loop {
            // The table may have grown since the last step.
            let (found, damaged, end, buckets) = {
                let state = shard.lock();
                let end = (from + BUCKETS).min(state.table.buckets);
                let (found, damaged) = index::entries(&shard.index, from..end);
                (found.len() as u64, damaged, end, state.table.buckets)
            };
            count += found;
            for line in damaged {
                find(Some(Location::Line(line)), "the line's checksum is wrong");
            }
            steps.step((end - from) * BUCKET_BYTES)?;
            from = end;
            if from == buckets {
                break;
            }
        }
        if count != shard.state().slots {
            // Entries move while the table grows. So it is counted once more, with the shard at rest.
            let state = shard.lock();
            let (found, _) = index::entries(&shard.index, 0..state.table.buckets);
            if found.len() as u64 != state.slots {
                find(None, "the index has not one entry for each slot");
            }
        }
        Ok(())
    }

    fn scrub_slots(
        &self,
        shard: &Shard,
        steps: &mut Steps,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let mut from = 0;
        while from < shard.count() {
            let end = (from + SLOTS).min(shard.count());
            for number in from..end {
                if self.look_at_slot(shard, number).is_none() {
                    continue;
                }
                let _writer = self.writer.lock().unwrap();
                if let Some(what) = self.look_at_slot(shard, number) {
                    findings.push(Finding {
                        file: shard.identity.slots_name(),
                        location: Some(Location::Slot(number)),
                        what: what.into(),
                    });
                }
            }
            steps.step((end - from) * SLOT_BYTES)?;
            from = end;
        }
        Ok(())
    }

    /// What is wrong with a slot, if anything is.
    fn look_at_slot(&self, shard: &Shard, number: u64) -> Option<&'static str> {
        if number >= shard.count() {
            return None;
        }
        let Some(slot) = shard.next_slot(number, &self.encryption) else {
            return Some("the slot's checksum is wrong");
        };
        let hash = self.hash_of(&slot.key(), slot.kind());
        if self.shard(hash).identity.number != shard.identity.number {
            return Some("the account belongs to another shard");
        }
        let mut found = Found::default();
        let there = shard.find(hash, &slot.key(), &self.encryption, &mut found);
        match there {
            Ok((true, _)) if found.number == number => {}
            _ => return Some("the index does not lead to the slot"),
        }
        let made = slot.kind() != Kind::Account || slot.sequence() > 0;
        (!made).then_some("no batch made the account")
    }
}
