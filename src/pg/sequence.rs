//! Where a sequence is, read without the lock of a writer, which the server's functions take and keep.

use super::lock;
use pgrx::pg_sys;

/// A sequence's state, as `SELECT last_value, is_called FROM sequence` shows it.
pub struct Position {
    pub last_value: i64,
    pub is_called: bool,
}

/// `None` if somebody alters the sequence, or there is none.
pub fn position(sequence: pg_sys::Oid) -> Option<Position> {
    if !lock::try_access_share(sequence) {
        return None;
    }
    let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: the relation is locked as a reader's, and the lock is given back with it. A sequence is read as the heap
    // that it is, of one row of three columns: last_value, log_cnt, is_called.
    unsafe {
        let relation = pg_sys::try_relation_open(sequence, pg_sys::NoLock as pg_sys::LOCKMODE);
        let Some(open) = relation.as_ref() else {
            pg_sys::UnlockRelationOid(sequence, mode);
            return None;
        };
        let mut position = None;
        if (*open.rd_rel).relkind as u8 == pg_sys::RELKIND_SEQUENCE {
            let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if !row.is_null() {
                let (mut values, mut nulls) = ([pg_sys::Datum::null(); 3], [true; 3]);
                pg_sys::heap_deform_tuple(
                    row,
                    open.rd_att,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                position = Some(Position {
                    last_value: values[0].value() as i64,
                    is_called: values[2].value() as u8 != 0,
                });
            }
            pg_sys::table_endscan(scan);
        }
        pg_sys::relation_close(relation, mode);
        position
    }
}
