//! Whoever is refused is told why, and what to do.

use server_tests::calls::{self, Function};
use server_tests::*;
use std::collections::BTreeSet;

const WORLD: &str = "
    CREATE TABLE c (id int PRIMARY KEY, note text); CREATE TABLE x (id int PRIMARY KEY, note text);
    SELECT create_log('c'); SELECT add_source('c', 'c', capture => 'trigger', salted => true, store_leaf_data => true);
    INSERT INTO c VALUES (1, 'a'), (2, 'b')";

/// An argument with which the call would do something, were it not refused.
fn argument(function: &str, name: &str, type_name: &str) -> &'static str {
    match (name, type_name) {
        ("name", "text") if function == "create_log" => "'new'",
        ("log" | "name", "text") => "'c'",
        ("new_name" | "hash_column" | "order_column" | "origin", "text") => "NULL",
        ("key", "text") => "'1'",
        ("capture", "text") => "'trigger'",
        ("role", "text") => "'continue'",
        ("schedule", "text") => "'* * * * *'",
        (_, "text") => "'words'",
        (_, "regclass") if function == "add_source" => "'x'",
        (_, "regclass") => "'c'",
        (_, "bigint") => "0",
        (_, "integer") => "1",
        (_, "boolean") => "true",
        ("timeout", "interval") => "'0'",
        (_, "interval") => "'1 s'",
        (_, "\"any\"") => "1",
        ("key", "text[]") => "'{1}'",
        ("witness_keys", "text[]") => "'{}'",
        (_, "text[]") => "NULL",
        _ => panic!(
            "{function}: argument {name} has type {type_name}: say here what to call it with"
        ),
    }
}

/// The functions that may write, apart from those that the server itself calls.
fn volatile(client: &mut Client) -> Vec<Function> {
    let names: BTreeSet<String> = column::<String>(
        client,
        "SELECT p.proname::text FROM pg_depend d
           JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'merkle_log'
           JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
          WHERE d.deptype = 'e' AND p.provolatile = 'v' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)",
    )
    .into_iter()
    .collect();
    let mut all = calls::functions(client);
    all.retain(|f| names.contains(&f.name));
    assert!(all.len() >= 30, "{}", all.len());
    all
}

/// Calls each; what was refused without a hint, or by an error of the server's that knows no log. Returns who was
/// refused.
fn refused(
    client: &mut Client,
    functions: &[Function],
    (before, after): (&str, &str),
) -> BTreeSet<String> {
    let mut bare = Vec::new();
    let mut refused = BTreeSet::new();
    for function in functions {
        let arguments = function.arguments.iter();
        let arguments = arguments.map(|(name, of)| argument(&function.name, name, of).to_owned());
        let call = function.call(&arguments.collect::<Vec<_>>());
        run(client, before);
        if let Err(error) = client.batch_execute(&call) {
            let db = error
                .as_db_error()
                .unwrap_or_else(|| panic!("{call}: {error:?}"));
            refused.insert(function.name.clone());
            if db.hint().is_none() || db.message().starts_with("cannot execute") {
                bare.push(format!("{call}: {} {}", db.code().code(), db.message()));
            }
        }
        run(client, after);
    }
    assert!(bare.is_empty(), "{bare:#?}");
    refused
}

const WRITERS: &[&str] = &[
    "create_log",
    "alter_log",
    "enable_log",
    "disable_log",
    "pause_log",
    "resume_log",
    "drop_log",
    "add_source",
    "alter_source",
    "remove_source",
    "backfill",
    "repair_capture",
    "process_next_batch",
    "reconcile",
    "redact",
    "redact_row",
    "redact_row_of",
    "prune_log",
    "checkpoint",
    "accept_checkpoint",
    "add_cosignature",
    "adopt_database",
    "schedule_log",
    "unschedule_log",
    "run_scheduled_batch",
    "record_ddl",
    "retire_rows",
    "seal_range",
];

