//! Rows of the extension's own tables, read through an index without the executor: for what is asked so
//! often that planning and starting a statement would cost more than the answer.

use super::alloc;
use super::spi::{Row, Snapshot};
use pgrx::{IntoDatum, pg_sys};

/// The table or index `name` of a schema, if there is one.
pub fn relation(schema: pg_sys::Oid, name: &std::ffi::CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// A condition on a column of the index, counted from 1.
#[derive(Clone, Copy)]
pub struct Key {
    column: i16,
    strategy: u32,
    function: u32,
    value: pg_sys::Datum,
}

impl Key {
    fn new(column: i16, strategy: u32, function: u32, value: impl IntoDatum) -> Key {
        let value = value.into_datum().expect("a condition is not on NULL");
        Key {
            column,
            strategy,
            function,
            value,
        }
    }

    pub fn int2(column: i16, value: i16) -> Key {
        Key::new(
            column,
            pg_sys::BTEqualStrategyNumber,
            pg_sys::F_INT2EQ,
            value,
        )
    }

    pub fn int4(column: i16, value: i32) -> Key {
        Key::new(
            column,
            pg_sys::BTEqualStrategyNumber,
            pg_sys::F_INT4EQ,
            value,
        )
    }

    pub fn int8(column: i16, value: i64) -> Key {
        Key::new(
            column,
            pg_sys::BTEqualStrategyNumber,
            pg_sys::F_INT8EQ,
            value,
        )
    }

    pub fn at_least(column: i16, value: i64) -> Key {
        let strategy = pg_sys::BTGreaterEqualStrategyNumber;
        Key::new(column, strategy, pg_sys::F_INT8GE, value)
    }

    pub fn at_most(column: i16, value: i64) -> Key {
        let strategy = pg_sys::BTLessEqualStrategyNumber;
        Key::new(column, strategy, pg_sys::F_INT8LE, value)
    }

    /// Of a column of `bytea`.
    pub fn bytes_at_most(column: i16, value: &[u8]) -> Key {
        let strategy = pg_sys::BTLessEqualStrategyNumber;
        Key::new(column, strategy, pg_sys::F_BYTEALE, value)
    }

    /// Of a column of `text` with collation "C".
    pub fn text(column: i16, value: &str) -> Key {
        Key::new(
            column,
            pg_sys::BTEqualStrategyNumber,
            pg_sys::F_TEXTEQ,
            value,
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// A table and one of its indexes, open for reading.
pub struct Index {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Index {
    pub fn open(table: pg_sys::Oid, index: pg_sys::Oid) -> Index {
        // SAFETY: both are locked as a reader's; the slot is one for this table's rows.
        unsafe {
            let table = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
            Index {
                table,
                index: pg_sys::index_open(index, pg_sys::AccessShareLock as i32),
                slot: pg_sys::table_slot_create(table, std::ptr::null_mut()),
            }
        }
    }

    /// Hands the rows that meet all conditions to `take`, in the index's order, until it says false. They
    /// all come in the one slot, so there is one scan at a time.
    pub fn scan(
        &mut self,
        snapshot: Snapshot,
        keys: &[Key],
        direction: Direction,
        mut take: impl FnMut(&Row) -> bool,
    ) {
        let direction = match direction {
            Direction::Forward => pg_sys::ScanDirection::ForwardScanDirection,
            Direction::Backward => pg_sys::ScanDirection::BackwardScanDirection,
        };
        // SAFETY: scan keys are plain data that `ScanKeyInit` fills; the slot is this table's; the row
        // is used up before the next is fetched, and is one of a heap. The columns' collation is that of the scan keys: C.
        unsafe {
            let mut conditions = vec![pg_sys::ScanKeyData::default(); keys.len()];
            for (condition, key) in conditions.iter_mut().zip(keys) {
                pg_sys::ScanKeyInit(
                    condition,
                    key.column,
                    key.strategy as u16,
                    key.function.into(),
                    key.value,
                );
            }
            let view = View::open(snapshot);
            let scan = pg_sys::index_beginscan(
                self.table,
                self.index,
                view.snapshot,
                #[cfg(since_pg18)]
                std::ptr::null_mut(),
                keys.len() as i32,
                0,
            );
            pg_sys::index_rescan(
                scan,
                conditions.as_mut_ptr(),
                keys.len() as i32,
                std::ptr::null_mut(),
                0,
            );
            while pg_sys::index_getnext_slot(scan, direction, self.slot) {
                alloc::check();
                let mut row = Row::of_slot(self.slot);
                let tuple = (*self.slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
                row.writer = (*(*tuple).t_data).t_choice.t_heap.t_xmin;
                if !take(&row) {
                    break;
                }
            }
            pg_sys::index_endscan(scan);
        }
    }

    /// The first row, mapped.
    pub fn first<T>(
        &mut self,
        snapshot: Snapshot,
        keys: &[Key],
        direction: Direction,
        mut map: impl FnMut(&Row) -> T,
    ) -> Option<T> {
        let mut found = None;
        self.scan(snapshot, keys, direction, |row| {
            found = Some(map(row));
            false
        });
        found
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // While an error unwinds, the aborting transaction closes what is open.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; the locks stay to the end of the transaction.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_close(self.index, pg_sys::NoLock as i32);
                pg_sys::table_close(self.table, pg_sys::NoLock as i32);
            }
        }
    }
}

/// A snapshot while it is in use.
struct View {
    snapshot: pg_sys::Snapshot,
    pushed: bool,
}

impl View {
    fn open(snapshot: Snapshot) -> View {
        // SAFETY: a snapshot that was pushed stays until it is popped; the active one is the caller's.
        unsafe {
            let pushed = snapshot != Snapshot::Statement;
            match snapshot {
                Snapshot::Statement => {}
                Snapshot::Fresh => {
                    pg_sys::CommandCounterIncrement();
                    pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
                }
                Snapshot::Latest => pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()),
            }
            View {
                snapshot: pg_sys::GetActiveSnapshot(),
                pushed,
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.pushed && !std::thread::panicking() {
            // SAFETY: pushed by `open`.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
