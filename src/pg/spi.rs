//! Running SQL from inside the server.
//!
//! Unlike pgrx's own client, every call says which snapshot it reads with: the
//! fence of watermark capture is only right if what follows it is read with a
//! snapshot taken after it. Results are mapped to owned values while the SPI
//! connection is open, so nothing outlives its memory.

use super::alloc;
use super::memory::Scratch;
use pgrx::datum::{DatumWithOid, Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{FromDatum, PgSqlErrorCode, Spi, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};

/// Which committed rows a statement sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// The snapshot of the calling statement: one consistent view for a whole proof or verification.
    Statement,
    /// A snapshot taken now (in READ COMMITTED), after the effects of earlier commands.
    Fresh,
    /// What is committed now, whatever the isolation level. Not for statements.
    Latest,
}

/// One row; `get` and `datum` count columns from 0.
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    columns: &'a [pg_sys::FormData_pg_attribute],
    /// The transaction that wrote it, where it is a row of a table.
    pub writer: pg_sys::TransactionId,
}

/// A Rust type that columns of some types can be read as; one with a lifetime borrows from the row.
pub trait Column<'r>: FromDatum + 'r {
    const TYPES: &'static [pg_sys::Oid];
}

macro_rules! columns {
    ($($rust:ty: $($oid:ident),+;)+) => {$(
        impl<'r> Column<'r> for $rust {
            const TYPES: &'static [pg_sys::Oid] = &[$(pg_sys::$oid),+];
        }
    )+};
}

columns! {
    bool: BOOLOID;
    i16: INT2OID;
    i32: INT4OID;
    i64: INT8OID;
    f64: FLOAT8OID;
    pg_sys::Oid: OIDOID, REGCLASSOID;
    String: TEXTOID;
    &'r str: TEXTOID;
    Vec<u8>: BYTEAOID;
    &'r [u8]: BYTEAOID;
    Vec<String>: TEXTARRAYOID;
    Vec<Option<String>>: TEXTARRAYOID;
    Vec<i16>: INT2ARRAYOID, INT2VECTOROID;
    pgrx::Array<'r, &'r [u8]>: BYTEAARRAYOID;
    Interval: INTERVALOID;
    TimestampWithTimeZone: TIMESTAMPTZOID;
}

impl<'a> Row<'a> {
    /// The row that a slot holds.
    ///
    /// # Safety
    /// The slot must be filled, and stay as it is while the row is in use.
    pub unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Row<'a> {
        // SAFETY: once all attributes are there, a slot has as many values as its descriptor.
        unsafe {
            let descriptor = (*slot).tts_tupleDescriptor;
            let width = (*descriptor).natts as usize;
            // What the executor computed is all there; what it only passed on may not be.
            if usize::from((*slot).tts_nvalid as u16) < width {
                pg_sys::slot_getallattrs(slot);
            }
            Row {
                values: std::slice::from_raw_parts((*slot).tts_values, width),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, width),
                columns: columns(descriptor),
                writer: pg_sys::InvalidTransactionId,
            }
        }
    }

    /// The column as a Rust value; `None` for NULL.
    ///
    /// # Panics
    /// If the column is of another type: the statement is wrong.
    pub fn get<'r, T: Column<'r>>(&'r self, column: usize) -> Option<T> {
        let found = self.columns[column].atttypid;
        assert!(
            T::TYPES.contains(&found),
            "column {column} has type {found}, and is read as {}",
            std::any::type_name::<T>()
        );
        // SAFETY: the type is one that `T` reads; what is borrowed lives as long as the row.
        unsafe { T::from_datum(self.values[column], self.nulls[column]) }
    }

    /// A column declared NOT NULL; raises an error if it is NULL all the same.
    pub fn required<'r, T: Column<'r>>(&'r self, column: usize) -> T {
        self.get(column).unwrap_or_else(|| {
            let problem = format!("column {column} of a row that merkle_log needs is NULL");
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                problem,
                "merkle_log",
            )
            .set_hint("Run verify_log, and look for changes of the extension's tables by hand.")
            .report(pgrx::PgLogLevel::ERROR);
            unreachable!("an error report does not return")
        })
    }

    /// Bytes `first ..` of a `bytea`, `count` of them or as many as there are; of one stored out of line, no more is
    /// fetched. `None` for NULL, and where no value can have as many bytes.
    ///
    /// # Panics
    /// If the column is of another type: the statement is wrong.
    pub fn bytes(&self, column: usize, first: usize, count: usize) -> Option<Vec<u8>> {
        let found = self.columns[column].atttypid;
        assert_eq!(found, pg_sys::BYTEAOID, "column {column} is no bytea");
        let (first, count) = (i32::try_from(first).ok()?, i32::try_from(count).ok()?);
        let value = self.datum(column)?;
        // SAFETY: the value is a live bytea; the slice is a fresh varlena, of which a copy is made.
        unsafe {
            let part = pg_sys::pg_detoast_datum_slice(value.cast_mut_ptr(), first, count);
            let bytes = std::slice::from_raw_parts(
                pgrx::varlena::vardata_any(part).cast::<u8>(),
                pgrx::varlena::varsize_any_exhdr(part),
            )
            .to_vec();
            pg_sys::pfree(part.cast());
            Some(bytes)
        }
    }

    /// The raw datum, valid while the row is; `None` for NULL.
    pub fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[column]).then(|| self.values[column])
    }
}

