//! A row that is kept is kept at any length, up to a limit that is told to its writer.

use server_tests::*;

/// A text of `kilobytes` that does not compress.
const LONG_TEXT: &str = "CREATE FUNCTION long(kilobytes int, salt int DEFAULT 0) RETURNS text LANGUAGE sql AS
    $$SELECT string_agg(encode(sha512((salt || ' ' || i)::bytea), 'hex'), '') FROM generate_series(1, kilobytes * 8) i$$;";

#[test]
fn a_kept_version_of_any_length_is_kept_and_verified_redacted_dumped_and_restored() {
    let cluster = Cluster::start();
    cluster.shell("createdb shop && psql -q -c 'CREATE EXTENSION merkle_log' shop");
    let mut a = cluster.client("shop");
    run(&mut a, LONG_TEXT);
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, body text); CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
         SELECT create_log('t'), create_log('w');
         SELECT add_source('t', 't', capture => 'trigger', store_leaf_data => true, salted => true),
                add_source('w', 'w', 'id', store_leaf_data => true, salted => true);
         INSERT INTO t VALUES (1, long(100)), (2, long(5000)); INSERT INTO w (body) VALUES (long(100)), (long(5000)), ('short');
         UPDATE t SET body = long(100, 1) WHERE id = 1; UPDATE t SET body = 'short'; DELETE FROM t WHERE id = 1",
    );
    assert_eq!(drain(&mut a, "t"), 6);
    assert_eq!(drain(&mut a, "w"), 3);
    // A watermark source keeps what was logged, whatever becomes of the row.
    let lengths: &str =
        "SELECT concat_ws(' ', operation, length(row_data ->> 'body')) FROM history";
    for (key, expected) in [
        (
            1,
            vec!["insert 102400", "update 102400", "update 5", "delete 5"],
        ),
        (2, vec!["insert 5120000", "update 5"]),
    ] {
        let found: Vec<String> = column(&mut a, &format!("{lengths}('t', 't', '{key}')"));
        assert_eq!(found, expected);
    }
    let whole: bool = one(
        &mut a,
        "SELECT row_data ->> 'body' = long(5000) FROM history('t', 't', '2') LIMIT 1",
    );
    assert!(whole);
    for log in ["t", "w"] {
        assert_eq!(findings(&mut a, log), [""; 0]);
        // What is hashed is what docs/leaf-format.md says.
        let hashed: bool = one(
            &mut a,
            &format!(
                "SELECT bool_and(m.leaf_hash = sha256('\\x00'::bytea || leaf_data('{log}', m.leaf_index)) AND length(leaf_data('{log}', m.leaf_index)) < 65536)
                   FROM merkle_log m JOIN verification_logs l USING (log_id) WHERE l.log_name = '{log}'"
            ),
        );
        assert!(hashed);
        // A byte that was changed, and a version of which only the digest was left.
        for edit in [
            "set_byte(leaf_data, 60000, get_byte(leaf_data, 60000) # 1)",
            "leaf_data || 'x'::bytea",
            "leaf_data('LOG', d.leaf_index)",
            "NULL",
        ] {
            let edit = edit.replace("LOG", log);
            run(
                &mut a,
                &format!(
                    "BEGIN; UPDATE merkle_leaf_data d SET leaf_data = {edit} FROM verification_logs l WHERE d.log_id = l.log_id AND log_name = '{log}' AND leaf_index = 1"
                ),
            );
            let found = findings(&mut a, log);
            assert!(
                !found.is_empty()
                    && found
                        .iter()
                        .all(|f| f.starts_with("leaf_data_altered") && f.ends_with(" 1")),
                "{log} {edit}: {found:?}"
            );
            run(&mut a, "ROLLBACK");
        }
    }
    let before: Vec<String> = column(
        &mut a,
        "SELECT h::text FROM (SELECT * FROM history('t', 't', '2') UNION ALL SELECT * FROM history('w', 'w', '2')) h",
    );
    cluster.shell("createdb copy && pg_dump shop | psql -q -v ON_ERROR_STOP=1 copy");
    let mut copy = cluster.client("copy");
    assert_eq!(
        column::<String>(
            &mut copy,
            "SELECT h::text FROM (SELECT * FROM history('t', 't', '2') UNION ALL SELECT * FROM history('w', 'w', '2')) h"
        ),
        before
    );
    for log in ["t", "w"] {
        assert_eq!(findings(&mut copy, log), [""; 0]);
    }
    // Erased with all that was kept, and no more is kept of what comes.
    run(
        &mut a,
        "SELECT redact_row('t', 't', '2', 'asked for'), redact_row('w', 'w', '2', 'asked for'); UPDATE t SET body = long(100, 7)",
    );
    drain(&mut a, "t");
    let left: i64 = one(
        &mut a,
        "SELECT count(*) FROM merkle_leaf_data d JOIN merkle_log m USING (log_id, leaf_index)
          WHERE m.source_key = '2' AND m.source_id > 0 AND (d.leaf_data IS NOT NULL OR d.salt IS NOT NULL)",
    );
    assert_eq!(left, 0);
    for log in ["t", "w"] {
        let found = findings(&mut a, log);
        assert!(
            found.iter().all(|f| f.starts_with("redacted ")),
            "{found:?}"
        );
    }
}

