//! Any leaf indexes of any tree: the proof of them all holds, and any bytes in place of its nodes are refused. No numbers
//! make the verification panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merkle_tree::{
    Hash, HashReader, LeafIndex, TILE_HEIGHT, TileId, TreeSize, leaf_hash, multiproof, node_hash,
    root, verify_multiproof,
};
use std::convert::Infallible;

/// A tree of any size whose leaves are all the same.
struct Uniform(Vec<Hash>);

impl HashReader for Uniform {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, _: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        let height = u32::from(tile.level) * TILE_HEIGHT;
        Ok(vec![self.0[height as usize]; count.into()])
    }
}

fn uniform() -> Uniform {
    let mut levels = vec![leaf_hash(b"")];
    for _ in 0..62 {
        let below = levels[levels.len() - 1];
        levels.push(node_hash(&below, &below));
    }
    Uniform(levels)
}

fuzz_target!(|input: (u64, u8, Vec<u64>, Vec<[u8; 32]>)| {
    let (size, bits, indexes, nodes) = input;
    let Ok(size) = TreeSize::new(size >> (bits % 64)) else {
        return;
    };
    let leaf = leaf_hash(b"");
    let indexes: Vec<LeafIndex> = indexes
        .iter()
        .filter_map(|index| LeafIndex::new(index >> (bits % 64)).ok())
        .collect();
    let leaves: Vec<_> = indexes.iter().map(|index| (*index, leaf)).collect();
    let nodes: Vec<Hash> = nodes.into_iter().map(Hash::from).collect();
    let mut tree = uniform();
    let head = root(&mut tree, size).unwrap();
    match multiproof(&mut tree, &indexes, size) {
        Ok(proof) => {
            assert!(verify_multiproof(&leaves, size, &proof.nodes, &head).is_ok());
            let same = proof.nodes == nodes;
            assert_eq!(
                verify_multiproof(&leaves, size, &nodes, &head).is_ok(),
                same
            );
        }
        Err(_) => assert!(verify_multiproof(&leaves, size, &nodes, &head).is_err()),
    }
});
