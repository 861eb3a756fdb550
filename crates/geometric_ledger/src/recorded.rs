//! Transfers that are kept as records: what is asked for, what is kept, and what becomes of both.
//!
//! A record is immutable. It is kept in two slots, or in three: its *parts*. What changes of a pending
//! transfer, whether it is still open, is a slot of its own. Each change of a balance is an *entry* of its
//! account's statement, numbered from 1.

use crate::account::{Account, Key, WORDS};
use crate::error::Refusal;
use crate::storage::slot::{read_words, write_words};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The name of a transfer: 16 bytes that the caller chooses, at random say, and never uses again.
pub type TransferId = [u8; 16];

/// A transfer that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTransfer {
    pub id: TransferId,
    /// Pays. Not looked at where the transfer posts or voids another.
    pub debit: Key,
    /// Gets. Not looked at where the transfer posts or voids another.
    pub credit: Key,
    /// Of a transfer that posts another: at most the other one's amount, of which the rest goes back to the
    /// payer; 0 for all of it.
    pub amount: u128,
    /// The currency, as both accounts have it. Not looked at where the transfer posts or voids another.
    pub code: u32,
    /// The application's own bytes: an invoice, an order.
    pub reference: [u8; 24],
    pub step: Step,
    /// Is done only if the next one of the batch is done, and the other way round.
    pub linked: bool,
}

/// What a transfer is in the life of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The amount moves at once.
    Direct,
    /// The amount leaves the payer, and nobody has it until another transfer posts or voids this one, or
    /// until the time is over and it goes back.
    Pending { timeout: Option<Duration> },
    /// A pending transfer's amount goes to its payee.
    Post { pending: TransferId },
    /// A pending transfer's amount goes back to its payer.
    Void { pending: TransferId },
}

impl NewTransfer {
    /// A transfer that moves an amount at once.
    pub fn new(id: TransferId, debit: Key, credit: Key, amount: u128) -> Self {
        NewTransfer {
            id,
            debit,
            credit,
            amount,
            code: 0,
            reference: [0; 24],
            step: Step::Direct,
            linked: false,
        }
    }

    /// A transfer that posts a pending one, in full.
    pub fn post(id: TransferId, pending: TransferId) -> Self {
        NewTransfer {
            step: Step::Post { pending },
            ..NewTransfer::new(id, [0; 32], [0; 32], 0)
        }
    }

    /// A transfer that posts a part of a pending one's amount, and gives the rest back.
    pub fn post_part(id: TransferId, pending: TransferId, amount: u128) -> Self {
        NewTransfer {
            amount,
            ..NewTransfer::post(id, pending)
        }
    }

    /// A transfer that gives a pending one's amount back.
    pub fn void(id: TransferId, pending: TransferId) -> Self {
        NewTransfer {
            step: Step::Void { pending },
            ..NewTransfer::post(id, pending)
        }
    }

    /// Lets the amount wait, for some time or for as long as it takes, to be posted or voided.
    pub fn pending(mut self, timeout: Option<Duration>) -> Self {
        self.step = Step::Pending { timeout };
        self
    }

    /// The currency.
    pub fn code(mut self, code: u32) -> Self {
        self.code = code;
        self
    }

    /// The application's own bytes.
    pub fn reference(mut self, reference: [u8; 24]) -> Self {
        self.reference = reference;
        self
    }

    /// Links the transfer to the next one of the batch: both are done, or none.
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }
}

/// What became of one transfer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// The batch that did it.
    pub sequence: u64,
    /// It had been done before, under the same id.
    pub repeated: bool,
}

/// What became of a batch of transfers: of each, in order, what did it or why it was refused.
pub type TransferResults = Vec<Result<Done, Refusal>>;

/// A transfer that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TransferRecord {
    pub id: TransferId,
    pub debit: Key,
    pub credit: Key,
    /// What moved: of a transfer that voids another, what went back.
    pub amount: u128,
    pub code: u32,
    pub reference: [u8; 24],
    pub kind: TransferKind,
    /// The batch that did it, and its time in microseconds since 1970; `None` if both the batch was pruned and
    /// the entries of statements that have its time were let go.
    pub sequence: u64,
    pub time: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TransferKind {
    Direct,
    Pending(PendingState),
    Post { pending: TransferId },
    Void { pending: TransferId },
}

/// What has become of a pending transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PendingState {
    /// Until this time, in microseconds since 1970, if it is limited.
    Open {
        expires: Option<i64>,
    },
    Posted {
        by: TransferId,
    },
    Voided {
        by: TransferId,
    },
    Expired,
}

/// One change of an account's balance by a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatementEntry {
    /// Counts the account's entries from 1.
    pub number: u64,
    /// The transfer; where the time of a pending one was over, that one.
    pub transfer: TransferId,
    /// What the balance rose by, or fell by.
    pub change: i128,
    /// The balance after it.
    pub balance: i128,
    /// Microseconds since 1970; never before that of the entry before.
    pub time: i64,
}

/// Which entries of a statement are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementQuery {
    /// None from before this time, in microseconds since 1970.
    pub from: Option<i64>,
    /// None from this time on.
    pub until: Option<i64>,
    /// Goes on behind this entry, the last of the page before.
    pub after: Option<u64>,
    /// At most so many; 0 for 100.
    pub limit: usize,
    /// The newest entry comes first.
    pub newest_first: bool,
}

/// A page of an account's statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatementPage {
    pub entries: Vec<StatementEntry>,
    /// What [`StatementQuery::after`] is for the next page; `None` if there is none.
    pub next: Option<u64>,
}

