//! Looking for hashes that somebody kept: leaf hashes, and roots. Proofs by them.

use super::proofs::{InclusionColumns, bytes, consistency, hash, named};
use super::required;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::hashes::Path;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::prove;
use crate::session::Session;
use crate::store::hash_index::Search;
use crate::store::heads;
use merkle_tree::Hash;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

fn given(name: &'static str, bytes: Option<&[u8]>) -> Result<Hash, Error> {
    hash(name, required(name, bytes)?)
}

/// A search in a log as the calling statement sees it.
fn search(session: &Session, log: Log, leaf_hash: Hash) -> Result<Search, Error> {
    let size = heads::current(session, &log)?.tree_size;
    Ok(Search::start(session, log, leaf_hash, size))
}

#[pg_extern(stable, parallel_restricted)]
fn find_leaf(
    log: Option<&str>,
    leaf_hash: Option<&[u8]>,
) -> Result<SetOfIterator<'static, i64>, ErrorReport> {
    let search = Session::look(|session| {
        let log = named(session, log)?;
        search(session, log, given("leaf_hash", leaf_hash)?)
    })?;
    Ok(SetOfIterator::new(Leaves {
        search,
        found: Vec::new().into_iter(),
    }))
}

/// Leaf indexes as they are found.
struct Leaves {
    search: Search,
    found: std::vec::IntoIter<i64>,
}

impl Iterator for Leaves {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        if let Some(index) = self.found.next() {
            return Some(index);
        }
        let found: Result<Option<Vec<i64>>, ErrorReport> =
            Scratch::new().scope(|| Session::look(|session| self.search.next(session)));
        match found {
            Ok(found) => self.found = found?.into_iter(),
            Err(report) => Error::raise_report(report),
        }
        self.found.next()
    }
}

#[pg_extern(stable, parallel_restricted)]
fn has_leaf(log: Option<&str>, leaf_hash: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Session::look(|session| {
        let log = named(session, log)?;
        let search = search(session, log, given("leaf_hash", leaf_hash)?)?;
        Ok(search.first(session)?.is_some())
    })
}

#[pg_extern(stable, parallel_restricted)]
fn find_root(log: Option<&str>, root_hash: Option<&[u8]>) -> Result<Option<i64>, ErrorReport> {
    Session::look(|session| {
        let log = named(session, log)?;
        let root = given("root_hash", root_hash)?;
        Ok(heads::with_root(session, &log, &root))
    })
}

#[pg_extern(stable, parallel_restricted)]
fn has_root(log: Option<&str>, root_hash: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Session::look(|session| {
        let log = named(session, log)?;
        let root = given("root_hash", root_hash)?;
        Ok(heads::with_root(session, &log, &root).is_some())
    })
}

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn inclusion_proof_by_hash(
    log: Option<&str>,
    leaf_hash: Option<&[u8]>,
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
        let hash = given("leaf_hash", leaf_hash)?;
        let first = search(session, log.clone(), hash)?.first(session)?;
        let index = first.ok_or_else(|| Error::NoSuchLeaf {
            log: log.name.clone(),
            hash: hash.to_string(),
        })?;
        let proof = prove::entry(session, Snapshot::Statement, &log, index, tree_size)?;
        Ok(TableIterator::once(InclusionColumns::from(proof)))
    })
}

#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn consistency_proof_by_root(
    log: Option<&str>,
    old_root: Option<&[u8]>,
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
        let root = given("old_root", old_root)?;
        let old = heads::with_root(session, &log, &root).ok_or_else(|| Error::NoSuchRoot {
            log: log.name.clone(),
            root: root.to_string(),
        })?;
        let (new, new_root, path) = consistency(session, &log, old, new_size)?;
        Ok(TableIterator::once((
            old,
            new,
            bytes(&root),
            bytes(&new_root),
            Path(path),
        )))
    })
}
