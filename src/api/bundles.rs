//! Proof bundles: made here, and checked as an outsider checks them.

use super::proofs::named;
use super::required;
use crate::bundle;
use crate::error::{CheckpointError, Error};
use crate::pg::alloc;
use crate::session::Session;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use tlog::{Policy, ProofBundle, VerifierKey};

/// Bytes of the longest bundle that is looked at.
const MAX_BUNDLE: usize = 256 << 20;

/// A bundle in its three forms; C2SP tlog-proof is of one entry.
pub type BundleColumns = (String, Vec<u8>, Option<String>);

pub fn columns(bundle: &ProofBundle) -> BundleColumns {
    let single = match bundle.entries.as_slice() {
        [entry] => bundle.tlog_proof(entry).map(|proof| proof.to_string()),
        _ => None,
    };
    (bundle.to_json(), bundle.to_cbor(), single)
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn proof_bundle(
    log: Option<&str>,
    leaf_index: Option<pgrx::VariadicArray<i64>>,
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
        let log = named(session, log)?;
        let bundle = bundle::of_entries(session, &log, indexes(leaf_index)?)?;
        Ok(TableIterator::once(columns(&bundle)))
    })
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn proof_bundle_at(
    log: Option<&str>,
    tree_size: Option<i64>,
    leaf_index: Option<pgrx::VariadicArray<i64>>,
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
        let log = named(session, log)?;
        let size = required("tree_size", tree_size)?;
        let bundle = bundle::of_entries_at(session, &log, size, indexes(leaf_index)?)?;
        Ok(TableIterator::once(columns(&bundle)))
    })
}

fn indexes(given: Option<pgrx::VariadicArray<i64>>) -> Result<Vec<i64>, Error> {
    let given = required("leaf_index", given)?;
    bundle::check_number(given.len())?;
    given
        .iter()
        .map(|index| required("leaf_index", index))
        .collect()
}

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
pub fn nest_bundle(
    bundle: &[u8],
    hub: &[u8],
) -> Result<TableIterator<'static, (name!(json, String), name!(cbor, Vec<u8>))>, ErrorReport> {
    Ok(TableIterator::once(nested(bundle, hub)?))
}

#[pg_extern(immutable, strict, parallel_safe, name = "nest_bundle")]
#[search_path(pg_catalog, pg_temp)]
pub fn nest_bundle_text(
    bundle: &str,
    hub: &str,
) -> Result<TableIterator<'static, (name!(json, String), name!(cbor, Vec<u8>))>, ErrorReport> {
    let nested = nested(bundle.as_bytes(), hub.as_bytes())?;
    Ok(TableIterator::once(nested))
}

fn nested(bundle: &[u8], hub: &[u8]) -> Result<(String, Vec<u8>), Error> {
    let read = |name: &'static str, bytes: &[u8]| {
        check_room(name, bytes)?;
        ProofBundle::from_bytes(bytes).map_err(not_nested)
    };
    let nested = read("bundle", bundle)?
        .nest(read("hub", hub)?)
        .map_err(not_nested)?;
    Ok((nested.to_json(), nested.to_cbor()))
}

fn not_nested(why: tlog::Error) -> Error {
    Error::Checkpoint(CheckpointError::NotNested(why.to_string()))
}

fn check_room(name: &'static str, bundle: &[u8]) -> Result<(), Error> {
    match bundle.len() > MAX_BUNDLE {
        false => {
            room_for(bundle.len());
            Ok(())
        }
        true => Err(Error::Argument {
            name,
            must: "a proof bundle of at most 256 MB",
            value: format!("{} bytes", bundle.len()),
        }),
    }
}

/// Raises an error where there is no memory to read a bundle of so many bytes. A place in a path takes one byte in a
/// bundle and a hash and more in memory, as long as there may be more of them ([`tlog::MAX_ENTRIES`]).
fn room_for(bytes: usize) {
    const OF_PATHS: usize = 40;
    const LONGEST_PATHS: usize = 1 << 20;
    let needed = bytes * 6 + bytes.min(LONGEST_PATHS) * OF_PATHS;
    alloc::reserve(&mut Vec::<u8>::new(), needed);
}

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_bundle(
    bundle: &[u8],
    verifier_key: pgrx::VariadicArray<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(hubs, Option<Vec<String>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(verified(bundle, &verifier_key)?))
}

#[pg_extern(immutable, strict, parallel_safe, name = "verify_bundle")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_bundle_text(
    bundle: &str,
    verifier_key: pgrx::VariadicArray<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(hubs, Option<Vec<String>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = verified(bundle.as_bytes(), &verifier_key)?;
    Ok(TableIterator::once(verified))
}

/// What somebody trusts who trusts these keys.
pub fn policy(keys: &pgrx::VariadicArray<&str>) -> Result<Policy, Error> {
    let key = |key: Option<&str>| {
        let key = required("verifier_key", key)?.parse();
        key.map_err(|e: tlog::Error| Error::Checkpoint(CheckpointError::VerifierKey(e.to_string())))
    };
    let keys: Vec<VerifierKey> = keys.iter().map(key).collect::<Result<_, Error>>()?;
    Ok(Policy::of_logs(keys))
}

type Verified = (
    bool,
    Option<String>,
    Option<i64>,
    Option<Vec<i64>>,
    Option<Vec<String>>,
    Option<String>,
);

/// What a bundle proves to someone who trusts these keys, those of the log and of its hubs.
fn verified(bundle: &[u8], keys: &pgrx::VariadicArray<&str>) -> Result<Verified, Error> {
    let policy = policy(keys)?;
    check_room("bundle", bundle)?;
    let proven = ProofBundle::from_bytes(bundle).and_then(|bundle| bundle.verify(&policy));
    Ok(match proven {
        Ok(proven) => {
            let checkpoint = &proven.checkpoint.checkpoint;
            let indexes = proven.entries.iter().map(|e| e.index.get() as i64);
            let hubs = std::iter::successors(proven.hub.as_deref(), |hub| hub.hub.as_deref());
            let hubs = hubs.map(|hub| hub.checkpoint.checkpoint.origin().to_owned());
            (
                true,
                Some(checkpoint.origin().to_owned()),
                Some(checkpoint.size().get() as i64),
                Some(indexes.collect()),
                Some(hubs.collect()),
                None,
            )
        }
        Err(problem) => (false, None, None, None, None, Some(problem.to_string())),
    })
}