/// Runs `sql` and maps each row.
pub fn query<T>(
    snapshot: Snapshot,
    sql: &str,
    args: &[DatumWithOid],
    map: impl FnMut(&Row) -> T,
) -> Vec<T> {
    let sql = c_string(sql);
    let mut args = Args::new(args);
    Spi::connect(|_| {
        // SAFETY: SPI is connected; the arrays are as long as `nargs` says and outlive the call.
        let status = unsafe {
            pg_sys::SPI_execute_with_args(
                sql.as_ptr(),
                args.len(),
                args.types.as_mut_ptr(),
                args.values.as_mut_ptr(),
                args.nulls.as_ptr(),
                snapshot == Snapshot::Statement,
                0,
            )
        };
        Spi::check_status(status).expect("SPI refuses only malformed calls");
        take_rows(map)
    })
}

thread_local! {
    /// Plans of statements that are run again and again, by their text; the server keeps them valid.
    static PLANS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// As `query`, for one of a limited number of statements: its plan is kept for the next time. The
/// types of the arguments must be the same each time.
pub fn query_kept<T>(
    snapshot: Snapshot,
    sql: &str,
    args: &[DatumWithOid],
    map: impl FnMut(&Row) -> T,
) -> Vec<T> {
    let mut args = Args::new(args);
    Spi::connect(|_| {
        let kept = PLANS.with_borrow(|plans| plans.get(sql).copied());
        let plan = kept.unwrap_or_else(|| {
            let text = c_string(sql);
            // SAFETY: SPI is connected; the types are as many as `nargs` says.
            let plan =
                unsafe { pg_sys::SPI_prepare(text.as_ptr(), args.len(), args.types.as_mut_ptr()) };
            assert!(!plan.is_null(), "SPI refuses only malformed calls");
            // SAFETY: the plan was just made; once kept it lives as long as the process.
            unsafe { pg_sys::SPI_keepplan(plan) };
            PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), plan));
            plan
        });
        // SAFETY: a kept plan, and arguments of the number and types that it was made for.
        let status = unsafe {
            pg_sys::SPI_execute_plan(
                plan,
                args.values.as_mut_ptr(),
                args.nulls.as_ptr(),
                snapshot == Snapshot::Statement,
                0,
            )
        };
        Spi::check_status(status).expect("SPI refuses only malformed calls");
        take_rows(map)
    })
}

/// Runs `sql` and maps its first row, if there is one.
pub fn query_one<T>(
    snapshot: Snapshot,
    sql: &str,
    args: &[DatumWithOid],
    map: impl FnMut(&Row) -> T,
) -> Option<T> {
    query(snapshot, sql, args, map).into_iter().next()
}

/// A server-side cursor that outlives the SPI connection that opened it.
pub struct Cursor {
    portal: pg_sys::Portal,
}

impl Cursor {
    /// Opens `sql`; all rows are read with the snapshot of now.
    pub fn open(snapshot: Snapshot, sql: &str, args: &[DatumWithOid]) -> Cursor {
        let sql = c_string(sql);
        let mut args = Args::new(args);
        Spi::connect(|_| {
            // SAFETY: as in `query`; a portal keeps its own copy of plan and parameters.
            let portal = unsafe {
                pg_sys::SPI_cursor_open_with_args(
                    std::ptr::null(),
                    sql.as_ptr(),
                    args.len(),
                    args.types.as_mut_ptr(),
                    args.values.as_mut_ptr(),
                    args.nulls.as_ptr(),
                    snapshot == Snapshot::Statement,
                    0,
                )
            };
            Cursor { portal }
        })
    }

