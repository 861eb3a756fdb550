//! Inclusion proofs: of an entry, of a row's latest entry, of many entries at once; and the leaf data that they are of.

use crate::capture::given_key::{GivenKey, GivenKeys};
use crate::capture::row_key::{self, Finder, RowKey};
use crate::capture::scan::Scan;
use crate::capture::shape::Shape;
use crate::capture::statement;
use crate::catalog::logs::{self, ADMINISTRATION, Log};
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::tiles::{Known, TileReader, WholeTiles};
use crate::store::tree::{TreeReader, tree_error, tree_size};
use crate::store::{entries, heads, leaves};
use merkle_tree::{Hash, HashReader, LeafIndex, Multiproof, TILE_WIDTH, TileId, TreeSize};
use pgrx::pg_sys;

/// A proof, and what it proves.
pub struct Inclusion {
    pub index: i64,
    pub size: i64,
    pub leaf: Hash,
    pub root: Hash,
    pub path: Vec<Hash>,
}

/// The proof of the entry at `index`, in the tree of `size` or the latest.
pub fn entry(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    index: i64,
    size: Option<i64>,
) -> Result<Inclusion, Error> {
    let (size, root) = heads::at(session, snapshot, log, size)?;
    let leaf_index = check(session, log, index, size)?;
    let mut reader = TreeReader::cached(session, log, snapshot);
    let path = path(&mut reader, log, leaf_index, size)?;
    let place = (leaf_index.get() % TILE_WIDTH) as u8;
    let leaf = reader.read(tile_of(leaf_index), place, 1)?.pop();
    Ok(Inclusion {
        index,
        size,
        leaf: leaf.ok_or_else(|| missing(log, index))?,
        root,
        path,
    })
}

/// The proof of the latest entry of the row with this key.
pub fn row(
    session: &Session,
    snapshot: Snapshot,
    log: &str,
    relation: pg_sys::Oid,
    key: GivenKey,
    size: Option<i64>,
) -> Result<Inclusion, Error> {
    let log = logs::known(session, log)?;
    let finder = Finder::of(session, &log, relation)?;
    finder.check_caller_reads(session, &log)?;
    let key = finder.key(session, key)?;
    let index = latest(session, snapshot, &log, &finder, &key)?;
    let index = index.ok_or_else(|| not_logged(&log, &finder, key))?;
    entry(session, snapshot, &log, index, size)
}

/// The latest entry of the row with this key.
fn latest(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    finder: &Finder,
    key: &RowKey,
) -> Result<Option<i64>, Error> {
    let mut index = None;
    for source in &finder.sources {
        index = index.max(entries::latest_of(session, snapshot, log, *source, key)?);
    }
    Ok(index)
}

fn not_logged(log: &Log, finder: &Finder, key: RowKey) -> Error {
    Error::RowNotLogged {
        log: log.name.clone(),
        table: finder.name.clone(),
        key: key.text,
    }
}

/// What is done about a key of which the log has no entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unlogged {
    Refused,
    /// Its place has no leaf index.
    LeftOpen,
}

/// The latest entries of the rows with these keys, in the order of the keys.
pub fn latest_of_rows(
    session: &Session,
    log: &Log,
    relation: pg_sys::Oid,
    keys: &GivenKeys,
    unlogged: Unlogged,
) -> Result<Vec<Option<i64>>, Error> {
    let finder = Finder::of(session, log, relation)?;
    finder.check_caller_reads(session, log)?;
    let mut indexes = Vec::new();
    alloc::reserve(&mut indexes, keys.count());
    let mut scratch = Scratch::new();
    for number in 0..keys.count() {
        pgrx::check_for_interrupts!();
        let index = scratch.reuse(|| {
            let key = finder.key(session, GivenKey::Values(&keys.key(number)))?;
            match latest(session, Snapshot::Statement, log, &finder, &key)? {
                None if unlogged == Unlogged::Refused => Err(not_logged(log, &finder, key)),
                index => Ok(index),
            }
        })?;
        indexes.push(index);
    }
    Ok(indexes)
}

