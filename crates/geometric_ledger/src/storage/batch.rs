//! What a committed batch did: its row in the file `batches`, its leaf in the log of batches, and the
//! proof that it is there.
//!
//! A leaf is deterministic CBOR (RFC 8949 §4.2.1) of `[1, sequence, time, digest, updates, accounts,
//! minted, burned]`: time in microseconds since 1970, the digest BLAKE3 over the batch's updates,
//! and the totals after the batch, minted and burned as 16 bytes, big-endian.

use crate::storage::encryption::{Encryption, Nonce, Purpose};
use crate::storage::record::Totals;
use crate::storage::slot::{read_words, write_words};
use merkle_tree::{HASH_SIZE, Hash, LeafIndex, TreeSize};
use serde::{Deserialize, Serialize};
use serde_cbor::value::Value;

/// Bytes of a row, and those of them that are encrypted.
pub const ROW: usize = 160;
const BODY: usize = 136;

/// One committed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counts batches from 1.
    pub sequence: u64,
    /// When it was committed, in microseconds since 1970; never before the batch before.
    pub time: i64,
    /// BLAKE3 over the updates: of each the key; a byte of kind and one of which of the account's
    /// seven words are not zero, in eight; those words, little-endian.
    pub digest: [u8; 32],
    /// How many accounts it changed.
    pub updates: u64,
    /// The ledger's totals after it.
    pub totals: Totals,
    /// Where in the write-ahead log it begins.
    pub(crate) position: u64,
}

impl Batch {
    /// The bytes that are hashed into the log of batches.
    pub fn leaf_data(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let number = |number: u64| Value::Integer(number.into());
        let leaf = Value::Array(vec![
            number(1),
            number(self.sequence),
            Value::Integer(self.time.into()),
            bytes(&self.digest),
            number(self.updates),
            number(self.totals.accounts),
            bytes(&self.totals.minted.to_be_bytes()),
            bytes(&self.totals.burned.to_be_bytes()),
        ]);
        let mut out = Vec::with_capacity(128);
        leaf.serialize(&mut serde_cbor::Serializer::new(&mut out).packed_format())
            .expect("a vector takes all bytes");
        out
    }

    pub fn leaf_hash(&self) -> Hash {
        merkle_tree::leaf_hash(&self.leaf_data())
    }

    pub(crate) fn encode(&self, leaf: &Hash, epoch: u32, encryption: &Encryption) -> [u8; ROW] {
        let mut row = [0; ROW];
        row[..4].copy_from_slice(&epoch.to_le_bytes());
        let words = [self.sequence, self.time as u64, self.position, self.updates];
        write_words(&mut row[8..40], &words);
        row[40..112].copy_from_slice(&self.totals.encode(&self.digest));
        row[112..144].copy_from_slice(leaf.as_bytes());
        let nonce = nonce(epoch, self.sequence - 1);
        let bound = row_number(self.sequence - 1);
        let tag = encryption.encrypt(Purpose::Row, nonce, &bound, &mut row[8..8 + BODY]);
        row[144..].copy_from_slice(&tag);
        row
    }

    pub(crate) fn decode(
        index: u64,
        row: &[u8; ROW],
        encryption: &Encryption,
    ) -> Option<(Self, Hash)> {
        let epoch = u32::from_le_bytes(row[..4].try_into().unwrap());
        let mut body: [u8; BODY] = row[8..144].try_into().unwrap();
        let tag = row[144..].try_into().unwrap();
        if !encryption.decrypt(
            Purpose::Row,
            nonce(epoch, index),
            &row_number(index),
            &mut body,
            &tag,
        ) {
            return None;
        }
        let mut words = [0; 4];
        read_words(&body[..32], &mut words);
        let (totals, digest) = Totals::decode(&body[32..])?;
        let batch = Batch {
            sequence: words[0],
            time: words[1] as i64,
            position: words[2],
            updates: words[3],
            digest,
            totals,
        };
        let leaf: [u8; HASH_SIZE] = body[104..].try_into().unwrap();
        (batch.sequence == index + 1).then(|| (batch, Hash::from(leaf)))
    }
}

fn nonce(epoch: u32, index: u64) -> Nonce {
    Nonce {
        epoch,
        major: index,
        minor: 0,
    }
}

fn row_number(index: u64) -> [u8; 8] {
    index.to_le_bytes()
}

/// That a batch is in the log of batches: checked by [`merkle_tree::verify_inclusion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchProof {
    pub leaf_data: Vec<u8>,
    pub leaf_index: LeafIndex,
    pub tree_size: TreeSize,
    pub path: Vec<Hash>,
    pub root: Hash,
}

impl BatchProof {
    /// Whether the leaf data is in the tree with the root.
    pub fn verify(&self) -> Result<(), merkle_tree::VerifyError> {
        let leaf = merkle_tree::leaf_hash(&self.leaf_data);
        merkle_tree::verify_inclusion(
            &leaf,
            self.leaf_index,
            self.tree_size,
            &self.path,
            &self.root,
        )
    }
}
