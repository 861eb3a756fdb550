//! Random edits of all our tables: what changes an answer is found, and nothing else is.
//!
//! Tables and columns are taken from the catalog, so that a new one without a rule here fails the test.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::BTreeMap;

const ADMINISTRATION: &str = "merkle_log_administration";

/// What is known about a column.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Every edit of it is found.
    Held,
    /// Nothing authenticates it, for the reason that docs/security.md gives; an edit may be found or not.
    Free,
}
use Rule::{Free, Held};

/// Every column of every table; `*` for all that are not named.
const RULES: &[(&str, &str, Rule)] = &[
    ("verification_logs", "*", Held),
    ("verification_logs", "created_at", Free),
    ("verification_logs", "last_error", Free),
    ("verification_logs", "last_error_at", Free),
    ("verification_logs", "waiting_for", Free),
    ("verification_sources", "*", Held),
    ("verification_sources", "backfill", Free),
    ("verification_sources", "key_equality", Free),
    ("verification_sources", "logged_ahead", Free),
    ("verification_sources", "backfilled", Free),
    ("verification_source_partitions", "*", Held),
    ("verification_source_partitions", "relation", Free),
    ("verification_source_versions", "*", Held),
    ("verification_source_columns", "*", Held),
    ("merkle_log", "*", Held),
    ("merkle_order_index", "*", Held),
    ("merkle_tile", "*", Held),
    ("merkle_tree_head", "*", Held),
    ("merkle_tree_head", "duration", Free),
    ("merkle_leaf_data", "*", Held),
    ("merkle_statement", "*", Held),
    ("merkle_pending", "*", Free),
    ("merkle_late_entry", "*", Free),
    ("merkle_redacted_key", "*", Held),
    ("merkle_redacted_key", "redacted_at", Free),
    ("merkle_set_aside", "*", Free),
    ("merkle_source_state", "*", Free),
    ("merkle_database", "*", Free),
];

/// Kinds that say that a table of ours was edited.
const OURS: &str = "SELECT kind FROM finding_kinds() WHERE fault_of = 'extension'";

const FIXTURE: &[&str] = &[
    // Watermark capture whose key is its order value, of several tiles and batches.
    "CREATE TABLE ordered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
    "SELECT create_log('ordered'); SELECT add_source('ordered', 'ordered', order_column => 'id')",
    "INSERT INTO ordered (v) SELECT 'x' || i FROM generate_series(1, 700) i",
    "SELECT process_next_batch('ordered')",
    "ALTER TABLE ordered ADD COLUMN w int",
    "INSERT INTO ordered (v) SELECT 'x' || i FROM generate_series(1, 300) i",
    "SELECT process_next_batch('ordered')",
    // An order value beside the key; salted, kept, redacted; two sources, one of them removed.
    "CREATE TABLE timed (k text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), v text); CREATE INDEX ON timed (at)",
    "CREATE TABLE gone (k int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp()); CREATE INDEX ON gone (at)",
    "SELECT create_log('timed'); SELECT add_source('timed', 'timed', order_column => 'at', salted => true, store_leaf_data => true);
     SELECT add_source('timed', 'gone', order_column => 'at')",
    "INSERT INTO timed (k, v) SELECT 'k' || i, 'v' FROM generate_series(1, 60) i; INSERT INTO gone SELECT i FROM generate_series(1, 20) i",
    "SELECT process_next_batch('timed')",
    "SELECT redact('timed', 7, 'asked for'); SELECT remove_source('timed', 'gone')",
    "INSERT INTO timed (k, v) SELECT 'm' || i, 'v' FROM generate_series(1, 20) i; SELECT process_next_batch('timed')",
    // Trigger capture: kept and salted; and with hashes only.
    "CREATE TABLE kept (id int PRIMARY KEY, v text, n int DEFAULT 0); CREATE TABLE hashed (id int PRIMARY KEY, v text, n int DEFAULT 0)",
    "SELECT create_log('kept'); SELECT add_source('kept', 'kept', capture => 'trigger', store_leaf_data => true, salted => true, allow_truncate => true)",
    "SELECT create_log('hashed'); SELECT add_source('hashed', 'hashed', capture => 'trigger')",
    "INSERT INTO kept SELECT i, 'x' FROM generate_series(1, 40) i; UPDATE kept SET n = 1 WHERE id < 20; DELETE FROM kept WHERE id BETWEEN 5 AND 8",
    "INSERT INTO hashed SELECT i, 'x' FROM generate_series(1, 40) i; UPDATE hashed SET n = 1 WHERE id < 20; DELETE FROM hashed WHERE id BETWEEN 5 AND 8",
    "SELECT process_next_batch('kept'); SELECT process_next_batch('hashed')",
    "ALTER TABLE kept RENAME COLUMN v TO w; INSERT INTO kept SELECT i, 'y' FROM generate_series(100, 110) i; UPDATE hashed SET n = 2 WHERE id = 30",
    "SELECT process_next_batch('kept'); SELECT process_next_batch('hashed')",
    // Pruned.
    "CREATE TABLE pruned (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
    "SELECT create_log('pruned'); SELECT add_source('pruned', 'pruned', order_column => 'id', salted => true)",
    "INSERT INTO pruned (v) SELECT 'x' FROM generate_series(1, 600); SELECT process_next_batch('pruned')",
    "INSERT INTO pruned (v) SELECT 'x' FROM generate_series(1, 100); SELECT process_next_batch('pruned')",
    "SELECT prune_log('pruned', 512)",
    // What waits in the queue.
    "INSERT INTO hashed VALUES (500, 'waits')",
];

