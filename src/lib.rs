//! merkle_log: rows of ordinary tables in append-only RFC 6962 Merkle logs.
//!
//! One direction of data flow: `capture` reads rows in order, `encode` turns them into leaves,
//! `store` appends leaves to a tree. `batch` drives it, `verify` walks it again; `api` is the SQL
//! surface over both.

// pgrx's ErrorReport is large, is what every SQL function returns, and ends the statement.
#![allow(clippy::result_large_err)]

::pgrx::pg_module_magic!(name, version);

mod absence;
mod administration;
mod api;
mod batch;
mod bundle;
mod cache;
mod capture;
mod catalog;
mod checkpoint;
mod encode;
mod error;
mod history;
mod monitor;
mod pg;
mod prove;
mod redaction;
mod retention;
mod retirement;
mod seal;
mod session;
mod settings;
mod shared;
mod store;
mod verify;
mod worker;

#[global_allocator]
static ALLOCATOR: pg::alloc::WithReserve = pg::alloc::WithReserve;

pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [
        "tables",
        api::ops::running_commands,
        api::ops::log_counters,
        api::ops::log_lag,
        api::ops::background_worker,
        api::ops::may_read_log,
        api::ops::may_read_source,
        api::ops::coverage_holes,
        api::worker::held_as_copy_of
    ]
);
pgrx::extension_sql_file!(
    "../sql/grants.sql",
    name = "grants",
    requires = [
        "views",
        api::logs::create_log_v3,
        api::logs::alter_log_v3,
        api::logs::enable_log,
        api::logs::disable_log,
        api::logs::pause_log,
        api::logs::resume_log,
        api::logs::drop_log,
        api::sources::add_source_v3,
        api::sources::alter_source_v3,
        api::sources::remove_source,
        api::sources::backfill,
        api::sources::repair_capture,
        api::administration::administration,
        "trigger_functions",
        "ddl",
        "retire",
        "absence",
        api::absence::seal_range,
        api::ddl::record_ddl,
        "by_key",
        "many_rows",
        api::checkpoints::checkpoint,
        api::checkpoints::checkpoint_key,
        api::checkpoints::accept_checkpoint,
        api::checkpoints::add_cosignature,
        api::worker::run_now,
        api::worker::adopt_database,
        api::history::row_history,
        api::history::redact,
        api::history::redact_row,
        api::verify::verify_row,
        api::verify::late_entries,
        api::findings::findings,
        api::findings::acknowledge_finding,
        api::history::prune_log,
        api::ops::coverage_holes,
        api::ops::merkle_log_health,
        api::ops::merkle_log_metrics,
        api::ops::merkle_log_warm,
        api::schedule::schedule_log,
        api::schedule::unschedule_log,
        api::schedule::run_scheduled_batch,
        api::batch::process_next_batch,
        api::batch::reconcile
    ]
);
pgrx::extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::foreign_code::install_hook();
    let preloading = pg::shmem::preloading();
    settings::register(preloading);
    if preloading {
        pg::shmem::ask(shared::SIZE + cache::size(), cache::LOCKS);
        worker::register();
    }
}

#[cfg(any(test, feature = "pg_test"))]
mod sql_tests;

/// What `cargo pgrx test` needs to start a server.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["max_prepared_transactions = 10"]
    }
}
