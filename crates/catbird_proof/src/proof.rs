//! One entry of a log, its path, and what it must say.

use crate::Error;
use leaf_format::{Cbor, Columns, Kind, Leaf};
use merkle_tree::{LeafIndex, TreeSize, leaf_hash, verify_inclusion};
use serde::{Deserialize, Serialize};
use serde_with::{base64::Base64, serde_as};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// CBOR's tag for a UUID (docs/leaf-format.md).
const TAG_UUID: u64 = 37;

/// A committed state of a log.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeHead {
    pub log: String,
    /// Entries.
    pub tree_size: u64,
    /// RFC 6962 §2.1.
    #[serde_as(as = "Base64")]
    pub root: [u8; 32],
}

/// That an entry is in a log. In JSON: bytes in base64.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The entry's canonical bytes (docs/leaf-format.md).
    #[serde_as(as = "Base64")]
    pub leaf_data: Vec<u8>,
    /// Its 0-based position.
    pub leaf_index: u64,
    /// RFC 6962 §2.1.1, the leaf's sibling first.
    #[serde_as(as = "Vec<Base64>")]
    pub path: Vec<[u8; 32]>,
    pub head: TreeHead,
}

/// A message, as a client received it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub convo_id: Uuid,
    pub id: Uuid,
    pub sender: &'a str,
    /// `app`, `commit`, `proposal` or `welcome`.
    pub message_type: &'a str,
    pub epoch: u64,
    pub ciphertext: &'a [u8],
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub sent_at: i64,
}

/// A key package, as a client received it.
#[derive(Clone, Copy, Debug)]
pub struct KeyPackage<'a> {
    pub did: &'a str,
    /// RFC 9420 §17.1.
    pub cipher_suite: u16,
    pub key_data: &'a [u8],
}

/// What a log says of a key package beside what it is. Times: microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPackageEntry {
    pub last_resort: bool,
    pub expires_at: i64,
    /// When it was given out, as of this entry.
    pub consumed_at: Option<i64>,
}

impl Proof {
    /// That the entry is in the tree of the head; what it says.
    ///
    /// # Errors
    /// If it is not, or the bytes are not leaf data.
    pub fn verify(&self) -> Result<Leaf, Error> {
        let path: Vec<_> = self.path.iter().map(|hash| (*hash).into()).collect();
        verify_inclusion(
            &leaf_hash(&self.leaf_data),
            LeafIndex::new(self.leaf_index)?,
            TreeSize::new(self.head.tree_size)?,
            &path,
            &self.head.root.into(),
        )?;
        Ok(Leaf::decode(&self.leaf_data)?)
    }

    /// That the log says of this message what the client was told, ciphertext included.
    ///
    /// # Errors
    /// If the proof does not hold, or the entry says something else.
    pub fn verify_message(&self, message: &Message<'_>) -> Result<(), Error> {
        let entry = Entry::of(self.verify()?, "messages", &[Kind::Insert])?;
        entry.says("convo_id", &uuid(message.convo_id))?;
        entry.says("id", &uuid(message.id))?;
        entry.says("sender", &Cbor::Text(message.sender.to_owned()))?;
        entry.says("message_type", &Cbor::Text(message.message_type.to_owned()))?;
        entry.says("epoch", &Cbor::Integer(message.epoch.into()))?;
        entry.says("sent_at", &Cbor::Integer(message.sent_at.into()))?;
        entry.says("digest", &digest(message.ciphertext))
    }

    /// That this key package is in the log under this DID; what the log says of it.
    ///
    /// # Errors
    /// If the proof does not hold, or the entry says something else, or that the package was deleted.
    pub fn verify_key_package(&self, package: &KeyPackage<'_>) -> Result<KeyPackageEntry, Error> {
        let kinds = [Kind::Insert, Kind::Update];
        let entry = Entry::of(self.verify()?, "key_packages", &kinds)?;
        entry.says("did", &Cbor::Text(package.did.to_owned()))?;
        entry.says("cipher_suite", &Cbor::Integer(package.cipher_suite.into()))?;
        entry.says("digest", &digest(package.key_data))?;
        Ok(KeyPackageEntry {
            last_resort: entry.get("last_resort") == Some(&Cbor::Bool(true)),
            expires_at: entry.microseconds("expires_at").ok_or(Error::Differs {
                column: "expires_at",
            })?,
            consumed_at: entry.microseconds("consumed_at"),
        })
    }
}

/// The columns of a decoded entry.
struct Entry(std::collections::BTreeMap<String, Cbor>);

impl Entry {
    fn of(leaf: Leaf, expected: &'static str, kinds: &[Kind]) -> Result<Entry, Error> {
        let table = leaf.source.rsplit('.').next().unwrap_or_default();
        match leaf.columns {
            Columns::Map(columns) if table == expected && kinds.contains(&leaf.kind) => {
                Ok(Entry(columns))
            }
            _ => Err(Error::Subject {
                expected,
                found: format!("{} of {}", leaf.kind.as_str(), leaf.source),
            }),
        }
    }

    fn get(&self, column: &str) -> Option<&Cbor> {
        self.0.get(column)
    }

    fn says(&self, column: &'static str, value: &Cbor) -> Result<(), Error> {
        match self.get(column) {
            Some(found) if found == value => Ok(()),
            _ => Err(Error::Differs { column }),
        }
    }

    fn microseconds(&self, column: &str) -> Option<i64> {
        match self.get(column) {
            Some(Cbor::Integer(time)) => i64::try_from(*time).ok(),
            _ => None,
        }
    }
}

fn uuid(id: Uuid) -> Cbor {
    Cbor::Tag(TAG_UUID, Box::new(Cbor::Bytes(id.as_bytes().to_vec())))
}

fn digest(bytes: &[u8]) -> Cbor {
    Cbor::Bytes(Sha256::digest(bytes).to_vec())
}
