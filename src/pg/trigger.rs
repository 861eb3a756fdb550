//! A trigger's call: which table, which operation, and the row versions as they are stored.

use super::raw;
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

    /// The trigger's only argument, if it is a number, written as numbers are.
    pub fn number(&self) -> Option<i32> {
        // SAFETY: `tgargs` has `tgnargs` C strings.
        unsafe {
            let trigger = &*self.0.tg_trigger;
            if trigger.tgnargs != 1 {
                return None;
            }
            let text = CStr::from_ptr(*trigger.tgargs).to_str().ok()?;
            text.parse().ok().filter(|n: &i32| n.to_string() == text)
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
            })
        }
    }
}

/// How many triggers are running, one inside another.
pub fn depth() -> i32 {
    // SAFETY: a function of the server that takes nothing and answers with a number.
    let depth = unsafe { pgrx::direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) };
    depth.unwrap_or_default()
}

/// A row version that the running transaction made or ended.
pub struct Stored<'a> {
    row: Row<'a>,
    tuple: &'a pg_sys::HeapTupleData,
}

impl<'a> Stored<'a> {
    /// Its values, by attribute number from 0.
    pub fn row(&self) -> &Row<'a> {
        &self.row
    }

    /// The command that made it. Only of a version that an INSERT or UPDATE of this transaction made.
    ///
    /// COPY FREEZE makes versions that look as if they had long been committed. Whoever ends one overwrites
    /// the command that made it, and rolling that back does not restore it: it is then a later one, up to now.
    pub fn made_by(&self) -> u32 {
        let header = self.tuple.t_data;
        // SAFETY: the tuple's header is live; its inserting transaction is the running one.
        unsafe {
            match self.has(pg_sys::HEAP_XMIN_FROZEN) {
                true => (*header).t_choice.t_heap.t_field3.t_cid,
                false => raw::HeapTupleHeaderGetCmin(header),
            }
        }
    }

    /// The command that ended it, if one of this transaction has.
    pub fn ended_by(&self) -> Option<u32> {
        let header = self.tuple.t_data;
        if self.has(pg_sys::HEAP_XMAX_INVALID) || self.has(pg_sys::HEAP_XMAX_LOCK_ONLY) {
            return None;
        }
        // SAFETY: the tuple's header is live; the command is asked for only where the running transaction ended
        // the version.
        unsafe {
            let ender = match self.has(pg_sys::HEAP_XMAX_IS_MULTI) {
                true => pg_sys::HeapTupleGetUpdateXid(header),
                false => (*header).t_choice.t_heap.t_xmax,
            };
            let ours = raw::TransactionIdIsCurrentTransactionId(ender);
            ours.then(|| raw::HeapTupleHeaderGetCmax(header))
        }
    }

    /// True if an UPDATE ended it by moving the row to another partition, which makes a DELETE and an INSERT of it.
    pub fn has_moved(&self) -> bool {
        // SAFETY: the tuple's header is live.
        let to = unsafe { (*self.tuple.t_data).t_ctid };
        u32::from(to.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
            && (to.ip_blkid.bi_hi, to.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
    }

    /// True if all of `bits` are set in the tuple's header.
    fn has(&self, bits: u32) -> bool {
        // SAFETY: the tuple's header is live.
        let set = u32::from(unsafe { (*self.tuple.t_data).t_infomask });
        set & bits == bits
    }
}
