//! The RFC 6962 log of batches. Batch `n` is leaf `n - 1`.
//!
//! The file `batches` has a row for each; the files `tree-1` and on have the hashes above the leaves,
//! level by level, as C2SP tiles count them. Both are written lazily, since recovery makes them again
//! from the write-ahead log. Rows have checksums; hashes above them have none, so what is read of them
//! is checked against the root that is kept in memory, and where it is wrong or missing they are made
//! again from the rows.

use crate::error::Error;
use crate::storage::batch::{Batch, BatchProof, ROW};
use crate::storage::disk::{Disk, DiskFile, EmptyFile, existing};
use crate::storage::encryption::Encryption;
use crate::storage::superblock::Superblock;
use merkle_tree::{Frontier, HASH_SIZE, Hash, HashReader, LeafIndex, TileId, TreeSize};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Rows kept in memory before they are written.
const TAIL: usize = 512;

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
    encryption: Arc<Encryption>,
    /// Tiles that may not be written, of a ledger that is open for reading only.
    unwritten: Option<HashMap<TileId, Vec<Hash>>>,
}

impl Batches {
    /// The batches that a checkpoint has left in the files. Also says whether the hashes above them had
    /// to be made again.
    pub fn open(
        disk: Arc<dyn Disk>,
        encryption: Arc<Encryption>,
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
            None => Arc::new(EmptyFile),
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
            encryption,
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

    /// Begins to read every row there is now, and every hash above them.
    pub fn scrub(&self) -> RowScrub {
        RowScrub {
            end: self.0.lock().unwrap().size(),
            at: 0,
            frontier: Frontier::default(),
            broken: false,
            ended: false,
        }
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

/// How far rows and hashes were read.
pub(crate) struct RowScrub {
    end: u64,
    at: u64,
    frontier: Frontier,
    /// A row cannot be read, so what the rows lead to is not known.
    broken: bool,
    ended: bool,
}

/// What is wrong, by file and row or hash.
type Wrong = Vec<(String, u64, &'static str)>;

impl RowScrub {
    /// Reads the next rows, and says what is wrong with them, and with the hashes above them; `None` at the
    /// end.
    pub fn next(&mut self, batches: &Batches, rows: u64) -> Result<Option<Wrong>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut inner = batches.0.lock().unwrap();
        inner.write()?;
        let mut wrong = Vec::new();
        let end = (self.at + rows).min(self.end);
        for index in self.at..end {
            match inner.row(index) {
                Ok((batch, leaf)) if batch.leaf_hash() == leaf => {
                    let pushed = self.frontier.push(leaf);
                    pushed.map_err(|error| Error::Tree(error.to_string()))?;
                }
                Ok(_) => wrong.push(("batches".into(), index, "the leaf hash is another one")),
                Err(Error::Damaged { .. }) => {
                    wrong.push(("batches".into(), index, "the row's checksum is wrong"));
                }
                Err(error) => return Err(error),
            }
        }
        self.broken |= !wrong.is_empty();
        (self.at, self.ended) = (end, end == self.end);
        if !self.broken {
            self.compare(&mut inner, &mut wrong)?;
        }
        Ok(Some(wrong))
    }

    /// Compares the hashes that the rows lead to with those that are stored.
    fn compare(&mut self, inner: &mut Inner, wrong: &mut Wrong) -> Result<(), Error> {
        for (tile, hashes) in self.frontier.take_tiles() {
            let place = tile.index * 256;
            match inner.read(tile, 0, hashes.len() as u16) {
                Ok(found) if found == hashes => {}
                Ok(_) => wrong.push((level_name(tile.level.into()), place, "a hash is wrong")),
                Err(Error::Damaged { file, .. }) => wrong.push((file, place, "hashes are missing")),
                Err(error) => return Err(error),
            }
        }
        // With wrong hashes, what was committed cannot be asked for.
        if !self.ended || !wrong.is_empty() {
            return Ok(());
        }
        match inner.root_at(self.frontier.size()) {
            Ok(root) if root == self.frontier.root() => {}
            Ok(_) | Err(Error::Damaged { .. }) => {
                let what = "they do not lead to the root that was committed";
                wrong.push(("batches".into(), 0, what));
            }
            Err(error) => return Err(error),
        }
        Ok(())
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
        Batch::decode(index, &row, &self.encryption).ok_or_else(|| {
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
            bytes.extend(batch.encode(leaf, *epoch, &self.encryption));
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
