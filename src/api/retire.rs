//! Rows that may be deleted from their source: `retire_rows`.

use super::{log_name, required};
use crate::pg::argument::Variadic;
use crate::pg::datum;
use crate::pg::regclass::RegClass;
use crate::retirement::{self, Outcome};
use crate::session::Session;
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
    // As the caller's session reads and writes values.
    let before = before.0.into_iter().next().flatten();
    let before = match required("before", before) {
        Ok(before) => datum::input(order_type, &before.text()),
        Err(error) => return Err(error.into()),
    };
    let outcome = Session::write(log, |session| {
        let (log, relation) = of_table()?;
        let before = session.pinned(|| datum::text_of(&before));
        let outcome = retirement::retire(session, log, relation, &before)?;
        warn(&outcome);
        Ok(outcome)
    })?;
    Ok(TableIterator::once((outcome.retired, outcome.left)))
}

fn warn(outcome: &Outcome) {
    if let Some((key, index, why)) = &outcome.first_left {
        pgrx::warning!(
            "{} rows were left out: they stay what verify_log says of them. The first is row {key} of entry {index}: {why}",
            outcome.left
        );
    }
}
