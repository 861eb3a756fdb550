//! Roots, heads and proofs; and checking proofs.
//!
//! What only reads the tree has no search_path of its own: it looks up no name, and setting and resetting
//! one would cost as much as the answer. The few statements that are run after all run under pinned
//! settings (`Session::look`).

use super::{given_key, log_name, required, without_nulls};
use crate::catalog::logs::{self, Log};
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::hashes::Path;
use crate::pg::memory::Scratch;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::prove::{self, Inclusion, Many};
use crate::session::Session;
use crate::store::heads;
use crate::store::tree::{TreeReader, tree_error, tree_size};
use merkle_tree::{Hash, LeafIndex, TreeSize};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_restricted)]
fn merkle_root(
    log: Option<&str>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<Vec<u8>, ErrorReport> {
    Session::look(|session| {
        let log = named(session, log)?;
        let (_, root) = heads::at(session, Snapshot::Statement, &log, tree_size)?;
        Ok(bytes(&root))
    })
}

#[pg_extern(stable, parallel_restricted)]
fn merkle_size(log: Option<&str>) -> Result<i64, ErrorReport> {
    Session::look(|session| {
        let log = named(session, log)?;
        current_size(session, &log)
    })
}

type HeadColumns = (i64, Vec<u8>, Option<TimestampWithTimeZone>);

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn tree_head(
    log: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(tree_size, i64),
            name!(root_hash, Vec<u8>),
            name!(created_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    Session::look(|session| {
        let log = named(session, log)?;
        let head = heads::latest(session, Snapshot::Statement, &log)?;
        Ok(TableIterator::once((
            head.tree_size,
            bytes(&head.root),
            head.created_at,
        )))
    })
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn tree_heads(
    log: Option<&str>,
    from_size: default!(Option<i64>, 0),
    to_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(tree_size, i64),
            name!(root_hash, Vec<u8>),
            name!(created_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let log = Session::enter(|session| named(session, log))?;
    Ok(TableIterator::new(Heads {
        log,
        next: from_size.unwrap_or(0),
        to: to_size.unwrap_or(i64::MAX),
        page: Vec::new().into_iter(),
    }))
}

/// Heads one by one, read a page at a time under the calling statement's snapshot.
struct Heads {
    log: Log,
    /// The least size that has not been read.
    next: i64,
    to: i64,
    page: std::vec::IntoIter<HeadColumns>,
}

/// Heads that are read at once.
const PAGE: i64 = 1000;

impl Iterator for Heads {
    type Item = HeadColumns;

    fn next(&mut self) -> Option<HeadColumns> {
        if self.page.len() == 0 && self.next <= self.to {
            let page: Result<Vec<HeadColumns>, ErrorReport> = Scratch::new().scope(|| {
                Session::enter(|session| {
                    Ok(heads::between(session, &self.log, self.next, self.to, PAGE))
                })
            });
            match page {
                Ok(page) => {
                    self.next = match page.last() {
                        Some((size, ..)) => size.saturating_add(1),
                        None => i64::MAX,
                    };
                    if self.next == i64::MAX {
                        self.to = i64::MIN;
                    }
                    self.page = page.into_iter();
                }
                Err(report) => Error::raise_report(report),
            }
        }
        self.page.next()
    }
}

/// The columns of an inclusion proof.
pub type InclusionColumns = (i64, i64, Vec<u8>, Vec<u8>, Path);

impl From<Inclusion> for InclusionColumns {
    fn from(proof: Inclusion) -> InclusionColumns {
        let (leaf, root) = (bytes(&proof.leaf), bytes(&proof.root));
        (proof.index, proof.size, leaf, root, Path(proof.path))
    }
}

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn inclusion_proof(
    log: Option<&str>,
    leaf_index: Option<i64>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(tree_size, i64),
            name!(leaf_hash, Vec<u8>),
            name!(root_hash, Vec<u8>),
            name!(path, Path),
        ),
    >,
    ErrorReport,
> {
    Session::look(|session| {
        let log = named(session, log)?;
        let index = required("leaf_index", leaf_index)?;
        let proof = prove::entry(session, Snapshot::Statement, &log, index, tree_size)?;
        Ok(TableIterator::once(proof.into()))
    })
}

#[pg_extern(stable, parallel_restricted, name = "inclusion_proof")]
#[allow(clippy::type_complexity)]
fn inclusion_proof_of_row(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(tree_size, i64),
            name!(leaf_hash, Vec<u8>),
            name!(root_hash, Vec<u8>),
            name!(path, Path),
        ),
    >,
    ErrorReport,
> {
    Session::look(|session| {
        let log = log_name("log", log)?;
        let relation = required("source_table", source_table)?.0;
        let key = given_key(key)?;
        let snapshot = Snapshot::Statement;
        let proof = prove::row(session, snapshot, log, relation, key, tree_size)?;
        Ok(TableIterator::once(proof.into()))
    })
}

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn inclusion_proofs(
    log: Option<&str>,
    leaf_indexes: Option<pgrx::Array<i64>>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(tree_size, i64),
            name!(leaf_hash, Vec<u8>),
            name!(root_hash, Vec<u8>),
            name!(path, Path),
        ),
    >,
    ErrorReport,
> {
    let proofs = Session::look(|session| {
        let log = named(session, log)?;
        let indexes = indexes("leaf_indexes", leaf_indexes)?;
        proofs_of(session, log, indexes, tree_size)
    })?;
    Ok(TableIterator::new(proofs))
}

/// An argument that is a list of leaf indexes.
pub fn indexes(name: &'static str, given: Option<pgrx::Array<i64>>) -> Result<Vec<i64>, Error> {
    let given = without_nulls(name, required(name, given)?)?;
    let mut indexes = Vec::new();
    alloc::reserve(&mut indexes, given.len());
    for index in given {
        indexes.push(required("leaf_index", index)?);
    }
    Ok(indexes)
}

/// The proofs of these entries, in order of leaf index.
pub fn proofs_of(
    session: &Session,
    log: Log,
    indexes: Vec<i64>,
    tree_size: Option<i64>,
) -> Result<Proofs, Error> {
    Ok(Proofs {
        many: Many::start(session, log, indexes, tree_size)?,
        made: Vec::new().into_iter(),
    })
}

/// Proofs one by one, made a tile at a time.
pub struct Proofs {
    many: Many,
    made: std::vec::IntoIter<Inclusion>,
}

impl Iterator for Proofs {
    type Item = InclusionColumns;

    fn next(&mut self) -> Option<InclusionColumns> {
        if let Some(proof) = self.made.next() {
            return Some(proof.into());
        }
        let made: Result<Vec<Inclusion>, ErrorReport> =
            Scratch::new().scope(|| Session::look(|session| self.many.next(session)));
        match made {
            Ok(made) => self.made = made.into_iter(),
            Err(report) => Error::raise_report(report),
        }
        self.made.next().map(Into::into)
    }
}

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn consistency_proof(
    log: Option<&str>,
    old_size: Option<i64>,
    new_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(old_size, i64),
            name!(new_size, i64),
            name!(old_root, Vec<u8>),
            name!(new_root, Vec<u8>),
            name!(path, Path),
        ),
    >,
    ErrorReport,
> {
    Session::look(|session| {
        let log = named(session, log)?;
        let old = required("old_size", old_size)?;
        let (new, new_root, path) = consistency(session, &log, old, new_size)?;
        let old_root = heads::at(session, Snapshot::Statement, &log, Some(old))?.1;
        Ok(TableIterator::once((
            old,
            new,
            bytes(&old_root),
            bytes(&new_root),
            Path(path),
        )))
    })
}

/// The proof that the log only grew from size `old` to another, with that size and the root there.
pub fn consistency(
    session: &Session,
    log: &Log,
    old: i64,
    new: Option<i64>,
) -> Result<(i64, Hash, Vec<Hash>), Error> {
    let (new, new_root) = heads::at(session, Snapshot::Statement, log, new)?;
    let size = current_size(session, log)?;
    if old < 0 || old > size {
        return Err(Error::SizeOutOfRange {
            log: log.name.clone(),
            wanted: old,
            size,
        });
    }
    if old > new {
        return Err(Error::SizesReversed {
            log: log.name.clone(),
            old,
            new,
        });
    }
    let path = merkle_tree::consistency_proof(
        &mut TreeReader::cached(session, log, Snapshot::Statement),
        tree_size(log, old)?,
        tree_size(log, new)?,
    )
    .map_err(|e| tree_error(log, e))?;
    Ok((new, new_root, path))
}

/// Hashes of the longest proof that there can be: one a bit of a tree's size, and one more for consistency.
const LONGEST_PATH: usize = 65;

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn verify_inclusion(
    leaf_hash: &[u8],
    leaf_index: i64,
    tree_size: i64,
    path: pgrx::Array<&[u8]>,
    root_hash: &[u8],
) -> Result<bool, ErrorReport> {
    let (leaf, root) = (hash("leaf_hash", leaf_hash)?, hash("root_hash", root_hash)?);
    if path.len() > LONGEST_PATH {
        return Ok(false);
    }
    let path = hashes("path", path)?;
    let index = u64::try_from(leaf_index)
        .ok()
        .and_then(|i| LeafIndex::new(i).ok());
    let size = u64::try_from(tree_size)
        .ok()
        .and_then(|n| TreeSize::new(n).ok());
    Ok(index.zip(size).is_some_and(|(index, size)| {
        merkle_tree::verify_inclusion(&leaf, index, size, &path, &root).is_ok()
    }))
}

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn verify_consistency(
    old_size: i64,
    new_size: i64,
    old_root: &[u8],
    new_root: &[u8],
    path: pgrx::Array<&[u8]>,
) -> Result<bool, ErrorReport> {
    let (old_root, new_root) = (hash("old_root", old_root)?, hash("new_root", new_root)?);
    if path.len() > LONGEST_PATH {
        return Ok(false);
    }
    let path = hashes("path", path)?;
    let size = |n: i64| u64::try_from(n).ok().and_then(|n| TreeSize::new(n).ok());
    Ok(size(old_size)
        .zip(size(new_size))
        .is_some_and(|(old, new)| {
            merkle_tree::verify_consistency(old, new, &old_root, &new_root, &path).is_ok()
        }))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn leaf_data(log: Option<&str>, leaf_index: Option<i64>) -> Result<Vec<u8>, ErrorReport> {
    Session::enter(|session| {
        let log = named(session, log)?;
        prove::leaf_data(session, &log, required("leaf_index", leaf_index)?)
    })
}

pub fn named(session: &Session, log: Option<&str>) -> Result<Log, Error> {
    logs::known(session, log_name("log", log)?)
}

fn current_size(session: &Session, log: &Log) -> Result<i64, Error> {
    Ok(heads::latest(session, Snapshot::Statement, log)?.tree_size)
}

pub fn bytes(hash: &Hash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

pub fn hash(name: &'static str, bytes: &[u8]) -> Result<Hash, Error> {
    Hash::try_from(bytes).map_err(|e| Error::HashLength { name, length: e.0 })
}

pub fn hashes(name: &'static str, given: pgrx::Array<&[u8]>) -> Result<Vec<Hash>, Error> {
    let given = without_nulls(name, given)?;
    let mut hashes = Vec::new();
    alloc::reserve(&mut hashes, given.len());
    for element in given.iter() {
        hashes.push(hash(name, required(name, element)?)?);
    }
    Ok(hashes)
}
