//! A trigger's call: which table, which operation, and the rows as they were stored.

use super::spi::Row;
use pgrx::pg_sys;
use pgrx::trigger_support::PgTrigger;
use std::ffi::CStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Insert => "INSERT",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Truncate => "TRUNCATE",
        }
    }
}

/// What a trigger was called for.
pub struct Firing<'a>(&'a pg_sys::TriggerData);

impl<'a> Firing<'a> {
    pub fn of(trigger: &'a PgTrigger<'a>) -> Firing<'a> {
        Firing(trigger.trigger_data())
    }

    /// The table that the trigger is on.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: the server keeps the relation open during the call.
        unsafe { (*self.0.tg_relation).rd_id }
    }

    pub fn operation(&self) -> Operation {
        match self.0.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Operation::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Operation::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Operation::Delete,
            _ => Operation::Truncate,
        }
    }

    pub fn for_each_row(&self) -> bool {
        self.0.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0
    }

    /// The trigger's first argument, if it is a number.
    pub fn number(&self) -> Option<i32> {
        // SAFETY: `tgargs` has `tgnargs` C strings.
        unsafe {
            let trigger = &*self.0.tg_trigger;
            if trigger.tgnargs < 1 {
                return None;
            }
            CStr::from_ptr(*trigger.tgargs).to_str().ok()?.parse().ok()
        }
    }

    /// True for a statement that changed no row.
    pub fn is_empty(&self) -> bool {
        let store = match self.operation() {
            Operation::Delete => self.0.tg_oldtable,
            _ => self.0.tg_newtable,
        };
        // SAFETY: the store lives as long as the call.
        !store.is_null() && unsafe { pg_sys::tuplestore_tuple_count(store) } == 0
    }

    /// The rows before an UPDATE or DELETE.
    pub fn old_rows(&self) -> Rows {
        match self.operation() {
            Operation::Update | Operation::Delete if self.for_each_row() => {
                Rows::one(self.0.tg_trigslot)
            }
            _ => self.table(self.0.tg_oldtable),
        }
    }

    /// The rows after an INSERT or UPDATE.
    pub fn new_rows(&self) -> Rows {
        match self.operation() {
            Operation::Insert if self.for_each_row() => Rows::one(self.0.tg_trigslot),
            Operation::Update if self.for_each_row() => Rows::one(self.0.tg_newslot),
            _ => self.table(self.0.tg_newtable),
        }
    }

    fn table(&self, store: *mut pg_sys::Tuplestorestate) -> Rows {
        if store.is_null() {
            return Rows::one(std::ptr::null_mut());
        }
        // SAFETY: the store lives as long as the call, and keeps a read pointer of our own; its
        // tuples have the table's row type, and are stored as minimal tuples.
        unsafe {
            Rows {
                store,
                pointer: pg_sys::tuplestore_alloc_read_pointer(
                    store,
                    pg_sys::EXEC_FLAG_REWIND as i32,
                ),
                slot: pg_sys::MakeSingleTupleTableSlot(
                    (*self.0.tg_relation).rd_att,
                    &pg_sys::TTSOpsMinimalTuple,
                ),
                read: false,
            }
        }
        .rewound()
    }
}

/// Rows of a transition table, or the one row of a row-level trigger.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
    read: bool,
}

impl Rows {
    fn one(slot: *mut pg_sys::TupleTableSlot) -> Rows {
        Rows {
            store: std::ptr::null_mut(),
            pointer: 0,
            slot,
            read: false,
        }
    }

    fn rewound(mut self) -> Rows {
        self.rewind();
        self
    }

    /// Starts again from the first row.
    pub fn rewind(&mut self) {
        self.read = false;
        if !self.store.is_null() {
            // SAFETY: as in `next`.
            unsafe {
                pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
                pg_sys::tuplestore_rescan(self.store);
            }
        }
    }

    /// The next row, by attribute number from 0.
    pub fn next(&mut self) -> Option<Row<'_>> {
        if self.slot.is_null() {
            return None;
        }
        // SAFETY: the read pointer is this value's own; a filled slot has as many values as its
        // descriptor has attributes, which live until the slot is filled again.
        unsafe {
            if self.store.is_null() {
                if std::mem::replace(&mut self.read, true) {
                    return None;
                }
            } else {
                pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
                if !pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                    return None;
                }
            }
            Some(Row::of_slot(self.slot))
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // While an error unwinds, the slot goes with its memory context.
        if !self.store.is_null() && !std::thread::panicking() {
            // SAFETY: made by `Firing::table`, dropped only here.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

/// True in a process that applies what logical replication brings.
pub fn in_logical_worker() -> bool {
    // SAFETY: reads a global of the process.
    unsafe { pg_sys::IsLogicalWorker() }
}
