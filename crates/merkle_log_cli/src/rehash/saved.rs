//! How far the entries were hashed, as it is kept on disk.

use super::{Rehash, Wanted};
use crate::output::hex;
use merkle_tree::{Frontier, HASH_SIZE, Hash, TreeSize};
use serde::{Deserialize, Serialize};

/// The right edge of the tree. Its root is kept beside it: an edge that was damaged on disk must not look like a log that
/// was altered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    size: u64,
    root: String,
    /// The hashes of the incomplete tile of each level, from the leaves up.
    edges: Vec<String>,
    entries: u64,
    withheld: u64,
    tiles: u64,
    first_entry: u64,
    #[serde(default)]
    pruned_to: u64,
}

fn hashes(text: &String) -> Option<Vec<Hash>> {
    let (hashes, []) = text.as_bytes().as_chunks::<{ 2 * HASH_SIZE }>() else {
        return None;
    };
    hashes.iter().map(unhex).collect()
}

fn unhex(digits: &[u8; 2 * HASH_SIZE]) -> Option<Hash> {
    let mut bytes = [0; HASH_SIZE];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |place: usize| char::from(pair[place]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(Hash::from(bytes))
}

impl Rehash {
    pub fn save(&self) -> Saved {
        let edges = self.frontier.edges().iter();
        let edges = edges.map(|hashes| hashes.iter().map(|hash| hex(hash.as_bytes())).collect());
        Saved {
            size: self.size(),
            root: self.root().to_string(),
            edges: edges.collect(),
            entries: self.entries,
            withheld: self.withheld,
            tiles: self.tiles,
            first_entry: self.first_entry,
            pruned_to: self.pruned_to,
        }
    }

    /// What was saved; `None` if it was damaged.
    pub fn resume(saved: &Saved, wanted: Wanted) -> Option<Rehash> {
        let size = TreeSize::new(saved.size).ok()?;
        let edges = saved.edges.iter().map(hashes).collect::<Option<_>>()?;
        let frontier = Frontier::from_edges(size, edges).ok()?;
        (frontier.root().to_string() == saved.root).then_some(Rehash {
            frontier,
            wanted,
            since: None,
            first_entry: saved.first_entry,
            pruned_to: saved.pruned_to,
            entries: saved.entries,
            withheld: saved.withheld,
            tiles: saved.tiles,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merkle_tree::leaf_hash;

    #[test]
    fn an_edge_is_the_same_after_it_was_kept_and_a_damaged_one_is_none() {
        let mut rehash = Rehash::new(Wanted::Served, None);
        for count in 0..70_000u32 {
            if count % 997 == 0 || count % 256 < 2 {
                let saved = rehash.save();
                let again = Rehash::resume(&saved, Wanted::Served).unwrap();
                assert_eq!((again.root(), again.size()), (rehash.root(), count.into()));
                for level in 0..saved.edges.len() {
                    let mut damaged = saved.clone();
                    let edge = &mut damaged.edges[level];
                    if edge.is_empty() {
                        continue;
                    }
                    let other = if edge.starts_with('0') { "1" } else { "0" };
                    edge.replace_range(..1, other);
                    assert!(Rehash::resume(&damaged, Wanted::Served).is_none());
                    damaged.edges.remove(level);
                    assert!(Rehash::resume(&damaged, Wanted::Served).is_none());
                }
            }
            let leaf = leaf_hash(&count.to_be_bytes());
            rehash.frontier.push(leaf).unwrap();
        }
    }
}