struct Column {
    table: String,
    name: String,
    type_name: String,
    generated: bool,
}

fn columns(client: &mut Client) -> Vec<Column> {
    let rows = client
        .query(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attidentity <> ''
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
              WHERE c.relkind = 'r' ORDER BY 1, a.attnum",
            &[],
        )
        .unwrap();
    rows.iter()
        .map(|row| Column {
            table: row.get(0),
            name: row.get(1),
            type_name: row.get(2),
            generated: row.get(3),
        })
        .collect()
}

fn rule(table: &str, column: &str) -> Rule {
    let find = |name: &str| RULES.iter().find(|(t, c, _)| *t == table && *c == name);
    find(column)
        .or_else(|| find("*"))
        .unwrap_or_else(|| panic!("no rule for {table}.{column}"))
        .2
}

/// Values of a type at its edges, as SQL.
fn extremes(type_name: &str) -> &'static [&'static str] {
    match type_name {
        "integer" => &["0", "-1", "2147483647", "77"],
        "bigint" => &["0", "-1", "9223372036854775807", "256", "511"],
        "smallint" => &["0", "-1", "32767", "1"],
        "text" => &[
            "''",
            "'zz'",
            "'999'",
            "'insert'",
            "'{1,2}'",
            "'infinity'",
            "'1999-01-01 00:00:00+00'",
        ],
        "bytea" => &["''", "'\\x00'", "sha256('x')"],
        "boolean" => &["true", "false"],
        "interval" => &["'0'", "'1 h'", "'178000000 years'"],
        "timestamp with time zone" => &[
            "'infinity'",
            "'-infinity'",
            "'294276-01-01'",
            "'1999-01-01'",
        ],
        "text[]" => &["'{}'", "'{1}'", "'{a,b,c}'", "'{{a},{b}}'", "'{NULL}'"],
        "bytea[]" => &["'{}'"],
        "regclass" => &["'pg_class'", "'ordered'", "0"],
        "oid" => &["0", "23", "4294967295"],
        "jsonb" => &["'{}'", "'[]'", "'{\"Enum\": []}'"],
        "xid8" => &["'0'", "'18446744073709551615'"],
        other => panic!("no extremes of {other}"),
    }
}

/// One edit: its SQL, of one row of a table.
fn edit(rng: &mut StdRng, column: &Column) -> String {
    let Column {
        table,
        name,
        type_name,
        ..
    } = column;
    let row = format!(
        "(SELECT ctid FROM {table} ORDER BY md5(ctid::text || '{}') LIMIT 1)",
        rng.random::<u32>()
    );
    let other = format!(
        "(SELECT {name} FROM {table} ORDER BY md5(ctid::text || '{}') LIMIT 1)",
        rng.random::<u32>()
    );
    let set = |value: &str| format!("UPDATE {table} SET {name} = {value} WHERE ctid = {row}");
    match rng.random_range(0..10) {
        0 => format!("DELETE FROM {table} WHERE ctid = {row}"),
        1 => set("NULL"),
        2 | 3 => set(&other),
        4 if !column.generated => format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT (r).* FROM (SELECT jsonb_populate_record(t, jsonb_build_object('{name}', {other})) r FROM {table} t WHERE ctid = {row}) x"
        ),
        5 | 6 => match type_name.as_str() {
            "bytea" => set(&format!("set_byte({name}, 0, get_byte({name}, 0) # 1)")),
            "text" => set(&format!("{name} || 'x'")),
            "integer" | "bigint" | "smallint" => set(&format!("{name} + 1")),
            "boolean" => set(&format!("NOT {name}")),
            "text[]" => set(&format!("{name} || '{{x}}'::text[]")),
            _ => set(extremes(type_name).choose(rng).unwrap()),
        },
        _ => set(extremes(type_name).choose(rng).unwrap()),
    }
}

