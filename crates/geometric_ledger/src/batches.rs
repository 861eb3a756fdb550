//! The RFC 6962 log of batches: what each committed batch did, its leaf, and proofs of both.
//!
//! A leaf is deterministic CBOR (RFC 8949 §4.2.1) of `[1, sequence, time, digest, updates, accounts,
//! minted, burned]`: time in microseconds since 1970, the digest BLAKE3 over the batch's updates,
//! and the totals after the batch, minted and burned as 16 bytes, big-endian. Batch `n` is leaf
//! `n - 1`. The file `batches` has a row of 160 bytes for each; the files `tree-1` and on have the
//! hashes above the leaves, level by level, as C2SP tiles count them. Both are written lazily, since
//! recovery makes them again from the write-ahead log. Rows have checksums; hashes above them have
//! none, so what is read of them is checked against the root that is kept in memory, and where it is
//! wrong or missing they are made again from the rows.

use crate::disk::{Disk, DiskFile, Nothing, existing};
use crate::error::Error;
use crate::record::Totals;
use crate::seal::{Place, Purpose, Seal};
use crate::superblock::Superblock;
use merkle_tree::{Frontier, HASH_SIZE, Hash, HashReader, LeafIndex, TileId, TreeSize};
use serde::{Deserialize, Serialize};
use serde_cbor::value::Value;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

const ROW: usize = 160;
const BODY: usize = 136;
/// Rows kept in memory before they are written.
const TAIL: usize = 512;

/// One committed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counts batches from 1.
    pub sequence: u64,
    /// When it was committed, in microseconds since 1970; never before the batch before.
    pub time: i64,
    /// BLAKE3 over the updates: of each the key; a byte of kind and one of which of the account's
    /// seven words are not zero, in eight; those words, little-endian.
    pub digest: [u8; 32],
    /// How many accounts it changed.
    pub updates: u64,
    /// The ledger's totals after it.
    pub totals: Totals,
    /// Where in the write-ahead log it begins.
    pub(crate) position: u64,
}

impl Batch {
    /// The bytes that are hashed into the log of batches.
    pub fn leaf_data(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let number = |number: u64| Value::Integer(number.into());
        let leaf = Value::Array(vec![
            number(1),
            number(self.sequence),
            Value::Integer(self.time.into()),
            bytes(&self.digest),
            number(self.updates),
            number(self.totals.accounts),
            bytes(&self.totals.minted.to_be_bytes()),
            bytes(&self.totals.burned.to_be_bytes()),
        ]);
        let mut out = Vec::with_capacity(128);
        leaf.serialize(&mut serde_cbor::Serializer::new(&mut out).packed_format())
            .expect("a vector takes all bytes");
        out
    }

    pub fn leaf_hash(&self) -> Hash {
        merkle_tree::leaf_hash(&self.leaf_data())
    }

    fn encode(&self, leaf: &Hash, epoch: u32, seal: &Seal) -> [u8; ROW] {
        let mut row = [0; ROW];
        row[..4].copy_from_slice(&epoch.to_le_bytes());
        let words = [self.sequence, self.time as u64, self.position, self.updates];
        crate::slot::write_words(&mut row[8..40], &words);
        row[40..112].copy_from_slice(&self.totals.encode(&self.digest));
        row[112..144].copy_from_slice(leaf.as_bytes());
        let place = place(epoch, self.sequence - 1);
        let bound = row_number(self.sequence - 1);
        let tag = seal.seal(Purpose::Row, place, &bound, &mut row[8..8 + BODY]);
        row[144..].copy_from_slice(&tag);
        row
    }

    fn decode(index: u64, row: &[u8; ROW], seal: &Seal) -> Option<(Self, Hash)> {
        let epoch = u32::from_le_bytes(row[..4].try_into().unwrap());
        let mut body: [u8; BODY] = row[8..144].try_into().unwrap();
        let tag = row[144..].try_into().unwrap();
        if !seal.open(
            Purpose::Row,
            place(epoch, index),
            &row_number(index),
            &mut body,
            &tag,
        ) {
            return None;
        }
        let mut words = [0; 4];
        crate::slot::read_words(&body[..32], &mut words);
        let (totals, digest) = Totals::decode(&body[32..])?;
        let batch = Batch {
            sequence: words[0],
            time: words[1] as i64,
            position: words[2],
            updates: words[3],
            digest,
            totals,
        };
        let leaf: [u8; HASH_SIZE] = body[104..].try_into().unwrap();
        (batch.sequence == index + 1).then(|| (batch, Hash::from(leaf)))
    }
}

fn place(epoch: u32, index: u64) -> Place {
    Place {
        epoch,
        major: index,
        minor: 0,
    }
}

