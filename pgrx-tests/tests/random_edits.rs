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
    // Found where rows would be logged twice; the other edits cost look-ups.
    ("verification_sources", "logged_ahead", Free),
    ("verification_source_partitions", "*", Held),
    ("verification_source_partitions", "relation", Free),
    ("verification_source_versions", "*", Held),
    ("verification_source_columns", "*", Held),
    ("verification_source_definitions", "*", Held),
    ("verification_source_retirements", "*", Held),
    ("merkle_sealed_range", "*", Held),
    ("merkle_sealed_key", "*", Held),
    // What a command changed is noticed all the same.
    ("merkle_ddl_command", "*", Free),
    ("merkle_log", "*", Held),
    ("merkle_order_index", "*", Held),
    ("merkle_tile", "*", Held),
    ("merkle_tree_head", "*", Held),
    ("merkle_tree_head", "duration", Free),
    ("merkle_leaf_data", "*", Held),
    ("merkle_statement", "*", Held),
    ("merkle_pending", "*", Free),
    ("merkle_late_entry", "*", Held),
    ("merkle_redacted_key", "*", Held),
    ("merkle_set_aside", "*", Held),
    ("merkle_set_aside", "problem", Free),
    ("merkle_set_aside", "since", Free),
    ("merkle_source_state", "*", Free),
    ("merkle_database", "*", Held),
    // The next pass finds again what is altered or deleted; how somebody acknowledged a finding is on record.
    ("merkle_finding", "*", Free),
    ("merkle_verification", "*", Free),
];