/// What kind of transfer a record is of, as its first part has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Direct = 0,
    Pending = 1,
    Post = 2,
    Void = 3,
}

/// The parts of a record, by the byte in their keys.
pub(crate) const DEBIT: u8 = 0;
pub(crate) const CREDIT: u8 = 1;
/// Which pending transfer a record posts or voids.
pub(crate) const RESOLVES: u8 = 2;
/// How a pending transfer ended.
pub(crate) const ENDED: u8 = 3;

/// The key of a part of a record.
pub(crate) fn part_key(id: &TransferId, part: u8) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(id);
    key[16] = part;
    key
}

/// The key of an entry of an account's statement. There are as many as there are entries, so it is a hash
/// of both.
pub(crate) fn entry_key(account: &Key, number: u64) -> Key {
    let mut bytes = [0; 40];
    bytes[..32].copy_from_slice(account);
    bytes[32..].copy_from_slice(&number.to_le_bytes());
    *blake3::hash(&bytes).as_bytes()
}

type Words = [u64; WORDS];

fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

fn whole(words: &[u64]) -> u128 {
    u128::from(words[1]) << 64 | u128::from(words[0])
}

fn id_words(id: &TransferId) -> [u64; 2] {
    halves(u128::from_le_bytes(*id))
}

fn id_of(words: &[u64]) -> TransferId {
    whole(words).to_le_bytes()
}

fn key_of(words: &[u64]) -> Key {
    let mut key = [0; 32];
    write_words(&mut key, words);
    key
}

/// What the part [`DEBIT`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DebitPart {
    pub debit: Key,
    pub amount: u128,
    pub currency: u32,
    pub code: Code,
}

impl DebitPart {
    pub fn to_words(self) -> Words {
        let mut words = [0; WORDS];
        read_words(&self.debit, &mut words[..4]);
        words[4..6].copy_from_slice(&halves(self.amount));
        words[6] = u64::from(self.currency) | u64::from(self.code as u8) << 32;
        words
    }

    pub fn from_words(words: &Words) -> Option<Self> {
        let codes = [Code::Direct, Code::Pending, Code::Post, Code::Void];
        let code = words[6] >> 32;
        Some(DebitPart {
            debit: key_of(&words[..4]),
            amount: whole(&words[4..6]),
            currency: words[6] as u32,
            code: codes.into_iter().find(|it| *it as u64 == code)?,
        })
    }
}

/// What the part [`CREDIT`] holds: the payee and the application's bytes.
pub(crate) fn credit_words(credit: &Key, reference: &[u8; 24]) -> Words {
    let mut words = [0; WORDS];
    read_words(credit, &mut words[..4]);
    read_words(reference, &mut words[4..]);
    words
}

pub(crate) fn credit_of(words: &Words) -> (Key, [u8; 24]) {
    let mut reference = [0; 24];
    write_words(&mut reference, &words[4..]);
    (key_of(&words[..4]), reference)
}

/// What the parts [`RESOLVES`] and [`ENDED`] hold: another transfer, and how it ended. An expired one was
/// ended by none.
pub(crate) fn link_words(id: &TransferId, code: u64) -> Words {
    let [low, high] = id_words(id);
    [low, high, code, 0, 0, 0, 0]
}

pub(crate) fn link_of(words: &Words) -> (TransferId, u64) {
    (id_of(words), words[2])
}

/// How a pending transfer ended, in the part [`ENDED`].
pub(crate) const POSTED: u64 = 1;
pub(crate) const VOIDED: u64 = 2;
pub(crate) const EXPIRED: u64 = 3;

pub(crate) fn ended(words: &Words) -> Option<PendingState> {
    let (by, code) = link_of(words);
    match code {
        POSTED => Some(PendingState::Posted { by }),
        VOIDED => Some(PendingState::Voided { by }),
        EXPIRED => Some(PendingState::Expired),
        _ => None,
    }
}

/// A pending transfer while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenTransfer {
    pub amount: u128,
    /// Microseconds since 1970; `i64::MAX` for never.
    pub expires: i64,
}

impl OpenTransfer {
    pub fn to_words(self) -> Words {
        let [low, high] = halves(self.amount);
        [low, high, self.expires as u64, 0, 0, 0, 0]
    }

    pub fn from_words(words: &Words) -> Self {
        OpenTransfer {
            amount: whole(words),
            expires: words[2] as i64,
        }
    }
}

/// How many entries an account's statement has, and what of it is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatementHead {
    pub entries: u64,
    /// What was taken off the account by transfers that are open.
    pub reserved: u128,
}

impl StatementHead {
    pub fn to_words(self) -> Words {
        let [low, high] = halves(self.reserved);
        [self.entries, low, high, 0, 0, 0, 0]
    }

    pub fn from_words(words: &Words) -> Self {
        StatementHead {
            entries: words[0],
            reserved: whole(&words[1..]),
        }
    }
}

impl StatementEntry {
    pub(crate) fn to_words(self) -> Words {
        let [id, id_high] = id_words(&self.transfer);
        let [change, change_high] = halves(self.change as u128);
        let [balance, balance_high] = halves(self.balance as u128);
        [
            id,
            id_high,
            change,
            change_high,
            balance,
            balance_high,
            self.time as u64,
        ]
    }

    pub(crate) fn from_words(number: u64, words: &Words) -> Self {
        StatementEntry {
            number,
            transfer: id_of(words),
            change: whole(&words[2..]) as i128,
            balance: whole(&words[4..]) as i128,
            time: words[6] as i64,
        }
    }
}

/// The words of a slot that is no account, as an item of a batch carries them.
pub(crate) fn carried(words: &Words) -> Account {
    Account::from_words(words)
}
