//! Rows that may be deleted from their source: `retire_rows`.

use super::{log_name, required};
use crate::pg::argument::{Argument, Variadic};
use crate::pg::regclass::RegClass;
use crate::pg::{datum, settings};
use crate::retirement::{self, Outcome};
use crate::session::Session;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

pgrx::extension_sql_file!(
    "../../sql/retire.sql",
    name = "retire",
    requires = ["tables"]
);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
fn retire_rows(
    log: Option<&str>,
    source_table: Option<RegClass>,
    before: Variadic,
) -> Result<TableIterator<'static, (name!(retired, i64), name!(left_out, i64))>, ErrorReport> {
    let of_table = || {
        Ok((
            log_name("log", log)?,
            required("source_table", source_table)?.0,
        ))
    };
    let order_type = Session::write(log, |session| {
        let (log, relation) = of_table()?;
        retirement::order_type(session, log, relation)
    })?;
    // As the caller, whose functions a type may call.
    let before = before.0.into_iter().next().flatten();
    let before = required("before", before).map(|before| text_of(before, order_type))?;
    let outcome = Session::write(log, |session| {
        let (log, relation) = of_table()?;
        let outcome = retirement::retire(session, log, relation, &before)?;
        warn(&outcome);
        Ok(outcome)
    })?;
    Ok(TableIterator::once((outcome.retired, outcome.left)))
}

/// The value as text of the order column's type, under the settings that pin it.
///
/// Only what the caller has written as a text is read as the session reads it. Texts of other values go by settings by
/// which they cannot be read again: the same short name stands for more than one time zone.
fn text_of(before: Argument, order_type: pg_sys::Oid) -> String {
    if let Some(text) = before.time_cast_to(order_type) {
        return text;
    }
    let value = match before.is_text() {
        true => datum::input(order_type, &before.text()),
        false => settings::pinned_for_values(|| datum::input(order_type, &before.text())),
    };
    settings::pinned_for_values(|| datum::text_of(&value))
}

fn warn(outcome: &Outcome) {
    if let Some((key, index, why)) = &outcome.first_left {
        pgrx::warning!(
            "{} rows were left out: they stay what verify_log says of them. The first is row {key} of entry {index}: {why}",
            outcome.left
        );
    }
}