/// Tables of which rows may go or come again unseen, for the reason that docs/security.md gives.
const LOOSE: &[&str] = &["merkle_set_aside"];

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
    // Redacted rows, one of them changed and one deleted since; and an entry of one whose key orders the log.
    "CREATE TABLE people (id int PRIMARY KEY, name text); CREATE TABLE guests (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
     SELECT create_log('people'); SELECT add_source('people', 'people', capture => 'trigger', salted => true, store_leaf_data => true);
     SELECT create_log('guests'); SELECT add_source('guests', 'guests', 'id', salted => true)",
    "INSERT INTO people SELECT i, 'n' FROM generate_series(1, 9) i; INSERT INTO guests (name) SELECT 'n' FROM generate_series(1, 9)",
    "SELECT process_next_batch('people'), process_next_batch('guests')",
    "SELECT redact_row('people', 'people', '3', 'asked for'), redact_row('people', 'people', '4', 'asked for too'), redact_row('guests', 'guests', '5', 'by law')",
    "UPDATE people SET name = 'm' WHERE id IN (3, 5); DELETE FROM people WHERE id = 4; SELECT process_next_batch('people')",
    // A kept row that is longer than leaf data.
    "INSERT INTO kept (id, w) VALUES (900, repeat('long', 30000)), (901, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i)); SELECT process_next_batch('kept')",
    "UPDATE kept SET w = 'short' WHERE id = 900; SELECT process_next_batch('kept')",
    // Late: behind a watermark, above a ceiling, past the triggers.
    "CREATE TABLE late (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text); CREATE TABLE past (id int PRIMARY KEY)",
    "SELECT create_log('late'); SELECT add_source('late', 'late', 'id'); SELECT create_log('past'); SELECT add_source('past', 'past', capture => 'trigger')",
    "INSERT INTO late (v) SELECT 'x' FROM generate_series(1, 20); INSERT INTO past SELECT generate_series(1, 5); SELECT process_next_batch('late'), process_next_batch('past'); SELECT process_next_batch('past')",
    "INSERT INTO late VALUES (-3, 'behind'), (-2, 'behind'); SELECT reconcile('late')",
    "INSERT INTO late VALUES (1000, 'above'), (2000, 'above'); SELECT reconcile('late')",
    "ALTER TABLE past DISABLE TRIGGER ALL; INSERT INTO past VALUES (10); ALTER TABLE past ENABLE TRIGGER ALL; SELECT repair_capture('past', 'past')",
    "SELECT process_next_batch('past')",
    "INSERT INTO late (v) VALUES ('y'); INSERT INTO past VALUES (11); SELECT process_next_batch('late'), process_next_batch('past')",
    // A finding of continuous verification, and one that somebody has looked at.
    "INSERT INTO merkle_verification (log_id, pass, ended_at) SELECT log_id, 1, now() FROM verification_logs",
    "INSERT INTO merkle_finding (log_id, identity, kind, found_as, leaf_index, detail, pass)
     SELECT log_id, sha256(i::text::bytea), 'modified', 'modified', i, 'made up', 1 FROM verification_logs, generate_series(1, 2) i WHERE log_name = 'kept'",
    "SELECT acknowledge_finding(min(finding), 'made up') FROM findings('kept')",
    // A partition that left, and one that came.
    "CREATE TABLE parted (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text) PARTITION BY RANGE (id);
     CREATE TABLE p1 PARTITION OF parted FOR VALUES FROM (1) TO (50); CREATE TABLE p2 PARTITION OF parted FOR VALUES FROM (50) TO (100)",
    "SELECT create_log('parted'); SELECT add_source('parted', 'parted', 'id', capture => 'watermark'); SELECT create_log('parts'); SELECT add_source('parts', 'parted', capture => 'trigger', store_leaf_data => true)",
    "INSERT INTO parted (v) SELECT 'x' FROM generate_series(1, 70); SELECT process_next_batch('parted'), process_next_batch('parts')",
    "ALTER TABLE parted DETACH PARTITION p1; CREATE TABLE p3 PARTITION OF parted FOR VALUES FROM (100) TO (200); SELECT process_next_batch('parted'), process_next_batch('parts')",
    // Set aside: the type writes the number of an enum's label as the label, and some numbers are none.
    "CREATE TYPE mood AS ENUM ('good'); CREATE TYPE fussy;
     CREATE FUNCTION fussy_in(cstring) RETURNS fussy LANGUAGE internal IMMUTABLE STRICT AS 'oidin';
     CREATE FUNCTION fussy_out(fussy) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'enum_out';
     CREATE TYPE fussy (INPUT = fussy_in, OUTPUT = fussy_out, LIKE = oid);
     CREATE FUNCTION good() RETURNS fussy LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT oid::text FROM pg_enum WHERE enumlabel = 'good'); END$$",
    "CREATE TABLE aside (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v fussy); SELECT create_log('aside'); SELECT add_source('aside', 'aside', 'id')",
    "INSERT INTO aside (v) SELECT CASE WHEN i % 4 = 0 THEN '1'::fussy ELSE good() END FROM generate_series(1, 12) i; SELECT process_next_batch('aside')",
    // A source that is not ready.
    "CREATE TABLE unready (id int PRIMARY KEY); SELECT create_log('unready'); SELECT add_source('unready', 'unready', capture => 'trigger'); INSERT INTO unready VALUES (1); SELECT process_next_batch('unready')",
    "ALTER TABLE unready SET UNLOGGED; SELECT process_next_batch('unready')",
    // Sealed ranges: of keys in order, of two sources, and of entries that were pruned since.
    "SELECT seal_range('ordered', 700); SELECT seal_range('ordered'); SELECT seal_range('timed', 30); SELECT seal_range('kept'); SELECT seal_range('pruned')",
    // Retired rows, some of which are gone.
    "SELECT retire_rows('timed', 'timed', (SELECT at FROM timed ORDER BY at OFFSET 5 LIMIT 1)); DELETE FROM timed WHERE at < (SELECT at FROM timed ORDER BY at OFFSET 2 LIMIT 1)",
    // DDL that nobody has put on record yet.
    "SELECT record_ddl(); ALTER TABLE pruned ADD COLUMN w int; SELECT record_ddl(false)",
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

