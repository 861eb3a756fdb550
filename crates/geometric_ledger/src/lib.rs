//! A store of accounts for 32-byte keys: sharded, memory-mapped, durable, and provable.
//!
//! A million account updates a second and more, in batches that happen wholly or not at all and are on disk
//! when they are acknowledged. No index is rebuilt at start; the store grows by small steps; reads
//! take no lock. Every batch is a leaf of an RFC 6962 log, so anyone who holds a root can check what
//! was committed, and that nothing was taken back.
//!
//! ```
//! use geometric_ledger::{Account, GeometricLedger, Transfer};
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("ledger");
//! let ledger = GeometricLedger::new(&path)?;
//! let (alice, bob) = ([1; 32], [2; 32]);
//! ledger.update_batch(&[(alice, Account::with_balance(100)), (bob, Account::with_balance(0))])?;
//!
//! let pay = Transfer { debit: alice, credit: bob, amount: 30 };
//! let receipt = ledger.transfer_batch(b"idempotency key!", &[pay])?;
//! assert_eq!(ledger.get(&bob)?.unwrap().balance, 30);
//! assert_eq!(ledger.get_at(&bob, receipt.sequence - 1)?.unwrap().balance, 0);
//! assert_eq!(ledger.audit()?.balances, 100);
//!
//! let proof = ledger.prove_batch(receipt.sequence)?;
//! proof.verify()?;
//! ledger.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/geometric-ledger.md` of the project tells how it works and how it is run;
//! `docs/geometric-ledger-format.md` is the format of its files.

mod account;
mod batches;
mod checkpoint;
mod commit;
pub mod disk;
mod error;
mod follow;
mod history;
mod huge_page;
mod import;
mod index;
mod keeper;
mod ledger;
mod look_up;
mod memory;
mod options;
mod proofs;
#[cfg(feature = "postgres")]
mod publish;
mod reclaim;
mod record;
mod recovery;
mod region;
mod seal;
mod seqlock;
mod service;
mod shard;
mod slot;
mod snapshot;
mod stats;
mod superblock;
mod telemetry;
mod transfer;
mod wal;
mod workers;

mod atomic {
    pub use std::sync::atomic::{AtomicU64, Ordering, fence};
}

pub use account::{Account, Flags, Key};
pub use batches::{Batch, BatchProof};
pub use commit::Update;
pub use error::{Error, Refusal};
pub use follow::{Follower, Lag, Promotion};
pub use history::{AccountHistory, AccountState, View};
pub use ledger::{GeometricLedger, Info};
pub use options::{Durability, Options};
#[cfg(feature = "postgres")]
pub use publish::Publisher;
pub use record::Totals;
pub use recovery::Recovery;
pub use seal::Secret;
pub use service::{Accounts, Description, Head, Progress, Reader};
pub use snapshot::SnapshotInfo;
pub use stats::{Audit, Finding, LedgerStats, Place, ShardStats};
pub use telemetry::describe as describe_metrics;
pub use transfer::{Receipt, Transfer};
