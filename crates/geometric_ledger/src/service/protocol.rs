//! What is said over the socket: frames of a kind (1 byte), a length (4 bytes, little-endian) and
//! content. The side of the process that has the ledger begins with a [`Hello`]; whoever asks proves
//! that it knows the ledger's key, if it has one. Then requests and their answers take turns. An
//! answer may be preceded by frames of data and of progress.
//!
//! Content is postcard. Both sides are of one version of this crate, which the `Hello` makes sure of.

use crate::account::Key;
use crate::recorded::{StatementQuery, TransferId};
use crate::{Account, BatchProof, Error, Info, Recovery};
use merkle_tree::{Hash, LeafIndex, TreeSize};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The name of the socket in the ledger's directory.
pub const SOCKET: &str = "socket";
/// The version of what is said.
pub const VERSION: u32 = 3;
/// Bytes of a frame's content at the most.
pub const LONGEST: usize = 1 << 21;
/// Bytes of an account among data: its key, balance, nonce, flags, code and data.
pub const ACCOUNT: usize = 88;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Hello = 1,
    Request = 2,
    Data = 3,
    Progress = 4,
    Answer = 5,
    Failure = 6,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    /// Random bytes; the reader answers with what only the ledger's key makes of them.
    pub challenge: [u8; 32],
}

/// What the reader answers a [`Hello`] with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Admission {
    pub version: u32,
    pub proof: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Describe,
    Stats,
    Verify,
    Audit,
    /// Accounts, now or after a batch.
    Get {
        keys: Vec<Key>,
        at: Option<u64>,
    },
    /// The states that an account had, the newest first.
    AccountHistory {
        key: Key,
        limit: u64,
    },
    /// Transfers that were recorded.
    Transfers {
        ids: Vec<TransferId>,
    },
    /// A page of an account's statement, and what is pending of the account.
    Statement {
        account: Key,
        query: StatementQuery,
    },
    /// All accounts, as data.
    Accounts,
    /// A snapshot, as data.
    Snapshot {
        since: Option<u64>,
    },
    Batches {
        from: u64,
        to: u64,
    },
    ProveBatch {
        sequence: u64,
        size: Option<u64>,
    },
    ProveConsistency {
        old: u64,
        new: u64,
    },
}

/// What a ledger is, and the batch that this was asked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    pub info: Info,
    pub recovery: Recovery,
    /// The process that has the ledger open for writing, if one has.
    pub process: Option<u32>,
    /// Only batches of another ledger are taken.
    pub following: bool,
    /// The batches that accounts can be asked for as of.
    pub history: (u64, u64),
    /// How many of the first batches were pruned.
    pub pruned: u64,
    pub head: Head,
}

/// The state that something was read from: the last batch, and the root over all batches up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Head {
    pub ledger: [u8; 16],
    pub sequence: u64,
    pub accounts: u64,
    pub root: [u8; 32],
}

/// How far something is that takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub done: u64,
    pub total: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct WireProof {
    leaf_data: Vec<u8>,
    leaf_index: u64,
    tree_size: u64,
    path: Vec<[u8; 32]>,
    root: [u8; 32],
}

impl From<BatchProof> for WireProof {
    fn from(proof: BatchProof) -> Self {
        WireProof {
            leaf_data: proof.leaf_data,
            leaf_index: proof.leaf_index.get(),
            tree_size: proof.tree_size.get(),
            path: proof.path.iter().map(|hash| *hash.as_bytes()).collect(),
            root: *proof.root.as_bytes(),
        }
    }
}

impl TryFrom<WireProof> for BatchProof {
    type Error = Error;

    fn try_from(proof: WireProof) -> Result<Self, Error> {
        Ok(BatchProof {
            leaf_data: proof.leaf_data,
            leaf_index: LeafIndex::new(proof.leaf_index).map_err(|_| unexpected())?,
            tree_size: size(proof.tree_size)?,
            path: proof.path.into_iter().map(Hash::from).collect(),
            root: proof.root.into(),
        })
    }
}

pub fn size(size: u64) -> Result<TreeSize, Error> {
    TreeSize::new(size).map_err(|error| Error::Tree(error.to_string()))
}