#[test]
fn on_a_standby_and_in_a_read_only_transaction_every_writing_function_says_what_to_do() {
    let cluster = Cluster::with("wal_level = replica\nhot_standby = on");
    let mut a = cluster.client("postgres");
    run(&mut a, WORLD);
    drain(&mut a, "c");
    let functions = volatile(&mut a);
    let writers: BTreeSet<String> = WRITERS.iter().map(|name| (*name).to_owned()).collect();
    let found = refused(&mut a, &functions, ("BEGIN READ ONLY", "ROLLBACK"));
    assert_eq!(
        writers.difference(&found).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    for (call, object) in [
        ("pause_log('c')", "log \"c\""),
        ("create_log('new')", "log \"new\""),
        ("adopt_database('copy')", "the logs of this database"),
    ] {
        let message = error(&mut a, &format!("BEGIN READ ONLY; SELECT {call}"));
        run(&mut a, "ROLLBACK");
        assert!(
            message.starts_with("25006")
                && message.contains(object)
                && message.contains("READ WRITE"),
            "{message}"
        );
    }
    let standby = Cluster::standby_of(&cluster);
    standby.catches_up_with(&cluster);
    let mut b = standby.client("postgres");
    let found = refused(&mut b, &functions, ("", ""));
    assert_eq!(
        writers.difference(&found).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    let message = error(&mut b, "SELECT resume_log('c')");
    assert!(
        message.starts_with("25006")
            && message.contains("log \"c\"")
            && message.contains("primary"),
        "{message}"
    );
}

#[test]
fn an_error_names_what_it_is_about_and_its_hint_can_be_followed() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, WORLD);
    for (sql, words) in [
        (
            "SELECT wait_for_inclusion('c', 'c', '1')",
            "an entry of log \"c\" cannot be waited for under isolation level REPEATABLE READ",
        ),
        (
            "SELECT wait_for_inclusion_of('c', 'c', 1)",
            "an entry of log \"c\" cannot be waited for under isolation level REPEATABLE READ",
        ),
        (
            "SELECT process_next_batch()",
            "the logs of this database cannot be written under isolation level REPEATABLE READ",
        ),
        (
            "SELECT process_next_batch('c')",
            "log \"c\" cannot be written under isolation level REPEATABLE READ",
        ),
    ] {
        run(&mut a, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        let message = error(&mut a, sql);
        assert!(
            message.starts_with("0A000") && message.contains(words),
            "{message}"
        );
        assert!(message.contains("READ COMMITTED"), "{message}");
        run(&mut a, "ROLLBACK");
    }
    for call in [
        "history('merkle_log_administration', 'c', '1')",
        "inclusion_proof('merkle_log_administration', 'c', '1')",
        "verify_row('merkle_log_administration', 'c', '1')",
    ] {
        let message = error(&mut a, &format!("SELECT {call}"));
        assert!(
            !message.contains("add_source") && message.contains("administration()"),
            "{message}"
        );
    }
    assert!(one::<i64>(&mut a, "SELECT count(*) FROM administration()") > 0);
}

#[test]
fn an_event_trigger_that_fails_in_our_statements_is_named_with_the_search_path_that_it_had() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, WORLD);
    run(
        &mut a,
        "CREATE TABLE ddl_log (tag text);
         CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO ddl_log VALUES (tg_tag); END$$;
         CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl(); CREATE TABLE other (id int PRIMARY KEY)",
    );
    let message = error(
        &mut a,
        "SELECT add_source('c', 'other', capture => 'trigger')",
    );
    for words in [
        "42P01",
        "other",
        "relation \"ddl_log\" does not exist",
        "CREATE TRIGGER",
        "search_path = pg_catalog, pg_temp",
        "event trigger",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    // With what the hint says, it works.
    run(&mut a, "ALTER FUNCTION log_ddl() SET search_path = public");
    run(
        &mut a,
        "SELECT add_source('c', 'other', capture => 'trigger'); SELECT alter_source('c', 'other', append_only => true)",
    );
    run(
        &mut a,
        "CREATE FUNCTION no_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no changes on Sundays'; END$$;
         CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION no_drop()",
    );
    let message = error(&mut a, "SELECT remove_source('c', 'other')");
    assert!(
        message.starts_with("P0001")
            && message.contains("Sundays")
            && message.contains("DROP TRIGGER"),
        "{message}"
    );
    // A lock that is not to be had is what the server says.
    run(
        &mut a,
        "DROP EVENT TRIGGER drops; DROP EVENT TRIGGER log_ddl",
    );
    let mut b = cluster.client("postgres");
    run(&mut b, "BEGIN; LOCK TABLE other IN ROW EXCLUSIVE MODE");
    run(&mut a, "SET lock_timeout = '50 ms'");
    assert!(error(&mut a, "SELECT remove_source('c', 'other')").starts_with("55P03"));
}
