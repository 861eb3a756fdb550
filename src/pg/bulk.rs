//! Many rows written past the executor, as COPY writes them: whole pages at a time, then their index
//! entries.

use super::alloc;
use super::memory::Scratch;
use super::raw::{ExecInsertIndexTuples, ExecStoreVirtualTuple, heap_multi_insert};
use pgrx::{PgMemoryContexts, pg_sys};

/// Rows that are written together: as COPY has them.
const ROWS: usize = 1000;
/// More content than this is written at once.
const BYTES: usize = 1 << 20;
/// The longest value, with its header of one byte, that has such a header.
const VARATT_SHORT_MAX: usize = 0x7f;

/// A value of a column, of the column's type.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    Null,
    Int4(i32),
    Int8(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A value that waits: as it is, or where it lies in `BulkInsert::bytes`.
#[derive(Clone, Copy)]
enum Waiting {
    Null,
    Value(pg_sys::Datum),
    At(usize),
}

/// A table open for writing. Rows wait in memory until there are enough of them.
///
/// No trigger, default, constraint other than its unique indexes, or privilege takes part: the caller
/// gives a value for each column, of the column's type, none of them NULL that must not be.
pub struct BulkInsert {
    table: *mut pg_sys::ResultRelInfo,
    state: *mut pg_sys::EState,
    buffers: pg_sys::BulkInsertState,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    command: pg_sys::CommandId,
    columns: usize,
    /// What the server allocates on the way.
    scratch: Scratch,
    /// Of the rows that wait, row by row.
    values: Vec<Waiting>,
    /// Their texts and bytes, as the server stores them.
    bytes: Vec<u8>,
}

impl BulkInsert {
    /// Opens the table and its indexes for the current command; what is written is seen by later ones.
    pub fn open(table: pg_sys::Oid) -> BulkInsert {
        // SAFETY: the order of calls is COPY's: relation, result relation, indexes; all of it lives in
        // the executor state's memory, or until `close`.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
            let state = pg_sys::CreateExecutorState();
            let info = PgMemoryContexts::For((*state).es_query_cxt)
                .switch_to(|_| pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()))
                .cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(info, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(info, false);
            let slots = PgMemoryContexts::For((*state).es_query_cxt).switch_to(|_| {
                (0..ROWS)
                    .map(|_| pg_sys::table_slot_create(relation, std::ptr::null_mut()))
                    .collect()
            });
            BulkInsert {
                table: info,
                state,
                buffers: pg_sys::GetBulkInsertState(),
                slots,
                command: pg_sys::GetCurrentCommandId(true),
                columns: (*(*relation).rd_att).natts as usize,
                scratch: Scratch::new(),
                values: Vec::new(),
                bytes: Vec::new(),
            }
        }
    }

    /// Adds a row.
    pub fn push<const COLUMNS: usize>(&mut self, row: [Column; COLUMNS]) {
        assert_eq!(self.columns, COLUMNS);
        for column in row {
            let value = match column {
                Column::Null => Waiting::Null,
                Column::Int4(n) => Waiting::Value(n.into()),
                Column::Int8(n) => Waiting::Value(n.into()),
                Column::Text(text) => self.varlena(text.as_bytes()),
                Column::Bytes(bytes) => self.varlena(bytes),
            };
            self.values.push(value);
        }
        if self.values.len() == ROWS * COLUMNS || self.bytes.len() > BYTES {
            self.flush();
        }
    }

    /// Puts down a value of variable length: its header, which counts itself, and its content.
    fn varlena(&mut self, content: &[u8]) -> Waiting {
        let short = content.len() + 1;
        let at = if short <= VARATT_SHORT_MAX {
            let at = self.bytes.len();
            self.bytes.push(match cfg!(target_endian = "little") {
                true => (short << 1 | 1) as u8,
                false => 0x80 | short as u8,
            });
            at
        } else {
            let at = self.bytes.len().next_multiple_of(size_of::<u32>());
            self.bytes.resize(at, 0);
            let size = (content.len() + size_of::<u32>()) as u32;
            let header = match cfg!(target_endian = "little") {
                true => size << 2,
                false => size,
            };
            self.bytes.extend_from_slice(&header.to_ne_bytes());
            at
        };
        alloc::reserve(&mut self.bytes, content.len());
        self.bytes.extend_from_slice(content);
        Waiting::At(at)
    }

    /// Writes the rows that wait.
    pub fn flush(&mut self) {
        let rows = self.values.len() / self.columns.max(1);
        if rows == 0 {
            return;
        }
        let slots = &mut self.slots[..rows];
        let start = self.bytes.as_ptr();
        // SAFETY: each slot is given one value a column; texts and bytes stay where they are until the
        // rows are written, in memory that malloc has aligned for any header.
        unsafe {
            for (slot, row) in slots.iter().zip(self.values.chunks_exact(self.columns)) {
                for (column, value) in row.iter().enumerate() {
                    let (value, null) = match *value {
                        Waiting::Null => (0.into(), true),
                        Waiting::Value(value) => (value, false),
                        Waiting::At(at) => (start.add(at).into(), false),
                    };
                    *(**slot).tts_values.add(column) = value;
                    *(**slot).tts_isnull.add(column) = null;
                }
            }
        }
        let (table, state) = (self.table, self.state);
        // SAFETY: filled slots of this table. One guard for all calls, each of which returns nothing
        // that would have to be dropped.
        unsafe {
            let relation = (*table).ri_RelationDesc;
            let (first, count, command, buffers) =
                (slots.as_mut_ptr(), rows as i32, self.command, self.buffers);
            self.scratch.scope(|| {
                pg_sys::ffi::pg_guard_ffi_boundary(|| {
                    for place in 0..rows {
                        ExecStoreVirtualTuple(*first.add(place));
                    }
                    heap_multi_insert(relation, first, count, command, 0, buffers);
                    for place in 0..rows {
                        let slot = *first.add(place);
                        let (none, null) = (std::ptr::null_mut(), std::ptr::null_mut());
                        ExecInsertIndexTuples(
                            table,
                            slot,
                            state,
                            false,
                            false,
                            none,
                            null,
                            #[cfg(since_pg16)]
                            false,
                        );
                    }
                })
            });
            for slot in slots {
                pg_sys::ExecClearTuple(*slot);
            }
            let expressions = (*state).es_per_tuple_exprcontext;
            if !expressions.is_null() {
                pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            }
        }
        self.values.clear();
        self.bytes.clear();
        self.bytes.shrink_to(2 * BYTES);
    }

    /// Writes what waits, and closes the table; its lock stays to the end of the transaction.
    pub fn close(mut self) {
        self.flush();
        // SAFETY: the counterparts of `open`, in reverse.
        unsafe {
            let relation = (*self.table).ri_RelationDesc;
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::FreeBulkInsertState(self.buffers);
            pg_sys::ExecCloseIndices(self.table);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            pg_sys::FreeExecutorState(self.state);
        }
    }
}
