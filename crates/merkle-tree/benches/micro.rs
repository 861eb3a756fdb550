//! What single operations of the tree cost: `cargo bench -p merkle-tree --bench micro`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use merkle_tree::{
    Frontier, Hash, HashReader, LeafIndex, TileId, TreeSize, inclusion_proof, leaf_hash,
    leaf_hashes, node_hash, tile_hash, verify_inclusion,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;

const SIZE: u64 = 1_000_003;

struct Store(HashMap<TileId, Vec<Hash>>);

impl Store {
    fn of(size: u64) -> (Store, Frontier) {
        let (mut store, mut frontier) = (Store(HashMap::new()), Frontier::default());
        for i in 0..size {
            let leaf = leaf_hash(&i.to_be_bytes());
            let tile = TileId {
                level: 0,
                index: i / 256,
            };
            store.0.entry(tile).or_default().push(leaf);
            frontier.push(leaf).expect("far from too many");
        }
        store.0.extend(frontier.take_tiles());
        (store, frontier)
    }
}

impl HashReader for Store {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        Ok(self.0[&tile][usize::from(first)..][..usize::from(count)].to_vec())
    }
}

fn hashing(c: &mut Criterion) {
    let hashes: Vec<Hash> = (0..256u16).map(|i| leaf_hash(&i.to_be_bytes())).collect();
    let data = vec![7u8; 120 * 256];
    c.bench_function("node_hash", |b| {
        b.iter(|| node_hash(black_box(&hashes[0]), black_box(&hashes[1])))
    });
    let mut group = c.benchmark_group("of 256");
    group.throughput(Throughput::Elements(256));
    group.bench_function("tile_hash", |b| b.iter(|| tile_hash(black_box(&hashes))));
    group.bench_function("leaf_hashes of 120 bytes", |b| {
        b.iter(|| leaf_hashes(black_box(&data).chunks(120)))
    });
    group.bench_function("leaf_hash of 120 bytes", |b| {
        b.iter(|| {
            black_box(&data)
                .chunks(120)
                .map(leaf_hash)
                .collect::<Vec<_>>()
        })
    });
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let (mut store, frontier) = Store::of(SIZE);
    let size = TreeSize::new(SIZE).expect("a size");
    let index = LeafIndex::new(SIZE / 3).expect("an index");
    c.bench_function("root of a frontier", |b| {
        b.iter(|| black_box(&frontier).root())
    });
    c.bench_function("inclusion_proof of a million, nothing known", |b| {
        b.iter(|| inclusion_proof(&mut store, black_box(index), size))
    });
    let path = inclusion_proof(&mut store, index, size).expect("stored");
    let leaf = leaf_hash(&(SIZE / 3).to_be_bytes());
    let root = frontier.root();
    c.bench_function("verify_inclusion of a million", |b| {
        b.iter(|| verify_inclusion(black_box(&leaf), index, size, &path, &root))
    });
}

criterion_group!(benches, hashing, proofs);
criterion_main!(benches);
