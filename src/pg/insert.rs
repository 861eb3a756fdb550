//! Rows written past the executor, into tables of the extension's own.

use super::raw::{self, nextval_internal};
use pgrx::pg_sys;

/// Inserts one row into a table that has one index, over columns alone. No trigger, default or privilege takes part:
/// the caller gives a value or NULL for each column, of the column's type.
pub fn insert(table: pg_sys::Oid, index: pg_sys::Oid, row: &[Option<pg_sys::Datum>]) {
    let mut values: Vec<pg_sys::Datum> = row.iter().map(|d| d.unwrap_or(0.into())).collect();
    let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
    let (values, nulls, columns) = (values.as_mut_ptr(), nulls.as_mut_ptr(), row.len());
    // SAFETY: both relations are open and locked as a writer's, and their descriptors are looked at before the arrays
    // are; the tuple is freed once it is stored. One guard for all calls, each of which returns nothing that would have
    // to be dropped.
    let fits = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let lock = pg_sys::RowExclusiveLock as i32;
            let relation = raw::table_open(table, lock);
            let index = raw::index_open(index, lock);
            let width = |relation: pg_sys::Relation| (*(*relation).rd_att).natts as usize;
            if width(relation) != columns {
                return false;
            }
            let info = raw::BuildIndexInfo(index);
            let mut key_values = [pg_sys::Datum::from(0); pg_sys::INDEX_MAX_KEYS as usize];
            let mut key_nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
            for at in 0..width(index) {
                let column = (*info).ii_IndexAttrNumbers[at] as usize - 1;
                key_values[at] = *values.add(column);
                key_nulls[at] = *nulls.add(column);
            }
            let check = match (*(*index).rd_index).indisunique {
                true => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
            };
            let tuple = raw::heap_form_tuple((*relation).rd_att, values, nulls);
            raw::simple_heap_insert(relation, tuple);
            raw::index_insert(
                index,
                key_values.as_mut_ptr(),
                key_nulls.as_mut_ptr(),
                &raw mut (*tuple).t_self,
                relation,
                check,
                false,
                info,
            );
            raw::pfree(info.cast());
            raw::index_close(index, pg_sys::NoLock as i32);
            raw::heap_freetuple(tuple);
            raw::table_close(relation, pg_sys::NoLock as i32);
            true
        })
    };
    assert!(fits, "a row has a value for each column");
}

/// The next value of a sequence, whoever asks.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: takes its own locks; raises an error if there is no such sequence.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}
