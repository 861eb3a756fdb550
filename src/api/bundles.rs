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
        [entry] => Some(bundle.tlog_proof(entry).to_string()),
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
        let given = required("leaf_index", leaf_index)?;
        if given.is_empty() || given.len() > bundle::MOST {
            return Err(Error::Argument {
                name: "leaf_index",
                must: "one leaf index, or up to 10,000",
                value: format!("{} of them", given.len()),
            });
        }
        let indexes = given.iter().map(|index| required("leaf_index", index));
        let indexes = indexes.collect::<Result<Vec<i64>, Error>>()?;
        let bundle = bundle::of_entries(session, &log, indexes)?;
        Ok(TableIterator::once(columns(&bundle)))
    })
}

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_bundle(
    bundle: &[u8],
    verifier_key: &str,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(verified(bundle, verifier_key)?))
}

#[pg_extern(immutable, strict, parallel_safe, name = "verify_bundle")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_bundle_text(
    bundle: &str,
    verifier_key: &str,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = verified(bundle.as_bytes(), verifier_key)?;
    Ok(TableIterator::once(verified))
}

type Verified = (
    bool,
    Option<String>,
    Option<i64>,
    Option<Vec<i64>>,
    Option<String>,
);

/// Raises an error where there is no memory to read a bundle of so many bytes. A place in a path takes one byte in a
/// bundle and a hash and more in memory, as long as there may be more of them ([`tlog::MAX_ENTRIES`]).
fn room_for(bytes: usize) {
    const OF_PATHS: usize = 40;
    const LONGEST_PATHS: usize = 1 << 20;
    let needed = bytes * 6 + bytes.min(LONGEST_PATHS) * OF_PATHS;
    alloc::reserve(&mut Vec::<u8>::new(), needed);
}

fn verified(bundle: &[u8], verifier_key: &str) -> Result<Verified, Error> {
    let key: VerifierKey = verifier_key
        .parse()
        .map_err(|e: tlog::Error| Error::Checkpoint(CheckpointError::VerifierKey(e.to_string())))?;
    if bundle.len() > MAX_BUNDLE {
        return Err(Error::Argument {
            name: "bundle",
            must: "a proof bundle of at most 256 MB",
            value: format!("{} bytes", bundle.len()),
        });
    }
    room_for(bundle.len());
    let policy = Policy::of_log(key);
    let proven = ProofBundle::from_bytes(bundle).and_then(|bundle| bundle.verify(&policy));
    Ok(match proven {
        Ok(proven) => {
            let checkpoint = &proven.checkpoint.checkpoint;
            let indexes = proven.entries.iter().map(|e| e.index.get() as i64);
            (
                true,
                Some(checkpoint.origin().to_owned()),
                Some(checkpoint.size().get() as i64),
                Some(indexes.collect()),
                None,
            )
        }
        Err(problem) => (false, None, None, None, Some(problem.to_string())),
    })
}
