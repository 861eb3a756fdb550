//! Why the ledger cannot do what it was asked.

use crate::account::{Hex, Key};
use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk said no. Nothing of the batch was done, and the ledger can be used on.
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The ledger's write-ahead log could not be made durable. What happened to the last batches is
    /// not known before the ledger is opened again; this handle does nothing any more.
    #[error("the ledger stopped: {0}; open it again to recover")]
    Stopped(String),
    #[error("another process has the ledger open")]
    Locked,
    #[error("the ledger is open for reading only")]
    ReadOnly,
    #[error("not a ledger that this version can read: {0}")]
    Format(String),
    /// A log is replayed in memory only where nothing may be written.
    #[error(
        "replaying the write-ahead log takes more memory than the {0} bytes of `dirty_bytes`; open the \
         ledger for writing once, or allow more"
    )]
    TooMuchToReplay(u64),
    /// Stored bytes are not what was written.
    #[error("{file} is damaged at {place}: {what}; restore a snapshot, or verify to see all")]
    Damaged {
        file: String,
        place: String,
        what: String,
    },
    #[error(
        "account {} in shard {shard}, slot {slot} is damaged; restore it from a snapshot",
        Hex(key)
    )]
    DamagedAccount { key: Key, shard: u16, slot: u64 },
    #[error("the data key: {0}")]
    Key(String),
    /// One item of a batch cannot be applied; nothing of the batch was.
    #[error("item {item} of the batch: {reason}")]
    Item { item: usize, reason: Refusal },
    #[error("sequence {asked} is not within the history kept, {oldest} to {newest}")]
    History {
        asked: u64,
        oldest: u64,
        newest: u64,
    },
    /// Of [`Options::batches`](crate::Options::batches).
    #[error("batch {asked} was pruned, with what proves it; batches are kept from {first} on")]
    Pruned { asked: u64, first: u64 },
    #[error("the tree: {0}")]
    Tree(String),
    #[error("the sum of all balances is {balances}, but {expected} was minted and not burned")]
    Unbalanced { balances: i128, expected: i128 },
    #[error("snapshot: {0}")]
    Snapshot(String),
    #[error("{0}")]
    Follow(String),
    /// The process that has the ledger open did not answer, or could not.
    #[error("{0}")]
    Reader(String),
    /// Whoever was told how far something is said that it should stop.
    #[error("it was told to stop")]
    Interrupted,
    #[cfg(feature = "postgres")]
    #[error("publishing to PostgreSQL: {0}")]
    Postgres(#[from] postgres::Error),
}

/// Why an item of a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("account {} is not there", Hex(.0))]
    UnknownAccount(Key),
    #[error("account {} is frozen", Hex(.0))]
    Frozen(Key),
    #[error(
        "account {} has {balance}, and may not go below zero by paying {amount}",
        Hex(key)
    )]
    InsufficientFunds {
        key: Key,
        balance: i128,
        amount: u128,
    },
    /// Beyond [`Account::MAX_BALANCE`](crate::Account::MAX_BALANCE) in either direction, or a nonce
    /// that cannot be counted up.
    #[error("account {} would overflow", Hex(.0))]
    Overflow(Key),
    #[error("the sum of all balances would overflow")]
    TotalOverflow,
    #[error(
        "account {} would have {balance}, and may not be below zero without the flag OVERDRAFT",
        Hex(key)
    )]
    Overdrawn { key: Key, balance: i128 },
    #[error(
        "account {} has code {debit}, and account {} has code {credit}",
        Hex(debit_key),
        Hex(credit_key)
    )]
    CodeMismatch {
        debit_key: Key,
        debit: u32,
        credit_key: Key,
        credit: u32,
    },
    #[error("a transfer of nothing")]
    ZeroAmount,
    #[error("the key was used for another batch")]
    OtherBatch,
    #[error("account {} would pay itself", Hex(.0))]
    SameAccount(Key),
    #[error(
        "account {} has code {account}, and the transfer has code {transfer}",
        Hex(key)
    )]
    OtherCurrency {
        key: Key,
        account: u32,
        transfer: u32,
    },
    #[error("the id was used for another transfer")]
    IdReused,
    #[error("there is no transfer {}", Hex(.0))]
    UnknownTransfer([u8; 16]),
    #[error("the transfer to be posted or voided is not a pending one")]
    NotPending,
    #[error("the pending transfer was posted or voided, or its time is over")]
    AlreadyEnded,
    #[error("the pending transfer's time is over")]
    Expired,
    #[error("{amount} is more than the {pending} that are pending")]
    ExceedsPending { pending: u128, amount: u128 },
    #[error("a transfer that it is linked with was refused")]
    LinkedRefused,
    #[error("it is linked to the next transfer, and there is none")]
    LinkedToNothing,
    /// Linked transfers are repeated all together, or not at all.
    #[error("it was done before, and a transfer that it is linked with was not")]
    PartlyDone,
    /// Of [`GeometricLedger::compare_and_set`](crate::GeometricLedger::compare_and_set).
    #[error("account {} is not what was expected", Hex(.0))]
    Changed(Key),
    #[error("account {} is given twice", Hex(.0))]
    GivenTwice(Key),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn damaged(file: &str, place: impl ToString, what: impl Into<String>) -> Error {
        Error::Damaged {
            file: file.to_owned(),
            place: place.to_string(),
            what: what.into(),
        }
    }
}
