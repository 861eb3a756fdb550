//! The functions that take a row's key as the application has it, `VARIADIC "any"`: their SQL is in `sql/by_key.sql`.

use super::verify::row_columns;
use super::{batch, bundles, history, log_name, required};
use crate::capture::given_key::GivenKey;
use crate::catalog::logs;
use crate::error::Error;
use crate::pg::argument::Variadic;
use crate::pg::hashes::Path;
use crate::pg::jsonb::Jsonb;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::verify::row;
use crate::{bundle, prove, redaction, settings};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

pgrx::extension_sql_file!(
    "../../sql/by_key.sql",
    name = "by_key",
    requires = ["tables"]
);

/// Log and table, which each of them takes.
fn of_table(
    log: Option<&str>,
    source_table: Option<RegClass>,
) -> Result<(&str, pg_sys::Oid), Error> {
    let log = log_name("log", log)?;
    Ok((log, required("source_table", source_table)?.0))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn inclusion_proof_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
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
        let (log, relation) = of_table(log, source_table)?;
        let key = GivenKey::Values(&key.0);
        let proof = prove::row(session, Snapshot::Statement, log, relation, key, None)?;
        Ok(TableIterator::once(proof.into()))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn wait_for_inclusion_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
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
    Session::enter(|session| {
        let (log, relation) = of_table(log, source_table)?;
        let key = GivenKey::Values(&key.0);
        let proof = batch::wait(session, log, relation, key, settings::inclusion_timeout())?;
        Ok(TableIterator::once(proof.into()))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn history_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(operation, String),
            name!(row_data, Option<Jsonb>),
            name!(transaction_id, Option<String>),
            name!(user_name, Option<String>),
            name!(application_name, Option<String>),
            name!(statement_at, Option<TimestampWithTimeZone>),
            name!(role_name, Option<String>),
            name!(context, Option<Jsonb>),
            name!(statement, Option<String>),
            name!(statement_bytes, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    history::versions(log, source_table, || Ok(GivenKey::Values(&key.0)))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn verify_row_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
) -> Result<
    TableIterator<
        'static,
        (
            name!(status, String),
            name!(leaf_index, Option<i64>),
            name!(tree_size, Option<i64>),
            name!(leaf_hash, Option<Vec<u8>>),
            name!(row_hash, Option<Vec<u8>>),
            name!(root_hash, Option<Vec<u8>>),
            name!(path, Option<Path>),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let (log, relation) = of_table(log, source_table)?;
        let found = row::verify(session, log, relation, GivenKey::Values(&key.0))?;
        Ok(TableIterator::once(row_columns(found)))
    })
}

#[pg_extern(sql = false)]
fn redact_row_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    reason: Option<&str>,
    key: Variadic,
) -> Result<i64, ErrorReport> {
    Session::write(log, |session| {
        let (log, relation) = of_table(log, source_table)?;
        let (key, reason) = (GivenKey::Values(&key.0), history::valid_reason(reason)?);
        redaction::redact_row(session, log, relation, key, reason)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn proof_bundle_of(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Variadic,
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
        let (log, relation) = of_table(log, source_table)?;
        let log = logs::by_name(session, Snapshot::Statement, log)?;
        let bundle = bundle::of_row(session, &log, relation, GivenKey::Values(&key.0))?;
        Ok(TableIterator::once(bundles::columns(&bundle)))
    })
}
