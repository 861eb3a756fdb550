//! Whether what there is is right, and the space of what is gone.

use crate::engine::state::Core;
use crate::engine::stats::LedgerStats;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::index;
use crate::storage::record::Totals;
use crate::storage::shard::Shard;
use crate::storage::slot::Kind;
use std::collections::HashSet;
use std::fmt;

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    pub location: Option<Location>,
    pub what: &'static str,
}

/// Where in a file something is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// A copy of the superblock.
    Copy(u64),
    Slot(u64),
    /// A line of an index.
    Line(u64),
    /// A row of `batches`, or a hash of the tree above.
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

/// What [`GeometricLedger::audit`] summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    pub sequence: u64,
    pub accounts: u64,
    pub totals: Totals,
    /// The sum of all balances. With what is pending, it is what was minted and not burned.
    pub balances: i128,
    /// The sum of what open transfers have taken off balances.
    pub pending: i128,
}

impl GeometricLedger {
    /// Numbers of the ledger.
    pub fn stats(&self) -> LedgerStats {
        self.core.stats()
    }

    /// Sums up all balances as of one batch, and compares with what was minted and burned by then.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] if they differ, [`Error::Damaged`] if an account cannot be read.
    pub fn audit(&self) -> Result<Audit, Error> {
        let view = self.view();
        let (mut accounts, mut balances, mut pending) = (0, 0i128, 0i128);
        for item in view.iter() {
            accounts += 1;
            // In whatever order, the sum wraps to the right one, which is known to fit.
            balances = balances.wrapping_add(item?.1.balance);
        }
        for amount in view.open_amounts() {
            pending = pending.wrapping_add(amount? as i128);
        }
        let totals = match self.core.batches.get(view.sequence())? {
            Some(batch) => batch.totals,
            None => Totals::default(),
        };
        let expected = totals.balances();
        let sum = balances.wrapping_add(pending);
        if sum != expected || accounts != totals.accounts {
            let balances = sum;
            return Err(Error::Unbalanced { balances, expected });
        }
        Ok(Audit {
            sequence: view.sequence(),
            accounts,
            totals,
            balances,
            pending,
        })
    }

    /// Reads both copies of the superblock, every slot, every line of the indexes, every batch's row and
    /// every hash above them, and checks that each account is found where it is. Writers wait for a
    /// shard at a time.
    ///
    /// # Errors
    /// If something cannot be read at all; what is wrong is in the result.
    pub fn verify(&self) -> Result<Vec<Finding>, Error> {
        let core = &self.core;
        let mut findings = core.verify_superblock()?;
        for shard in &core.shards {
            let _writer = core.writer.lock().unwrap();
            core.verify_shard(shard, &mut findings);
        }
        let rows = core.batches.verify()?.into_iter();
        findings.extend(rows.map(|(file, row, what)| Finding {
            file,
            location: Some(Location::Row(row)),
            what,
        }));
        Ok(findings)
    }

    /// Gives slots to others that nobody can ask for any more, in all shards, and the space behind
    /// them to the file system. The ledger does the first by itself, little by little.
    ///
    /// # Errors
    /// If it cannot be written; nothing is lost.
    pub fn compact(&self) -> Result<u64, Error> {
        self.checkpoint()?;
        let mut reclaimed = 0;
        let shards = self.core.account_shards().iter();
        let shards = shards.chain(self.core.record_shards());
        let mut left: u64 = shards.map(|shard| shard.count() / STEP + 2).sum();
        while left > 0 {
            let mut writer = self.core.write_always()?;
            reclaimed += self.core.reclaim_some(&mut writer, STEP)?;
            left -= 1;
        }
        for _ in 0..self.core.receipts().count() / STEP + 2 {
            let mut writer = self.core.write_always()?;
            reclaimed += self.core.reclaim_some_receipts(&mut writer, STEP)?;
        }
        // The next recovery must not find what the space is taken from.
        self.checkpoint()?;
        self.core.punch()?;
        Ok(reclaimed)
    }
}

/// Slots that compaction looks at with writers waiting.
const STEP: u64 = 4_096;

impl Core {
    fn verify_superblock(&self) -> Result<Vec<Finding>, Error> {
        let superblock = self.superblock.lock().unwrap();
        let dead = superblock.dead_copies()?.into_iter().map(|copy| Finding {
            file: "ledger".into(),
            location: Some(Location::Copy(copy as u64)),
            what: "this copy of the superblock cannot be read",
        });
        Ok(dead.collect())
    }

    fn verify_shard(&self, shard: &Shard, findings: &mut Vec<Finding>) {
        let state = shard.state();
        let identity = &shard.identity;
        let mut find = |index: bool, place, what| {
            let file = match index {
                true => identity.index_name(),
                false => identity.slots_name(),
            };
            findings.push(Finding {
                file,
                location: place,
                what,
            });
        };
        let (entries, damaged) = index::entries(&shard.index, &state.table);
        for line in damaged {
            let what = "the line's checksum is wrong";
            find(true, Some(Location::Line(line)), what);
        }
        let entries: HashSet<_> = entries.into_iter().collect();
        if entries.len() as u64 != state.slots {
            find(true, None, "the index has not one entry for each slot");
        }
        for number in 0..state.slots {
            let place = Some(Location::Slot(number));
            let Some(slot) = shard.next_slot(number, &self.encryption) else {
                find(false, place, "the slot's checksum is wrong");
                continue;
            };
            let hash = self.hash_of(&slot.key(), slot.kind());
            if self.shard(hash).identity.number != identity.number {
                find(false, place, "the account belongs to another shard");
            } else if !entries.contains(&(hash.tag(), number)) {
                find(false, place, "the index does not lead to the slot");
            } else if slot.kind() == Kind::Account && slot.sequence() == 0 {
                find(false, place, "no batch made the account");
            }
        }
    }
}
