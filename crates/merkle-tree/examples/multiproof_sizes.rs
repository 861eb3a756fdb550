//! How many hashes prove many entries of a log of a million: the table of `docs/performance.md`.
//!
//!     cargo run -p merkle-tree --example multiproof_sizes

use merkle_tree::{EMPTY_ROOT, Hash, HashReader, LeafIndex, TileId, TreeSize, multiproof};
use std::collections::BTreeSet;
use std::convert::Infallible;

const SIZE: u64 = 1_000_000;

/// A tree whose hashes do not matter.
struct Any;

impl HashReader for Any {
    type Error = Infallible;

    fn read(&mut self, _: TileId, _: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        Ok(vec![EMPTY_ROOT; count.into()])
    }
}

/// The nodes of a leaf's path: level, and index in the level.
fn path(leaf: u64) -> Vec<(u32, u64)> {
    let mut nodes = Vec::new();
    let (mut node, mut width, mut level) = (leaf, SIZE, 0);
    while width > 1 {
        if node ^ 1 < width {
            nodes.push((level, node ^ 1));
        }
        (node, width, level) = (node / 2, width.div_ceil(2), level + 1);
    }
    nodes
}

fn scattered(count: usize) -> BTreeSet<u64> {
    let mut state = 1u64;
    let mut leaves = BTreeSet::new();
    while leaves.len() < count {
        // Knuth's linear congruential generator; its upper bits are the better ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        leaves.insert((state >> 33) % SIZE);
    }
    leaves
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "| entries | each its path | paths, each node once (version 1) | one proof (version 2) |"
    );
    println!("| --- | --- | --- | --- |");
    let from = SIZE / 2 + 77;
    for count in [2, 10, 100, 1_000, 10_000] {
        let in_a_row = (from..from + count as u64).collect();
        for (how, leaves) in [("in a row", in_a_row), ("at random", scattered(count))] {
            let nodes: Vec<_> = leaves.iter().flat_map(|leaf| path(*leaf)).collect();
            let distinct: BTreeSet<_> = nodes.iter().collect();
            let indexes = leaves.iter().map(|leaf| LeafIndex::new(*leaf));
            let indexes: Vec<LeafIndex> = indexes.collect::<Result<_, _>>()?;
            let proof = multiproof(&mut Any, &indexes, TreeSize::new(SIZE)?)?;
            let (all, once, together) = (nodes.len(), distinct.len(), proof.nodes.len());
            println!("| {count} {how} | {all} | {once} | {together} |");
        }
    }
    Ok(())
}
