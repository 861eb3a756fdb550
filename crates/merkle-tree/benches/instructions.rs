//! The work whose instructions `scripts/instructions.sh` counts; one piece a run, by its name.

use merkle_tree::{Frontier, Hash, leaf_hash, leaf_hashes, tile_hash, verify_inclusion};
use merkle_tree::{LeafIndex, TreeSize};
use std::hint::black_box;

fn main() {
    let leaves: Vec<Hash> = (0..4096u32).map(|i| leaf_hash(&i.to_be_bytes())).collect();
    let work: &dyn Fn() = match std::env::args().nth(1).as_deref() {
        Some("nothing") => &|| (),
        Some("append") => &|| {
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.push(*leaf).expect("far from too many");
            }
            black_box((frontier.root(), frontier.take_tiles()));
        },
        Some("leaf-hashes") => &|| {
            drop(black_box(leaf_hashes(
                [[7u8; 120]; 64].iter().map(<[u8; 120]>::as_slice),
            )))
        },
        Some("tile-hash") => &|| {
            black_box(tile_hash(&leaves[..256]));
        },
        Some("verify-inclusion") => &|| {
            let (index, size) = (LeafIndex::new(77), TreeSize::new(4096));
            let (index, size) = (index.expect("an index"), size.expect("a size"));
            let path = &leaves[..12];
            let _ = black_box(verify_inclusion(&leaves[77], index, size, path, &leaves[0]));
        },
        // Cargo asks benches without a name to run.
        _ => return,
    };
    for _ in 0..16 {
        work();
    }
}
