//! TRUNCATE and COPY FREEZE stand in a row's history where they happened, whatever triggers do around them.

use server_tests::*;

/// What the log tells of a row: operations, and what column `v` held.
fn history(client: &mut Client, table: &str, key: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT concat_ws(' ', operation, row_data ->> 'v') FROM history('audit', '{table}', '{key}') ORDER BY leaf_index"
        ),
    )
}

const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE u (id int PRIMARY KEY, v text, t int REFERENCES t);
    CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
    SELECT create_log('audit');
    SELECT add_source('audit', name::regclass, capture => 'trigger', store_leaf_data => true, allow_truncate => true)
      FROM unnest('{t,u,p}'::text[]) name;
    CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        BEGIN
            RAISE EXCEPTION 'taken back';
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        EXECUTE format('INSERT INTO %I VALUES (1, %L) ON CONFLICT DO NOTHING', TG_ARGV[0], TG_ARGV[1]);
        RETURN NULL;
    END $$;";

#[test]
fn what_a_trigger_writes_after_a_truncate_is_logged_after_it() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(&mut c, TABLES);
    run(
        &mut c,
        "CREATE TRIGGER a_before BEFORE TRUNCATE ON t EXECUTE FUNCTION refill('u', 'before');
         CREATE TRIGGER a_after AFTER TRUNCATE ON t EXECUTE FUNCTION refill('t', 'after');
         CREATE TRIGGER zz_after AFTER TRUNCATE ON t EXECUTE FUNCTION refill('u', 'after');
         INSERT INTO t VALUES (1, 'x')",
    );
    for memory in ["8MB", "1kB"] {
        run(
            &mut c,
            &format!("SET merkle_log.capture_memory = '{memory}'"),
        );
        // The second TRUNCATE empties the files that the first has made.
        run(
            &mut c,
            "BEGIN; TRUNCATE t CASCADE; TRUNCATE u, t RESTART IDENTITY; COMMIT",
        );
    }
    drain(&mut c, "audit");
    assert_eq!(
        history(&mut c, "t", "1"),
        [
            "insert x",
            "truncate",
            "insert after",
            "truncate",
            "insert after",
            "truncate",
            "insert after",
            "truncate",
            "insert after",
        ]
    );
    let of_u = [
        "insert before",
        "truncate",
        "insert after",
        "truncate",
        "insert after",
        "truncate",
        "insert after",
        "truncate",
        "insert after",
    ];
    assert_eq!(history(&mut c, "u", "1"), of_u);
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
}

#[test]
fn rows_that_copy_has_frozen_are_logged_before_what_triggers_do_to_them() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(&mut c, TABLES);
    run(
        &mut c,
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
             BEGIN
                 DELETE FROM t WHERE id = NEW.id;
                 RAISE EXCEPTION 'taken back';
             EXCEPTION WHEN OTHERS THEN NULL;
             END;
             IF NEW.id < 3 THEN UPDATE t SET v = v || '!' WHERE id IN (NEW.id, NEW.id + 1); END IF;
             IF NEW.id = 4 THEN DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 'again'); END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER a_touch AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    for memory in ["8MB", "1kB"] {
        run(
            &mut c,
            &format!("SET merkle_log.capture_memory = '{memory}'"),
        );
        run(
            &mut c,
            r"BEGIN; TRUNCATE t CASCADE;
              COPY t FROM PROGRAM 'for i in 1 2 3 4; do printf ''%s\tc\n'' $i; done' WITH (FREEZE);
              UPDATE t SET v = v || '?' WHERE id IN (1, 4); COMMIT",
        );
        drain(&mut c, "audit");
        for (key, tells) in [
            ("1", &["insert c", "update c!", "update c!?"] as &[&str]),
            ("2", &["insert c", "update c!", "update c!!"]),
            ("3", &["insert c", "update c!"]),
            (
                "4",
                &["insert c", "delete c", "insert again", "update again?"],
            ),
        ] {
            let all = history(&mut c, "t", key);
            let truncated = all.iter().rposition(|e| e == "truncate").unwrap();
            assert_eq!(all[truncated + 1..], *tells, "{key} with {memory}");
        }
        assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
    }
}