#[test]
fn long_rows_are_logged_in_bounded_memory_however_many_there_are() {
    let cluster = Cluster::with("merkle_log.capture_memory = '1MB'");
    let mut a = cluster.client("postgres");
    run(&mut a, LONG_TEXT);
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, body text); CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
         SELECT create_log('t'), create_log('w');
         SELECT add_source('t', 't', capture => 'trigger', store_leaf_data => true), add_source('w', 'w', 'id', store_leaf_data => true);
         -- Subtransactions write early, so that the transaction has to be put in order.
         DO $$BEGIN
           FOR i IN 1..40 LOOP
             BEGIN INSERT INTO t VALUES (i, long(1000, i)); UPDATE t SET body = 's' || i WHERE id = i;
             EXCEPTION WHEN division_by_zero THEN NULL; END;
           END LOOP;
         END$$;
         INSERT INTO w (body) SELECT long(1000, i) FROM generate_series(1, 40) i",
    );
    let pid: i32 = one(&mut a, "SELECT pg_backend_pid()");
    let before = private_memory(pid);
    assert_eq!(drain(&mut a, "t"), 80);
    assert_eq!(drain(&mut a, "w"), 40);
    for log in ["t", "w"] {
        assert_eq!(findings(&mut a, log), [""; 0]);
    }
    let grown = private_memory(pid).saturating_sub(before);
    assert!(grown < 60_000, "{grown} kB");
    let orders: Vec<String> = column(&mut a, "SELECT operation FROM history('t', 't', '17')");
    assert_eq!(orders, ["insert", "update"]);
}