/// An error, as far as the other side can do something with it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Failure {
    Damaged {
        file: String,
        place: String,
        what: String,
    },
    DamagedAccount {
        key: Key,
        shard: u16,
        slot: u64,
    },
    History {
        asked: u64,
        oldest: u64,
        newest: u64,
    },
    Unbalanced {
        balances: i128,
        expected: i128,
    },
    Pruned {
        asked: u64,
        first: u64,
    },
    Other(String),
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Damaged { file, place, what } => Failure::Damaged {
                file: file.clone(),
                place: place.clone(),
                what: what.clone(),
            },
            Error::DamagedAccount { key, shard, slot } => Failure::DamagedAccount {
                key: *key,
                shard: *shard,
                slot: *slot,
            },
            Error::History {
                asked,
                oldest,
                newest,
            } => Failure::History {
                asked: *asked,
                oldest: *oldest,
                newest: *newest,
            },
            Error::Unbalanced { balances, expected } => Failure::Unbalanced {
                balances: *balances,
                expected: *expected,
            },
            Error::Pruned { asked, first } => Failure::Pruned {
                asked: *asked,
                first: *first,
            },
            error => Failure::Other(error.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged { file, place, what } => Error::Damaged { file, place, what },
            Failure::DamagedAccount { key, shard, slot } => {
                Error::DamagedAccount { key, shard, slot }
            }
            Failure::History {
                asked,
                oldest,
                newest,
            } => Error::History {
                asked,
                oldest,
                newest,
            },
            Failure::Unbalanced { balances, expected } => Error::Unbalanced { balances, expected },
            Failure::Pruned { asked, first } => Error::Pruned { asked, first },
            Failure::Other(what) => Error::Reader(what),
        }
    }
}

pub fn encode_account(key: &Key, account: &Account, out: &mut Vec<u8>) {
    out.extend(key);
    for word in account.to_words() {
        out.extend(word.to_le_bytes());
    }
}

pub fn decode_account(bytes: &[u8; ACCOUNT]) -> (Key, Account) {
    let mut words = [0; 7];
    for (word, bytes) in words.iter_mut().zip(bytes[32..].chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("a chunk has 8 bytes"));
    }
    let key = bytes[..32].try_into().expect("a key has 32 bytes");
    (key, Account::from_words(&words))
}

pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    postcard::to_allocvec(value).map_err(|error| Error::Reader(error.to_string()))
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|_| unexpected())
}

pub fn unexpected() -> Error {
    Error::Reader("the other side says what this version does not understand".into())
}

pub fn write_frame(out: &mut impl Write, kind: FrameKind, content: &[u8]) -> io::Result<()> {
    if content.len() > LONGEST {
        return Err(io::Error::other("the answer is too long for one frame"));
    }
    let mut head = [kind as u8; 5];
    head[1..].copy_from_slice(&(content.len() as u32).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(content)
}

pub fn read_frame(from: &mut impl Read) -> io::Result<(FrameKind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let kinds = [
        FrameKind::Hello,
        FrameKind::Request,
        FrameKind::Data,
        FrameKind::Progress,
        FrameKind::Answer,
        FrameKind::Failure,
    ];
    let kind = kinds.into_iter().find(|kind| *kind as u8 == head[0]);
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let Some(kind) = kind.filter(|_| len <= LONGEST) else {
        return Err(io::Error::other("what came is no frame"));
    };
    let mut content = vec![0; len];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            if let Ok((_, content)) = read_frame(&mut &bytes[..]) {
                let _ = decode::<Request>(&content);
                let _ = decode::<Failure>(&content);
                let _ = decode::<crate::LedgerStats>(&content);
            }
        }

        #[test]
        fn an_account_is_its_bytes(key: Key, balance: i128, nonce: u64, data: [u8; 24]) {
            let account = Account { balance, nonce, data, ..Account::default() };
            let mut bytes = Vec::new();
            encode_account(&key, &account, &mut bytes);
            prop_assert_eq!(decode_account(bytes[..].try_into().unwrap()), (key, account));
        }
    }
}
