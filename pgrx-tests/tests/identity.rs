//! A column is its number, an enum's label and a composite's attribute are theirs, and names are only what they
//! are called: also in sessions that are open, and across a dump that was made before a change was on record.

use server_tests::*;

const NONE: [&str; 0] = [];

/// A table captured by triggers into log `trigger`, and one like it read by watermark into log `watermark`.
fn start(columns: &str, options: &str) -> (Cluster, Client) {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE point3 AS (x int, y int, m mood);
         CREATE DOMAIN temper AS mood; CREATE TYPE moods AS RANGE (subtype = mood);
         SELECT create_log('trigger'); SELECT create_log('watermark')",
    );
    for log in ["trigger", "watermark"] {
        run(&mut a, &format!("CREATE TABLE {log}s ({columns})"));
    }
    run(
        &mut a,
        &format!(
            "SELECT add_source('trigger', 'triggers', capture => 'trigger', store_leaf_data => true{options});
             SELECT add_source('watermark', 'watermarks', order_column => 'id', capture => 'watermark'{options})"
        ),
    );
    (cluster, a)
}

/// Runs the statement for both tables; `t` stands for the table.
fn both(client: &mut Client, sql: &str) {
    for table in ["triggers", "watermarks"] {
        run(client, &sql.replace(" t ", &format!(" {table} ")));
    }
}

fn batches(client: &mut Client) {
    for log in ["trigger", "watermark"] {
        drain(client, log);
    }
}

fn kinds(client: &mut Client, log: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT kind FROM verify_log('{log}') WHERE kind <> 'renamed' ORDER BY leaf_index"
        ),
    )
}

fn intact(client: &mut Client) {
    for log in ["trigger", "watermark"] {
        let details: Vec<String> = column(
            client,
            &format!(
                "SELECT concat_ws(' ', kind, source_key, leaf_index, detail) FROM verify_log('{log}') WHERE kind <> 'renamed'"
            ),
        );
        assert_eq!(details, NONE, "{log}");
    }
}

/// Only that: what cannot be computed any more is said to be so, and is no modification.
fn changed_shape(client: &mut Client, words: &str) {
    for log in ["trigger", "watermark"] {
        let found = kinds(client, log);
        assert!(
            !found.is_empty() && found.iter().all(|k| k == "schema_changed"),
            "{log}: {found:?}"
        );
        let detail: String = one(
            client,
            &format!("SELECT string_agg(detail, '; ') FROM verify_log('{log}')"),
        );
        assert!(detail.contains(words), "{log}: {detail}");
    }
}

#[test]
fn renamed_and_swapped_key_columns_stay_the_key_in_every_session() {
    let (cluster, mut a) = start(
        "id int, part int, v text, PRIMARY KEY (part, id), UNIQUE (id)",
        ", key_columns => '{id,part}'",
    );
    // A unique index on both, in which order is the primary key's.
    let mut b = cluster.client("postgres");
    both(&mut b, "INSERT INTO t VALUES (1, 10, 'a')");
    batches(&mut a);
    both(&mut a, "ALTER TABLE t RENAME id TO ident");
    both(&mut b, "INSERT INTO t VALUES (2, 20, 'b')");
    both(
        &mut a,
        "ALTER TABLE t RENAME part TO id; ALTER TABLE t RENAME ident TO part",
    );
    both(&mut b, "INSERT INTO t VALUES (3, 30, 'c')");
    batches(&mut a);
    both(&mut b, "INSERT INTO t VALUES (4, 40, 'd')");
    run(&mut b, "UPDATE triggers SET v = 'a2' WHERE part = 1");
    batches(&mut a);
    intact(&mut a);
    for log in ["trigger", "watermark"] {
        let keys: Vec<String> = column(
            &mut a,
            &format!(
                "SELECT DISTINCT source_key FROM merkle_log JOIN verification_logs USING (log_id) WHERE log_name = '{log}' ORDER BY 1"
            ),
        );
        assert_eq!(keys, ["{1,10}", "{2,20}", "{3,30}", "{4,40}"], "{log}");
        let names: Vec<String> = one(
            &mut a,
            &format!(
                "SELECT key_columns FROM verification_sources JOIN verification_logs USING (log_id) WHERE log_name = '{log}'"
            ),
        );
        assert_eq!(names, ["part", "id"], "{log}: for people");
        let found: i64 = one(
            &mut a,
            &format!("SELECT leaf_index FROM inclusion_proof('{log}', '{log}s', '{{3,30}}')"),
        );
        assert_eq!(found, 2);
        let key: Vec<String> = column(
            &mut a,
            &format!(
                "SELECT c.column_name || c.attnum FROM verification_source_columns c JOIN verification_sources s USING (source_id)
                   JOIN verification_logs USING (log_id)
                  WHERE log_name = '{log}' AND key_position IS NOT NULL
                    AND version = (SELECT max(version) FROM verification_source_versions v WHERE v.source_id = s.source_id)
                  ORDER BY key_position"
            ),
        );
        assert_eq!(key, ["part1", "id2"]);
    }
    let shown: Vec<String> = column(
        &mut a,
        "SELECT row_data::text FROM history('trigger', 'triggers', '{1,10}')",
    );
    assert_eq!(
        shown,
        [
            r#"{"v": "a", "id": 1, "part": 10}"#,
            r#"{"v": "a2", "id": 10, "part": 1}"#
        ]
    );
    // Tampering with the key is found as ever.
    run(&mut a, "ALTER TABLE triggers DISABLE TRIGGER ALL");
    both(&mut a, "UPDATE t SET v = 'forged' WHERE part = 2");
    assert_eq!(kinds(&mut a, "trigger"), ["modified"]);
    assert_eq!(kinds(&mut a, "watermark"), ["modified"]);
}