#[test]
fn a_partitioned_table_is_truncated_whole_and_its_partitions_never_alone() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(&mut c, TABLES);
    let again = "INSERT INTO p VALUES (1, 'x'), (101, 'x') ON CONFLICT DO NOTHING";
    run(&mut c, again);
    for trigger in [
        "a_first BEFORE TRUNCATE ON p",
        "a_first AFTER TRUNCATE ON p",
        "zz_last AFTER TRUNCATE ON p",
        "a_first AFTER TRUNCATE ON p1",
    ] {
        run(
            &mut c,
            &format!("CREATE TRIGGER {trigger} EXECUTE FUNCTION refill('p', 'after')"),
        );
        for truncate in [
            "TRUNCATE p",
            "TRUNCATE p1, p",
            "BEGIN; TRUNCATE p; SAVEPOINT s; TRUNCATE p2, p; RELEASE s; TRUNCATE p; COMMIT",
        ] {
            run(&mut c, again);
            run(&mut c, truncate);
        }
        let (name, _) = trigger.split_once(' ').unwrap();
        let (_, table) = trigger.rsplit_once(' ').unwrap();
        run(&mut c, &format!("DROP TRIGGER {name} ON {table}"));
    }
    // After their table they are, as long as nothing has come in between.
    run(
        &mut c,
        "BEGIN; TRUNCATE p; TRUNCATE p1; SAVEPOINT s; TRUNCATE p2; RELEASE s; TRUNCATE p1; COMMIT",
    );
    run(&mut c, again);
    // Alone they are not, also not after what was taken back.
    for alone in [
        "TRUNCATE p1",
        "BEGIN; TRUNCATE p; INSERT INTO p VALUES (1); TRUNCATE p1",
        "BEGIN; SAVEPOINT s; TRUNCATE p; ROLLBACK TO s; TRUNCATE p1",
        "SELECT capture_truncate(3, true); TRUNCATE p1",
        // Who pretends that the table was truncated as well cannot commit.
        "CREATE TABLE other (id int);
         CREATE TRIGGER other AFTER TRUNCATE ON other WHEN (capture_truncate(3, true)) EXECUTE FUNCTION refill('u', 'x');
         TRUNCATE p1, other",
    ] {
        let message = error(&mut c, alone);
        assert!(
            message.starts_with("23001") && message.contains("cannot truncate a partition"),
            "{alone}: {message}"
        );
        run(&mut c, "ROLLBACK");
    }
    drain(&mut c, "audit");
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
}

#[test]
fn verification_accuses_no_row_while_a_truncate_waits_or_has_just_happened() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    let mut other = cluster.client("postgres");
    run(&mut c, TABLES);
    run(
        &mut c,
        "INSERT INTO u VALUES (1, 'x'), (2, 'y'); INSERT INTO p VALUES (1, 'x')",
    );
    drain(&mut c, "audit");
    let status = "SELECT status FROM verify_row('audit', 'u', '1')";
    for truncate in [
        "TRUNCATE u, p",
        "ALTER TABLE u ALTER COLUMN v TYPE varchar(9)",
    ] {
        // The snapshot is one of before.
        run(
            &mut c,
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM merkle_log",
        );
        run(&mut other, truncate);
        assert_eq!(
            findings(&mut c, "audit"),
            Vec::<String>::new(),
            "{truncate}"
        );
        assert_eq!(one::<String>(&mut c, status), "unknown", "{truncate}");
        run(&mut c, "COMMIT");
        // The truncation is captured and not yet logged.
        assert_eq!(
            findings(&mut c, "audit"),
            Vec::<String>::new(),
            "{truncate}"
        );
        if truncate.starts_with("TRUNCATE") {
            assert_eq!(one::<String>(&mut c, status), "waiting");
        }
        drain(&mut c, "audit");
        assert_eq!(
            findings(&mut c, "audit"),
            Vec::<String>::new(),
            "{truncate}"
        );
        run(
            &mut c,
            "INSERT INTO u VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'y'",
        );
        drain(&mut c, "audit");
    }
    run(&mut c, "ALTER TABLE u DISABLE TRIGGER ALL; DELETE FROM u");
    let found = findings(&mut c, "audit");
    assert!(
        found.len() == 1 && found[0].starts_with("deleted public.u 1"),
        "{found:?}"
    );
}
