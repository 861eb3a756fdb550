//! The RFC 6962 log of batches. Batch `n` is leaf `n - 1`.
//!
//! The file `batches` has a row for each; the files `tree-1` and on have the hashes above the leaves,
//! level by level, as C2SP tiles count them. Both are written lazily, since recovery makes them again
//! from the write-ahead log. Rows have checksums; hashes above them have none, so what is read of them
//! is checked against the root that is kept in memory, and where it is wrong or missing they are made
//! again from the rows.
//!
//! Old batches may be pruned, whole tiles of them: their rows go, and the hashes that only they need. What is
//! left of them is the frontier of the tree that they made, in memory and in a file of its own (see
//! `frontier_file`). Later batches are proven as before.

use crate::error::Error;
use crate::storage::batch::{Batch, BatchProof, ROW};
use crate::storage::disk::{Disk, DiskFile, EmptyFile, existing};
use crate::storage::encryption::Encryption;
use crate::storage::frontier_file;
use crate::storage::superblock::Superblock;
use merkle_tree::{Frontier, HASH_SIZE, Hash, HashReader, LeafIndex, TILE_WIDTH, TileId, TreeSize};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// Rows kept in memory before they are written.
const TAIL: usize = 512;

/// All batches of a ledger.
pub(crate) struct Batches(Mutex<Inner>);