#[test]
fn a_row_that_cannot_be_kept_is_refused_to_its_writer_or_set_aside_and_no_one_is_held_up() {
    // Rows of more than 500 MB take their time.
    if !size(false, true) {
        return;
    }
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text); CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text, b text, c text);
         CREATE TABLE before (id int PRIMARY KEY, a text, b text, c text); INSERT INTO before SELECT 1, repeat('x', 180000000), repeat('x', 180000000), repeat('x', 180000000); INSERT INTO before VALUES (2);
         SELECT create_log('t'), create_log('w');
         SELECT add_source('t', 't', capture => 'trigger', store_leaf_data => true), add_source('t', 'before', capture => 'trigger', store_leaf_data => true),
                add_source('w', 'w', 'id', store_leaf_data => true)",
    );
    let long = "repeat('x', 180000000), repeat('x', 180000000), repeat('x', 180000000)";
    let message = error(&mut a, &format!("INSERT INTO t SELECT 1, {long}"));
    assert!(
        message.starts_with("54000") && message.contains("store_leaf_data => false"),
        "{message}"
    );
    run(
        &mut a,
        &format!(
            "INSERT INTO t VALUES (2); INSERT INTO w (a, b, c) SELECT {long}; INSERT INTO w (a) VALUES ('short')"
        ),
    );
    // What was there before the triggers, and is too long, holds up neither.
    assert_eq!(drain(&mut a, "t"), 2);
    assert_eq!(drain(&mut a, "w"), 1);
    let aside: Vec<String> = column(
        &mut a,
        "SELECT object FROM merkle_log_health() WHERE check_name = 'set_aside' AND NOT ok ORDER BY 1",
    );
    assert_eq!(aside, ["t", "w"]);
    assert_eq!(findings(&mut a, "w"), ["unlogged public.w 1"]);
    run(&mut a, "UPDATE w SET b = NULL; UPDATE before SET b = NULL");
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM reconcile('w')"), 1);
    assert_eq!(drain(&mut a, "t"), 4);
    run(&mut a, "SELECT reconcile('t')");
    for log in ["t", "w"] {
        assert_eq!(findings(&mut a, log), [""; 0]);
    }
    assert!(one::<bool>(
        &mut a,
        "SELECT bool_and(ok) FROM merkle_log_health() WHERE check_name = 'set_aside'"
    ));
    // Without its content any row is logged.
    run(
        &mut a,
        &format!(
            "SELECT alter_source('t', 't', store_leaf_data => false); INSERT INTO t SELECT 1, {long}"
        ),
    );
    assert_eq!(drain(&mut a, "t"), 5);
}

#[test]
fn a_version_with_a_value_that_no_jsonb_holds_is_shown_with_the_way_to_the_value() {
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let cluster = Cluster::start();
    let mut a = cluster.client_hearing("postgres", notices.clone());
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, body text, note text, bytes bytea); SELECT create_log('t');
         SELECT add_source('t', 't', capture => 'trigger', store_leaf_data => true);
         INSERT INTO t VALUES (1, 'short', 'first', '\\x0a'); UPDATE t SET body = repeat('long', 67200000), note = 'second'; UPDATE t SET body = 'short', note = NULL",
    );
    assert_eq!(drain(&mut a, "t"), 3);
    let shown: Vec<String> = column(
        &mut a,
        "SELECT concat_ws(' ', leaf_index, operation, row_data ->> 'note', length(row_data ->> 'body')) FROM history('t', 't', '1')",
    );
    assert_eq!(shown, ["0 insert first 5", "1 update second", "2 update 5"]);
    let heard = notices.lock().unwrap().join("\n");
    assert!(
        heard.contains("column \"body\" of entry 1")
            && heard.contains("kept_value('t', 1, 'body')"),
        "{heard}"
    );
    assert!(one::<bool>(
        &mut a,
        "SELECT length(kept_value('t', 1, 'body')) = 268800000"
    ));
    for (call, value) in [
        ("kept_value('t', 0, 'body')", Some("short")),
        ("kept_value('t', 1, 'id')", Some("1")),
        ("kept_value('t', 2, 'note')", None),
        ("kept_value('t', 0, 'bytes')", Some("\\x0a")),
    ] {
        let found: Option<String> = one(&mut a, &format!("SELECT {call}"));
        assert_eq!(found.as_deref(), value, "{call}");
    }
    assert!(error(&mut a, "SELECT kept_value('t', 0, 'none')").starts_with("42703"));
    assert!(error(&mut a, "SELECT kept_value('t', 3, 'body')").starts_with("22003"));
    run(&mut a, "CREATE ROLE stranger LOGIN");
    assert!(
        error(
            &mut cluster.client_as("postgres", "stranger"),
            "SELECT kept_value('t', 0, 'body')"
        )
        .starts_with("42501")
    );
}
