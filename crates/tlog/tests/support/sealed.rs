//! Sealed ranges of a log in memory, as a database would make them.

use super::log::{Log, Tiles, row};
use leaf_format::{Cbor, Columns, Kind, Leaf, Value};
use merkle_tree::*;
use std::collections::BTreeMap;
use std::ops::Range;
use tlog::*;

/// A range of a log, its index and the entry that seals it.
pub struct SealedPart {
    pub seal: u64,
    pub leaf_data: Vec<u8>,
    pub said: Seal,
    pub keys: Vec<SealedKey>,
    pub secret: Secret,
}

/// Source and key of an entry: orders have an id; what the log says of itself has neither.
pub fn key_of(leaf_data: &[u8]) -> (String, Vec<String>) {
    let leaf = Leaf::decode(leaf_data).unwrap();
    match (leaf.kind, leaf.columns) {
        (Kind::Seal, Columns::Map(columns)) => {
            let Some(Cbor::Integer(from)) = columns.get("from") else {
                panic!("a seal says where its range begins");
            };
            (String::new(), vec![format!("seal {from}")])
        }
        (_, Columns::Map(columns)) => {
            let Some(Cbor::Integer(id)) = columns.get("id") else {
                panic!("an order has an id");
            };
            (leaf.source, vec![id.to_string()])
        }
        _ => panic!("orders have columns"),
    }
}

pub fn seal_leaf(said: &Seal) -> Vec<u8> {
    let hash = |hash: &Hash| Value::Bytes(hash.as_bytes().to_vec().into());
    row(
        "log",
        Kind::Seal,
        &[
            ("index", Value::Text(Seal::INDEX.into())),
            ("from", Value::Int(said.entries.start.into())),
            ("to", Value::Int(said.entries.end.into())),
            ("root_hash", hash(&said.root)),
            ("keys", Value::Int(said.keys.get().into())),
            ("index_root", hash(&said.index_root)),
        ],
    )
}

fn tiles_of_leaves(mut leaves: Vec<Hash>) -> Tiles {
    let mut levels = Vec::new();
    loop {
        let above = leaves
            .as_chunks::<256>()
            .0
            .iter()
            .map(|tile| tile_hash(tile))
            .collect::<Vec<_>>();
        levels.push(leaves);
        if above.is_empty() {
            return Tiles::new(levels);
        }
        leaves = above;
    }
}

/// The keys of the entries of a range that `kept` says yes to; all of them, where the log is honest.
pub fn keys(
    log: &Log,
    range: Range<u64>,
    root: &Hash,
    kept: impl Fn(u64) -> bool,
) -> Vec<SealedKey> {
    let mut keys: BTreeMap<KeyHash, Vec<u64>> = BTreeMap::new();
    for index in range.filter(|index| kept(*index)) {
        let (source, key) = key_of(&log.entries[index as usize]);
        let hash = KeyHash::new(root, &source, key.iter().map(String::as_str));
        keys.entry(hash).or_default().push(index);
    }
    let sealed = |(hash, entries)| SealedKey { hash, entries };
    keys.into_iter().map(sealed).collect()
}

/// Seals the entries of a range, and appends the entry that says so.
pub fn seal(log: &mut Log, range: Range<u64>, kept: impl Fn(u64) -> bool) -> SealedPart {
    let root = root(&mut log.tiles(), TreeSize::new(range.end).unwrap()).unwrap();
    let keys = keys(log, range.clone(), &root, kept);
    let secret = Secret([range.start as u8 + 1; 32]);
    let size = TreeSize::new(keys.len() as u64).unwrap();
    let mut tiles = tiles_of_leaves(sealed_leaves(&keys, &secret));
    let said = Seal {
        entries: range,
        root,
        keys: size,
        index_root: merkle_tree::root(&mut tiles, size).unwrap(),
    };
    let leaf_data = seal_leaf(&said);
    log.entries.push(leaf_data.clone());
    SealedPart {
        seal: log.entries.len() as u64 - 1,
        leaf_data,
        said,
        keys,
        secret,
    }
}

impl SealedPart {
    pub fn prove(&self, source: &str, key: &[&str]) -> (SealedRange, Vec<u64>) {
        let hash = KeyHash::new(&self.said.root, source, key.iter().copied());
        let place = self.keys.partition_point(|k| k.hash < hash);
        let (before, found) = (
            place.checked_sub(1).map(|p| &self.keys[p]),
            self.keys.get(place),
        );
        let mut tiles = tiles_of_leaves(sealed_leaves(&self.keys, &self.secret));
        let proof = key_proof(
            &mut tiles,
            self.said.keys,
            &hash,
            &self.secret,
            place as u64,
            (before, found),
        );
        let of_key = found.filter(|found| found.hash == hash);
        let range = SealedRange {
            seal: LeafIndex::new(self.seal).unwrap(),
            leaf_data: self.leaf_data.clone(),
            proof: proof.unwrap(),
        };
        (
            range,
            of_key.map_or(Vec::new(), |found| found.entries.clone()),
        )
    }
}

/// The proof of a key in ranges of a log.
pub fn prove(
    log: &Log,
    ranges: &[&SealedPart],
    source: &str,
    key: &[&str],
    signers: &[&dyn Signer],
) -> AbsenceProof {
    let (shown, entries): (Vec<_>, Vec<_>) =
        ranges.iter().map(|range| range.prove(source, key)).unzip();
    let entries = entries.concat();
    let mut all: Vec<u64> = ranges
        .iter()
        .map(|range| range.seal)
        .chain(entries.iter().copied())
        .collect();
    all.sort_unstable();
    let all: Vec<LeafIndex> = all
        .into_iter()
        .map(|index| LeafIndex::new(index).unwrap())
        .collect();
    let proof = multiproof(&mut log.tiles(), &all, log.size()).unwrap();
    let entry = |index: u64| KeyEntry {
        index: LeafIndex::new(index).unwrap(),
        leaf: BundleLeaf::Data(log.entries[index as usize].clone()),
    };
    AbsenceProof {
        checkpoint: log.signed(signers),
        source: source.to_owned(),
        key: key.iter().map(|text| (*text).to_owned()).collect(),
        ranges: shown,
        entries: entries.into_iter().map(entry).collect(),
        nodes: proof.nodes,
    }
}

/// What a range would say whose keys were altered after it was sealed.
pub fn sealed_again(part: &SealedPart) -> Seal {
    let mut tiles = tiles_of_leaves(sealed_leaves(&part.keys, &part.secret));
    Seal {
        index_root: merkle_tree::root(&mut tiles, part.said.keys).unwrap(),
        ..part.said.clone()
    }
}
