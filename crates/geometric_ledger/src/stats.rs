//! What there is, and whether it is right.

use crate::error::Error;
use crate::index;
use crate::ledger::{Core, GeometricLedger};
use crate::record::Totals;
use crate::shard::Shard;
use crate::slot::Kind;
use crate::superblock::Superblock;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::Ordering;

/// Numbers of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerStats {
    pub accounts: u64,
    /// The last batch that readers see.
    pub sequence: u64,
    /// Minted and burned in the ledger's whole life.
    pub totals: Totals,
    /// Bytes of files: slots, index, write-ahead log.
    pub slots_bytes: u64,
    pub index_bytes: u64,
    pub wal_bytes: u64,
    /// What a crash would have to replay.
    pub since_checkpoint_bytes: u64,
    /// Memory that is written and not in the files yet.
    pub dirty_bytes: u64,
    /// Receipts of batches of transfers.
    pub receipts: u64,
    /// The shards of accounts.
    pub shards: Vec<ShardStats>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardStats {
    pub number: u16,
    /// Slots in use, those of deleted accounts included.
    pub slots: u64,
    pub buckets: u64,
    /// Entries per place in the buckets' first lines.
    pub load: f64,
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub file: String,
    pub place: Option<Place>,
    pub what: Cow<'static, str>,
}

/// Where in a file something is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
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
        match self.place {
            Some(Place::Copy(number)) => write!(f, ", copy {number}")?,
            Some(Place::Slot(number)) => write!(f, ", slot {number}")?,
            Some(Place::Line(number)) => write!(f, ", line {number}")?,
            Some(Place::Row(number)) => write!(f, ", row {number}")?,
            None => {}
        }
        write!(f, ": {}", self.what)
    }
}

/// What [`GeometricLedger::audit`] summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub sequence: u64,
    pub accounts: u64,
    pub totals: Totals,
    /// The sum of all balances: what was minted and not burned.
    pub balances: i128,
}

impl GeometricLedger {
    pub fn stats(&self) -> LedgerStats {
        self.core.stats()
    }

    /// Sums up all balances as of one batch, and compares with what was minted and burned by then.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] if they differ, [`Error::Damaged`] if an account cannot be read.
    pub fn audit(&self) -> Result<Audit, Error> {
        self.audit_with(|_, _| Ok(()))
    }

    /// As [`GeometricLedger::audit`]; `progress` is told now and then how many accounts of how many were
    /// read, and may end it.
    pub(crate) fn audit_with(
        &self,
        mut progress: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<Audit, Error> {
        let view = self.view();
        let total = self.stats().accounts;
        let (mut accounts, mut balances) = (0, 0i128);
        for item in view.iter() {
            accounts += 1;
            if accounts % STEP == 0 {
                progress(accounts, total)?;
            }
            // In whatever order, the sum wraps to the right one, which is known to fit.
            balances = balances.wrapping_add(item?.1.balance);
        }
        let totals = match self.core.batches.get(view.sequence())? {
            Some(batch) => batch.totals,
            None => Totals::default(),
        };
        let expected = totals.balances();
        if balances != expected || accounts != totals.accounts {
            return Err(Error::Unbalanced { balances, expected });
        }
        Ok(Audit {
            sequence: view.sequence(),
            accounts,
            totals,
            balances,
        })
    }

    /// Reads both copies of the superblock, every slot, every line of the indexes, every batch's row and
    /// every hash above them, and checks that each account is found where it is. Writers wait for a
    /// shard at a time.
    ///
    /// # Errors
    /// If something cannot be read at all; what is wrong is in the result.
    pub fn verify(&self) -> Result<Vec<Finding>, Error> {
        self.verify_with(|_, _| Ok(()))
    }

    /// As [`GeometricLedger::verify`]; `progress` is told now and then how much of how much was read, and
    /// may end it.
    pub(crate) fn verify_with(
        &self,
        mut progress: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<Vec<Finding>, Error> {
        let core = &self.core;
        let mut findings = core.verify_superblock()?;
        for (number, shard) in core.shards.iter().enumerate() {
            progress(number as u64, core.shards.len() as u64)?;
            let _writer = core.writer.lock().unwrap();
            core.verify_shard(shard, &mut findings);
        }
        let rows = core.batches.verify()?.into_iter();
        findings.extend(rows.map(|(file, row, what)| Finding {
            file,
            place: Some(Place::Row(row)),
            what: what.into(),
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
        let accounts = self.core.account_shards().iter();
        let mut left: u64 = accounts.map(|shard| shard.count() / STEP + 2).sum();
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
        let checkpointer = self.checkpointer.lock().unwrap();
        let copies = Superblock::read(checkpointer.file())?;
        let dead = copies.dead.into_iter().map(|copy| Finding {
            file: "ledger".into(),
            place: Some(Place::Copy(copy as u64)),
            what: "this copy of the superblock cannot be read".into(),
        });
        Ok(dead.collect())
    }

    fn verify_shard(&self, shard: &Shard, findings: &mut Vec<Finding>) {
        let state = shard.state();
        let identity = &shard.identity;
        let mut find = |index: bool, place, what: &'static str| {
            let file = match index {
                true => identity.index_name(),
                false => identity.slots_name(),
            };
            let what = what.into();
            findings.push(Finding { file, place, what });
        };
        let (entries, damaged) = index::entries(&shard.index, &state.table);
        for line in damaged {
            let what = "the line's checksum is wrong";
            find(true, Some(Place::Line(line)), what);
        }
        let entries: HashSet<_> = entries.into_iter().collect();
        if entries.len() as u64 != state.slots {
            find(true, None, "the index has not one entry for each slot");
        }
        for number in 0..state.slots {
            let place = Some(Place::Slot(number));
            let Some(slot) = shard.slot(number, &self.seal) else {
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

    pub fn stats(&self) -> LedgerStats {
        let (totals, since) = {
            let writer = self.writer.lock().unwrap();
            let since = self
                .wal
                .appended()
                .saturating_sub(writer.checkpoint_position);
            (writer.totals, since)
        };
        let shards: Vec<_> = self
            .account_shards()
            .iter()
            .map(|shard| {
                let state = shard.state();
                ShardStats {
                    number: shard.identity.number,
                    slots: state.slots,
                    buckets: state.table.buckets,
                    load: state.table.entries as f64 / (state.table.buckets * 7) as f64,
                }
            })
            .collect();
        LedgerStats {
            accounts: totals.accounts,
            sequence: self.visible.load(Ordering::Acquire),
            totals,
            slots_bytes: self.shards.iter().map(|shard| shard.slots.bytes()).sum(),
            index_bytes: self.shards.iter().map(|shard| shard.index.bytes()).sum(),
            wal_bytes: self.wal.bytes(),
            since_checkpoint_bytes: since,
            dirty_bytes: self.unwritten(),
            receipts: self.receipts().count(),
            shards,
        }
    }
}
