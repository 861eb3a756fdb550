//! A digest of what a batch records beside its leaf hashes: keys, order values, sources, salts and statements of
//! its entries, and the time of its tree head.
//!
//! None of it is in the leaf hash of an entry whose leaf data are not kept, so the tree does not vouch for it.
//! The digest, stored with the tree head, shows when a part of it was changed. It is no signature: who may
//! write the tables can compute it again (docs/security.md). It is the sum of the hashes of its parts, so that
//! parts of a batch can be checked by different processes, in any order.

use super::entries::Entry;
use super::leaves::Statement;
use super::moves;
use merkle_tree::{Hash, leaf_hash, leaf_hashes};

/// Parts that are hashed together.
const GROUP: usize = 512;

const ENTRY: u8 = 0;
const STATEMENT: u8 = 1;
const HEAD: u8 = 2;
const SALT: u8 = 3;
const DIGEST: u8 = 4;
const TAG: u8 = 5;
const ROLE: u8 = 6;

#[derive(Default)]
pub struct Metadata {
    sum: Sum,
    /// Parts that wait to be hashed, one behind the other, and where each ends.
    parts: Vec<u8>,
    ends: Vec<usize>,
}

/// A sum of hashes, as four numbers of 64 bits that are added one by one.
pub type Sum = [u64; 4];

impl Metadata {
    pub fn entry(&mut self, leaf_index: i64, source_id: i32, key: &str, order: Option<&str>) {
        self.parts.push(ENTRY);
        self.number(leaf_index);
        self.number(source_id.into());
        self.text(key);
        self.parts.push(order.is_some().into());
        self.text(order.unwrap_or_default());
        self.end();
    }

    pub fn stored_entry(&mut self, entry: &Entry) {
        let order = entry.order.as_deref();
        self.entry(entry.leaf_index, entry.source_id, &entry.key, order);
    }

    pub fn statement(&mut self, first: i64, entries: i32, statement: &Statement) {
        self.parts.push(STATEMENT);
        self.number(first);
        self.number(entries.into());
        self.number(statement.source_id.into());
        self.text(&statement.kind);
        self.number(statement.transaction as i64);
        self.text(&statement.user);
        self.text(&statement.application);
        self.number(statement.at);
        self.end();
        // A part of its own, so that the digests of batches which recorded no roles stay what they are.
        if let Some(role) = &statement.role {
            self.parts.push(ROLE);
            self.number(first);
            self.text(role);
            self.end();
        }
    }

    pub fn salt(&mut self, leaf_index: i64, salt: &[u8]) {
        let (salt, tag) = moves::split(salt);
        self.parts
            .extend_from_slice(&numbered_part(SALT, leaf_index, salt));
        self.end();
        self.tag(leaf_index, tag);
    }

    fn tag(&mut self, leaf_index: i64, tag: &[u8]) {
        if !tag.is_empty() {
            self.parts
                .extend_from_slice(&numbered_part(TAG, leaf_index, tag));
            self.end();
        }
    }

    /// What `erased` made of a salt, which is not there any more.
    pub fn erased_salt(&mut self, leaf_index: i64, erased: &[u8]) {
        let (erased, tag) = moves::split_erased(erased);
        // Anything else than a hash makes the digest another, too.
        let part = Hash::try_from(erased).map_or([1; 4], |hash| numbers(&hash));
        add(&mut self.sum, &part);
        self.tag(leaf_index, tag);
    }

    /// Of the columns of an entry only the digest was there to be kept.
    pub fn digest(&mut self, leaf_index: i64) {
        self.parts.push(DIGEST);
        self.number(leaf_index);
        self.end();
    }

    /// `created_at` counts microseconds since 2000-01-01 00:00 UTC.
    pub fn head(&mut self, tree_size: i64, created_at: i64) {
        self.parts.push(HEAD);
        self.number(tree_size);
        self.number(created_at);
        self.end();
    }

    pub fn sum(mut self) -> Sum {
        self.hash();
        self.sum
    }

    fn number(&mut self, n: i64) {
        self.parts.extend_from_slice(&n.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as i64);
        self.parts.extend_from_slice(text.as_bytes());
    }

    fn end(&mut self) {
        self.ends.push(self.parts.len());
        if self.ends.len() == GROUP {
            self.hash();
        }
    }

    fn hash(&mut self) {
        let mut start = 0;
        let parts = self.ends.iter().map(|end| {
            let part = &self.parts[start..*end];
            start = *end;
            part
        });
        for hash in leaf_hashes(parts) {
            add(&mut self.sum, &numbers(&hash));
        }
        self.parts.clear();
        self.ends.clear();
    }
}

fn numbered_part(kind: u8, leaf_index: i64, content: &[u8]) -> Vec<u8> {
    [&[kind], leaf_index.to_be_bytes().as_slice(), content].concat()
}

/// What stands for a salt in its batch's digest once it is destroyed; the salt cannot be found from it. Its tag stays.
pub fn erased(leaf_index: i64, salt: &[u8]) -> Vec<u8> {
    let (salt, tag) = moves::split(salt);
    let hash = leaf_hash(&numbered_part(SALT, leaf_index, salt));
    [hash.as_bytes().as_slice(), tag].concat()
}

fn numbers(hash: &Hash) -> Sum {
    let words = hash.as_bytes().as_chunks::<8>().0;
    std::array::from_fn(|place| u64::from_be_bytes(words[place]))
}

/// Adds what was summed up of another part of the same batch.
pub fn add(sum: &mut Sum, other: &Sum) {
    for (to, from) in sum.iter_mut().zip(other) {
        *to = to.wrapping_add(*from);
    }
}

/// The digest of what is left when a part of a batch is taken away.
pub fn without(stored: &[u8], part: &Sum) -> Option<Vec<u8>> {
    let mut rest = numbers(&Hash::try_from(stored).ok()?);
    for (from, part) in rest.iter_mut().zip(part) {
        *from = from.wrapping_sub(*part);
    }
    Some(bytes(&rest))
}

/// As it is stored.
pub fn bytes(sum: &Sum) -> Vec<u8> {
    sum.iter().flat_map(|n| n.to_be_bytes()).collect()
}
