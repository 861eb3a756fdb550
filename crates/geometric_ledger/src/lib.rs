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
mod checks;
mod engine;
mod error;
mod follow;
mod history;
mod import;
mod ledger;
mod open;
mod options;
mod proofs;
#[cfg(feature = "postgres")]
mod publish;
mod recorded;
mod records;
mod service;
mod snapshot;
mod storage;
mod submit;
mod transfer;
mod update;
mod verify;
mod workers;

pub use account::{Account, Flags, Key};
pub use engine::items::Update;
pub use engine::recovery::Recovery;
pub use engine::scrub::{Audit, Finding, Location};
pub use engine::stats::{LedgerStats, ShardStats};
pub use engine::telemetry::describe as describe_metrics;
pub use error::{Error, Refusal};
pub use follow::{Follower, Lag, Promotion};
pub use history::{AccountHistory, AccountState, View};
pub use ledger::{GeometricLedger, Info};
/// The memory that a [`disk::DiskFile`] maps.
pub use memmap2;
/// Hashes, sizes and the verification of proofs, as this crate's API has them.
pub use merkle_tree;
pub use options::{Durability, Options};
/// The client that a [`Publisher`] may be given.
#[cfg(feature = "postgres")]
pub use postgres;
#[cfg(feature = "postgres")]
pub use publish::Publisher;
pub use recorded::{
    Done, NewTransfer, PendingState, StatementEntry, StatementPage, StatementQuery, Step,
    TransferId, TransferKind, TransferRecord, TransferResults,
};
pub use service::{Accounts, Description, Head, Progress, Reader};
pub use storage::batch::{Batch, BatchProof};
pub use storage::disk;
pub use storage::encryption::Secret;
pub use storage::record::Totals;
pub use storage::snapshot_file::SnapshotInfo;
pub use submit::Submitted;
pub use transfer::{Receipt, Transfer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
