//! The crates `tlog_tiles` and `signed_note`.

use super::support::{key, log::Log};
use super::{PROOFS, Random, random_log};
use merkle_tree::{Hash, LeafIndex, TreeSize};
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use tlog::{SignedNote, SigningKey, TileLevel, tile_to_bytes, tiles_of};
use tlog_tiles::tile::Tile;
use tlog_tiles::tlog as theirs;

/// The hashes that they store of a log.
struct Stored(Vec<theirs::Hash>);

impl theirs::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<theirs::Hash>, theirs::Error> {
        Ok(indexes
            .iter()
            .map(|index| self.0[*index as usize])
            .collect())
    }
}

impl Stored {
    fn of(log: &Log) -> Stored {
        let mut stored = Stored(Vec::new());
        for (n, entry) in (0..).zip(&log.entries) {
            let hashes = theirs::stored_hashes(n, entry, &stored).unwrap();
            stored.0.extend(hashes);
        }
        stored
    }

    fn root(&self, size: u64) -> theirs::Hash {
        theirs::tree_hash(size, self).unwrap()
    }
}

fn ours(hash: theirs::Hash) -> Hash {
    Hash::from(hash.0)
}

fn their(hashes: Vec<Hash>) -> Vec<theirs::Hash> {
    hashes
        .iter()
        .map(|hash| theirs::Hash(*hash.as_bytes()))
        .collect()
}

#[test]
fn the_crate_tlog_tiles_has_the_same_proofs() {
    let log = random_log(2_000);
    let stored = Stored::of(&log);
    let mut tiles = log.tiles();
    let mut random = Random(7);
    for _ in 0..PROOFS {
        let size = 1 + random.below(2_000);
        let (index, old) = (random.below(size), 1 + random.below(size));
        let (of, at, from) = (
            TreeSize::new(size).unwrap(),
            LeafIndex::new(index).unwrap(),
            TreeSize::new(old).unwrap(),
        );
        let root = stored.root(size);
        assert_eq!(ours(root), merkle_tree::root(&mut tiles, of).unwrap());
        let leaf = theirs::record_hash(&log.entries[index as usize]);
        let path = merkle_tree::inclusion_proof(&mut tiles, at, of).unwrap();
        let path_of_theirs = theirs::prove_record(size, index, &stored).unwrap();
        let as_ours: Vec<_> = path_of_theirs.iter().copied().map(ours).collect();
        merkle_tree::verify_inclusion(&ours(leaf), at, of, &as_ours, &ours(root)).unwrap();
        theirs::check_record(&their(path), size, root, index, leaf).unwrap();
        let old_root = stored.root(old);
        let path = merkle_tree::consistency_proof(&mut tiles, from, of).unwrap();
        let path_of_theirs = theirs::prove_tree(size, old, &stored).unwrap();
        let as_ours: Vec<_> = path_of_theirs.iter().copied().map(ours).collect();
        merkle_tree::verify_consistency(from, of, &ours(old_root), &ours(root), &as_ours).unwrap();
        theirs::check_tree(&their(path), size, root, old, old_root).unwrap();
    }
}

#[test]
fn the_crate_tlog_tiles_has_the_same_tiles() {
    let log = random_log(66_000);
    let stored = Stored::of(&log);
    let mut tiles = log.tiles();
    let ours = tiles_of(log.size()).filter(|path| path.level() != TileLevel::Entries);
    // Their paths have Go's form: the height comes first.
    let mut paths: Vec<_> = ours
        .map(|path| path.to_string().replacen("tile/", "tile/8/", 1))
        .collect();
    for path in &paths {
        let tile = Tile::from_path(path).unwrap();
        let path: tlog::TilePath = path.replacen("tile/8/", "tile/", 1).parse().unwrap();
        let hashes =
            merkle_tree::HashReader::read(&mut tiles, path.tile().unwrap(), 0, path.width())
                .unwrap();
        assert_eq!(
            tile.read_data(&stored).unwrap(),
            tile_to_bytes(&hashes),
            "{path}"
        );
    }
    let mut theirs: Vec<_> = Tile::new_tiles(8, 0, 66_000)
        .iter()
        .map(Tile::path)
        .collect();
    paths.sort();
    theirs.sort();
    assert_eq!(paths, theirs);
}

#[test]
fn the_crate_signed_note_reads_our_notes_and_writes_ours() {
    for size in 0..50 {
        let log = random_log(size);
        let key = key("example.com/log", size as u8);
        let note = log.signed(&[&key]);
        let verifier = StandardVerifier::new(&key.verifier_key().to_string()).unwrap();
        let read = Note::from_bytes(note.to_string().as_bytes()).unwrap();
        let (verified, _) = read
            .verify(&VerifierList::new(vec![Box::new(verifier)]))
            .unwrap();
        assert_eq!(verified.len(), 1);
        let checkpoint = tlog_tiles::checkpoint::Checkpoint::from_bytes(read.text()).unwrap();
        assert_eq!(
            (checkpoint.origin(), checkpoint.size()),
            ("example.com/log", size)
        );
        let signer = StandardSigner::new(&key.to_text()).unwrap();
        let mut theirs = Note::new(note.text().as_bytes(), &[]).unwrap();
        theirs.add_sigs(&[&signer]).unwrap();
        assert_eq!(theirs.to_bytes(), note.to_string().as_bytes());
        assert_eq!(SignedNote::from_bytes(&theirs.to_bytes()).unwrap(), note);
        assert!(SigningKey::from_text(&key.to_text()).is_ok());
    }
}
