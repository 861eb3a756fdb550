//! How a ledger is opened.

use crate::storage::encryption::Secret;
use std::time::Duration;

/// When a batch is acknowledged. A crash loses whole batches only, and the latest: what is left is
/// always what was there after some batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk. No crash loses an acknowledged batch. Callers that wait at the same time
    /// share one sync.
    Sync,
    /// When it is with the operating system, which is asked to put it on disk every interval. The
    /// end of the process loses nothing; the end of the machine at most the last interval.
    Group(Duration),
    /// When it is with the operating system, which puts it on disk at the next checkpoint. The end
    /// of the process loses nothing; the end of the machine everything since the checkpoint.
    None,
}

/// Options of a ledger, to be opened with [`Options::open`].
#[derive(Clone)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) shards: u16,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) history_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) dirty_bytes: u64,
    pub(crate) receipts: u64,
    pub(crate) reader_log_bytes: u64,
    pub(crate) serve: bool,
    pub(crate) scrub_rate: u64,
    pub(crate) scrub_every: Duration,
    pub(crate) audit_every: Duration,
    pub(crate) transfers: u64,
    pub(crate) batches: u64,
    pub(crate) key: Option<Secret>,
    pub(crate) read_only: bool,
    /// Nothing is written but what somebody else has committed.
    pub(crate) following: bool,
    pub(crate) huge_pages: bool,
}

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than any process waits.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::Sync,
            shards: 64,
            checkpoint_bytes: 1 << 30,
            history_bytes: 256 << 20,
            segment_bytes: 64 << 20,
            resident_bytes: 4 << 30,
            dirty_bytes: 2 << 30,
            receipts: 1_000_000,
            reader_log_bytes: 16 << 30,
            serve: true,
            scrub_rate: 8 << 20,
            scrub_every: DAY,
            audit_every: DAY,
            transfers: u64::MAX,
            batches: u64::MAX,
            key: None,
            read_only: false,
            following: false,
            huge_pages: false,
        }
    }
}

impl Options {
    pub fn new() -> Self {
        Options::default()
    }

    /// When a batch is acknowledged. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Shards of a new ledger: a power of two up to 256, the next higher being taken. Default: 64.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards.clamp(1, 256).next_power_of_two();
        self
    }

    /// A checkpoint is made after so many bytes of write-ahead log: about what a crash has to replay,
    /// at most twice as much. Default: 1 GiB.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes.max(1 << 16);
        self
    }

    /// So many bytes of write-ahead log are kept beyond what a crash needs, for
    /// [`GeometricLedger::get_at`] and for followers. Default: 256 MiB.
    pub fn history_bytes(mut self, bytes: u64) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// Bytes of one file of the write-ahead log. Default: 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.max(1 << 16).next_multiple_of(4096);
        self
    }

    /// Memory that the ledger may keep after a checkpoint beside the page cache: for pages that were
    /// written, and for what it brings into huge pages. Default: 4 GiB.
    pub fn resident_bytes(mut self, bytes: u64) -> Self {
        self.resident_bytes = bytes;
        self
    }

    /// Memory for pages that were written and are not in the files yet, beside
    /// [`Options::resident_bytes`]. At half of it a checkpoint is made, also while a crash is recovered
    /// from; at all of it, writers wait. One batch may go beyond it. Default: 2 GiB.
    pub fn dirty_bytes(mut self, bytes: u64) -> Self {
        self.dirty_bytes = bytes.max(1 << 20);
        self
    }

    /// A retried batch of transfers is recognised among at least so many batches before it.
    /// Default: 1,000,000.
    pub fn receipts(mut self, batches: u64) -> Self {
        self.receipts = batches;
        self
    }

    /// While others read the ledger through its socket, so many bytes of write-ahead log are kept for
    /// them; a reader who would need more is told so. Default: 16 GiB.
    pub fn reader_log_bytes(mut self, bytes: u64) -> Self {
        self.reader_log_bytes = bytes;
        self
    }

    /// Whether a ledger that is open for writing answers a [`Reader`](crate::Reader) of another
    /// process, on the socket in its directory. Default: yes.
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = serve;
        self
    }

    /// How often a ledger that is open for writing reads all it has stored, as
    /// [`GeometricLedger::verify`](crate::GeometricLedger::verify) does, and at how many bytes a second at the
    /// most. What it finds goes to the log and to the metrics. The first time is ten minutes after opening,
    /// if not sooner. Default: once a day, 8 MiB/s.
    pub fn scrub(mut self, every: Duration, bytes_per_second: u64) -> Self {
        (self.scrub_every, self.scrub_rate) = (every.min(YEAR), bytes_per_second);
        self
    }

    /// How often a ledger that is open for writing sums up all balances, as
    /// [`GeometricLedger::audit`](crate::GeometricLedger::audit) does, at the rate of [`Options::scrub`]. Default:
    /// once a day.
    pub fn audit_every(mut self, every: Duration) -> Self {
        self.audit_every = every.min(YEAR);
        self
    }

    /// Records of transfers and entries of statements are kept for at least so many batches; a transfer
    /// that is pending is kept for as long as it is. Default: for ever.
    pub fn transfers(mut self, batches: u64) -> Self {
        self.transfers = batches;
        self
    }

    /// The newest so many batches can be asked for and proven, and all that history needs; older ones are pruned
    /// by checkpoints, 256 at a time. Who holds a root over fewer batches than were pruned can be shown no more
    /// that the log only grew. A batch takes 160 bytes. Default: all are kept.
    pub fn batches(mut self, batches: u64) -> Self {
        self.batches = batches;
        self
    }

    /// Keeps all accounts in memory, in huge pages (of 32 GiB at the most), from the beginning: opening
    /// reads all files. Where the system has no huge pages it changes nothing. Default: files are
    /// mapped and read when touched; the index, and what is written for the most part, comes into
    /// huge pages little by little, within [`Options::resident_bytes`].
    pub fn huge_pages(mut self) -> Self {
        self.huge_pages = true;
        self
    }

    /// Encrypts a new ledger with AES-256-GCM, or opens one that is encrypted.
    pub fn key(mut self, key: Secret) -> Self {
        self.key = Some(key);
        self
    }

    /// Opens without writing anything: several may, while nobody writes. What a crash left in the
    /// write-ahead log is replayed in memory, within [`Options::dirty_bytes`].
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}