/// Indexes that are looked at before interrupts are.
const CHECKED_AT_ONCE: usize = 10_000;

/// Proofs of many entries in one tree, made a tile of them at a time.
pub struct Many {
    log: Log,
    /// In descending order: the next is the last.
    indexes: Vec<i64>,
    size: i64,
    root: Hash,
    known: Known,
}

impl Many {
    pub fn start(
        session: &Session,
        log: Log,
        mut indexes: Vec<i64>,
        size: Option<i64>,
    ) -> Result<Many, Error> {
        let (size, root) = heads::at(session, Snapshot::Statement, &log, size)?;
        for (place, index) in indexes.iter().enumerate() {
            if place % CHECKED_AT_ONCE == 0 {
                pgrx::check_for_interrupts!();
            }
            check(session, &log, *index, size)?;
        }
        indexes.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Many {
            log,
            indexes,
            size,
            root,
            known: Known::default(),
        })
    }

    /// The proofs of the next entries; none when all are done.
    pub fn next(&mut self, session: &Session) -> Result<Vec<Inclusion>, Error> {
        pgrx::check_for_interrupts!();
        let Some(first) = self.indexes.last() else {
            return Ok(Vec::new());
        };
        let tile = tile_of(check(session, &self.log, *first, self.size)?);
        let end = (tile.index + 1) * TILE_WIDTH;
        let count = TILE_WIDTH.min(self.size as u64 - tile.index * TILE_WIDTH);
        let mut reader = TileReader {
            reader: TreeReader::cached(session, &self.log, Snapshot::Statement),
            known: &mut self.known,
        };
        reader
            .open_tile(tile.index, count as u16)
            .map_err(|e| tree_error(&self.log, e))?;
        let mut proofs = Vec::new();
        // An index can have been given any number of times.
        while proofs.len() < TILE_WIDTH as usize
            && let Some(index) = self.indexes.pop_if(|i| (*i as u64) < end)
        {
            let leaf_index = check(session, &self.log, index, self.size)?;
            let leaf = reader.leaf(leaf_index.get());
            proofs.push(Inclusion {
                index,
                size: self.size,
                leaf: leaf.ok_or_else(|| missing(&self.log, index))?,
                root: self.root,
                path: path(&mut reader, &self.log, leaf_index, self.size)?,
            });
        }
        Ok(proofs)
    }
}

/// Entries that are proven at once at most.
pub const MOST_TOGETHER: usize = 100_000;

/// One proof of several entries, and what it proves.
pub struct Together {
    pub size: i64,
    pub root: Hash,
    /// In ascending order.
    pub indexes: Vec<i64>,
    pub proof: Multiproof,
}

/// One proof of the entries at `indexes`, given in any order and any number of times, in the tree of `size` or the latest.
pub fn together(
    session: &Session,
    log: &Log,
    mut indexes: Vec<i64>,
    size: Option<i64>,
) -> Result<Together, Error> {
    let (size, root) = heads::at(session, Snapshot::Statement, log, size)?;
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.is_empty() || indexes.len() > MOST_TOGETHER {
        return Err(Error::Argument {
            name: "leaf_indexes",
            must: "of 1 to 100,000 entries",
            value: format!("of {}", indexes.len()),
        });
    }
    room_for(indexes.len(), size);
    let checked = indexes.iter().map(|i| check(session, log, *i, size));
    let leaf_indexes: Vec<LeafIndex> = checked.collect::<Result<_, _>>()?;
    let mut known = Known::default();
    let mut reader = WholeTiles::new(
        TileReader {
            reader: TreeReader::cached(session, log, Snapshot::Statement),
            known: &mut known,
        },
        log,
        size,
    );
    let proof = merkle_tree::multiproof(&mut reader, &leaf_indexes, tree_size(log, size)?);
    Ok(Together {
        size,
        root,
        indexes,
        proof: proof.map_err(|e| tree_error(log, e))?,
    })
}

