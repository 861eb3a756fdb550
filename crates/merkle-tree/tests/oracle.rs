//! Against ct-merkle's in-memory tree, an independent implementation of the same RFC.

mod support;

use ct_merkle::{ConsistencyProof, InclusionProof, mem_backed_tree::MemoryBackedTree};
use merkle_tree::*;
use sha2::Sha256;
use support::*;

type Oracle = MemoryBackedTree<Sha256, [u8; 8]>;

const LARGEST: u64 = 600;

fn same(ours: &[Hash], theirs: &[u8]) -> bool {
    ours.iter().flat_map(|h| h.as_bytes()).eq(theirs)
}

#[test]
fn every_root_and_inclusion_proof_up_to_600_agrees() {
    let (mut oracle, mut store) = (Oracle::new(), Store::default());
    for n in 1..=LARGEST {
        oracle.push(data(n - 1));
        store.push(leaf(n - 1));
        store.flush();
        let expected = oracle.root();
        let ours = root(&mut store, size(n)).unwrap();
        assert_eq!(ours.as_bytes().as_slice(), expected.as_bytes().as_slice());
        assert_eq!(ours, store.frontier.root());
        for i in 0..n {
            let proof: InclusionProof<Sha256> = oracle.prove_inclusion(i as usize);
            let path = inclusion_proof(&mut store, index(i), size(n)).unwrap();
            assert!(same(&path, proof.as_bytes()), "leaf {i} of {n}");
            verify_inclusion(&leaf(i), index(i), size(n), &path, &ours).unwrap();
        }
    }
}

#[test]
fn consistency_proofs_from_every_size_up_to_600_agree() {
    let (mut oracle, mut store) = (Oracle::new(), Store::of(LARGEST));
    for n in 1..=LARGEST {
        oracle.push(data(n - 1));
        // Every old size for small trees, then every seventh, with the borders of tiles.
        for m in (1..n).filter(|m| n < 80 || (m + n) % 7 == 0 || m % 256 < 2) {
            let proof: ConsistencyProof<Sha256> = oracle.prove_consistency((n - m) as usize);
            let path = consistency_proof(&mut store, size(m), size(n)).unwrap();
            assert!(same(&path, proof.as_bytes()), "from {m} to {n}");
            let (old, new) = (
                root(&mut store, size(m)).unwrap(),
                root(&mut store, size(n)).unwrap(),
            );
            verify_consistency(size(m), size(n), &old, &new, &path).unwrap();
        }
    }
}

#[test]
fn trees_of_several_tile_levels_agree() {
    const N: u64 = 140_000;
    let (mut oracle, mut store) = (Oracle::new(), Store::of(N));
    (0..N).for_each(|i| oracle.push(data(i)));
    assert!(store.tiles.keys().any(|tile| tile.level == 2));
    assert_eq!(
        root(&mut store, size(N)).unwrap().as_bytes()[..],
        oracle.root().as_bytes()[..]
    );
    for i in (0..N).step_by(997).chain([255, 256, 65_535, 65_536, N - 1]) {
        let path = inclusion_proof(&mut store, index(i), size(N)).unwrap();
        assert!(
            same(&path, oracle.prove_inclusion(i as usize).as_bytes()),
            "leaf {i}"
        );
    }
    for m in (1..N)
        .step_by(1009)
        .chain([256, 65_536, 65_537, 131_072, N - 1])
    {
        let path = consistency_proof(&mut store, size(m), size(N)).unwrap();
        assert!(
            same(&path, oracle.prove_consistency((N - m) as usize).as_bytes()),
            "from {m}"
        );
    }
}
