//! What a bundle proves.

use super::{BundleEntry, BundleLeaf, Label, ProofBundle};
use crate::{Error, Policy, SignedNote, VerifiedCheckpoint};
use leaf_format::{Cbor, Columns, Kind, Leaf};
use merkle_tree::{Hash, LeafIndex, verify_inclusion, verify_multiproof};

/// What was proven: these entries are in the log with this checkpoint.
#[derive(Clone, Debug)]
pub struct Proven {
    pub checkpoint: VerifiedCheckpoint,
    pub entries: Vec<ProvenEntry>,
    /// The checkpoint itself is an entry of this log.
    pub hub: Option<Box<Proven>>,
}

/// An entry that is in the log.
#[derive(Clone, Debug)]
pub struct ProvenEntry {
    pub index: LeafIndex,
    pub leaf_hash: Hash,
    pub content: Content,
    /// What the bundle says of the entry, and does not prove.
    pub label: Option<Label>,
}

/// What is proven of an entry beside its hash.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing: whoever has the leaf data can compare their hash.
    Withheld,
    /// Leaf data of format 1.
    Row(Box<Leaf>),
    /// Leaf data of some other format.
    Other(Vec<u8>),
}

impl ProofBundle {
    /// Checks, in this order: every checkpoint's log signature and cosignatures, the quorum of the outermost
    /// checkpoint, every inclusion, and that each hub contains the checkpoint below it.
    ///
    /// # Errors
    /// If any of that does not hold, or a label contradicts the leaf data.
    pub fn verify(&self, policy: &Policy) -> Result<Proven, Error> {
        self.check_form()?;
        let checkpoint = match &self.hub {
            Some(_) => policy.verify_log(&self.checkpoint)?,
            None => policy.verify(&self.checkpoint)?,
        };
        let hub = match &self.hub {
            Some(hub) => Some(Box::new(hub.verify(policy)?)),
            None => None,
        };
        let entries = self.verify_entries(&checkpoint)?;
        if let Some(hub) = &hub {
            // The form of a hub's bundle is that it has one entry.
            let held = hub.entries.first().map(|entry| &entry.content);
            held.unwrap_or(&Content::Withheld)
                .holds(self.checkpoint.text())?;
        }
        Ok(Proven {
            checkpoint,
            entries,
            hub,
        })
    }

    fn verify_entries(&self, verified: &VerifiedCheckpoint) -> Result<Vec<ProvenEntry>, Error> {
        let (size, root) = (verified.checkpoint.size(), verified.checkpoint.root());
        let hashes = self.entries.iter().map(|entry| entry.leaf.hash());
        let Some(nodes) = &self.multiproof else {
            let entries = self.entries.iter().zip(hashes).map(|(entry, leaf_hash)| {
                verify_inclusion(&leaf_hash, entry.index, size, &entry.path, root).map_err(
                    |why| {
                        let index = entry.index.get();
                        Error::Inclusion { index, why }
                    },
                )?;
                entry.proven(leaf_hash)
            });
            return entries.collect();
        };
        let indexes = self.entries.iter().map(|entry| entry.index);
        let leaves: Vec<(LeafIndex, Hash)> = indexes.zip(hashes).collect();
        verify_multiproof(&leaves, size, nodes, root).map_err(Error::Inclusions)?;
        let entries = self.entries.iter().zip(&leaves);
        entries
            .map(|(entry, (_, leaf_hash))| entry.proven(*leaf_hash))
            .collect()
    }
}

impl BundleEntry {
    /// What is proven once the leaf is.
    fn proven(&self, leaf_hash: Hash) -> Result<ProvenEntry, Error> {
        let content = self.leaf.content();
        if let (Content::Row(leaf), Some(label)) = (&content, &self.label) {
            label.check(leaf)?;
        }
        Ok(ProvenEntry {
            index: self.index,
            leaf_hash,
            content,
            label: self.label.clone(),
        })
    }
}

impl Label {
    /// That the leaf data do not say otherwise. Texts of most types depend on settings, so that only
    /// integers are compared.
    fn check(&self, leaf: &Leaf) -> Result<(), Error> {
        if self.source != leaf.source {
            return Err(Error::Contradiction("the leaf data are of another source"));
        }
        let Columns::Map(columns) = &leaf.columns else {
            return Ok(());
        };
        for (name, text) in &self.key {
            let value = columns.get(name);
            let value = value.ok_or(Error::Contradiction(
                "the leaf data have no such key column",
            ))?;
            if let Cbor::Integer(value) = value
                && is_integer(text)
                && *text != value.to_string()
            {
                return Err(Error::Contradiction("the leaf data have another key"));
            }
        }
        Ok(())
    }
}

/// Whether a text is digits, with or without a sign.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
}

impl BundleLeaf {
    /// What it says, if it is in the tree.
    pub(crate) fn content(&self) -> Content {
        match self {
            BundleLeaf::Hash(_) => Content::Withheld,
            BundleLeaf::Data(data) => match Leaf::decode(data) {
                Ok(leaf) => Content::Row(Box::new(leaf)),
                Err(_) => Content::Other(data.clone()),
            },
        }
    }
}

impl Content {
    /// That an entry of a hub holds the checkpoint with this text, with its signatures or without.
    pub(super) fn holds(&self, text: &str) -> Result<(), Error> {
        let held = self
            .checkpoint()
            .ok_or(Error::Contradiction("the hub's entry holds no checkpoint"))?;
        let held_text = held
            .parse::<SignedNote>()
            .map(|note| note.text().to_owned());
        match held_text.as_deref().unwrap_or(held) == text {
            true => Ok(()),
            false => Err(Error::Contradiction(
                "the hub's entry holds another checkpoint",
            )),
        }
    }

    /// The text that is, or should be, a checkpoint: the column `checkpoint` of a row that is there, or
    /// all of an entry that is no row.
    fn checkpoint(&self) -> Option<&str> {
        match self {
            Content::Row(leaf) => match (leaf.kind, &leaf.columns) {
                (Kind::Insert | Kind::Update, Columns::Map(columns)) => {
                    match columns.get("checkpoint") {
                        Some(Cbor::Text(text)) => Some(text),
                        _ => None,
                    }
                }
                _ => None,
            },
            Content::Other(data) => std::str::from_utf8(data).ok(),
            _ => None,
        }
    }
}