    /// Hands the next `count` rows at most to `take`, as the executor makes them; returns how many
    /// there were, 0 when the cursor is at its end. A row, and what was allocated for it, is gone when
    /// `take` returns.
    pub fn fetch(&mut self, count: i64, mut take: impl FnMut(&Row)) -> u64 {
        let mut scratch = Scratch::new();
        let mut take = |row: &Row| {
            alloc::check();
            scratch.reuse(|| take(row));
        };
        let mut take: &mut dyn FnMut(&Row) = &mut take;
        let mut receiver = Receiver {
            interface: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start_up),
                rShutdown: Some(shut_down),
                rDestroy: Some(shut_down),
                mydest: pg_sys::CommandDest::DestNone,
            },
            take: &raw mut take,
        };
        // SAFETY: the portal lives until `drop`; the receiver begins with the interface that the
        // executor knows, and outlives the call, as does what it points to.
        unsafe {
            pg_sys::PortalRunFetch(
                self.portal,
                pg_sys::FetchDirection::FETCH_FORWARD,
                count,
                (&raw mut receiver).cast(),
            )
        }
    }
}

/// What the executor hands rows to.
#[repr(C)]
struct Receiver<'a, 'b> {
    interface: pg_sys::DestReceiver,
    take: *mut &'a mut (dyn FnMut(&Row) + 'b),
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: called by the executor with a filled slot and the receiver that `fetch` made.
    unsafe {
        let row = Row::of_slot(slot);
        (*(*receiver.cast::<Receiver>()).take)(&row);
    }
    true
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start_up(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: c_int,
    _descriptor: pg_sys::TupleDesc,
) {
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn shut_down(_receiver: *mut pg_sys::DestReceiver) {}

impl Drop for Cursor {
    fn drop(&mut self) {
        // While an error unwinds, the aborting transaction drops the portal itself.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, closed only here.
            Spi::connect(|_| unsafe { pg_sys::SPI_cursor_close(self.portal) });
        }
    }
}

/// The columns that a descriptor describes.
///
/// # Safety
/// The descriptor must live as long as they are in use.
unsafe fn columns<'a>(descriptor: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: as many attributes as it says lie at the descriptor's end: since version 18 behind a short form of each.
    unsafe {
        let width = (*descriptor).natts as usize;
        #[cfg(not(since_pg18))]
        let first = (*descriptor).attrs.as_ptr();
        #[cfg(since_pg18)]
        let first = (*descriptor).compact_attrs.as_ptr().add(width).cast();
        std::slice::from_raw_parts(first, width)
    }
}

fn take_rows<T>(mut map: impl FnMut(&Row) -> T) -> Vec<T> {
    // SAFETY: SPI_tuptable is this connection's latest result, or null for a statement without one.
    let Some(table) = (unsafe { pg_sys::SPI_tuptable.as_mut() }) else {
        return Vec::new();
    };
    let tupdesc = table.tupdesc;
    // SAFETY: a tuple table always has a descriptor, which describes as many attributes as it says.
    let columns = unsafe { columns(tupdesc) };
    let width = columns.len();
    let mut values = vec![pg_sys::Datum::from(0); width];
    let mut nulls = vec![true; width];
    let mut rows = Vec::new();
    alloc::reserve(&mut rows, table.numvals as usize);
    for i in 0..table.numvals as usize {
        alloc::check();
        // SAFETY: `i` is below numvals; both arrays have one slot a column.
        unsafe {
            let tuple = *table.vals.add(i);
            pg_sys::heap_deform_tuple(tuple, tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
        rows.push(map(&Row {
            values: &values,
            nulls: &nulls,
            columns,
            writer: pg_sys::InvalidTransactionId,
        }));
    }
    // SAFETY: the table belongs to the open connection and no row refers to it any more.
    unsafe { pg_sys::SPI_freetuptable(table) };
    rows
}

/// Arguments in the three parallel arrays that SPI takes.
struct Args {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<c_char>,
}

impl Args {
    fn new(args: &[DatumWithOid]) -> Self {
        Args {
            types: args.iter().map(|a| a.oid()).collect(),
            values: args
                .iter()
                .map(|a| {
                    a.datum()
                        .map_or(pg_sys::Datum::from(0), |d| d.sans_lifetime())
                })
                .collect(),
            nulls: args
                .iter()
                .map(|a| if a.datum().is_some() { b' ' } else { b'n' } as c_char)
                .collect(),
        }
    }

    fn len(&self) -> c_int {
        self.types.len() as c_int
    }
}

fn c_string(sql: &str) -> CString {
    CString::new(sql).expect("a statement holds no NUL byte")
}
