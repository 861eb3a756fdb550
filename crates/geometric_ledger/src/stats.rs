//! What there is, and whether it is right.

use crate::error::Error;
use crate::index;
use crate::ledger::{Core, GeometricLedger};
use crate::record::Totals;
use crate::slot::Kind;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// Numbers of a ledger.
#[derive(Clone, Debug, PartialEq)]
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
    pub shards: Vec<ShardStats>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShardStats {
    pub number: u16,
    /// Slots in use, those of deleted accounts and of receipts included.
    pub slots: u64,
    pub buckets: u64,
    /// Entries per place in the buckets' first lines.
    pub load: f64,
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub shard: u16,
    /// The slot, or the line of the index.
    pub slot: Option<u64>,
    pub line: Option<u64>,
    pub what: &'static str,
}

/// What [`GeometricLedger::audit`] summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let view = self.view();
        let (mut accounts, mut balances) = (0, 0i128);
        for item in view.iter() {
            accounts += 1;
            // In whatever order, the sum wraps to the right one, which is known to fit.
            balances = balances.wrapping_add(item?.1.balance);
        }
        let totals = match self.core.batches.get(view.sequence())? {
            Some(batch) => batch.totals,
            None => Totals::default(),
        };
        let expected = totals.minted.wrapping_sub(totals.burned) as i128;
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

    /// Reads every slot and every line of the index, and checks that each account is found where it
    /// is. Writers wait for a shard at a time.
    ///
    /// # Errors
    /// Only if the ledger is open for writing and has stopped; what is wrong is in the result.
    pub fn verify(&self) -> Result<Vec<Finding>, Error> {
        let core = &self.core;
        let mut findings = Vec::new();
        for shard in &core.shards {
            let _writer = core.writer.lock().unwrap();
            let state = shard.state();
            let mut find = |slot, line, what| {
                findings.push(Finding {
                    shard: shard.number,
                    slot,
                    line,
                    what,
                });
            };
            let (entries, damaged) = index::entries(&shard.index, &state.table);
            for line in damaged {
                find(None, Some(line), "the line's checksum is wrong");
            }
            let entries: HashSet<_> = entries.into_iter().collect();
            if entries.len() as u64 != state.slots {
                find(None, None, "the index has not one entry for each slot");
            }
            for number in 0..state.slots {
                match shard.slot(number, &core.seal) {
                    None => find(Some(number), None, "the slot's checksum is wrong"),
                    Some(slot) => {
                        let hash = core.hash(&slot.key());
                        if core.shard(hash).number != shard.number {
                            find(Some(number), None, "the account belongs to another shard");
                        } else if !entries.contains(&(hash.tag(), number)) {
                            find(Some(number), None, "the index does not lead to the slot");
                        } else if slot.kind() == Kind::Account && slot.sequence() == 0 {
                            find(Some(number), None, "no batch made the account");
                        }
                    }
                }
            }
        }
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
        let mut left: u64 = self
            .core
            .shards
            .iter()
            .map(|shard| shard.count() / STEP + 2)
            .sum();
        while left > 0 {
            let writer = self.core.write_always()?;
            reclaimed += self.core.reclaim_some(writer, STEP)?;
            left -= 1;
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
            .shards
            .iter()
            .map(|shard| {
                let state = shard.state();
                ShardStats {
                    number: shard.number,
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
            shards,
        }
    }
}
