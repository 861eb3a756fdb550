//! Real servers to try merkle_log on from outside: `#[pg_test]` runs inside one transaction of one
//! session, which is rolled back, so commits, crashes, several sessions, dumps and standbys are
//! tested here.
//!
//! `MERKLE_LOG_PG_CONFIG` names the `pg_config` of an installation that has the extension.

use std::time::{Duration, Instant};

pub mod browser;
pub mod calls;
mod cluster;
pub mod command_line;
pub mod followers;
pub mod gateway;
pub mod oracle;
pub mod prometheus;
pub mod stores;
pub mod witness;

pub use cluster::{Cluster, Disk, signal};
pub use postgres::{Client, Row};

/// A seed for random choices, from the environment where a run is to be repeated; printed.
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("SEED={seed}");
    seed
}

/// How much of something a test does: `long` in `make test-long`, `short` otherwise.
pub fn size<T>(short: T, long: T) -> T {
    if std::env::var_os("LONG").is_some() {
        long
    } else {
        short
    }
}

/// One value of a query's only row.
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> T {
    client
        .query_one(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

/// The first column of all rows.
pub fn column<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> Vec<T> {
    let rows = client
        .query(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Runs statements that must succeed.
pub fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// Runs statements that must succeed, each in a transaction of its own.
pub fn each(client: &mut Client, statements: &[&str]) {
    statements.iter().for_each(|sql| run(client, sql));
}

/// The message of a statement that must fail, with its hint.
pub fn error(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    let db = error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error}"));
    format!(
        "{} {} {}",
        db.code().code(),
        db.message(),
        db.hint().unwrap_or_default()
    )
}

/// `verify_log` as lines of "kind table key leaf_index".
pub fn findings(client: &mut Client, log: &str) -> Vec<String> {
    let sql = "SELECT pg_catalog.concat_ws(' ', kind, source_table, source_key, leaf_index) FROM verify_log($1)";
    client
        .query(sql, &[&log])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Asks until `condition`, a query for a boolean, is true; fails after a minute.
pub fn until(client: &mut Client, condition: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while one::<Option<bool>>(client, condition) != Some(true) {
        assert!(Instant::now() < deadline, "still not: {condition}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Private memory of a process, in kB; 0 if it is gone.
pub fn private_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("RssAnon:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// The major of PostgreSQL that the server is of.
pub fn server_major(client: &mut Client) -> i32 {
    one::<i32>(client, "SELECT current_setting('server_version_num')::int") / 10_000
}

/// That each index of the extension's tables, and of what they store out of line, is in order and leads to every row.
///
/// # Errors
/// With what amcheck says.
pub fn try_check_indexes(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute(
        "CREATE EXTENSION IF NOT EXISTS amcheck;
         WITH own AS (SELECT c.oid, c.reltoastrelid FROM pg_class c
                        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'merkle_log'
                       WHERE c.relkind = 'r')
         SELECT bt_index_check(i.indexrelid, heapallindexed => true) FROM pg_index i
          WHERE i.indisvalid AND i.indrelid IN (SELECT oid FROM own UNION ALL SELECT reltoastrelid FROM own)",
    )
}

/// As `try_check_indexes`, which must succeed.
pub fn check_indexes(client: &mut Client) {
    try_check_indexes(client).unwrap_or_else(|e| panic!("{e:?}"));
}

/// True for an error that says that the connection or the server went away, not that a statement
/// was wrong.
pub fn went_away(error: &postgres::Error) -> bool {
    match error.as_db_error() {
        None => true,
        Some(db) => db.code().code().starts_with("57P"),
    }
}

/// Runs batches until one appends nothing; returns the tree size.
pub fn drain(client: &mut Client, log: &str) -> i64 {
    loop {
        let row = client
            .query_one(
                "SELECT entries, tree_size FROM process_next_batch($1)",
                &[&log],
            )
            .unwrap_or_else(|e| panic!("{e:?}"));
        if row.get::<_, i64>(0) == 0 {
            return row.get(1);
        }
    }
}
