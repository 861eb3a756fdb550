//! How much memory the ledger has of its own beside the page cache, and in what pages.
//!
//! Pages that were written are in memory twice, in the page cache and here, and stay so up to
//! `resident_bytes`. Those that are not in the files yet are bounded by `dirty_bytes` beside. Within
//! `resident_bytes`, what every look-up reads (the index) and what is written for the
//! most part is brought into huge pages little by little.

use crate::engine::state::Core;
use crate::storage::huge_page::HugePage;
use crate::storage::region::{BLOCK, PAGE, Region};

/// Pages let go at a time, with writers waiting.
const RUN: u64 = 256;
/// Huge pages at the most: each is a mapping of its own, of which Linux allows a process 65,530.
const MOST: u64 = 16_384;

impl Core {
    /// Lets pages go, beyond what was allowed, that the page cache has as well.
    pub fn release(&self) {
        let mut excess = self.resident().saturating_sub(self.allowed());
        for region in self.regions() {
            while excess > 0 {
                let _unchanged = self.writer.lock().unwrap();
                match region.release(excess.min(RUN)) {
                    0 => break,
                    released => excess -= released,
                }
            }
        }
    }

    /// Brings up to `count` blocks into huge pages.
    pub fn promote(&self, count: usize) {
        if !HugePage::available() {
            return;
        }
        let there: u64 = self.regions().map(Region::huge).sum();
        let allowed = self.allowed().saturating_sub(self.resident()) / BLOCK;
        let allowed = allowed.min(MOST.saturating_sub(there));
        let (used, written) = match self.options.huge_pages {
            true => (1, 0),
            false => (BLOCK / 2, BLOCK / 2),
        };
        let indexes = self.indexes().map(|it| (it, it.small_blocks(used, 0)));
        let slots = self.slots().map(|it| (it, it.small_blocks(used, written)));
        let blocks = indexes
            .chain(slots)
            .flat_map(|(region, blocks)| blocks.into_iter().map(move |block| (region, block)));
        for (region, block) in blocks.take(count.min(allowed as usize)) {
            let Ok(page) = HugePage::new() else { return };
            let _unchanged = self.writer.lock().unwrap();
            if !region.promote(block, page) {
                return;
            }
        }
    }

    fn indexes(&self) -> impl Iterator<Item = &Region> {
        self.shards.iter().map(|shard| &shard.index)
    }

    fn slots(&self) -> impl Iterator<Item = &Region> {
        self.shards.iter().map(|shard| &shard.slots)
    }

    fn regions(&self) -> impl Iterator<Item = &Region> {
        self.indexes().chain(self.slots())
    }

    /// Bytes that were written since the last checkpoint began.
    pub fn dirty(&self) -> u64 {
        PAGE as u64 * self.regions().map(Region::dirty).sum::<u64>()
    }

    /// Bytes that are not in the files yet.
    pub fn unwritten(&self) -> u64 {
        PAGE as u64 * self.regions().map(Region::unwritten).sum::<u64>()
    }

    /// Pages of its own.
    fn resident(&self) -> u64 {
        self.regions().map(Region::private).sum()
    }

    fn allowed(&self) -> u64 {
        match self.options.huge_pages {
            true => u64::MAX,
            false => self.options.resident_bytes / PAGE as u64,
        }
    }
}
