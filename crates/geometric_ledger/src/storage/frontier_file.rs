//! The file `frontier-<size>`: what is left of the batches that were pruned.
//!
//! It has the frontier of the tree of those batches: the hashes of the incomplete tile of each level, from which
//! the tree of all batches is made again without them. The tree's own files
//! have the same hashes, so each can be made again from the other. The file is a BLAKE3 hash of the rest, a
//! magic number, the ledger's id, the number of batches, and the hashes, level by level.

use crate::error::Error;
use crate::storage::disk::{Disk, existing};
use merkle_tree::{Frontier, HASH_SIZE, Hash, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::io;

pub const PREFIX: &str = "frontier-";
const MAGIC: &[u8; 8] = b"GLFRONT1";
const CHECKSUM: usize = 32;
const HEAD: usize = CHECKSUM + MAGIC.len() + 16 + 8;

/// The name of the file for so many pruned batches.
pub fn name(size: u64) -> String {
    format!("{PREFIX}{size:016x}")
}

/// How many pruned batches a file is for, by its name.
pub fn size_in(file_name: &str) -> Option<u64> {
    let size = u64::from_str_radix(file_name.strip_prefix(PREFIX)?, 16).ok()?;
    (size > 0 && name(size) == file_name).then_some(size)
}

/// How many hashes each level of the frontier of so many batches has, from the leaves up.
fn counts(size: u64) -> impl Iterator<Item = usize> {
    let nodes = std::iter::successors(Some(size), |nodes| Some(nodes / TILE_WIDTH));
    nodes
        .take_while(|nodes| *nodes > 0)
        .map(|nodes| (nodes % TILE_WIDTH) as usize)
}

/// Bytes of the file for so many pruned batches.
pub fn len(size: u64) -> usize {
    HEAD + counts(size).sum::<usize>() * HASH_SIZE
}

/// The hashes of a frontier, level by level.
pub fn hashes(frontier: &Frontier) -> Vec<u8> {
    let all = frontier.edges().iter().flatten();
    all.flat_map(|hash| *hash.as_bytes()).collect()
}

/// The frontier of so many pruned batches, which are whole tiles, from its hashes.
pub fn of_hashes(size: u64, hashes: &[u8]) -> Option<Frontier> {
    if !size.is_multiple_of(TILE_WIDTH) || !hashes.len().is_multiple_of(HASH_SIZE) {
        return None;
    }
    let mut hashes = hashes.chunks_exact(HASH_SIZE).map(|hash| {
        let bytes: [u8; HASH_SIZE] = hash.try_into().expect("a chunk is as long as a hash");
        Hash::from(bytes)
    });
    let edges = counts(size)
        .map(|count| hashes.by_ref().take(count).collect())
        .collect();
    if hashes.next().is_some() {
        return None;
    }
    // Where there were too few, the lengths are wrong.
    Frontier::from_edges(TreeSize::new(size).ok()?, edges).ok()
}

/// The tiles of the tree that a frontier has the beginnings of.
pub fn tiles(frontier: &Frontier) -> Vec<(TileId, Vec<Hash>)> {
    let size = frontier.size().get();
    let edges = frontier.edges().iter().enumerate().skip(1);
    edges
        .filter(|(_, hashes)| !hashes.is_empty())
        .map(|(level, hashes)| (first_tile(size, level), hashes.clone()))
        .collect()
}

/// The first tile of a level that the tree behind so many pruned batches needs.
pub fn first_tile(size: u64, level: usize) -> TileId {
    let nodes = size >> (TILE_HEIGHT * level as u32);
    TileId {
        level: level as u8,
        index: nodes / TILE_WIDTH,
    }
}

pub fn encode(ledger: &[u8; 16], frontier: &Frontier) -> Vec<u8> {
    let mut bytes = vec![0; CHECKSUM];
    bytes.extend(MAGIC);
    bytes.extend(ledger);
    bytes.extend(frontier.size().get().to_le_bytes());
    bytes.extend(hashes(frontier));
    let checksum = blake3::hash(&bytes[CHECKSUM..]);
    bytes[..CHECKSUM].copy_from_slice(checksum.as_bytes());
    bytes
}

/// `None` if it is not what was written, or of another ledger or size.
pub fn decode(ledger: &[u8; 16], size: u64, bytes: &[u8]) -> Option<Frontier> {
    let (head, hashes) = bytes.split_at_checked(HEAD)?;
    let (checksum, head) = head.split_at(CHECKSUM);
    let of_this_ledger = head[8..24] == ledger[..] && head[24..] == size.to_le_bytes();
    let whole = blake3::hash(&bytes[CHECKSUM..]).as_bytes()[..] == *checksum;
    match whole && of_this_ledger && head[..8] == MAGIC[..] {
        true => of_hashes(size, hashes),
        false => None,
    }
}

/// Writes the file of a frontier, durably.
pub fn write(disk: &dyn Disk, ledger: &[u8; 16], frontier: &Frontier) -> Result<(), Error> {
    let name = name(frontier.size().get());
    let file = disk.open(&name, true).map_err(Error::io(&name))?;
    let written = file.write_at(&encode(ledger, frontier), 0);
    let synced = written
        .and_then(|()| file.sync())
        .and_then(|()| disk.sync());
    synced.map_err(Error::io(&name))
}

/// The frontier in its file; `None` if the file is missing or not whole.
pub fn read(disk: &dyn Disk, ledger: &[u8; 16], size: u64) -> Result<Option<Frontier>, Error> {
    let name = name(size);
    let Some(file) = existing(disk, &name).map_err(Error::io(&name))? else {
        return Ok(None);
    };
    let mut bytes = vec![0; len(size)];
    match file.read_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result.map_err(Error::io(&name))?,
    }
    Ok(decode(ledger, size, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frontier(size: u64) -> Frontier {
        let mut frontier = Frontier::default();
        for leaf in 0..size {
            let leaf = merkle_tree::leaf_hash(&leaf.to_le_bytes());
            frontier.push(leaf).unwrap();
        }
        frontier
    }

    #[test]
    fn a_frontier_is_read_as_it_was_written_and_no_other_is() {
        let ledger = [7; 16];
        for size in [256, 512, 256 * 255, 256 * 256, 256 * 300] {
            let frontier = frontier(size);
            let bytes = encode(&ledger, &frontier);
            assert_eq!(bytes.len(), len(size));
            let read = decode(&ledger, size, &bytes).unwrap();
            assert_eq!(read.edges(), frontier.edges());
            assert_eq!(read.root(), frontier.root());
            assert!(decode(&[8; 16], size, &bytes).is_none());
            assert!(decode(&ledger, size + 256, &bytes).is_none());
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(decode(&ledger, size, &damaged).is_none(), "byte {at}");
                assert!(decode(&ledger, size, &bytes[..at]).is_none(), "cut at {at}");
            }
            let hashes = hashes(&frontier);
            assert!(of_hashes(size, &hashes[1..]).is_none());
            assert!(of_hashes(size + 1, &hashes).is_none());
            assert_eq!(size_in(&name(size)), Some(size));
        }
        for other in [
            "frontier-",
            "frontier-1",
            "frontier-000000000000010G",
            "batches",
        ] {
            assert_eq!(size_in(other), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frontier_or_none(size: u64, bytes: Vec<u8>) {
            let _ = of_hashes(size, &bytes);
            let _ = decode(&[0; 16], size, &bytes);
        }
    }
}