#[test]
fn columns_that_were_chosen_are_followed() {
    let (_cluster, mut a) = start(
        "id int PRIMARY KEY, v text, w text",
        ", columns => '{id,v}'",
    );
    both(&mut a, "INSERT INTO t VALUES (1, 'a', 'x')");
    batches(&mut a);
    both(
        &mut a,
        "ALTER TABLE t RENAME v TO z; ALTER TABLE t RENAME w TO v",
    );
    both(&mut a, "INSERT INTO t VALUES (2, 'b', 'y')");
    batches(&mut a);
    both(&mut a, "ALTER TABLE t RENAME z TO u");
    both(
        &mut a,
        "INSERT INTO t VALUES (3, 'c', 'z'); UPDATE t SET v = 'not logged' WHERE id = 3",
    );
    batches(&mut a);
    intact(&mut a);
    let chosen: Vec<Vec<String>> = column(&mut a, "SELECT columns FROM verification_sources");
    assert_eq!(chosen, [["id", "u"], ["id", "u"]]);
    let rows: Vec<String> = column(
        &mut a,
        "SELECT h.row_data::text FROM unnest('{1,2}'::text[]) k, LATERAL history('trigger', 'triggers', k) h",
    );
    assert_eq!(rows, [r#"{"v": "a", "id": 1}"#, r#"{"z": "b", "id": 2}"#]);
    // A new choice holds for what is captured from then on, whatever waits in the queue.
    both(&mut a, "INSERT INTO t VALUES (4, 'd', 'q')");
    run(
        &mut a,
        "SELECT alter_source('trigger', 'triggers', columns => '{id,v}'); SELECT alter_source('watermark', 'watermarks', columns => '{id,v}')",
    );
    both(&mut a, "ALTER TABLE t RENAME v TO vv");
    both(&mut a, "INSERT INTO t VALUES (5, 'e', 'r')");
    batches(&mut a);
    intact(&mut a);
    let rows: Vec<String> = column(
        &mut a,
        "SELECT h.row_data::text FROM unnest('{4,5}'::text[]) k, LATERAL history('trigger', 'triggers', k) h",
    );
    assert_eq!(rows, [r#"{"u": "d", "id": 4}"#, r#"{"id": 5, "vv": "r"}"#]);
}

#[test]
fn renamed_labels_and_attributes_change_no_old_entry_and_are_seen_by_every_session() {
    let (cluster, mut a) = start(
        "id int PRIMARY KEY, m mood, p point3, list mood[], t temper, r moods, many point3[]",
        "",
    );
    let mut b = cluster.client("postgres");
    let row = |id: i32, m: &str| {
        format!(
            "INSERT INTO t VALUES ({id}, '{m}', (1, 2, '{m}'), '{{{m},happy}}', '{m}', '[{m},happy]', ARRAY[(3, 4, '{m}')::point3])"
        )
    };
    both(&mut b, &row(1, "sad"));
    batches(&mut a);
    run(
        &mut a,
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TYPE point3 RENAME ATTRIBUTE x TO easting",
    );
    intact(&mut a);
    // The open session writes the new names, without a batch between.
    both(&mut b, &row(2, "blue"));
    batches(&mut a);
    intact(&mut a);
    run(
        &mut a,
        "ALTER TYPE mood ADD VALUE 'gloomy' BEFORE 'ok'; ALTER TYPE mood RENAME TO feeling",
    );
    run(
        &mut a,
        "ALTER TYPE point3 ADD ATTRIBUTE z int; ALTER TYPE temper RENAME TO nature",
    );
    run(
        &mut b,
        "INSERT INTO triggers (id, m, p) VALUES (3, 'gloomy', (1, 2, 'gloomy', 5)); INSERT INTO watermarks (id, m, p) VALUES (3, 'gloomy', (1, 2, 'gloomy', 5))",
    );
    batches(&mut a);
    intact(&mut a);
    let shown: Vec<String> = column(
        &mut a,
        "SELECT concat_ws(' ', h.row_data->>'m', h.row_data->'p', h.row_data->'list', h.row_data->'r', h.row_data->'many')
           FROM unnest('{1,2,3}'::text[]) k, LATERAL history('trigger', 'triggers', k) h",
    );
    assert_eq!(
        shown,
        [
            r#"sad {"m": "sad", "x": 1, "y": 2} ["sad", "happy"] "[sad,happy]" [{"m": "sad", "x": 3, "y": 4}]"#,
            r#"blue {"m": "blue", "y": 2, "easting": 1} ["blue", "happy"] "[blue,happy]" [{"m": "blue", "y": 4, "easting": 3}]"#,
            r#"gloomy {"m": "gloomy", "y": 2, "z": 5, "easting": 1}"#,
        ]
    );
    let changes: Vec<String> = column(
        &mut a,
        "SELECT DISTINCT change FROM verification_source_versions WHERE change LIKE '%blue%' AND change LIKE '%easting%'",
    );
    assert_eq!(changes.len(), 1, "{changes:?}");
    // Old entries are held against what they said then: another label is a modification.
    run(&mut a, "ALTER TABLE triggers DISABLE TRIGGER ALL");
    both(&mut a, "UPDATE t SET m = 'ok' WHERE id = 1");
    assert_eq!(kinds(&mut a, "trigger"), ["modified"]);
    assert_eq!(kinds(&mut a, "watermark"), ["modified"]);
    both(&mut a, "UPDATE t SET m = 'blue' WHERE id = 1");
    intact(&mut a);
    // What is gone cannot be computed, and that is said.
    run(&mut a, "ALTER TYPE point3 DROP ATTRIBUTE y CASCADE");
    changed_shape(&mut a, "attribute y is gone");
}

#[test]
fn values_that_are_names_of_something_are_never_modified_by_a_rename() {
    let (_cluster, mut a) = start(
        "id int PRIMARY KEY, c regclass, r regrole, list regtype[]",
        "",
    );
    run(
        &mut a,
        "CREATE TABLE other (); CREATE ROLE clerk; CREATE TYPE thing AS (a int)",
    );
    both(
        &mut a,
        "INSERT INTO t VALUES (1, 'other', 'clerk', '{thing}'), (2, NULL, NULL, NULL)",
    );
    batches(&mut a);
    intact(&mut a);
    for rename in [
        "ALTER TABLE other RENAME TO renamed",
        "ALTER TABLE renamed RENAME TO other; ALTER ROLE clerk RENAME TO cashier",
        "ALTER ROLE cashier RENAME TO clerk; ALTER TYPE thing RENAME TO something",
    ] {
        run(&mut a, rename);
        changed_shape(&mut a, "its values are names");
    }
    run(&mut a, "ALTER TYPE something RENAME TO thing");
    intact(&mut a);
}

#[test]
fn an_enum_in_the_key_may_get_other_labels() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (m mood PRIMARY KEY, v text);
         SELECT create_log('audit'); SELECT add_source('audit', 't', capture => 'trigger', store_leaf_data => true);
         INSERT INTO t VALUES ('sad', 'a'), ('happy', 'b')",
    );
    drain(&mut a, "audit");
    run(&mut a, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'");
    run(&mut a, "UPDATE t SET v = 'c' WHERE m = 'happy'");
    drain(&mut a, "audit");
    let found: Vec<String> = column(&mut a, "SELECT kind FROM verify_log('audit')");
    assert!(found.iter().all(|k| k == "schema_changed"), "{found:?}");
}

/// Restores the database elsewhere and hands a client of the copy to `check`.
fn restored(cluster: &Cluster, check: impl Fn(&mut Client)) {
    cluster.shell("createdb copy && pg_dump postgres | psql -q -v ON_ERROR_STOP=1 copy");
    let mut copy = cluster.client("copy");
    run(&mut copy, "SELECT adopt_database('continue')");
    check(&mut copy);
    drop(copy);
    cluster.shell("dropdb copy");
}

#[test]
fn what_a_dump_carries_away_unrecorded_is_told_or_said_to_be_unknown() {
    let (cluster, mut a) = start(
        "gone int, id int PRIMARY KEY, v text, w text, x text, m mood",
        "",
    );
    both(&mut a, "ALTER TABLE t DROP COLUMN gone");
    both(
        &mut a,
        "INSERT INTO t VALUES (1, 'v', 'w', 'x', 'sad'), (2, 'v2', 'w2', 'x2', 'happy')",
    );
    batches(&mut a);
    for (unrecorded, words) in [
        // Between columns that are known, another name is a new name.
        ("ALTER TABLE t RENAME v TO note", None),
        ("ALTER TABLE t RENAME id TO ident", None),
        (
            "ALTER TABLE t RENAME v TO a1; ALTER TABLE t RENAME w TO a2",
            None,
        ),
        (
            "ALTER TABLE t RENAME v TO note; ALTER TABLE t ADD COLUMN later int",
            None,
        ),
        ("ALTER TABLE t ADD COLUMN later int", None),
        (
            "ALTER TABLE t DROP COLUMN w",
            Some("column w cannot be told"),
        ),
        // Order and name contradict each other.
        (
            "ALTER TABLE t RENAME v TO tmp; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME tmp TO w",
            Some("cannot be told"),
        ),
        (
            "ALTER TABLE t RENAME w TO w_old; ALTER TABLE t ADD COLUMN w text DEFAULT 'w'",
            Some("column w cannot be told"),
        ),
        // At the end, a new name may as well be a new column.
        (
            "ALTER TABLE t RENAME m TO mood",
            Some("column m cannot be told"),
        ),
        (
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
            Some("label sad is not known any more"),
        ),
    ] {
        match unrecorded.contains(" t ") {
            true => both(&mut a, unrecorded),
            false => run(&mut a, unrecorded),
        }
        restored(&cluster, |copy| {
            for round in 0..3 {
                match words {
                    None => intact(copy),
                    Some(words) => changed_shape(copy, words),
                }
                let key = if unrecorded.contains("ident") {
                    "ident"
                } else {
                    "id"
                };
                both(
                    copy,
                    &format!("INSERT INTO t ({key}) VALUES ({})", 10 + round),
                );
                batches(copy);
            }
            run(copy, "UPDATE triggers SET x = 'changed'");
            drain(copy, "trigger");
            let found = kinds(copy, "trigger");
            assert!(
                found.iter().all(|k| k == "schema_changed"),
                "{unrecorded}: {found:?}"
            );
        });
        // Back to what it was.
        let back = match unrecorded {
            "ALTER TABLE t RENAME v TO note" => "ALTER TABLE t RENAME note TO v",
            "ALTER TABLE t RENAME id TO ident" => "ALTER TABLE t RENAME ident TO id",
            "ALTER TABLE t RENAME v TO a1; ALTER TABLE t RENAME w TO a2" => {
                "ALTER TABLE t RENAME a1 TO v; ALTER TABLE t RENAME a2 TO w"
            }
            "ALTER TABLE t RENAME v TO note; ALTER TABLE t ADD COLUMN later int" => {
                "ALTER TABLE t RENAME note TO v; ALTER TABLE t DROP COLUMN later"
            }
            "ALTER TABLE t ADD COLUMN later int" => "ALTER TABLE t DROP COLUMN later",
            "ALTER TABLE t RENAME m TO mood" => "ALTER TABLE t RENAME mood TO m",
            _ => {
                run(
                    &mut a,
                    "SELECT drop_log('trigger', confirm => true); SELECT drop_log('watermark', confirm => true); DROP TABLE triggers, watermarks; DROP TYPE mood CASCADE;
                     CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); SELECT create_log('trigger'); SELECT create_log('watermark')",
                );
                for log in ["trigger", "watermark"] {
                    run(
                        &mut a,
                        &format!(
                            "CREATE TABLE {log}s (gone int, id int PRIMARY KEY, v text, w text, x text, m mood); ALTER TABLE {log}s DROP COLUMN gone"
                        ),
                    );
                }
                run(
                    &mut a,
                    "SELECT add_source('trigger', 'triggers', capture => 'trigger', store_leaf_data => true);
                     SELECT add_source('watermark', 'watermarks', order_column => 'id', capture => 'watermark')",
                );
                both(
                    &mut a,
                    "INSERT INTO t VALUES (1, 'v', 'w', 'x', 'sad'), (2, 'v2', 'w2', 'x2', 'happy')",
                );
                batches(&mut a);
                continue;
            }
        };
        both(&mut a, back);
        intact(&mut a);
    }
}

#[test]
fn a_key_that_a_dump_made_unknown_is_named_with_a_way_back() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (v text, id int PRIMARY KEY); SELECT create_log('audit'); SELECT add_source('audit', 't', capture => 'trigger');
         INSERT INTO t VALUES ('a', 1)",
    );
    drain(&mut a, "audit");
    run(&mut a, "ALTER TABLE t RENAME id TO ident");
    restored(&cluster, |copy| {
        assert_eq!(kinds(copy, "audit"), ["schema_changed"]);
        let message = error(copy, "INSERT INTO t VALUES ('b', 2)");
        assert!(
            message.starts_with("55000") && message.contains("Rename the column back"),
            "{message}"
        );
        run(
            copy,
            "ALTER TABLE t RENAME ident TO id; SELECT process_next_batch('audit'); INSERT INTO t VALUES ('b', 2)",
        );
        run(
            copy,
            "SELECT process_next_batch('audit'); ALTER TABLE t RENAME id TO ident; INSERT INTO t VALUES ('c', 3)",
        );
        assert_eq!(drain(copy, "audit"), 3);
        assert_eq!(findings(copy, "audit"), NONE);
    });
}