fn row_number(index: u64) -> [u8; 8] {
    index.to_le_bytes()
}

/// That a batch is in the log of batches: checked by [`merkle_tree::verify_inclusion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchProof {
    pub leaf_data: Vec<u8>,
    pub leaf_index: LeafIndex,
    pub tree_size: TreeSize,
    pub path: Vec<Hash>,
    pub root: Hash,
}

impl BatchProof {
    /// Whether the leaf data is in the tree with the root.
    pub fn verify(&self) -> Result<(), merkle_tree::VerifyError> {
        let leaf = merkle_tree::leaf_hash(&self.leaf_data);
        merkle_tree::verify_inclusion(
            &leaf,
            self.leaf_index,
            self.tree_size,
            &self.path,
            &self.root,
        )
    }
}

/// All batches of a ledger.
pub(crate) struct Batches(Mutex<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    rows: Arc<dyn DiskFile>,
    levels: Vec<Option<Arc<dyn DiskFile>>>,
    /// Rows in the file; those after them are in `tail`.
    written: u64,
    tail: Vec<(Batch, Hash, u32)>,
    frontier: Frontier,
    /// Tiles on their way to the files; what fails on the way is written the next time.
    tiles: Vec<(TileId, Vec<Hash>)>,
    seal: Arc<Seal>,
    /// Tiles that may not be written, of a ledger that is open for reading only.
    unwritten: Option<HashMap<TileId, Vec<Hash>>>,
}

impl Batches {
    /// The batches that a checkpoint has left in the files. Also says whether the hashes above them had
    /// to be made again.
    pub fn open(
        disk: Arc<dyn Disk>,
        seal: Arc<Seal>,
        block: &Superblock,
        writable: bool,
    ) -> Result<(Self, bool), Error> {
        let damaged = |what: &str| {
            let what = format!("{what}; restore a snapshot");
            Error::damaged("batches", "the file", what)
        };
        let rows = match existing(&*disk, "batches").map_err(Error::io("batches"))? {
            Some(rows) => rows,
            None if block.sequence > 0 => return Err(damaged("it is missing")),
            None if writable => disk.open("batches", true).map_err(Error::io("batches"))?,
            None => Arc::new(Nothing),
        };
        let size = rows.size().map_err(Error::io("batches"))?;
        if size < block.sequence * ROW as u64 {
            return Err(damaged("rows are missing at its end"));
        }
        if block.checkpoint == 0 && size > 0 {
            return Err(damaged("it has rows, but the ledger is new"));
        }
        let mut levels = vec![None];
        while let Some(file) =
            existing(&*disk, &level_name(levels.len())).map_err(Error::io("tree"))?
        {
            levels.push(Some(file));
        }
        let mut inner = Inner {
            disk,
            rows,
            levels,
            written: block.sequence,
            tail: Vec::new(),
            frontier: Frontier::default(),
            tiles: Vec::new(),
            seal,
            unwritten: (!writable).then(HashMap::new),
        };
        let size =
            TreeSize::new(block.sequence).map_err(|error| Error::Format(error.to_string()))?;
        let frontier = Frontier::load(&mut inner, size);
        let rebuilt = match frontier {
            Ok(frontier) if frontier.root().as_bytes() == &block.root => {
                inner.frontier = frontier;
                false
            }
            Err(merkle_tree::Error::Read(error @ Error::Io { .. })) => return Err(error),
            _ => {
                inner.frontier = inner.rebuild()?;
                true
            }
        };
        if inner.frontier.root().as_bytes() != &block.root {
            return Err(damaged("its root is not the checkpoint's"));
        }
        Ok((Batches(Mutex::new(inner)), rebuilt))
    }

    pub fn push(&self, batch: &Batch, epoch: u32) -> Result<(), Error> {
        let mut inner = self.0.lock().unwrap();
        let leaf = batch.leaf_hash();
        inner
            .frontier
            .push(leaf)
            .map_err(|error| Error::Tree(error.to_string()))?;
        inner.tail.push((*batch, leaf, epoch));
        if inner.tail.len() >= TAIL {
            inner.write()?;
        }
        Ok(())
    }

    pub fn get(&self, sequence: u64) -> Result<Option<Batch>, Error> {
        let inner = self.0.lock().unwrap();
        match sequence.checked_sub(1) {
            Some(index) if index < inner.size() => Ok(Some(inner.row(index)?.0)),
            _ => Ok(None),
        }
    }

    pub fn root(&self) -> (TreeSize, Hash) {
        let inner = self.0.lock().unwrap();
        (inner.frontier.size(), inner.frontier.root())
    }

    /// The root of the first `size` batches.
    pub fn root_at(&self, size: TreeSize) -> Result<Hash, Error> {
        self.checked(|inner| inner.root_at(size))
    }

