//! Rows written past the executor, into tables of the extension's own.

use super::raw::nextval_internal;
use pgrx::pg_sys;

/// Inserts one row into a table, and into its indexes, which are on plain columns. No trigger, default or
/// privilege takes part: the caller gives a value or NULL for each column, of the column's type.
pub fn insert(table: pg_sys::Oid, row: &[Option<pg_sys::Datum>]) {
    let mut values: Vec<pg_sys::Datum> = row.iter().map(|d| d.unwrap_or(0.into())).collect();
    let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
    // SAFETY: the relation is open and locked as a writer's; `assert` keeps the arrays as long as its
    // descriptor; the tuple is freed once it is stored.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
        assert_eq!((*(*relation).rd_att).natts as usize, row.len());
        let tuple =
            pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
}

/// The next value of a sequence, whoever asks.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: takes its own locks; raises an error if there is no such sequence.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}