/// Raises an error where there is no memory for the proof of so many entries. The paths of entries meet at the latest
/// where a level has fewer nodes than there are entries.
fn room_for(entries: usize, size: i64) {
    /// Bytes a node: which it is, its place, its hash, and what the reader remembers of it.
    const NODE: usize = 200;
    let levels = 1 + (size as usize / entries).max(1).ilog2() as usize;
    alloc::reserve(&mut Vec::<u8>::new(), (levels + 2) * entries * NODE);
}

/// The canonical bytes of an entry: those that are kept, or of the source row as it is now.
pub fn leaf_data(session: &Session, log: &Log, index: i64) -> Result<Vec<u8>, Error> {
    let size = heads::latest(session, Snapshot::Statement, log)?.tree_size;
    let entry = entries::at(session, Snapshot::Statement, log, index, size)?;
    let annex = leaves::annex(session, log, index);
    if log.id == ADMINISTRATION {
        session.check_caller_is_owner()?;
    }
    if entry.source_id == OF_LOG
        && let Some(kept) = annex.leaf_data
    {
        session.check_caller_reads_own(log, &entry.key)?;
        return Ok(kept.leaf_data);
    }
    let source = sources::all(session, log)
        .into_iter()
        .find(|s| s.id == entry.source_id)
        .ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!(
                "entry {index} is of source {}, which does not exist",
                entry.source_id
            ),
        })?;
    session.check_caller_reads(log, &source)?;
    if let Some(kept) = annex.leaf_data {
        return Ok(kept.leaf_data);
    }
    let shape = Shape::locked(session, log, &source)?;
    let gone = || Error::RowGone {
        log: log.name.clone(),
        table: source.name.clone(),
        key: entry.key.clone(),
        index,
    };
    let live = || {
        let keys = vec![entry.key.clone()];
        entries::live(session, Snapshot::Statement, log, source.id, keys)
    };
    // An older version of a row is nowhere; nor is one whose salt was destroyed.
    if source.by_trigger() && live().get(&entry.key) != Some(&index)
        || source.salted && annex.salt.is_none()
    {
        return Err(gone());
    }
    let mut scan = Scan::new(log, &shape, shape.version_of(index))?;
    scan.annexes.insert(entry.key.clone(), annex);
    if !scan.missing.is_empty() {
        return Err(Error::ShapeChanged {
            log: log.name.clone(),
            index,
            reason: format!("column {}", scan.missing.join(", column ")),
        });
    }
    let key = row_key::parts(&shape, &entry.key)?;
    let statement = statement::rows_by_key(&shape, scan.attributes(), &[key]);
    scan.leaf_data(&statement)?.ok_or_else(gone)
}

fn path<R: HashReader<Error = Error>>(
    reader: &mut R,
    log: &Log,
    index: LeafIndex,
    size: i64,
) -> Result<Vec<Hash>, Error> {
    let size: TreeSize = tree_size(log, size)?;
    merkle_tree::inclusion_proof(reader, index, size).map_err(|e| tree_error(log, e))
}

/// That there is an entry to prove in a tree of `size`.
fn check(session: &Session, log: &Log, index: i64, size: i64) -> Result<LeafIndex, Error> {
    let name = || log.name.clone();
    if !(0..size).contains(&index) {
        let current = heads::latest(session, Snapshot::Statement, log)?.tree_size;
        return Err(match (0..current).contains(&index) {
            true => Error::IndexBeyondSize {
                log: name(),
                index,
                size,
            },
            false => Error::IndexOutOfRange {
                log: name(),
                index,
                size: current,
            },
        });
    }
    entries::check_not_pruned(log, index)?;
    LeafIndex::new(index as u64).map_err(|e| Error::Damaged {
        log: name(),
        problem: e.to_string(),
    })
}

fn missing(log: &Log, index: i64) -> Error {
    Error::Damaged {
        log: log.name.clone(),
        problem: format!("entry {index} is missing"),
    }
}

fn tile_of(index: LeafIndex) -> TileId {
    TileId {
        level: 0,
        index: index.get() / TILE_WIDTH,
    }
}