    pub fn prove(&self, sequence: u64, size: TreeSize) -> Result<BatchProof, Error> {
        let index = sequence
            .checked_sub(1)
            .and_then(|index| LeafIndex::new(index).ok())
            .filter(|index| index.get() < size.get())
            .ok_or_else(|| {
                Error::Tree(format!("batch {sequence} is not among the first {size}"))
            })?;
        self.checked(|inner| {
            let (batch, _) = inner.row(index.get())?;
            let proof = BatchProof {
                leaf_data: batch.leaf_data(),
                leaf_index: index,
                tree_size: size,
                path: merkle_tree::inclusion_proof(&mut *inner, index, size).map_err(tree_error)?,
                root: inner.root_at(size)?,
            };
            proof.verify().map_err(wrong_hashes)?;
            Ok(proof)
        })
    }

    pub fn prove_consistency(&self, old: TreeSize, new: TreeSize) -> Result<Vec<Hash>, Error> {
        self.checked(|inner| inner.consistency(old, new).map(|(path, ..)| path))
    }

    /// Does something with the tree. Where its hashes turn out to be wrong, they are made again from the
    /// rows, and it is done once more.
    fn checked<T>(&self, mut each: impl FnMut(&mut Inner) -> Result<T, Error>) -> Result<T, Error> {
        let mut inner = self.0.lock().unwrap();
        inner.write()?;
        match each(&mut inner) {
            Err(Error::Damaged { file, .. }) if file.starts_with(TREE) => {
                let frontier = inner.rebuild()?;
                if frontier.root() != inner.frontier.root() {
                    let what = "they do not lead to the root that was committed";
                    return Err(Error::damaged("batches", "its rows", what));
                }
                each(&mut inner)
            }
            result => result,
        }
    }