#[test]
fn changes_queued_under_columns_that_no_version_has_survive_a_dump() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (gone int, id int PRIMARY KEY, v text, w text); ALTER TABLE t DROP COLUMN gone;
         SELECT create_log('audit'); SELECT add_source('audit', 't', capture => 'trigger', store_leaf_data => true); INSERT INTO t VALUES (1, 'a', 'x')",
    );
    drain(&mut a, "audit");
    run(
        &mut a,
        "ALTER TABLE t RENAME v TO note; INSERT INTO t VALUES (2, 'b', 'y'); ALTER TABLE t RENAME note TO remark",
    );
    restored(&cluster, |copy| {
        run(copy, "INSERT INTO t VALUES (3, 'c', 'z')");
        assert_eq!(drain(copy, "audit"), 3);
        assert_eq!(findings(copy, "audit"), NONE);
        let rows: Vec<String> = column(
            copy,
            "SELECT h.row_data::text FROM unnest('{1,2,3}'::text[]) k, LATERAL history('audit', 't', k) h",
        );
        assert_eq!(
            rows,
            [
                r#"{"v": "a", "w": "x", "id": 1}"#,
                r#"{"w": "y", "id": 2, "note": "b"}"#,
                r#"{"w": "z", "id": 3, "remark": "c"}"#
            ]
        );
    });
}

