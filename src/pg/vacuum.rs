//! VACUUM of one table, from a process of the server's own.

use super::subtransaction::Failure;
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

#[cfg(not(since_pg16))]
const OPTIONS: pg_sys::bits32 = pg_sys::VACOPT_VACUUM | pg_sys::VACOPT_SKIP_LOCKED;
/// Since version 16 a table's own pages are only vacuumed if that is asked for; without it VACUUM succeeds and does
/// nothing.
#[cfg(since_pg16)]
const OPTIONS: pg_sys::bits32 =
    pg_sys::VACOPT_VACUUM | pg_sys::VACOPT_SKIP_LOCKED | pg_sys::VACOPT_PROCESS_MAIN;

/// Vacuums `table` in transactions of its own, unless someone else holds a lock on it. The process must
/// be outside any transaction. `truncate`: also gives back empty pages at the table's end, for which it
/// waits a while for writers to be gone.
pub fn vacuum(table: pg_sys::Oid, truncate: bool) -> Result<(), Failure> {
    // SAFETY: what the command is given, and what it keeps, lies in a context that outlives the
    // transactions that it begins and ends; as in an autovacuum worker.
    let (context, portal) = unsafe {
        let context = pg_sys::AllocSetContextCreateExtended(
            pg_sys::TopMemoryContext,
            c"merkle_log vacuum".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        (
            context,
            std::ptr::replace(&raw mut pg_sys::PortalContext, context),
        )
    };
    let body = move || {
        // SAFETY: the process is outside any transaction; the list is made in the lasting context.
        unsafe {
            pg_sys::StartTransactionCommand();
            let previous = pg_sys::MemoryContextSwitchTo(context);
            let relation =
                pg_sys::makeVacuumRelation(std::ptr::null_mut(), table, std::ptr::null_mut());
            let relations = pg_sys::lappend(std::ptr::null_mut(), relation.cast());
            let mut params = pg_sys::VacuumParams {
                options: OPTIONS,
                freeze_min_age: -1,
                freeze_table_age: -1,
                multixact_freeze_min_age: -1,
                multixact_freeze_table_age: -1,
                log_min_duration: -1,
                nworkers: -1,
                truncate: match truncate {
                    true => pg_sys::VacOptValue::VACOPTVALUE_ENABLED,
                    false => pg_sys::VacOptValue::VACOPTVALUE_DISABLED,
                },
                ..Default::default()
            };
            pg_sys::vacuum(
                relations,
                &mut params,
                // Since version 16 the caller chooses the buffers, of which earlier ones make a ring by themselves.
                #[cfg(not(since_pg16))]
                std::ptr::null_mut(),
                #[cfg(since_pg16)]
                pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_VACUUM),
                #[cfg(since_pg16)]
                context,
                true,
            );
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::CommitTransactionCommand();
        }
        Ok(())
    };
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|caught| {
            let failure = Failure::of(&caught);
            // SAFETY: the error is out of the error stack by now.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(failure)
        })
        .finally(move || {
            // SAFETY: nothing of the command's is in use any more; the current context is another.
            unsafe {
                pg_sys::PortalContext = portal;
                pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                pg_sys::MemoryContextDelete(context);
            }
        })
        .execute()
}