    /// Reads every row and every hash above them. Returns what is wrong, by file and row or hash.
    pub fn verify(&self) -> Result<Vec<(String, u64, &'static str)>, Error> {
        let mut inner = self.0.lock().unwrap();
        inner.write()?;
        let (mut findings, mut frontier) = (Vec::new(), Frontier::default());
        for index in 0..inner.size() {
            match inner.row(index) {
                Ok((batch, leaf)) if batch.leaf_hash() == leaf => {
                    let pushed = frontier.push(leaf);
                    pushed.map_err(|error| Error::Tree(error.to_string()))?;
                }
                Ok(_) => findings.push(("batches".into(), index, "the leaf hash is another one")),
                Err(Error::Damaged { .. }) => {
                    findings.push(("batches".into(), index, "the row's checksum is wrong"));
                }
                Err(error) => return Err(error),
            }
        }
        if !findings.is_empty() {
            return Ok(findings);
        }
        if frontier.root() != inner.frontier.root() {
            let what = "they do not lead to the root that was committed";
            findings.push(("batches".into(), 0, what));
        }
        for (tile, hashes) in frontier.take_tiles() {
            let found = inner.read(tile, 0, hashes.len() as u16);
            let place = tile.index * 256;
            match found {
                Ok(found) if found == hashes => {}
                Ok(_) => findings.push((level_name(tile.level.into()), place, "a hash is wrong")),
                Err(Error::Damaged { file, .. }) => {
                    findings.push((file, place, "hashes are missing"))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(findings)
    }

    /// Writes and syncs all rows and hashes.
    pub fn sync(&self) -> Result<(), Error> {
        let files = {
            let mut inner = self.0.lock().unwrap();
            inner.write()?;
            let levels = inner.levels.iter().flatten().cloned();
            [inner.rows.clone()]
                .into_iter()
                .chain(levels)
                .collect::<Vec<_>>()
        };
        files
            .iter()
            .try_for_each(|file| file.sync())
            .map_err(Error::io("batches"))
    }
}

impl Inner {
    /// The root of the first `size` batches, checked against the one that is kept in memory.
    fn root_at(&mut self, size: TreeSize) -> Result<Hash, Error> {
        let now = self.frontier.size();
        if size == now {
            return Ok(self.frontier.root());
        }
        let root = merkle_tree::root(self, size).map_err(tree_error)?;
        let path = merkle_tree::consistency_proof(self, size, now).map_err(tree_error)?;
        merkle_tree::verify_consistency(size, now, &root, &self.frontier.root(), &path)
            .map_err(wrong_hashes)?;
        Ok(root)
    }

    /// The proof that `new` batches begin with `old`, and the roots of both.
    fn consistency(
        &mut self,
        old: TreeSize,
        new: TreeSize,
    ) -> Result<(Vec<Hash>, Hash, Hash), Error> {
        let path = merkle_tree::consistency_proof(self, old, new).map_err(tree_error)?;
        let (old_root, new_root) = (self.root_at(old)?, self.root_at(new)?);
        merkle_tree::verify_consistency(old, new, &old_root, &new_root, &path)
            .map_err(wrong_hashes)?;
        Ok((path, old_root, new_root))
    }

    /// Makes all hashes above the rows again. Returns what the rows lead to.
    fn rebuild(&mut self) -> Result<Frontier, Error> {
        tracing::warn!(
            "the tree's hashes are missing or damaged, and are made again from the batches"
        );
        let mut frontier = Frontier::default();
        for index in 0..self.size() {
            let leaf = self.row(index)?.1;
            let pushed = frontier.push(leaf);
            pushed.map_err(|error| Error::Tree(error.to_string()))?;
            if frontier.pending_tiles() >= TAIL {
                self.put_tiles(frontier.take_tiles())?;
            }
        }
        self.put_tiles(frontier.take_tiles())?;
        Ok(frontier)
    }

    fn size(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    fn row(&self, index: u64) -> Result<(Batch, Hash), Error> {
        if let Some((batch, leaf, _)) = index
            .checked_sub(self.written)
            .and_then(|at| self.tail.get(at as usize))
        {
            return Ok((*batch, *leaf));
        }
        let mut row = [0; ROW];
        self.rows
            .read_at(&mut row, index * ROW as u64)
            .map_err(Error::io("batches"))?;
        Batch::decode(index, &row, &self.seal).ok_or_else(|| {
            Error::damaged("batches", format!("row {index}"), "its checksum is wrong")
        })
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.tail.is_empty() {
            return Ok(());
        }
        if self.unwritten.is_some() {
            let tiles = self.frontier.take_tiles();
            return self.put_tiles(tiles);
        }
        let mut bytes = Vec::with_capacity(self.tail.len() * ROW);
        for (batch, leaf, epoch) in &self.tail {
            bytes.extend(batch.encode(leaf, *epoch, &self.seal));
        }
        self.rows
            .write_at(&bytes, self.written * ROW as u64)
            .map_err(Error::io("batches"))?;
        let tiles = self.frontier.take_tiles();
        self.put_tiles(tiles)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }
}

impl Inner {
    /// Writes tiles, and those whose writing failed before.
    fn put_tiles(&mut self, tiles: Vec<(TileId, Vec<Hash>)>) -> Result<(), Error> {
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.extend(tiles);
            return Ok(());
        }
        self.tiles.extend(tiles);
        for (tile, hashes) in &self.tiles {
            let level = usize::from(tile.level);
            while self.levels.len() <= level {
                let file = self.disk.open(&level_name(self.levels.len()), true);
                self.levels.push(Some(file.map_err(Error::io("tree"))?));
            }
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let offset = tile.index * 256 * HASH_SIZE as u64;
            if let Some(file) = &self.levels[level] {
                file.write_at(&bytes, offset).map_err(Error::io("tree"))?;
            }
        }
        self.tiles.clear();
        Ok(())
    }
}

impl HashReader for Inner {
    type Error = Error;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        let start = tile.index * 256 + u64::from(first);
        if tile.level == 0 {
            return (start..start + u64::from(count))
                .map(|index| Ok(self.row(index)?.1))
                .collect();
        }
        if let Some(hashes) = self.unwritten.as_ref().and_then(|tiles| tiles.get(&tile)) {
            let range = usize::from(first)..usize::from(first) + usize::from(count);
            return Ok(hashes.get(range).map(<[Hash]>::to_vec).unwrap_or_default());
        }
        let missing = || Error::damaged(&level_name(tile.level.into()), start, "it is missing");
        let file = self
            .levels
            .get(usize::from(tile.level))
            .and_then(Option::as_ref);
        let mut bytes = vec![0; usize::from(count) * HASH_SIZE];
        file.ok_or_else(missing)?
            .read_at(&mut bytes, start * HASH_SIZE as u64)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => missing(),
                _ => Error::io("tree")(error),
            })?;
        Ok(bytes
            .chunks_exact(HASH_SIZE)
            .map(|hash| Hash::from(<[u8; HASH_SIZE]>::try_from(hash).unwrap()))
            .collect())
    }
}

/// What the names of files of hashes begin with.
const TREE: &str = "tree-";

fn level_name(level: usize) -> String {
    format!("{TREE}{level}")
}

fn wrong_hashes(error: merkle_tree::VerifyError) -> Error {
    Error::damaged(&format!("{TREE}1"), "its hashes", error.to_string())
}

fn tree_error(error: merkle_tree::Error<Error>) -> Error {
    match error {
        merkle_tree::Error::Read(error) => error,
        error => Error::Tree(error.to_string()),
    }
}
