//! How a bundle is written: each node once, in the order in which the paths need them.

use super::{BundleEntry, BundleLeaf, Label, MAX_ENTRIES, MAX_PATH, ProofBundle};
use crate::Error;
use crate::wire::{
    Bytes, Format, FormatName, WireHash, WireIndex, WireNote, at_most, from_cbor, from_json,
    to_cbor, to_json,
};
use merkle_tree::Hash;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bundle;

impl FormatName for Bundle {
    const NAME: &'static str = "merkle_log/proof-bundle@v1";
}

/// The fields are in the order of deterministic CBOR, here and below.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    hub: Option<Box<Wire>>,
    nodes: Vec<WireHash>,
    format: Format<Bundle>,
    #[serde(deserialize_with = "at_most::<MAX_ENTRIES, _, _>")]
    entries: Vec<WireEntry>,
    checkpoint: WireNote,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    key: Option<Vec<(String, String)>>,
    /// Places in `nodes`.
    #[serde(deserialize_with = "at_most::<MAX_PATH, _, _>")]
    path: Vec<u32>,
    index: WireIndex,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    source: Option<String>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    leaf_data: Option<Bytes>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    leaf_hash: Option<WireHash>,
}

/// A field that is there has a value: `null` is refused.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl ProofBundle {
    /// # Errors
    /// If it is not the JSON of a proof bundle.
    pub fn from_json(json: &[u8]) -> Result<ProofBundle, Error> {
        from_json::<Wire>(json)?.bundle()
    }

    /// # Errors
    /// If it is not the one CBOR of a proof bundle.
    pub fn from_cbor(cbor: &[u8]) -> Result<ProofBundle, Error> {
        from_cbor::<Wire>(cbor)?.bundle()
    }

    pub fn to_json(&self) -> String {
        to_json(&Wire::of(self))
    }

    pub fn to_cbor(&self) -> Vec<u8> {
        to_cbor(&Wire::of(self))
    }
}

impl Wire {
    fn of(bundle: &ProofBundle) -> Wire {
        let mut nodes = Vec::new();
        let mut places: HashMap<Hash, u32> = HashMap::new();
        let mut place = |hash: &Hash| {
            *places.entry(*hash).or_insert_with(|| {
                nodes.push(WireHash(*hash));
                nodes.len() as u32 - 1
            })
        };
        let mut entries = Vec::with_capacity(bundle.entries.len());
        for entry in &bundle.entries {
            let path = entry.path.iter().map(&mut place).collect();
            entries.push(WireEntry::of(entry, path));
        }
        Wire {
            hub: bundle.hub.as_deref().map(|hub| Box::new(Wire::of(hub))),
            nodes,
            format: Format::default(),
            entries,
            checkpoint: WireNote(bundle.checkpoint.clone()),
        }
    }

    fn bundle(self) -> Result<ProofBundle, Error> {
        let bundle = self.unchecked()?;
        bundle.check_form()?;
        match Wire::of(&bundle) == self {
            true => Ok(bundle),
            false => Err(Error::ProofBundle(
                "the nodes are not those of the paths, each once and in their order".to_owned(),
            )),
        }
    }

    fn unchecked(&self) -> Result<ProofBundle, Error> {
        let entries = self.entries.iter().map(|entry| entry.entry(&self.nodes));
        Ok(ProofBundle {
            checkpoint: self.checkpoint.0.clone(),
            entries: entries.collect::<Result<_, _>>()?,
            hub: match &self.hub {
                Some(hub) => Some(Box::new(hub.unchecked()?)),
                None => None,
            },
        })
    }
}

impl WireEntry {
    fn of(entry: &BundleEntry, path: Vec<u32>) -> WireEntry {
        let (leaf_data, leaf_hash) = match &entry.leaf {
            BundleLeaf::Data(data) => (Some(Bytes(data.clone())), None),
            BundleLeaf::Hash(hash) => (None, Some(WireHash(*hash))),
        };
        WireEntry {
            key: entry.label.as_ref().map(|label| label.key.clone()),
            path,
            index: WireIndex(entry.index),
            source: entry.label.as_ref().map(|label| label.source.clone()),
            leaf_data,
            leaf_hash,
        }
    }

    fn entry(&self, nodes: &[WireHash]) -> Result<BundleEntry, Error> {
        let refuse = |what: &str| Error::ProofBundle(what.to_owned());
        let node = |place: &u32| {
            let node = nodes.get(*place as usize).map(|node| node.0);
            node.ok_or_else(|| refuse("a path has a node that is not there"))
        };
        let path = self.path.iter().map(node);
        Ok(BundleEntry {
            index: self.index.0,
            leaf: match (&self.leaf_data, &self.leaf_hash) {
                (Some(data), None) => BundleLeaf::Data(data.0.clone()),
                (None, Some(hash)) => BundleLeaf::Hash(hash.0),
                _ => return Err(refuse("an entry has not one of leaf_data and leaf_hash")),
            },
            path: path.collect::<Result<_, _>>()?,
            label: match (&self.source, &self.key) {
                (Some(source), Some(key)) => Some(Label {
                    source: source.clone(),
                    key: key.clone(),
                }),
                (None, None) => None,
                _ => return Err(refuse("an entry has not both or neither of source and key")),
            },
        })
    }
}
