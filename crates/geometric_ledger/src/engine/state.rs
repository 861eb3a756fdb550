//! The state of an open ledger, which every stage of the engine works on. It knows none of them.

use crate::account::Key;
use crate::engine::items::Piece;
use crate::engine::signal::Signal;
use crate::engine::submissions::Submissions;
use crate::error::Error;
use crate::options::{Durability, Options};
use crate::storage::batch::Batch;
use crate::storage::batches::Batches;
use crate::storage::disk::Disk;
use crate::storage::encryption::Encryption;
use crate::storage::layout::{Group, KeyHash, Layout};
use crate::storage::record::{Header, RecordKind, Totals, record_len};
use crate::storage::shard::Shard;
use crate::storage::slot::Kind;
use crate::storage::superblock::{Superblock, SuperblockFile};
use crate::storage::wal::Wal;
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct Core {
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub layout: Layout,
    pub shards: Vec<Shard>,
    pub encryption: Arc<Encryption>,
    pub hasher: SipHasher13,
    /// Memory of the pieces of batches past.
    pub spare: Mutex<Vec<Piece>>,
    pub wal: Wal,
    pub batches: Batches,
    pub writer: Mutex<Writer>,
    /// Readers see the batches up to this one.
    pub visible: AtomicU64,
    /// States before this batch cannot be asked for.
    pub oldest: AtomicU64,
    /// What readers hold on to: how many at which sequence.
    pub pins: Mutex<BTreeMap<u64, usize>>,
    pub superblock: Mutex<SuperblockFile>,
    pub signal: Signal,
    pub submissions: Submissions,
    /// Only batches of another ledger are taken.
    pub following: AtomicBool,
}

/// What the writing thread knows.
pub(crate) struct Writer {
    pub sequence: u64,
    pub time: i64,
    pub totals: Totals,
    pub epoch: u32,
    pub checkpoint_position: u64,
    /// Where each shard is next looked at for slots to reclaim.
    pub cursor: (usize, u64),
    /// Where receipts are next looked at, and how many there are when that is next done.
    pub receipts_cursor: u64,
    pub receipts_due: u64,
    /// Items until memory is next looked at.
    pub unchecked: u64,
    /// Memory for the body of the next record.
    pub body: Vec<u8>,
}

impl Writer {
    pub fn new(block: &Superblock) -> Self {
        Writer {
            sequence: block.sequence,
            time: block.time,
            totals: block.totals(),
            epoch: block.epoch,
            checkpoint_position: block.position,
            cursor: (0, 0),
            receipts_cursor: 0,
            receipts_due: 0,
            unchecked: 0,
            body: Vec::new(),
        }
    }

    pub fn advance(&mut self, header: &Header, totals: Totals) {
        (self.sequence, self.time, self.totals) = (header.sequence, header.time, totals);
    }

    pub fn batch(&self, header: &Header, digest: [u8; 32]) -> Batch {
        Batch {
            sequence: header.sequence,
            time: header.time,
            digest,
            updates: header.items.into(),
            totals: self.totals,
            position: header.position,
        }
    }
}

impl Core {
    /// The hash of an account's key.
    #[inline]
    pub fn hash(&self, key: &Key) -> KeyHash {
        KeyHash::account(&self.hasher, key)
    }

    #[inline]
    pub fn hash_of(&self, key: &Key, kind: Kind) -> KeyHash {
        KeyHash::new(&self.hasher, key, kind)
    }

    #[inline]
    pub fn shard(&self, hash: KeyHash) -> &Shard {
        &self.shards[self.layout.shard(hash)]
    }

    /// The shards of accounts.
    pub fn account_shards(&self) -> &[Shard] {
        self.layout.of(&self.shards, Group::Accounts)
    }

    /// The shard of receipts.
    pub fn receipts(&self) -> &Shard {
        &self.layout.of(&self.shards, Group::Receipts)[0]
    }

    /// The shards of transfers, their entries, statements and what is pending.
    pub fn record_shards(&self) -> &[Shard] {
        self.layout.records(&self.shards)
    }

    /// The shard of pending transfers.
    pub fn pending(&self) -> &Shard {
        &self.layout.of(&self.shards, Group::Pending)[0]
    }

    /// What batches up to this one have recorded of transfers may be let go, when the newest is `newest`.
    pub fn oldest_kept(&self, newest: u64) -> u64 {
        newest.saturating_sub(self.options.transfers)
    }

    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// The header of a record that comes next, with a body of so many bytes.
    pub fn header(&self, writer: &Writer, kind: RecordKind, body: u64) -> Result<Header, Error> {
        let encrypted = self.encryption.encrypts();
        Ok(Header {
            kind,
            epoch: writer.epoch,
            attempt: 0,
            items: 0,
            encrypted,
            body,
            updates: 0,
            position: self.wal.next_position(record_len(body, encrypted))?,
            sequence: writer.sequence,
            durable: 0,
            time: now().max(writer.time),
            tag: [0; 16],
        })
    }

    /// Makes a batch durable and visible.
    pub fn wait(&self, sequence: u64, end: u64) -> Result<(), Error> {
        if self.durability() == Durability::Sync {
            self.wal.sync_to(end)?;
        }
        self.visible.fetch_max(sequence, Ordering::AcqRel);
        Ok(())
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
