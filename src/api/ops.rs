//! What is running now; the views are made from it.

use crate::pg::progress;
use pgrx::prelude::*;

#[pg_extern(volatile, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn running_commands() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(datid, pg_sys::Oid),
        name!(usesysid, pg_sys::Oid),
        name!(command, String),
        name!(log_id, i64),
        name!(rows_done, i64),
        name!(rows_total, i64),
    ),
> {
    TableIterator::new(progress::running().into_iter().map(|r| {
        (
            r.pid,
            r.database,
            r.role,
            r.command.to_owned(),
            r.log_id,
            r.done,
            r.total,
        )
    }))
}