/// A digest of a table, to tell whether an edit changed anything.
fn contents(client: &mut Client, table: &str) -> String {
    one(
        client,
        &format!(
            "SELECT md5(COALESCE(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
        ),
    )
}

fn all_findings(client: &mut Client, logs: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for log in logs {
        let sql = "SELECT kind, concat_ws(' ', log, kind, source_table, source_key, leaf_index, detail) FROM (SELECT $1::text AS log, v.* FROM verify_log($1) v) f WHERE kind <> 'redacted' LIMIT 50";
        // A log that was renamed or removed is found from the administration log.
        let exists: bool = client
            .query_one(
                "SELECT EXISTS (SELECT FROM verification_logs WHERE log_name = $1)",
                &[&log],
            )
            .unwrap()
            .get(0);
        if exists {
            let rows = client
                .query(sql, &[&log])
                .map_err(|e| format!("verify_log({log}): {e:?}"))?;
            found.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
        }
    }
    Ok(found)
}

#[test]
fn every_edit_that_changes_an_answer_is_found_and_nothing_else() {
    let edits = match std::env::var("LONG").is_ok() {
        true => std::env::var("EDITS").map_or(3_000, |n| n.parse().unwrap()),
        false => 300,
    };
    let mut rng = StdRng::seed_from_u64(seed());
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    each(&mut a, FIXTURE);
    let logs: Vec<String> = column(&mut a, "SELECT log_name FROM verification_logs ORDER BY 1");
    assert!(logs.iter().any(|l| l == ADMINISTRATION));
    assert_eq!(all_findings(&mut a, &logs), Ok(Vec::new()));
    let ours: Vec<String> = column(&mut a, OURS);
    let columns = columns(&mut a);
    assert!(columns.len() > 80);
    for (table, name, _) in RULES {
        assert!(
            columns
                .iter()
                .any(|c| c.table == *table && (*name == "*" || c.name == *name)),
            "{table}.{name}"
        );
    }
    #[derive(Default)]
    struct Count {
        found: u32,
        harmless: u32,
        free: u32,
        refused: u32,
        missed: u32,
    }
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut faults = Vec::new();
    for number in 0..edits {
        let column = &columns[number % columns.len()];
        let sql = edit(&mut rng, column);
        let count = counts
            .entry(format!("{}.{}", column.table, column.name))
            .or_default();
        run(&mut a, "BEGIN");
        let before = contents(&mut a, &column.table);
        if a.batch_execute(&sql).is_err() {
            run(&mut a, "ROLLBACK");
            count.refused += 1;
            continue;
        }
        if contents(&mut a, &column.table) == before {
            run(&mut a, "ROLLBACK");
            count.harmless += 1;
            continue;
        }
        let found = all_findings(&mut a, &logs);
        run(&mut a, "ROLLBACK");
        let free = rule(&column.table, &column.name) == Free
            && !sql.starts_with("DELETE")
            && !sql.starts_with("INSERT")
            || rule(&column.table, "*") == Free;
        match found {
            Err(error) => {
                count.missed += 1;
                faults.push(format!("RAISED {sql}: {error}"));
            }
            Ok(found) if found.is_empty() => match free {
                true => count.free += 1,
                false => {
                    count.missed += 1;
                    faults.push(format!("MISSED {sql}"));
                }
            },
            Ok(found) => {
                count.found += 1;
                let blamed: Vec<&String> = found
                    .iter()
                    .filter(|(kind, _)| !ours.contains(kind))
                    .map(|(_, line)| line)
                    .collect();
                if !blamed.is_empty() && rule(&column.table, "*") == Held {
                    faults.push(format!("BLAMED {sql}: {blamed:?}"));
                }
            }
        }
    }
    println!(
        "{:45} {:>6} {:>8} {:>6} {:>7} {:>6}",
        "column", "found", "harmless", "free", "refused", "missed"
    );
    let mut total = Count::default();
    for (name, c) in &counts {
        println!(
            "{name:45} {:>6} {:>8} {:>6} {:>7} {:>6}",
            c.found, c.harmless, c.free, c.refused, c.missed
        );
        total.found += c.found;
        total.harmless += c.harmless;
        total.free += c.free;
        total.refused += c.refused;
        total.missed += c.missed;
    }
    println!(
        "{:45} {:>6} {:>8} {:>6} {:>7} {:>6}",
        "all", total.found, total.harmless, total.free, total.refused, total.missed
    );
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(total.found as usize > edits / 4);
    assert_eq!(all_findings(&mut a, &logs), Ok(Vec::new()));
}
