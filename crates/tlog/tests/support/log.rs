//! A log in memory.

use leaf_format::{Context, Encoder, Kind, Value};
use merkle_tree::*;
use std::convert::Infallible;
use tlog::*;

/// Entries, and what a database would store of them.
#[derive(Clone)]
pub struct Log {
    pub origin: String,
    pub entries: Vec<Vec<u8>>,
}

/// All hashes of complete subtrees, by level.
pub struct Tiles(Vec<Vec<Hash>>);

impl Tiles {
    /// From the leaves up.
    pub fn new(levels: Vec<Vec<Hash>>) -> Tiles {
        Tiles(levels)
    }
}

impl HashReader for Tiles {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        let start = (tile.index * TILE_WIDTH) as usize + usize::from(first);
        Ok(self.0[usize::from(tile.level)][start..][..usize::from(count)].to_vec())
    }
}

/// Leaf data of a row `public.orders (id, note)`.
pub fn order(id: i128) -> Vec<u8> {
    row(
        "public.orders",
        Kind::Insert,
        &[
            ("id", Value::Int(id)),
            ("note", Value::Text(format!("order {id}").into())),
        ],
    )
}

pub fn row(source: &str, kind: Kind, columns: &[(&str, Value<'_>)]) -> Vec<u8> {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = columns.iter().map(|(_, value)| value.clone()).collect();
    let mut leaf_data = Vec::new();
    let encoder = Encoder::new(source, kind, &names).unwrap();
    encoder
        .encode(&values, &Context::default(), &mut leaf_data)
        .unwrap();
    leaf_data
}

impl Log {
    /// A log of that many orders.
    pub fn of_orders(origin: &str, size: u64) -> Log {
        Log {
            origin: origin.to_owned(),
            entries: (0..size).map(|id| order(id.into())).collect(),
        }
    }

    pub fn size(&self) -> TreeSize {
        TreeSize::new(self.entries.len() as u64).unwrap()
    }

    pub fn tiles(&self) -> Tiles {
        let mut levels = vec![leaf_hashes(self.entries.iter().map(Vec::as_slice))];
        while let full @ [_, ..] = levels[levels.len() - 1].as_chunks::<256>().0 {
            let above = full.iter().map(|tile| tile_hash(tile)).collect();
            levels.push(above);
        }
        Tiles(levels)
    }

    /// The checkpoint of the first `size` entries.
    pub fn checkpoint_at(&self, size: TreeSize) -> Checkpoint {
        let root = root(&mut self.tiles(), size).unwrap();
        Checkpoint::new(&self.origin, size, root).unwrap()
    }

    pub fn signed(&self, signers: &[&dyn Signer]) -> SignedNote {
        super::note(&self.checkpoint_at(self.size()), signers, 1_700_000_000)
    }

    pub fn path(&self, index: u64) -> Vec<Hash> {
        inclusion_proof(
            &mut self.tiles(),
            LeafIndex::new(index).unwrap(),
            self.size(),
        )
        .unwrap()
    }

    pub fn entry(&self, index: u64) -> BundleEntry {
        BundleEntry {
            index: LeafIndex::new(index).unwrap(),
            leaf: BundleLeaf::Data(self.entries[index as usize].clone()),
            path: self.path(index),
            label: None,
        }
    }

    pub fn bundle(&self, indexes: &[u64], signers: &[&dyn Signer]) -> ProofBundle {
        ProofBundle {
            checkpoint: self.signed(signers),
            entries: indexes.iter().map(|index| self.entry(*index)).collect(),
            multiproof: None,
            hub: None,
        }
    }

    /// The same with one proof of all entries.
    pub fn bundle_at_once(&self, indexes: &[u64], signers: &[&dyn Signer]) -> ProofBundle {
        let mut bundle = self.bundle(indexes, signers);
        let indexes: Vec<_> = bundle.entries.iter().map(|entry| entry.index).collect();
        let proof = multiproof(&mut self.tiles(), &indexes, self.size()).unwrap();
        bundle.entries.iter_mut().for_each(|e| e.path.clear());
        bundle.multiproof = Some(proof.nodes);
        bundle
    }

    pub fn consistency(&self, old: u64, signers: &[&dyn Signer]) -> ConsistencyBundle {
        let old = TreeSize::new(old).unwrap();
        ConsistencyBundle {
            old: super::note(&self.checkpoint_at(old), signers, 1_600_000_000),
            new: self.signed(signers),
            path: consistency_proof(&mut self.tiles(), old, self.size()).unwrap(),
        }
    }
}

pub fn label(source: &str, key: &[(&str, &str)]) -> Option<Label> {
    Some(Label {
        source: source.to_owned(),
        key: key
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    })
}

/// Writes a log as a directory of tiles and entry bundles (C2SP tlog-tiles).
pub fn export(log: &Log, checkpoint: &SignedNote, directory: &std::path::Path) {
    let write = |path: String, bytes: Vec<u8>| {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let mut tiles = log.tiles();
    for path in tiles_of(log.size()) {
        let bytes = match path.tile() {
            Some(tile) => tile_to_bytes(&tiles.read(tile, 0, path.width()).unwrap()),
            None => {
                let start = (path.index() * TILE_WIDTH) as usize;
                let mut bundle = Vec::new();
                for entry in &log.entries[start..start + usize::from(path.width())] {
                    entry_bundle::append(&mut bundle, entry).unwrap();
                }
                bundle
            }
        };
        write(path.to_string(), bytes);
    }
    write("checkpoint".to_owned(), checkpoint.to_string().into_bytes());
}
