//! Proofs of many rows at once: one of each, or one of all. Keys are an array for each column of the key; the SQL of
//! the functions that take them is in `sql/many_rows.sql`.

use super::bundles::{self, BundleColumns};
use super::proofs::{InclusionColumns, bytes, hash, hashes, indexes, named, proofs_of};
use super::{log_name, required, without_nulls};
use crate::bundle;
use crate::capture::given_key::GivenKeys;
use crate::catalog::logs::{self, Log};
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::argument::Variadic;
use crate::pg::hashes::Path;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::prove::{self, MOST_TOGETHER, Together, Unlogged};
use crate::session::Session;
use merkle_tree::{Hash, LeafIndex, MultiproofVerification, TreeSize};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

pgrx::extension_sql_file!(
    "../../sql/many_rows.sql",
    name = "many_rows",
    requires = ["tables"]
);

/// The log, and the latest entries of its rows with these keys, in the order of the keys.
fn entries_of_rows(
    session: &Session,
    log: Option<&str>,
    source_table: Option<RegClass>,
    keys: &Variadic,
    unlogged: Unlogged,
) -> Result<(Log, Vec<Option<i64>>), Error> {
    let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
    let relation = required("source_table", source_table)?.0;
    let keys = GivenKeys::new(&keys.0)?;
    let indexes = prove::latest_of_rows(session, &log, relation, &keys, unlogged)?;
    Ok((log, indexes))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn inclusion_proofs_of_rows(
    log: Option<&str>,
    source_table: Option<RegClass>,
    keys: Variadic,
) -> Result<
    TableIterator<
        'static,
        (
            name!(key_number, i64),
            name!(leaf_index, Option<i64>),
            name!(tree_size, Option<i64>),
            name!(leaf_hash, Option<Vec<u8>>),
            name!(root_hash, Option<Vec<u8>>),
            name!(path, Option<Path>),
        ),
    >,
    ErrorReport,
> {
    let (proofs, numbers, open) = Session::enter(|session| {
        let unlogged = Unlogged::LeftOpen;
        let (log, found) = entries_of_rows(session, log, source_table, &keys, unlogged)?;
        let (mut numbers, mut open, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
        alloc::reserve(&mut numbers, found.len());
        alloc::reserve(&mut open, found.len());
        alloc::reserve(&mut indexes, found.len());
        for (number, index) in (1i64..).zip(found) {
            match index {
                Some(index) => numbers.push((index, number)),
                None => open.push(number),
            }
        }
        // In the order in which the proofs come.
        numbers.sort_unstable();
        indexes.extend(numbers.iter().map(|(index, _)| *index));
        Ok((proofs_of(session, log, indexes, None)?, numbers, open))
    })?;
    let proven = numbers.into_iter().zip(proofs).map(|((_, number), proof)| {
        let (index, size, leaf, root, path): InclusionColumns = proof;
        let path = Some(path);
        (
            number,
            Some(index),
            Some(size),
            Some(leaf),
            Some(root),
            path,
        )
    });
    let open = open.into_iter();
    let open = open.map(|number| (number, None, None, None, None, None));
    Ok(TableIterator::new(proven.chain(open)))
}

/// One proof of several entries, as SQL returns it.
type MultiproofColumns = (i64, Vec<u8>, Vec<i64>, Path, Path);

fn multiproof_columns(together: Together) -> MultiproofColumns {
    let Together {
        size,
        root,
        indexes,
        proof,
    } = together;
    let (leaves, nodes) = (Path(proof.leaves), Path(proof.nodes));
    (size, bytes(&root), indexes, leaves, nodes)
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn multiproof(
    log: Option<&str>,
    leaf_indexes: Option<pgrx::Array<i64>>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(tree_size, i64),
            name!(root_hash, Vec<u8>),
            name!(leaf_indexes, Vec<i64>),
            name!(leaf_hashes, Path),
            name!(nodes, Path),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = named(session, log)?;
        let indexes = indexes("leaf_indexes", leaf_indexes)?;
        let together = prove::together(session, &log, indexes, tree_size)?;
        Ok(TableIterator::once(multiproof_columns(together)))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn multiproof_of_rows(
    log: Option<&str>,
    source_table: Option<RegClass>,
    keys: Variadic,
) -> Result<
    TableIterator<
        'static,
        (
            name!(tree_size, i64),
            name!(root_hash, Vec<u8>),
            name!(leaf_indexes, Vec<i64>),
            name!(leaf_hashes, Path),
            name!(nodes, Path),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let unlogged = Unlogged::Refused;
        let (log, found) = entries_of_rows(session, log, source_table, &keys, unlogged)?;
        let indexes = found.into_iter().flatten().collect();
        let together = prove::together(session, &log, indexes, None)?;
        Ok(TableIterator::once(multiproof_columns(together)))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn proof_bundle_of_rows(
    log: Option<&str>,
    source_table: Option<RegClass>,
    keys: Variadic,
) -> Result<
    TableIterator<
        'static,
        (
            name!(json, String),
            name!(cbor, Vec<u8>),
            name!(tlog_proof, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let unlogged = Unlogged::Refused;
        let (log, found) = entries_of_rows(session, log, source_table, &keys, unlogged)?;
        let indexes = found.into_iter().flatten().collect();
        let bundle = bundle::of_entries(session, &log, indexes)?;
        let columns: BundleColumns = bundles::columns(&bundle);
        Ok(TableIterator::once(columns))
    })
}

/// Nodes that a proof can have for each of its entries.
const NODES_OF_ENTRY: usize = 62;

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn verify_multiproof(
    leaf_hashes: pgrx::Array<&[u8]>,
    leaf_indexes: pgrx::Array<i64>,
    tree_size: i64,
    nodes: pgrx::Array<&[u8]>,
    root_hash: &[u8],
) -> Result<bool, ErrorReport> {
    let root = hash("root_hash", root_hash)?;
    let count = leaf_hashes.len();
    if count != leaf_indexes.len() || count > MOST_TOGETHER {
        return Err(Error::Argument {
            name: "leaf_hashes",
            must: "as many as leaf_indexes, and at most 100,000",
            value: format!("{count} for {} indexes", leaf_indexes.len()),
        }
        .into());
    }
    if nodes.len() > count * NODES_OF_ENTRY {
        return Ok(false);
    }
    let (Some(leaves), Some(size)) = (leaves(leaf_hashes, leaf_indexes)?, size(tree_size)) else {
        return Ok(false);
    };
    let nodes = hashes("nodes", nodes)?;
    // What the verification takes for itself.
    alloc::reserve(&mut Vec::<(u64, Hash)>::new(), leaves.len());
    let Ok(mut verification) = MultiproofVerification::start(&leaves, size, &nodes) else {
        return Ok(false);
    };
    loop {
        pgrx::check_for_interrupts!();
        match verification.climb() {
            Ok(true) => {}
            Ok(false) => return Ok(verification.end(&root).is_ok()),
            Err(_) => return Ok(false),
        }
    }
}

/// None if an index is none of any tree.
fn leaves(
    hashes: pgrx::Array<&[u8]>,
    indexes: pgrx::Array<i64>,
) -> Result<Option<Vec<(LeafIndex, Hash)>>, Error> {
    let hashes = without_nulls("leaf_hashes", hashes)?;
    let indexes = without_nulls("leaf_indexes", indexes)?;
    let mut leaves = Vec::new();
    alloc::reserve(&mut leaves, hashes.len());
    for (leaf, index) in hashes.iter().zip(indexes.iter()) {
        let leaf = hash("leaf_hashes", required("leaf_hashes", leaf)?)?;
        let index = u64::try_from(required("leaf_indexes", index)?).ok();
        match index.and_then(|index| LeafIndex::new(index).ok()) {
            Some(index) => leaves.push((index, leaf)),
            None => return Ok(None),
        }
    }
    Ok(Some(leaves))
}

fn size(tree_size: i64) -> Option<TreeSize> {
    let size = u64::try_from(tree_size).ok()?;
    TreeSize::new(size).ok()
}
