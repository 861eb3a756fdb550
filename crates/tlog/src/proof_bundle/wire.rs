//! How a bundle is written, in two versions: with a path for each entry, whose nodes are there once, in the order in which
//! the paths need them; or with the nodes of one proof of all entries, in its order.

use super::{BundleEntry, BundleLeaf, Label, MAX_ENTRIES, MAX_PATH, ProofBundle};
use crate::Error;
use crate::wire::{
    Bytes, WireHash, WireIndex, WireNote, at_most, from_cbor, from_json, to_cbor, to_json,
};
use merkle_tree::Hash;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashMap;

/// Written as a text: a derived form would also be read from an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
enum Version {
    Paths,
    Multiproof,
}

impl From<Version> for &'static str {
    fn from(version: Version) -> &'static str {
        match version {
            Version::Paths => "merkle_log/proof-bundle@v1",
            Version::Multiproof => "merkle_log/proof-bundle@v2",
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(format: String) -> Result<Version, String> {
        let versions = [Version::Paths, Version::Multiproof];
        let found = versions.into_iter().find(|v| format == <&str>::from(*v));
        found.ok_or_else(|| {
            let [one, two] = versions.map(<&str>::from);
            format!("the format is {format:?}, neither {one:?} nor {two:?}")
        })
    }
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
    format: Version,
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
    /// Places in `nodes`; in version 1 only.
    #[serde(
        default,
        deserialize_with = "path",
        skip_serializing_if = "Option::is_none"
    )]
    path: Option<Vec<u32>>,
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

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u32>>, D::Error> {
    at_most::<MAX_PATH, _, _>(deserializer).map(Some)
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
        let (format, nodes, entries) = match &bundle.multiproof {
            Some(nodes) => {
                let nodes = nodes.iter().copied().map(WireHash).collect();
                let entries = bundle.entries.iter();
                let entries = entries.map(|entry| WireEntry::of(entry, None)).collect();
                (Version::Multiproof, nodes, entries)
            }
            None => {
                let (nodes, entries) = with_paths(&bundle.entries);
                (Version::Paths, nodes, entries)
            }
        };
        Wire {
            hub: bundle.hub.as_deref().map(|hub| Box::new(Wire::of(hub))),
            nodes,
            format,
            entries,
            checkpoint: WireNote(bundle.checkpoint.clone()),
        }
    }

    fn bundle(self) -> Result<ProofBundle, Error> {
        let bundle = self.unchecked()?;
        bundle.check_form()?;
        match Wire::of(&bundle) == self {
            true => Ok(bundle),
            false => Err(refuse(
                "the nodes are not those of the paths, each once and in their order",
            )),
        }
    }

    fn unchecked(&self) -> Result<ProofBundle, Error> {
        let entries = self.entries.iter().map(|entry| {
            let path = self.path(entry)?;
            entry.entry(path)
        });
        Ok(ProofBundle {
            checkpoint: self.checkpoint.0.clone(),
            entries: entries.collect::<Result<_, _>>()?,
            multiproof: match self.format {
                Version::Paths => None,
                Version::Multiproof => Some(self.nodes.iter().map(|node| node.0).collect()),
            },
            hub: match &self.hub {
                Some(hub) => Some(Box::new(hub.unchecked()?)),
                None => None,
            },
        })
    }

    /// The path of an entry, which it has in version 1.
    fn path(&self, entry: &WireEntry) -> Result<Vec<Hash>, Error> {
        let node = |place: &u32| {
            let node = self.nodes.get(*place as usize).map(|node| node.0);
            node.ok_or_else(|| refuse("a path has a node that is not there"))
        };
        match (self.format, &entry.path) {
            (Version::Paths, Some(path)) => path.iter().map(node).collect(),
            (Version::Multiproof, None) => Ok(Vec::new()),
            (Version::Paths, None) => Err(refuse("an entry has no path")),
            (Version::Multiproof, Some(_)) => Err(refuse(
                "an entry has a path, which this version does not have",
            )),
        }
    }
}

fn refuse(what: &str) -> Error {
    Error::ProofBundle(what.to_owned())
}

/// The nodes of the paths of `entries`, each once, and the entries with the places of theirs.
fn with_paths(entries: &[BundleEntry]) -> (Vec<WireHash>, Vec<WireEntry>) {
    let mut nodes = Vec::new();
    let mut places: HashMap<Hash, u32> = HashMap::new();
    let mut place = |hash: &Hash| {
        *places.entry(*hash).or_insert_with(|| {
            nodes.push(WireHash(*hash));
            nodes.len() as u32 - 1
        })
    };
    let mut written = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = entry.path.iter().map(&mut place).collect();
        written.push(WireEntry::of(entry, Some(path)));
    }
    (nodes, written)
}

impl WireEntry {
    fn of(entry: &BundleEntry, path: Option<Vec<u32>>) -> WireEntry {
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

    fn entry(&self, path: Vec<Hash>) -> Result<BundleEntry, Error> {
        Ok(BundleEntry {
            index: self.index.0,
            leaf: match (&self.leaf_data, &self.leaf_hash) {
                (Some(data), None) => BundleLeaf::Data(data.0.clone()),
                (None, Some(hash)) => BundleLeaf::Hash(hash.0),
                _ => return Err(refuse("an entry has not one of leaf_data and leaf_hash")),
            },
            path,
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
