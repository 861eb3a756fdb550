//! Adding, changing and removing the tables that feed a log.

use super::logs::check_settle_domain;
use super::{column_names, log_name, required, shortened};
use crate::batch;
use crate::capture::definition;
use crate::capture::guard;
use crate::capture::order::Domain;
use crate::capture::order_values;
use crate::capture::partitions;
use crate::capture::shape::{self, Logged, Shape};
use crate::capture::table::{Attribute, Table};
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, Capture, Source};
use crate::catalog::versions::{self, Version};
use crate::error::Error;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::shared;
use crate::store::{heads, redacted};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(parallel_unsafe, name = "add_source")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // the SQL function's named arguments
fn add_source_v3(
    log: Option<&str>,
    source_table: Option<RegClass>,
    order_column: default!(Option<&str>, "NULL"),
    key_columns: default!(Option<pgrx::Array<&str>>, "NULL"),
    columns: default!(Option<pgrx::Array<&str>>, "NULL"),
    hash_column: default!(Option<&str>, "NULL"),
    capture: default!(Option<&str>, "NULL"),
    append_only: default!(Option<bool>, false),
    allow_truncate: default!(Option<bool>, false),
    store_leaf_data: default!(Option<bool>, false),
    salted: default!(Option<bool>, false),
    backfill: default!(Option<bool>, true),
    record_statement: default!(Option<bool>, false),
) -> Result<i32, ErrorReport> {
    Session::write(log, |session| {
        let log = logs::lock_and_wait(session, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let columns = column_names("columns", columns)?;
        let key_columns = column_names("key_columns", key_columns)?;
        let (order_column, hash_column) = (order_column.map(shortened), hash_column.map(shortened));
        let table = Table::load(session, relation).ok_or_else(|| Error::SourceGone {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
            relation: relation.to_u32(),
        })?;
        table.check_fit(&log.name)?;
        check_owner(session, &log, &table)?;
        if sources::active(session, &log)
            .iter()
            .any(|s| s.relation == relation)
        {
            return Err(Error::SourceExists {
                log: log.name,
                table: table.name,
            });
        }
        let capture = match capture {
            None => None,
            Some(name) => {
                Some(Capture::from_name(name).ok_or_else(|| Error::CaptureMode(shortened(name)))?)
            }
        };
        let key = choose_key(session, &table, key_columns)?;
        let order = match capture {
            Some(Capture::Trigger) => {
                check_trigger(
                    session,
                    &log,
                    &table,
                    order_column.as_ref(),
                    hash_column.as_ref(),
                )?;
                None
            }
            _ => {
                let order_column = required("order_column", order_column.clone())?;
                let order = table.attribute_named(&order_column)?.clone();
                table.check_order(session, &log.name, &order)?;
                check_fence(session, &table, &order, capture.is_some())?;
                fix_domain(session, &log, &table, &order)?;
                if allow_truncate == Some(true) {
                    return Err(Error::CaptureOption {
                        table: table.name,
                        option: "allow_truncate",
                        capture: Capture::Watermark.name(),
                        hint: "Only trigger capture logs TRUNCATE: give capture => 'trigger'.",
                    });
                }
                Some(order)
            }
        };
        let late_accepted = capture.is_some();
        let capture = capture.unwrap_or(Capture::Watermark);
        let mut source = Source {
            id: 0,
            log_id: log.id,
            name: registered_name(session, &log, &table),
            relation,
            bound_to: shape::identity(session, relation),
            capture,
            order_column,
            key_columns: key.iter().map(|a| a.name.clone()).collect(),
            columns: columns.filter(|c| !c.is_empty()),
            hash_column,
            watermark: None,
            removed: false,
            append_only: append_only == Some(true),
            allow_truncate: allow_truncate == Some(true),
            store_leaf_data: store_leaf_data == Some(true),
            record_statement: record_statement == Some(true),
            salted: salted == Some(true),
            backfill: (capture == Capture::Trigger && backfill != Some(false)).then(Vec::new),
            pruned_order: None,
            complete: capture == Capture::Watermark || backfill != Some(false),
            backfilled: false,
            late_accepted,
        };
        check_record_statement(&source)?;
        if let Some(before) = removed_before(session, &log, &source, &key)? {
            return go_on(session, &log, before, source);
        }
        let logged = Logged::named(
            &table,
            source.hash_column.as_deref(),
            source.columns.as_deref(),
        )?;
        let version = Version {
            number: 1,
            from_leaf_index: heads::latest(session, Snapshot::Fresh, &log)?.tree_size,
            hash_column: source.hash_column.clone(),
            columns: shape::columns(&table, &key, order.as_ref(), logged)?,
        };
        source.id = sources::insert(session, &source);
        versions::insert(session, source.id, &version, "first version");
        guard::install(session, &source)?;
        definition::describe(session, &source);
        partitions::record(
            session,
            &Shape::load(session, &log, &source)?,
            version.from_leaf_index,
        );
        Ok(source.id)
    })
}

/// That the text of statements can be recorded, where that is asked for: it is in leaf data that are kept, so that it goes
/// when these are erased.
fn check_record_statement(source: &Source) -> Result<(), Error> {
    let hint = match (source.by_trigger(), source.store_leaf_data) {
        _ if !source.record_statement => return Ok(()),
        (true, true) => return Ok(()),
        (true, false) => {
            "It is in the leaf data, which the source must keep: give store_leaf_data => true, too."
        }
        (false, _) => "Only trigger capture sees statements: give capture => 'trigger'.",
    };
    Err(Error::CaptureOption {
        table: source.name.clone(),
        option: "record_statement",
        capture: source.capture.name(),
        hint,
    })
}

/// The name that the leaf data of a table have: its own, with a number behind it where another table is or was a source of
/// the log under that name, so that a leaf says which of them it is of.
fn registered_name(session: &Session, log: &Log, table: &Table) -> String {
    let others: Vec<String> = sources::all(session, log)
        .into_iter()
        .filter(|source| source.relation != table.oid)
        .map(|source| source.name)
        .collect();
    let numbered = (2..).map(|n| format!("{} ({n})", table.name));
    let mut names = std::iter::once(table.name.clone()).chain(numbered);
    let name = names.find(|name| !others.contains(name));
    let name = name.expect("there are more numbers than sources");
    if name != table.name {
        pgrx::notice!(
            "another table was a source of log \"{}\" under the name \"{}\": this one is a new source, whose entries have the name \"{name}\", and verify_log says what became of the entries of the other",
            log.name,
            table.name
        );
    }
    name
}

/// The source that the table was before it was removed, if it can go on: with the same capture, key, order
/// and salting. Whoever adds the table is told where it cannot.
fn removed_before(
    session: &Session,
    log: &Log,
    source: &Source,
    key: &[Attribute],
) -> Result<Option<Source>, Error> {
    let mut of_table = sources::all(session, log);
    of_table.retain(|s| s.removed && s.relation == source.relation);
    if of_table.is_empty() {
        return Ok(None);
    }
    if let Some(before) = of_table
        .iter()
        .rposition(|s| is_same(session, log, s, source, key))
    {
        return Ok(Some(of_table.swap_remove(before)));
    }
    let has_redacted = |s: &Source| s.salted && redacted::is_any(session, s.id);
    if !source.salted && of_table.iter().any(has_redacted) {
        return Err(Error::RedactedBefore {
            log: log.name.clone(),
            table: source.name.clone(),
        });
    }
    pgrx::notice!(
        "table \"{}\" was a source of log \"{}\" with another key, order, capture or salting: this is a new source; verify_log says source_removed for the entries of the old one, and rows that were redacted there are not redacted here",
        source.name,
        log.name
    );
    Ok(None)
}

/// True if a removed source can go on with the settings of another.
fn is_same(
    session: &Session,
    log: &Log,
    before: &Source,
    source: &Source,
    key: &[Attribute],
) -> bool {
    let same = |shape: Shape| {
        let numbers = |columns: &[Attribute]| columns.iter().map(|a| a.attnum).collect::<Vec<_>>();
        let order = shape
            .source
            .order_column
            .as_ref()
            .map(|_| &shape.order().name);
        numbers(&shape.key) == numbers(key) && order == source.order_column.as_ref()
    };
    before.capture == source.capture
        && before.salted == source.salted
        && Shape::load(session, log, before).is_ok_and(same)
}

/// Lets a removed source go on with the settings of `wanted`. Its entries are held against the table again,
/// with what was done to it while it was no source.
fn go_on(session: &Session, log: &Log, before: Source, wanted: Source) -> Result<i32, Error> {
    let source = Source {
        columns: wanted.columns,
        hash_column: wanted.hash_column,
        append_only: wanted.append_only,
        allow_truncate: wanted.allow_truncate,
        store_leaf_data: wanted.store_leaf_data,
        record_statement: wanted.record_statement,
        backfill: wanted.backfill,
        complete: before.complete && wanted.complete,
        late_accepted: wanted.late_accepted,
        removed: false,
        ..before
    };
    pgrx::notice!(
        "table \"{}\" was a source of log \"{}\" before and goes on as the same one: what was changed or deleted while it was none shows as modified or deleted",
        source.name,
        log.name
    );
    sources::readmit(session, &source);
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    let mut shape = Shape::load(session, log, &source)?;
    record_choice(session, &mut shape, size)?;
    install_guard(session, &source)?;
    partitions::record(session, &shape, size);
    Ok(source.id)
}

/// Sees to the triggers of a source. What others did to its table before is on record apart from that.
fn install_guard(session: &Session, source: &Source) -> Result<(), Error> {
    definition::notice(session, source);
    guard::install(session, source)?;
    definition::notice(session, source);
    Ok(())
}

/// Starts a version with the columns that the source's settings name, if they are others than before.
fn record_choice(session: &Session, shape: &mut Shape, size: i64) -> Result<(), Error> {
    let logged = Logged::named(
        &shape.table,
        shape.source.hash_column.as_deref(),
        shape.source.columns.as_deref(),
    )?;
    let columns = shape.columns_with(logged)?;
    shape::record_columns(session, &shape.source, &mut shape.versions, size, columns);
    Ok(())
}

#[pg_extern(parallel_unsafe, name = "alter_source")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // the SQL function's named arguments
fn alter_source_v3(
    log: Option<&str>,
    source_table: Option<RegClass>,
    columns: default!(Option<pgrx::Array<&str>>, "NULL"),
    hash_column: default!(Option<&str>, "NULL"),
    append_only: default!(Option<bool>, "NULL"),
    allow_truncate: default!(Option<bool>, "NULL"),
    store_leaf_data: default!(Option<bool>, "NULL"),
    record_statement: default!(Option<bool>, "NULL"),
) -> Result<i32, ErrorReport> {
    Session::write(log, |session| {
        let log = logs::lock_and_wait(session, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let hash_column = hash_column.map(shortened);
        let source = sources::by_relation(session, &log, relation)?;
        session.check_caller_owns(&log, &source)?;
        let reshapes = !source.by_trigger() || columns.is_some();
        if source.by_trigger() && reshapes {
            // So that what was captured before is logged under the columns of then.
            batch::drain_queue(session, &log)?;
        }
        let size = heads::latest(session, Snapshot::Fresh, &log)?.tree_size;
        // Logging what is queued may have followed renamed columns.
        let source = sources::by_relation(session, &log, relation)?;
        let mut shape = Shape::load(session, &log, &source)?;
        check_owner(session, &log, &shape.table)?;
        if source.by_trigger() && hash_column.as_ref().is_some_and(|c| !c.is_empty()) {
            return Err(no_hash_column(&shape.table));
        }
        // What happened to the table so far belongs to a version of its own, unless it took the hash column away.
        if reshapes && shape.columns_now().is_ok() {
            shape.record(session, size)?;
        }
        if let Some(columns) = column_names("columns", columns)? {
            shape.source.columns = (!columns.is_empty()).then_some(columns);
        }
        if let Some(hash_column) = hash_column {
            shape.source.hash_column = (!hash_column.is_empty()).then_some(hash_column);
        }
        for (option, given) in [
            (&mut shape.source.append_only, append_only),
            (&mut shape.source.allow_truncate, allow_truncate),
            (&mut shape.source.store_leaf_data, store_leaf_data),
            (&mut shape.source.record_statement, record_statement),
        ] {
            *option = given.unwrap_or(*option);
        }
        check_record_statement(&shape.source)?;
        sources::update(session, &shape.source);
        if reshapes {
            record_choice(session, &mut shape, size)?;
        }
        install_guard(session, &shape.source)?;
        Ok(shape.current().number)
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn remove_source(log: Option<&str>, source_table: Option<RegClass>) -> Result<(), ErrorReport> {
    Session::write(log, |session| {
        let log = logs::lock_and_wait(session, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let source = sources::by_relation(session, &log, relation)?;
        if let Some(table) = Table::load(session, relation) {
            check_owner(session, &log, &table)?;
        }
        definition::notice(session, &source);
        guard::uninstall(session, &source)?;
        definition::notice(session, &source);
        sources::remove(session, &source);
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn backfill(log: Option<&str>, source_table: Option<RegClass>) -> Result<(), ErrorReport> {
    Session::write(log, |session| {
        let (source, table) = own_source(session, log, source_table)?;
        if !source.by_trigger() {
            return Err(Error::CaptureOption {
                table: table.name,
                option: "backfill",
                capture: source.capture.name(),
                hint: "Watermark capture logs the rows that are there by itself.",
            });
        }
        sources::start_backfill(session, source.id);
        xact::after_commit(move || shared::wake_workers_of(&[source.log_id]));
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn repair_capture(log: Option<&str>, source_table: Option<RegClass>) -> Result<(), ErrorReport> {
    Session::write(log, |session| {
        let (source, _) = own_source(session, log, source_table)?;
        install_guard(session, &source)?;
        if source.by_trigger() && source.every_row_is_logged() {
            sources::start_backfill(session, source.id);
            xact::after_commit(move || shared::wake_workers_of(&[source.log_id]));
        }
        Ok(())
    })
}

/// A source of a log that the caller may change.
fn own_source(
    session: &Session,
    log: Option<&str>,
    source_table: Option<RegClass>,
) -> Result<(Source, Table), Error> {
    let log = logs::lock_and_wait(session, log_name("log", log)?)?;
    let relation = required("source_table", source_table)?.0;
    let source = sources::by_relation(session, &log, relation)?;
    let table = Table::load(session, relation).ok_or_else(|| Error::SourceGone {
        log: log.name.clone(),
        table: source.name.clone(),
        relation: relation.to_u32(),
    })?;
    check_owner(session, &log, &table)?;
    Ok((source, table))
}

fn check_owner(session: &Session, log: &Log, table: &Table) -> Result<(), Error> {
    let owns = session.fresh_one(
        "SELECT pg_catalog.pg_has_role($1, $2, 'USAGE')",
        &[session.caller().into(), table.owner.into()],
        |row| row.required(0),
    );
    match owns {
        Some(true) => Ok(()),
        _ => Err(Error::NotOwner {
            log: log.name.clone(),
            table: table.name.clone(),
        }),
    }
}

fn choose_key(
    session: &Session,
    table: &Table,
    named: Option<Vec<String>>,
) -> Result<Vec<Attribute>, Error> {
    let key: Vec<Attribute> = match named {
        Some(names) => names
            .iter()
            .map(|name| table.attribute_named(name).cloned())
            .collect::<Result<_, _>>()?,
        None => {
            let keys = table.keys(session);
            let first = keys.first().ok_or_else(|| {
                let table_name = table.name.clone();
                match table.temporal_key(session) {
                    Some(columns) => Error::TemporalKey {
                        table: table_name,
                        columns,
                    },
                    None => Error::NoKey { table: table_name },
                }
            })?;
            first
                .iter()
                .filter_map(|n| table.attribute(*n).cloned())
                .collect()
        }
    };
    table.check_key(session, &key.iter().collect::<Vec<_>>())?;
    Ok(key)
}

/// What trigger capture cannot have: it logs changes as they come, under the whole row.
fn check_trigger(
    session: &Session,
    log: &Log,
    table: &Table,
    order_column: Option<&String>,
    hash_column: Option<&String>,
) -> Result<(), Error> {
    if order_column.is_some() {
        return Err(Error::CaptureOption {
            table: table.name.clone(),
            option: "order_column",
            capture: Capture::Trigger.name(),
            hint: "Leave order_column out: changes are logged in the order in which they arrive.",
        });
    }
    if hash_column.is_some() {
        return Err(no_hash_column(table));
    }
    table.check_no_heirs(session)?;
    match log.domain {
        Some(Domain::Arrival) => Ok(()),
        Some(domain) => Err(Error::TriggerDomain {
            log: log.name.clone(),
            domain: domain.name(),
            table: table.name.clone(),
        }),
        None => {
            if let Some(settle) = log.settle {
                check_settle_domain(log, Some(Domain::Arrival), settle)?;
            }
            set_domain(session, log, Domain::Arrival);
            Ok(())
        }
    }
}

fn no_hash_column(table: &Table) -> Error {
    Error::CaptureOption {
        table: table.name.clone(),
        option: "hash_column",
        capture: Capture::Trigger.name(),
        hint: "Give the key and the hash as columns => ARRAY[…].",
    }
}

/// That the fence is complete for the order column, or that rows that come late are accepted: the mode was named.
fn check_fence(
    session: &Session,
    table: &Table,
    order: &Attribute,
    named: bool,
) -> Result<(), Error> {
    match order_values::incomplete(session, table, order)? {
        Some(_) if !named => Err(Error::CaptureNotNamed {
            table: table.name.clone(),
            column: order.name.clone(),
        }),
        _ => Ok(()),
    }
}

/// The first source fixes what the log is ordered by.
fn fix_domain(session: &Session, log: &Log, table: &Table, order: &Attribute) -> Result<(), Error> {
    let Some(domain) = Domain::of_type(order.base_type) else {
        return table.check_order(session, &log.name, order);
    };
    match log.domain {
        Some(fixed) if fixed != domain => Err(Error::OrderDomain {
            log: log.name.clone(),
            domain: fixed.name(),
            table: table.name.clone(),
            column: order.name.clone(),
            other: domain.name(),
        }),
        Some(_) => Ok(()),
        None => {
            if let Some(settle) = log.settle {
                check_settle_domain(log, Some(domain), settle)?;
            }
            set_domain(session, log, domain);
            Ok(())
        }
    }
}

fn set_domain(session: &Session, log: &Log, domain: Domain) {
    session.execute(
        "UPDATE @extschema@.verification_logs SET order_domain = $2 WHERE log_id = $1",
        &[log.id.into(), domain.name().into()],
    );
}
