//! The server's functions that are declared here by hand, and what their declarations are checked against.
//!
//! Those that the generated bindings have are here without the guard that the bindings put round a call, for
//! loops that have one guard for all calls, and for signal handlers; their types are compared with the
//! bindings' when this is compiled. Those that the bindings leave out are compared with the server's headers
//! by `headers.c` beside this file, which `make lint` compiles.

use pgrx::pg_sys::{self, *};
use std::ffi::c_void;

/// Points to what `heap_form_tuple` only reads, as each major declares it.
#[cfg(since_pg17)]
type ReadOnly<T> = *const T;
#[cfg(not(since_pg17))]
type ReadOnly<T> = *mut T;

/// Points to a tuple's header that is only read, as each major declares it.
#[cfg(since_pg18)]
type ReadHeader = *const HeapTupleHeaderData;
#[cfg(not(since_pg18))]
type ReadHeader = HeapTupleHeader;

unsafe extern "C-unwind" {
    pub fn ExecStoreVirtualTuple(slot: *mut TupleTableSlot) -> *mut TupleTableSlot;
    pub fn heap_multi_insert(
        relation: Relation,
        slots: *mut *mut TupleTableSlot,
        count: i32,
        command: CommandId,
        options: i32,
        buffers: BulkInsertState,
    );
    pub fn ExecInsertIndexTuples(
        table: *mut ResultRelInfo,
        slot: *mut TupleTableSlot,
        state: *mut EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut List,
        #[cfg(since_pg16)] only_summarizing: bool,
    ) -> *mut List;
    pub fn table_open(relation: Oid, lock: LOCKMODE) -> Relation;
    pub fn table_close(relation: Relation, lock: LOCKMODE);
    pub fn index_open(relation: Oid, lock: LOCKMODE) -> Relation;
    pub fn index_close(relation: Relation, lock: LOCKMODE);
    pub fn heap_form_tuple(
        descriptor: TupleDesc,
        values: ReadOnly<Datum>,
        nulls: ReadOnly<bool>,
    ) -> HeapTuple;
    pub fn heap_freetuple(tuple: HeapTuple);
    pub fn simple_heap_insert(relation: Relation, tuple: HeapTuple);
    pub fn BuildIndexInfo(index: Relation) -> *mut IndexInfo;
    pub fn index_insert(
        index: Relation,
        values: *mut Datum,
        nulls: *mut bool,
        tuple: ItemPointer,
        table: Relation,
        unique: IndexUniqueCheck::Type,
        unchanged: bool,
        info: *mut IndexInfo,
    ) -> bool;
    pub fn pfree(pointer: *mut c_void);
    pub fn GetCurrentSubTransactionId() -> SubTransactionId;
    pub fn GetTopFullTransactionIdIfAny() -> FullTransactionId;
    pub fn GetCurrentStatementStartTimestamp() -> TimestampTz;
    pub fn GetSessionUserId() -> Oid;
    pub fn HeapTupleHeaderGetCmin(tuple: ReadHeader) -> CommandId;
    pub fn HeapTupleHeaderGetCmax(tuple: ReadHeader) -> CommandId;
    pub fn TransactionIdIsCurrentTransactionId(xid: TransactionId) -> bool;
    pub fn die(signal: i32);
    pub fn SignalHandlerForConfigReload(signal: i32);
}

/// A function here, and the bindings' guarded one of the same name, are both of the type given.
macro_rules! as_bound {
    ($($(#[$major:meta])? $name:ident: ($($argument:ty),*) -> $result:ty;)+) => {$(
        $(#[$major])?
        const _: (
            unsafe extern "C-unwind" fn($($argument),*) -> $result,
            unsafe fn($($argument),*) -> $result,
        ) = ($name, pg_sys::$name);
    )+};
}

as_bound! {
    ExecStoreVirtualTuple: (*mut TupleTableSlot) -> *mut TupleTableSlot;
    heap_multi_insert: (Relation, *mut *mut TupleTableSlot, i32, CommandId, i32, BulkInsertState) -> ();
    #[cfg(since_pg16)]
    ExecInsertIndexTuples: (*mut ResultRelInfo, *mut TupleTableSlot, *mut EState, bool, bool, *mut bool, *mut List, bool) -> *mut List;
    #[cfg(not(since_pg16))]
    ExecInsertIndexTuples: (*mut ResultRelInfo, *mut TupleTableSlot, *mut EState, bool, bool, *mut bool, *mut List) -> *mut List;
    table_open: (Oid, LOCKMODE) -> Relation;
    table_close: (Relation, LOCKMODE) -> ();
    index_open: (Oid, LOCKMODE) -> Relation;
    index_close: (Relation, LOCKMODE) -> ();
    heap_form_tuple: (TupleDesc, ReadOnly<Datum>, ReadOnly<bool>) -> HeapTuple;
    heap_freetuple: (HeapTuple) -> ();
    simple_heap_insert: (Relation, HeapTuple) -> ();
    BuildIndexInfo: (Relation) -> *mut IndexInfo;
    index_insert: (Relation, *mut Datum, *mut bool, ItemPointer, Relation, IndexUniqueCheck::Type, bool, *mut IndexInfo) -> bool;
    pfree: (*mut c_void) -> ();
    GetCurrentSubTransactionId: () -> SubTransactionId;
    GetTopFullTransactionIdIfAny: () -> FullTransactionId;
    GetCurrentStatementStartTimestamp: () -> TimestampTz;
    GetSessionUserId: () -> Oid;
    HeapTupleHeaderGetCmin: (ReadHeader) -> CommandId;
    HeapTupleHeaderGetCmax: (ReadHeader) -> CommandId;
    TransactionIdIsCurrentTransactionId: (TransactionId) -> bool;
    die: (i32) -> ();
    SignalHandlerForConfigReload: (i32) -> ();
}

/// The functions that `headers.c` checks.
mod unbound {
    #[cfg(since_pg15)]
    use pgrx::pg_sys::TimestampTz;
    use pgrx::pg_sys::{Oid, RangeType, TypeCacheEntry, varlena};
    use std::ffi::c_int;

    /// Any number from `USER_TIMEOUT` on asks `RegisterTimeout` for the first timer that is free.
    pub const ANY_TIMER: c_int = 1_000;

    unsafe extern "C-unwind" {
        /// `commands/sequence.h`.
        pub fn nextval_internal(relation: Oid, check_permissions: bool) -> i64;
        /// `utils/multirangetypes.h`. A multirange is a varlena, of which only a pointer is passed on.
        pub fn multirange_deserialize(
            range_type: *mut TypeCacheEntry,
            multirange: *const varlena,
            range_count: *mut i32,
            ranges: *mut *mut *mut RangeType,
        );
        /// `utils/timeout.h`.
        pub fn RegisterTimeout(id: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
        #[cfg(since_pg15)]
        pub fn enable_timeout_every(id: c_int, first: TimestampTz, milliseconds: c_int);
        #[cfg(not(since_pg15))]
        pub fn enable_timeout_after(id: c_int, milliseconds: c_int);
        pub fn disable_timeout(id: c_int, keep_indicator: bool);
        /// `unistd.h`.
        pub fn geteuid() -> u32;
        /// `utils/bytea.h`: the variable of the setting of this name.
        pub static mut bytea_output: c_int;
    }
}

pub use unbound::*;
