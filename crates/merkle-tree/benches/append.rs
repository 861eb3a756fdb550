//! Appending ten million leaf hashes, against ct-merkle's tree in memory and against the hashing alone.
//! Prints rows of the table that `make bench` makes.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use merkle_tree::{Frontier, Hash, leaf_hash, parents};
use sha2::Sha256;
use std::hint::black_box;
use std::time::Instant;

const LEAVES: usize = 10_000_000;
/// ct-merkle hashes a whole path with each push; this many are enough to know its pace.
const OTHERS: usize = 200_000;
const ROOT_EVERY: usize = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let leaves: Vec<Hash> = (0..LEAVES as u64)
        .map(|i| leaf_hash(&i.to_be_bytes()))
        .collect();
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(each(LEAVES, || ours(&leaves)));
        times[1].push(each(OTHERS, || ct_merkle(OTHERS)));
        times[2].push(each(LEAVES, || hashing_alone(&leaves)));
    }
    let [ours, ct_merkle, alone] = times.map(median);
    println!(
        "| tree: append of leaf hashes, ct-merkle push, root per 10k | {:.0} ns | {:.0} ns | {:.1} | ≥ 5 |",
        ours,
        ct_merkle,
        ct_merkle / ours
    );
    println!(
        "| tree: append of leaf hashes, its node hashes alone | {:.0} ns | {:.0} ns | {:.2} | ≤ 1.3 |",
        ours,
        alone,
        ours / alone
    );
}

fn ours(leaves: &[Hash]) {
    let mut frontier = Frontier::default();
    for (place, leaf) in leaves.iter().enumerate() {
        frontier.push(*leaf).expect("far from too many");
        if (place + 1) % ROOT_EVERY == 0 {
            black_box(frontier.root());
            black_box(frontier.take_tiles());
        }
    }
}

fn ct_merkle(count: usize) {
    let mut tree = MemoryBackedTree::<Sha256, [u8; 8]>::new();
    for i in 0..count {
        tree.push((i as u64).to_be_bytes());
        if (i + 1) % ROOT_EVERY == 0 {
            black_box(tree.root());
        }
    }
}

/// As many node hashes as a tree of so many leaves has.
fn hashing_alone(leaves: &[Hash]) {
    for tile in leaves.chunks(256) {
        black_box(parents(tile));
        black_box(parents(&tile[..tile.len() / 2]));
        black_box(parents(&tile[..tile.len() / 4]));
        black_box(parents(&tile[..tile.len() / 8]));
        black_box(parents(&tile[..tile.len() / 16]));
        black_box(parents(&tile[..tile.len() / 32]));
        black_box(parents(&tile[..tile.len() / 64]));
        black_box(parents(&tile[..tile.len() / 128]));
    }
}

/// Nanoseconds that `work` takes for each of `count`.
fn each(count: usize, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_nanos() as f64 / count as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
