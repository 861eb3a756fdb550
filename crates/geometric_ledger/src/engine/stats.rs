//! Numbers of a ledger.

use crate::engine::state::Core;
use crate::storage::batch::ROW;
use crate::storage::record::Totals;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Numbers of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerStats {
    pub accounts: u64,
    /// The last batch that readers see.
    pub sequence: u64,
    /// The first batch that was not pruned.
    pub first_batch: u64,
    /// Minted and burned in the ledger's whole life.
    pub totals: Totals,
    /// Bytes of files: slots, index, write-ahead log.
    pub slots_bytes: u64,
    pub index_bytes: u64,
    pub wal_bytes: u64,
    /// Bytes of what is kept of batches.
    pub batches_bytes: u64,
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
        let pruned = self.batches.pruned();
        let sequence = self.visible.load(Ordering::Acquire);
        LedgerStats {
            accounts: totals.accounts,
            sequence,
            first_batch: pruned + 1,
            batches_bytes: sequence.saturating_sub(pruned) * ROW as u64,
            totals,
            slots_bytes: self.shards.iter().map(|shard| shard.slots.bytes()).sum(),
            index_bytes: self.shards.iter().map(|shard| shard.index.bytes()).sum(),
            wal_bytes: self.wal.segments.bytes(),
            since_checkpoint_bytes: since,
            dirty_bytes: self.unwritten(),
            receipts: self.receipts().count(),
            shards,
        }
    }
}