pub(super) struct Inner {
    disk: Arc<dyn Disk>,
    ledger: [u8; 16],
    rows: Arc<dyn DiskFile>,
    levels: Vec<Option<Arc<dyn DiskFile>>>,
    /// Rows in the file; those after them are in `tail`.
    written: u64,
    tail: Vec<(Batch, Hash, u32)>,
    frontier: Frontier,
    /// What is left of the batches that were pruned.
    pruned: Frontier,
    /// How many read old batches, which are not pruned meanwhile.
    holders: usize,
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
            ledger: block.id,
            rows,
            levels,
            written: block.sequence,
            tail: Vec::new(),
            frontier: Frontier::default(),
            pruned: Frontier::default(),
            holders: 0,
            tiles: Vec::new(),
            encryption,
            unwritten: (!writable).then(HashMap::new),
        };
        let frontier_rewritten = inner.load_pruned(block)?;
        let size =
            TreeSize::new(block.sequence).map_err(|error| Error::Format(error.to_string()))?;
        let frontier = Frontier::load(&mut inner, size);
        let rebuilt = match frontier {
            Ok(frontier) if frontier.root().as_bytes() == &block.root => {
                inner.frontier = frontier;
                frontier_rewritten
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
        let mut inner = self.lock();
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A batch, if there is one that was not pruned.
    pub fn get(&self, sequence: u64) -> Result<Option<Batch>, Error> {
        let inner = self.lock();
        match sequence.checked_sub(1) {
            Some(index) if (inner.first()..inner.size()).contains(&index) => {
                Ok(Some(inner.row(index)?.0))
            }
            _ => Ok(None),
        }
    }

    pub fn root(&self) -> (TreeSize, Hash) {
        let inner = self.lock();
        (inner.frontier.size(), inner.frontier.root())
    }

    /// The root of the first `size` batches.
    pub fn root_at(&self, size: TreeSize) -> Result<Hash, Error> {
        self.lock().checked(|inner| inner.root_at(size))
    }

    pub fn prove(&self, sequence: u64, size: TreeSize) -> Result<BatchProof, Error> {
        let index = sequence
            .checked_sub(1)
            .and_then(|index| LeafIndex::new(index).ok())
            .filter(|index| index.get() < size.get())
            .ok_or_else(|| {
                Error::Tree(format!("batch {sequence} is not among the first {size}"))
            })?;
        self.lock().checked(|inner| {
            inner.require(sequence, index.get())?;
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
        let mut inner = self.lock();
        inner.checked(|inner| inner.consistency(old, new).map(|(path, ..)| path))
    }

    /// How many batches were pruned.
    pub fn pruned(&self) -> u64 {
        self.lock().first()
    }

    /// The frontier of the batches that were pruned. No more are until what is returned is dropped.
    pub fn hold(&self) -> Held<'_> {
        let mut inner = self.lock();
        inner.holders += 1;
        Held {
            batches: self,
            frontier: inner.pruned.clone(),
        }
    }

    /// Prunes the first batches, in whole tiles and not more than `most`, unless somebody holds them. The
    /// frontier is on disk then, and the rows are until [`Batches::reclaim`]. Returns how many batches are
    /// pruned.
    pub fn prune(&self, most: u64) -> Result<u64, Error> {
        let to = most / TILE_WIDTH * TILE_WIDTH;
        let (frontier, disk, ledger) = {
            let mut inner = self.lock();
            if to <= inner.first() || inner.holders > 0 {
                return Ok(inner.first());
            }
            let frontier = inner.checked(|inner| inner.frontier_at(to))?;
            (frontier, inner.disk.clone(), inner.ledger)
        };
        // Batches go on meanwhile.
        frontier_file::write(&*disk, &ledger, &frontier)?;
        let mut inner = self.lock();
        if inner.holders == 0 {
            inner.pruned = frontier;
        }
        Ok(inner.first())
    }

    /// Gives back the space of what was pruned, when the superblock says so.
    pub fn reclaim(&self) -> Result<(), Error> {
        let (size, disk, rows, levels) = {
            let inner = self.lock();
            let disk = inner.disk.clone();
            (
                inner.first(),
                disk,
                inner.rows.clone(),
                inner.levels.clone(),
            )
        };
        let punched = rows.punch(0, size * ROW as u64);
        punched.map_err(Error::io("batches"))?;
        for (level, file) in levels.iter().enumerate() {
            if let Some(file) = file {
                let hashes = frontier_file::first_tile(size, level).index * TILE_WIDTH;
                let punched = file.punch(0, hashes * HASH_SIZE as u64);
                punched.map_err(Error::io("tree"))?;
            }
        }
        let names = disk.list().map_err(Error::io("the ledger's directory"))?;
        let older = |name: &&String| frontier_file::size_in(name).is_some_and(|it| it < size);
        for name in names.iter().filter(older) {
            disk.remove(name).map_err(Error::io(name))?;
        }
        Ok(())
    }

    /// Begins an empty log behind batches that are pruned, durably.
    pub fn begin_at(&self, frontier: &Frontier) -> Result<(), Error> {
        let mut inner = self.lock();
        frontier_file::write(&*inner.disk, &inner.ledger, frontier)?;
        inner.put_tiles(frontier_file::tiles(frontier))?;
        inner.written = frontier.size().get();
        (inner.pruned, inner.frontier) = (frontier.clone(), frontier.clone());
        Ok(())
    }

    /// Writes and syncs all rows and hashes.
    pub fn sync(&self) -> Result<(), Error> {
        let files = {
            let mut inner = self.lock();
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

/// Who holds old batches.
pub(crate) struct Held<'a> {
    batches: &'a Batches,
    /// Of the batches that were pruned before.
    pub frontier: Frontier,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.batches.lock().holders -= 1;
    }
}

impl Inner {
    /// Finds the frontier of the batches that were pruned, in its file or in the tree. Says whether the file
    /// had to be written again.
    fn load_pruned(&mut self, block: &Superblock) -> Result<bool, Error> {
        let names = self.disk.list();
        let names = names.map_err(Error::io("the ledger's directory"))?;
        // A later one than the superblock's is of pruning that was interrupted; it goes on from here.
        let (least, most) = (block.pruned.max(1), block.sequence);
        let mut sizes: Vec<_> = names
            .iter()
            .filter_map(|name| frontier_file::size_in(name))
            .filter(|size| (least..=most).contains(size))
            .collect();
        sizes.sort_unstable();
        for size in sizes.into_iter().rev() {
            if let Some(frontier) = frontier_file::read(&*self.disk, &self.ledger, size)? {
                self.pruned = frontier;
                return Ok(false);
            }
        }
        if block.pruned == 0 {
            return Ok(false);
        }
        self.pruned = self.frontier_in_tree(block)?;
        if self.unwritten.is_none() {
            tracing::warn!(
                "the frontier's file is missing or damaged, and is made again from the tree"
            );
            frontier_file::write(&*self.disk, &self.ledger, &self.pruned)?;
        }
        Ok(true)
    }

    /// The frontier of the pruned batches from the tree's hashes, checked against the superblock's root.
    fn frontier_in_tree(&mut self, block: &Superblock) -> Result<Frontier, Error> {
        let size = |size| TreeSize::new(size).map_err(|error| Error::Format(error.to_string()));
        let (pruned, now) = (size(block.pruned)?, size(block.sequence)?);
        let mut load = || {
            let frontier = Frontier::load(self, pruned).map_err(tree_error)?;
            let path = merkle_tree::consistency_proof(self, pruned, now).map_err(tree_error)?;
            let root = Hash::from(block.root);
            merkle_tree::verify_consistency(pruned, now, &frontier.root(), &root, &path)
                .map_err(wrong_hashes)?;
            Ok(frontier)
        };
        load().map_err(|error: Error| match error {
            Error::Io { .. } => error,
            error => {
                let what = format!("it cannot be read, and cannot be made again: {error}");
                Error::damaged(&frontier_file::name(block.pruned), "the file", what)
            }
        })
    }

    /// The frontier of the first `size` batches, checked against the root that is kept in memory.
    fn frontier_at(&mut self, size: u64) -> Result<Frontier, Error> {
        let (size, now) = (TreeSize::new(size), self.frontier.size());
        let size = size.map_err(|error| Error::Tree(error.to_string()))?;
        let frontier = Frontier::load(self, size).map_err(tree_error)?;
        let path = merkle_tree::consistency_proof(self, size, now).map_err(tree_error)?;
        let (old, new) = (frontier.root(), self.frontier.root());
        merkle_tree::verify_consistency(size, now, &old, &new, &path).map_err(wrong_hashes)?;
        Ok(frontier)
    }

    /// How many batches were pruned, which is the index of the first row that there is.
    pub(super) fn first(&self) -> u64 {
        self.pruned.size().get()
    }

    pub(super) fn pruned(&self) -> &Frontier {
        &self.pruned
    }

    /// Whether the file of the frontier is as it was written.
    pub(super) fn frontier_is_whole(&self) -> Result<bool, Error> {
        let found = frontier_file::read(&*self.disk, &self.ledger, self.first())?;
        Ok(self.first() == 0 || found.is_some())
    }

    /// Fails if what `index` counts was pruned; `asked` is what was asked for.
    fn require(&self, asked: u64, index: u64) -> Result<(), Error> {
        match index < self.first() {
            true => Err(Error::Pruned {
                asked,
                first: self.first() + 1,
            }),
            false => Ok(()),
        }
    }

    /// Does something with the tree. Where its hashes turn out to be wrong, they are made again from the
    /// rows, and it is done once more.
    fn checked<T>(
        &mut self,
        mut each: impl FnMut(&mut Inner) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.write()?;
        match each(self) {
            Err(Error::Damaged { file, .. }) if file.starts_with(TREE) => {
                let frontier = self.rebuild()?;
                if frontier.root() != self.frontier.root() {
                    let what = "they do not lead to the root that was committed";
                    return Err(Error::damaged("batches", "its rows", what));
                }
                each(self)
            }
            result => result,
        }
    }

    /// The root of the first `size` batches, checked against the one that is kept in memory.
    pub(super) fn root_at(&mut self, size: TreeSize) -> Result<Hash, Error> {
        let now = self.frontier.size();
        if size == now {
            return Ok(self.frontier.root());
        }
        if size == TreeSize::ZERO {
            return Ok(merkle_tree::EMPTY_ROOT);
        }
        self.require(size.get(), size.get())?;
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
        if old > TreeSize::ZERO {
            self.require(old.get(), old.get())?;
        }
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
        let mut frontier = self.pruned.clone();
        self.put_tiles(frontier_file::tiles(&frontier))?;
        for index in self.first()..self.size() {
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

    pub(super) fn size(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    pub(super) fn row(&self, index: u64) -> Result<(Batch, Hash), Error> {
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

    pub(super) fn write(&mut self) -> Result<(), Error> {
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

pub(super) fn level_name(level: usize) -> String {
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
