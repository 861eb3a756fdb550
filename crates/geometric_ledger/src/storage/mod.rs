//! What is on disk and in memory: files, pages, slots, the index, the write-ahead log, the log of
//! batches. Nothing here knows what a ledger does with them.

pub mod batch;
pub mod batches;
pub mod changes;
pub mod disk;
pub mod encryption;
pub mod frontier_file;
pub mod group_sync;
pub mod huge_page;
pub mod index;
pub mod layout;
pub mod page_bits;
pub mod record;
pub mod region;
pub mod row_scrub;
pub mod segments;
pub mod seqlock;
pub mod shard;
pub mod slot;
pub mod snapshot_file;
pub mod superblock;
pub mod wal;

/// What [`seqlock`] is made of; the tests for every interleaving bring their own.
mod atomic {
    pub use std::sync::atomic::{AtomicU64, Ordering, fence};
}
