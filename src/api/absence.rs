//! Sealed ranges, and proofs of which entries a key has in them. The SQL of the functions that take keys of any type is in
//! `sql/absence.sql`.

use super::bundles::policy;
use super::proofs::named;
use super::{given_key, log_name, required};
use crate::capture::given_key::GivenKey;
use crate::catalog::logs;
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::argument::Variadic;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::sealed;
use crate::{absence, seal};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use tlog::AbsenceProof;

pgrx::extension_sql_file!(
    "../../sql/absence.sql",
    name = "absence",
    requires = ["tables"]
);

/// Bytes of the longest proof that is looked at.
const MAX_PROOF: usize = 64 << 20;
/// How many times over a proof is in memory at most: a hash takes 33 bytes of it.
const COPIES: usize = 8;

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
pub fn seal_range(
    log: Option<&str>,
    up_to: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(from_leaf_index, i64),
            name!(to_leaf_index, i64),
            name!(leaf_index, i64),
            name!(keys, i64),
            name!(index_root, Vec<u8>),
        ),
    >,
    ErrorReport,
> {
    let sealed = Session::write(log, |session| {
        seal::seal(session, log_name("log", log)?, up_to)
    })?;
    let columns = sealed.into_iter().map(|sealed| {
        let (from, to) = (sealed.range.start, sealed.range.end);
        (from, to, sealed.leaf_index, sealed.keys, sealed.index_root)
    });
    Ok(TableIterator::new(columns))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn sealed_ranges(
    log: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(from_leaf_index, i64),
            name!(to_leaf_index, i64),
            name!(leaf_index, i64),
            name!(keys, i64),
            name!(root_hash, Vec<u8>),
            name!(index_root, Vec<u8>),
            name!(secret, Option<Vec<u8>>),
        ),
    >,
    ErrorReport,
> {
    let ranges = Session::enter(|session| {
        let log = named(session, log)?;
        let may_read = session.caller_may_read_log(&log)?;
        let ranges = sealed::ranges(session, Snapshot::Statement, &log);
        let shown = ranges.into_iter().map(|r| {
            let secret = may_read.then_some(r.secret);
            let (from, to) = (r.range.start, r.range.end);
            (from, to, r.leaf_index, r.keys, r.root, r.index_root, secret)
        });
        Ok(shown.collect::<Vec<_>>())
    })?;
    Ok(TableIterator::new(ranges))
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn absence_proof(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
    from_leaf_index: default!(Option<i64>, "NULL"),
    to_leaf_index: default!(Option<i64>, "NULL"),
) -> Result<TableIterator<'static, (name!(json, String), name!(cbor, Vec<u8>))>, ErrorReport> {
    Session::enter(|session| {
        let between = (from_leaf_index, to_leaf_index);
        let proof = of_row(session, log, source_table, given_key(key)?, between)?;
        Ok(TableIterator::once((proof.to_json(), proof.to_cbor())))
    })
}

#[pg_extern(sql = false)]
fn absence_proof_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
) -> Result<TableIterator<'static, (name!(json, String), name!(cbor, Vec<u8>))>, ErrorReport> {
    Session::enter(|session| {
        let key = GivenKey::Values(&key.0);
        let proof = of_row(session, log, source_table, key, (None, None))?;
        Ok(TableIterator::once((proof.to_json(), proof.to_cbor())))
    })
}

fn of_row(
    session: &Session,
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: GivenKey,
    between: (Option<i64>, Option<i64>),
) -> Result<AbsenceProof, Error> {
    let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
    let relation = required("source_table", source_table)?.0;
    absence::of_row(session, &log, relation, key, between)
}

type Verified = (
    bool,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<Vec<String>>,
    Option<i64>,
    Option<i64>,
    Option<Vec<i64>>,
    Option<String>,
);

#[pg_extern(immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_absence(
    proof: &[u8],
    verifier_key: pgrx::VariadicArray<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(source_table, Option<String>),
            name!(key, Option<Vec<String>>),
            name!(from_leaf_index, Option<i64>),
            name!(to_leaf_index, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(verified(proof, &verifier_key)?))
}

#[pg_extern(immutable, strict, parallel_safe, name = "verify_absence")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_absence_text(
    proof: &str,
    verifier_key: pgrx::VariadicArray<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(valid, bool),
            name!(origin, Option<String>),
            name!(tree_size, Option<i64>),
            name!(source_table, Option<String>),
            name!(key, Option<Vec<String>>),
            name!(from_leaf_index, Option<i64>),
            name!(to_leaf_index, Option<i64>),
            name!(leaf_indexes, Option<Vec<i64>>),
            name!(problem, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let verified = verified(proof.as_bytes(), &verifier_key)?;
    Ok(TableIterator::once(verified))
}

/// What a proof proves to someone who trusts these keys.
fn verified(proof: &[u8], keys: &pgrx::VariadicArray<&str>) -> Result<Verified, Error> {
    let policy = policy(keys)?;
    if proof.len() > MAX_PROOF {
        return Err(Error::Argument {
            name: "proof",
            must: "an absence proof of at most 64 MB",
            value: format!("{} bytes", proof.len()),
        });
    }
    alloc::reserve(&mut Vec::<u8>::new(), proof.len() * COPIES);
    let proven = AbsenceProof::from_bytes(proof).and_then(|proof| proof.verify(&policy));
    Ok(match proven {
        Ok(proven) => {
            let checkpoint = &proven.checkpoint.checkpoint;
            let indexes = proven.entries.iter().map(|e| e.index.get() as i64);
            (
                true,
                Some(checkpoint.origin().to_owned()),
                Some(checkpoint.size().get() as i64),
                Some(proven.source),
                Some(proven.key),
                Some(proven.range.start as i64),
                Some(proven.range.end as i64),
                Some(indexes.collect()),
                None,
            )
        }
        Err(problem) => {
            let problem = Some(problem.to_string());
            (false, None, None, None, None, None, None, None, problem)
        }
    })
}
