//! merkle_log: rows of ordinary tables in append-only RFC 6962 Merkle logs.
//!
//! One direction of data flow: `capture` reads rows in order, `encode` turns them into leaves,
//! `store` appends leaves to a tree. `batch` drives it, `verify` walks it again; `api` is the SQL
//! surface over both.

// pgrx's ErrorReport is large, is what every SQL function returns, and ends the statement.
#![allow(clippy::result_large_err)]

::pgrx::pg_module_magic!(name, version);

mod api;
mod batch;
mod capture;
mod catalog;
mod encode;
mod error;
mod pg;
mod session;
mod settings;
mod store;
mod verify;

pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["tables", api::ops::running_commands]
);
pgrx::extension_sql_file!(
    "../sql/grants.sql",
    name = "grants",
    requires = [
        "views",
        api::logs::create_log,
        api::logs::alter_log,
        api::logs::enable_log,
        api::logs::disable_log,
        api::logs::drop_log,
        api::sources::add_source,
        api::sources::alter_source,
        api::sources::remove_source,
        api::batch::process_next_batch,
        api::batch::reconcile
    ]
);
pgrx::extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
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