/// Digests of what a table has of each log, to tell what an edit changed. Of rows whose log cannot be told, and of
/// tables of no log, under the number -1.
fn contents(client: &mut Client, columns: &[Column], table: &str) -> BTreeMap<i32, String> {
    let has = |name: &str| columns.iter().any(|c| c.table == table && c.name == name);
    let log = match (has("log_id"), has("source_id")) {
        (true, _) => "t.log_id",
        (_, true) => {
            "(SELECT s.log_id FROM verification_sources s WHERE s.source_id = t.source_id)"
        }
        _ => "-1",
    };
    let sql = format!(
        "SELECT COALESCE({log}, -1), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t GROUP BY 1"
    );
    let rows = client.query(&sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The logs whose rows differ; all of them where that cannot be told, or the administration log is among them.
fn affected<'l>(
    logs: &'l BTreeMap<i32, String>,
    before: &BTreeMap<i32, String>,
    after: &BTreeMap<i32, String>,
) -> Vec<&'l String> {
    let changed = |id: &i32| before.get(id) != after.get(id);
    let ids: Vec<i32> = before
        .keys()
        .chain(after.keys())
        .copied()
        .filter(changed)
        .collect();
    let known = ids.iter().all(|id| *id > 0 && logs.contains_key(id));
    let among = |id: &i32| *id == 0 || !known || ids.contains(id);
    logs.iter()
        .filter(|(id, _)| among(id))
        .map(|(_, name)| name)
        .collect()
}

fn findings_of(client: &mut Client, logs: &[&String]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for log in logs {
        let sql = "SELECT kind, concat_ws(' ', log, kind, source_table, source_key, leaf_index, detail) FROM (SELECT $1::text AS log, v.* FROM verify_log($1) v) f LIMIT 200";
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
    let rows = a
        .query("SELECT log_id, log_name FROM verification_logs", &[])
        .unwrap();
    let logs: BTreeMap<i32, String> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let all: Vec<&String> = logs.values().collect();
    assert_eq!(logs[&0], ADMINISTRATION);
    // What is so without any edit: redacted, detached and set aside rows, and the source that is not ready.
    let before = findings_of(&mut a, &all).unwrap();
    let ours: Vec<String> = column(&mut a, OURS);
    assert!(
        before.iter().all(|(kind, _)| !ours.contains(kind)),
        "{before:?}"
    );
    for kind in ["redacted", "detached", "unlogged", "schema_changed"] {
        assert!(before.iter().any(|(k, _)| k == kind), "{kind}: {before:?}");
    }
    for (table, _, _) in RULES {
        let rows: i64 = one(&mut a, &format!("SELECT count(*) FROM {table}"));
        assert!(rows > 0, "{table} has no row to edit");
    }
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
        let stored = contents(&mut a, &columns, &column.table);
        if a.batch_execute(&sql).is_err() {
            run(&mut a, "ROLLBACK");
            count.refused += 1;
            continue;
        }
        let edited = contents(&mut a, &columns, &column.table);
        if edited == stored {
            run(&mut a, "ROLLBACK");
            count.harmless += 1;
            continue;
        }
        let found = findings_of(&mut a, &affected(&logs, &stored, &edited)).map(|found| {
            found
                .into_iter()
                .filter(|f| !before.contains(f))
                .collect::<Vec<_>>()
        });
        run(&mut a, "ROLLBACK");
        let is_update = sql.starts_with("UPDATE");
        let free = rule(&column.table, &column.name) == Free && is_update
            || rule(&column.table, "*") == Free
            || LOOSE.contains(&column.table.as_str()) && !is_update;
        let said = faults.len();
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
                    // How many entries a removed source has is told, and blames nobody.
                    .filter(|(kind, _)| !ours.contains(kind) && kind != "source_removed")
                    // That keys are compared otherwise than their hashes say is so, whoever made it so.
                    .filter(|(kind, _)| {
                        !(column.name == "key_equality" && kind == "schema_changed")
                    })
                    .map(|(_, line)| line)
                    .collect();
                if !free && found.iter().all(|(kind, _)| kind == "source_removed") {
                    count.missed += 1;
                    faults.push(format!("MISSED {sql}: {found:?}"));
                }
                if !blamed.is_empty() && rule(&column.table, "*") == Held {
                    faults.push(format!("BLAMED {sql}: {blamed:?}"));
                }
            }
        }
        faults[said..].iter().for_each(|fault| println!("{fault}"));
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
    assert_eq!(findings_of(&mut a, &all), Ok(before));
}
