//! A trigger's call: which table, which operation, and the row versions as they are stored.

use super::raw;
use super::spi::Row;
use pgrx::pg_sys;
use pgrx::trigger_support::PgTrigger;
use serde::{Deserialize, Serialize};
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

    /// The row version that an UPDATE or DELETE ended, for a row-level trigger that fires afterwards.
    pub fn old_version(&self) -> Option<Stored<'_>> {
        match self.operation() {
            Operation::Update | Operation::Delete => self.stored(self.0.tg_trigslot),
            Operation::Insert | Operation::Truncate => None,
        }
    }

    /// The row version that an INSERT or UPDATE made, for a row-level trigger that fires afterwards.
    pub fn new_version(&self) -> Option<Stored<'_>> {
        match self.operation() {
            Operation::Insert => self.stored(self.0.tg_trigslot),
            Operation::Update => self.stored(self.0.tg_newslot),
            Operation::Delete | Operation::Truncate => None,
        }
    }

    /// `None` where the trigger fires before the change or has no row, and for tables that are stored in
    /// another way than as heaps.
    fn stored(&self, slot: *mut pg_sys::TupleTableSlot) -> Option<Stored<'_>> {
        let after =
            self.0.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        if !self.for_each_row() || !after || slot.is_null() {
            return None;
        }
        // SAFETY: after the change the server has fetched the version from its table into the slot, which
        // stays filled during the call; a slot with these operations holds a tuple of a heap.
        unsafe {
            if !std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple) {
                return None;
            }
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            if tuple.is_null() {
                return None;
            }
            Some(Stored {
                row: Row::of_slot(slot),
                tuple: &*tuple,
                relation: self.relation().to_u32(),
            })
        }
    }
}

/// Which tuple of which table, and which command of the running transaction made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TupleId {
    relation: u32,
    block: u32,
    line: u16,
    command: u32,
}

impl TupleId {
    /// The command that made it.
    pub fn command(self) -> u32 {
        self.command
    }
}

/// A row version that the running transaction made or ended.
pub struct Stored<'a> {
    row: Row<'a>,
    tuple: &'a pg_sys::HeapTupleData,
    relation: u32,
}

impl<'a> Stored<'a> {
    /// Its values, by attribute number from 0.
    pub fn row(&self) -> &Row<'a> {
        &self.row
    }

    /// The tuple, and in it the command that made it. Only of a version that an INSERT or UPDATE of this
    /// transaction made.
    pub fn made(&self) -> (u32, TupleId) {
        // SAFETY: the tuple's header is live; its inserting transaction is the running one.
        let command = unsafe { raw::HeapTupleHeaderGetCmin(self.tuple.t_data) };
        (command, self.id(command))
    }

    /// The command that ended it, and which tuple it was, where that was of the running transaction too.
    /// Only of a version that an UPDATE or DELETE of this transaction ended.
    pub fn ended(&self) -> (u32, Option<TupleId>) {
        let header = self.tuple.t_data;
        // SAFETY: the tuple's header is live, and its deleting transaction is the running one; the command
        // that made it is asked for only where its inserting transaction is, too.
        unsafe {
            let command = raw::HeapTupleHeaderGetCmax(header);
            let writer = pg_sys::htup::HeapTupleHeaderGetXmin(header);
            let ours = raw::TransactionIdIsCurrentTransactionId(writer);
            let made_by = ours.then(|| raw::HeapTupleHeaderGetCmin(header));
            (command, made_by.map(|command| self.id(command)))
        }
    }

    fn id(&self, command: u32) -> TupleId {
        let place = self.tuple.t_self;
        TupleId {
            relation: self.relation,
            block: u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo),
            line: place.ip_posid,
            command,
        }
    }
}