#[test]
fn names_that_were_swapped_are_told_of_and_on_record() {
    let (_cluster, mut a) = start("id int PRIMARY KEY, m mood, debit int, credit int", "");
    both(&mut a, "INSERT INTO t VALUES (1, 'sad', 100, 0)");
    batches(&mut a);
    both(&mut a, "ALTER TABLE t RENAME debit TO taken");
    // A new name alone makes no row read as another.
    batches(&mut a);
    for log in ["trigger", "watermark"] {
        assert_eq!(findings(&mut a, log), NONE, "{log}");
        let status: String = one(
            &mut a,
            &format!("SELECT status || ': ' || detail FROM verify_row('{log}', '{log}s', '1')"),
        );
        assert_eq!(
            status, "logged: the row is what was logged; since then, column debit is now taken",
            "{log}"
        );
    }
    both(
        &mut a,
        "ALTER TABLE t RENAME credit TO debit; ALTER TABLE t RENAME taken TO credit",
    );
    run(
        &mut a,
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'happy' TO 'sad'; ALTER TYPE mood RENAME VALUE 'x' TO 'happy'",
    );
    batches(&mut a);
    for log in ["trigger", "watermark"] {
        assert_eq!(findings(&mut a, log), [format!("renamed public.{log}s 0")]);
        let detail: String = one(&mut a, &format!("SELECT detail FROM verify_log('{log}')"));
        for name in [
            "label sad of column m",
            "label happy of column m",
            "column debit",
            "column credit",
        ] {
            assert!(detail.contains(name), "{log}: {detail}");
        }
        let change: String = one(
            &mut a,
            &format!(
                "SELECT version_change FROM merkle_log_sources WHERE source_table = 'public.{log}s'"
            ),
        );
        assert!(change.contains("label sad is now happy"), "{log}: {change}");
    }
}
