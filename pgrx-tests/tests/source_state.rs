//! A source whose table changes in a way that `add_source` would have refused is named, never stops the
//! other sources of its log, and goes on when it is mended.

use server_tests::*;

/// A watermark log of two sources; rows come to both.
const TWO: &str = "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    CREATE TABLE b (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    SELECT create_log('w'); SELECT add_source('w', 'a', 'id'), add_source('w', 'b', 'id');
    INSERT INTO a (note) VALUES ('a1'); INSERT INTO b (note) VALUES ('b1')";

fn states(client: &mut Client) -> Vec<String> {
    column(
        client,
        "SELECT source_table || ' ' || state FROM merkle_log_sources ORDER BY 1",
    )
}

fn drained(client: &mut Client, log: &str) -> i64 {
    one(
        client,
        &format!("SELECT entries FROM process_next_batch('{log}')"),
    )
}

#[test]
fn a_dropped_source_is_named_and_the_others_of_its_log_go_on() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(&mut c, TWO);
    assert_eq!(drained(&mut c, "w"), 2);
    run(&mut c, "DROP TABLE b");
    run(
        &mut c,
        "INSERT INTO a (note) SELECT 'more' FROM generate_series(1, 5)",
    );
    assert_eq!(drained(&mut c, "w"), 5);
    assert_eq!(states(&mut c), ["public.a ready", "public.b table_gone"]);
    assert_eq!(
        one::<String>(
            &mut c,
            "SELECT source_problems FROM merkle_log_status WHERE log_name = 'w'"
        ),
        "public.b: table_gone"
    );
    run(&mut c, "SELECT * FROM reconcile('w')");
    assert_eq!(findings(&mut c, "w"), ["deleted public.b"]);
    assert_eq!(
        one::<i64>(
            &mut c,
            "SELECT lag_rows FROM merkle_log_status WHERE log_name = 'w'"
        ),
        0
    );
    // What every view and hint says to do works as it is written.
    let mend: String = one(
        &mut c,
        "SELECT mend FROM merkle_log_coverage WHERE problem LIKE '%no longer exists%'",
    );
    assert_eq!(
        mend,
        one::<String>(
            &mut c,
            "SELECT mend FROM merkle_log_health() WHERE check_name = 'capture' AND NOT ok"
        )
    );
    run(&mut c, &mend);
    assert!(
        findings(&mut c, "w")
            .iter()
            .all(|f| f.starts_with("source_removed"))
    );
    assert_eq!(states(&mut c), ["public.a ready", "public.b removed"]);
    assert_eq!(
        one::<Option<String>>(
            &mut c,
            "SELECT source_problems FROM merkle_log_status WHERE log_name = 'w'"
        ),
        None
    );
}

#[test]
fn each_state_is_named_passed_over_and_mended() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE ROLE plain; GRANT CREATE ON SCHEMA public TO plain; CREATE SCHEMA closed",
    );
    run(&mut c, TWO);
    drained(&mut c, "w");
    for (state, spoil, mend) in [
        (
            "not_permanent",
            "ALTER TABLE b SET UNLOGGED",
            "ALTER TABLE b SET LOGGED",
        ),
        (
            "forced_row_security",
            "ALTER TABLE b OWNER TO plain; ALTER TABLE b ENABLE ROW LEVEL SECURITY; ALTER TABLE b FORCE ROW LEVEL SECURITY",
            "ALTER TABLE b NO FORCE ROW LEVEL SECURITY",
        ),
        (
            "owner_may_not_read",
            "REVOKE SELECT ON b FROM plain",
            "GRANT SELECT ON b TO plain",
        ),
        (
            "owner_may_not_read",
            "ALTER TABLE b SET SCHEMA closed",
            "GRANT USAGE ON SCHEMA closed TO plain; ALTER TABLE closed.b SET SCHEMA public",
        ),
        (
            "key_not_unique",
            "ALTER TABLE b DROP CONSTRAINT b_pkey; CREATE INDEX b_id ON b (id)",
            "DROP INDEX b_id; ALTER TABLE b ADD PRIMARY KEY (id)",
        ),
        (
            "order_index_missing",
            "ALTER TABLE b DROP CONSTRAINT b_pkey; CREATE INDEX b_id ON b USING hash (id)",
            "DROP INDEX b_id; ALTER TABLE b ADD PRIMARY KEY (id)",
        ),
    ] {
        run(&mut c, spoil);
        let message = "INSERT INTO a (note) VALUES ('meanwhile')";
        run(&mut c, message);
        assert_eq!(drained(&mut c, "w"), 1, "{state}: the other source goes on");
        assert_eq!(
            states(&mut c),
            ["public.a ready".to_owned(), format!("public.b {state}")]
        );
        let found = findings(&mut c, "w");
        assert_eq!(found, ["schema_changed public.b"], "{state}");
        let health: String = one(
            &mut c,
            "SELECT detail FROM merkle_log_health() WHERE check_name = 'capture' AND NOT ok",
        );
        assert!(health.contains(state), "{state}: {health}");
        run(&mut c, "RESET ROLE");
        run(&mut c, mend);
        run(&mut c, "INSERT INTO b (note) VALUES ('again')");
        assert_eq!(drained(&mut c, "w"), 1, "{state}: it goes on");
        assert_eq!(states(&mut c), ["public.a ready", "public.b ready"]);
        assert_eq!(findings(&mut c, "w"), Vec::<String>::new(), "{state}");
    }
    // A key that is gone does not come back.
    run(&mut c, "ALTER TABLE b DROP COLUMN id");
    run(&mut c, "INSERT INTO a (note) VALUES ('last')");
    assert_eq!(drained(&mut c, "w"), 1);
    assert_eq!(states(&mut c), ["public.a ready", "public.b key_dropped"]);
    // Before PostgreSQL 16 an empty table can be turned into a view.
    run(
        &mut c,
        "CREATE TABLE v (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY); SELECT add_source('w', 'v', 'id')",
    );
    if server_major(&mut c) < 16 {
        each(
            &mut c,
            &[
                "ALTER TABLE v ALTER id DROP IDENTITY, DROP CONSTRAINT v_pkey",
                "VACUUM v",
                "CREATE RULE \"_RETURN\" AS ON SELECT TO v DO INSTEAD SELECT 1::bigint AS id",
            ],
        );
        drained(&mut c, "w");
        assert_eq!(states(&mut c)[2], "public.v not_a_table");
    }
}

#[test]
fn a_captured_source_that_is_not_ready_is_named_and_its_log_goes_on() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); SELECT create_log('r');
         SELECT add_source('r', 'a', capture => 'trigger'), add_source('r', 'b', capture => 'trigger')",
    );
    drain(&mut c, "r");
    for (number, (state, spoil, mend)) in [
        (
            "inherited",
            "CREATE TABLE heir () INHERITS (b)",
            "DROP TABLE heir",
        ),
        (
            "not_permanent",
            "ALTER TABLE b SET UNLOGGED",
            "ALTER TABLE b SET LOGGED",
        ),
        ("table_gone", "DROP TABLE b", ""),
    ]
    .into_iter()
    .enumerate()
    {
        run(&mut c, spoil);
        run(&mut c, &format!("INSERT INTO a VALUES ({number})"));
        assert_eq!(drained(&mut c, "r"), 1, "{state}");
        assert_eq!(
            states(&mut c),
            ["public.a ready".to_owned(), format!("public.b {state}")]
        );
        assert_eq!(findings(&mut c, "r").len(), 1, "{state}");
        run(&mut c, "SELECT reconcile('r')");
        if !mend.is_empty() {
            run(&mut c, mend);
            drained(&mut c, "r");
            assert_eq!(states(&mut c), ["public.a ready", "public.b ready"]);
            assert_eq!(findings(&mut c, "r"), Vec::<String>::new(), "{state}");
        }
    }
}

#[test]
fn a_trigger_is_known_by_what_it_calls_whatever_its_name() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY); SELECT create_log('r'); SELECT add_source('r', 't', capture => 'trigger')",
    );
    let names: Vec<String> = column(
        &mut c,
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = 't'::regclass ORDER BY 1",
    );
    for (place, name) in names.iter().enumerate() {
        run(
            &mut c,
            &format!("ALTER TRIGGER {name} ON t RENAME TO \"it's {place}\""),
        );
    }
    assert_eq!(
        column::<String>(&mut c, "SELECT problem FROM merkle_log_coverage"),
        Vec::<String>::new()
    );
    run(&mut c, "SELECT repair_capture('r', 't')");
    run(&mut c, "INSERT INTO t VALUES (1), (2)");
    assert_eq!(drained(&mut c, "r"), 2);
    assert_eq!(findings(&mut c, "r"), Vec::<String>::new());
    run(&mut c, "SELECT drop_log('r', true)");
    assert_eq!(
        one::<i64>(
            &mut c,
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"
        ),
        0
    );
    run(&mut c, "INSERT INTO t VALUES (3)");
}

#[test]
fn another_owner_another_schema_and_a_renamed_schema_change_nothing() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "DROP EXTENSION IF EXISTS merkle_log CASCADE; CREATE SCHEMA ml; CREATE EXTENSION merkle_log SCHEMA ml;
         SET search_path = public, ml; CREATE ROLE other; CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO other",
    );
    run(&mut c, TWO);
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY, note text); SELECT create_log('r'); SELECT add_source('r', 't', capture => 'trigger')",
    );
    let mut writer = cluster.client("postgres");
    run(
        &mut writer,
        "SET search_path = public, ml; INSERT INTO t VALUES (1, 'x'); SELECT process_next_batch()",
    );
    run(&mut c, "SELECT process_next_batch()");
    run(
        &mut c,
        "ALTER TABLE t OWNER TO other; ALTER TABLE a OWNER TO other; ALTER TABLE a SET SCHEMA elsewhere;
         ALTER TABLE t SET SCHEMA elsewhere; ALTER SCHEMA elsewhere RENAME TO there; ALTER SCHEMA ml RENAME TO moved",
    );
    run(
        &mut writer,
        "SET search_path = public, moved; INSERT INTO there.t VALUES (2, 'y'); INSERT INTO there.a (note) VALUES ('z')",
    );
    let logged: i64 = one(
        &mut writer,
        "SELECT sum(entries)::bigint FROM process_next_batch()",
    );
    assert_eq!(logged, 2);
    run(&mut c, "SET search_path = public, moved");
    for log in ["w", "r"] {
        assert_eq!(findings(&mut c, log), Vec::<String>::new(), "{log}");
        assert_eq!(findings(&mut writer, log), Vec::<String>::new(), "{log}");
    }
    assert_eq!(
        column::<String>(&mut c, "SELECT problem FROM merkle_log_coverage"),
        Vec::<String>::new()
    );
}

#[test]
fn a_detached_partition_is_an_ordinary_table_again() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    for (way, leave) in [
        ("drop_log", "SELECT drop_log('p', true)"),
        ("remove_source", "SELECT remove_source('p', 'p')"),
    ] {
        run(
            &mut c,
            "CREATE TABLE p (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             SELECT create_log('p'); SELECT add_source('p', 'p', capture => 'trigger', append_only => true);
             INSERT INTO p VALUES (1, 1, 'a'), (2, 11, 'b')",
        );
        assert_eq!(drained(&mut c, "p"), 2);
        run(&mut c, "ALTER TABLE p DETACH PARTITION p1");
        run(&mut c, "INSERT INTO p1 VALUES (3, 1, 'still writable')");
        run(&mut c, leave);
        run(
            &mut c,
            "INSERT INTO p1 VALUES (4, 1, 'x'); UPDATE p1 SET v = 'y'; TRUNCATE p1",
        );
        assert_eq!(
            one::<i64>(
                &mut c,
                "SELECT count(*) FROM pg_trigger WHERE tgrelid = ANY ('{p1,p2,p}'::regclass[])"
            ),
            0,
            "{way}"
        );
        run(
            &mut c,
            "SELECT drop_log('p', true) FROM verification_logs WHERE log_name = 'p'",
        );
        run(
            &mut c,
            "INSERT INTO p1 VALUES (5, 1, 'x'); DROP TABLE p1; DROP TABLE p",
        );
    }
}

#[test]
fn what_a_state_says_to_do_mends_it_when_it_is_done() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE ROLE plain;
         CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         CREATE TABLE b (k text PRIMARY KEY, \"At\" bigint NOT NULL, h bytea);
         CREATE INDEX ON b (\"At\"); GRANT ALL ON SCHEMA public TO plain;
         SELECT create_log('w'); SELECT add_source('w', 'a', 'id');
         SELECT add_source('w', 'b', 'At', capture => 'watermark', hash_column => 'h');
         INSERT INTO b VALUES ('{ok}', 1, '\\x01')",
    );
    drained(&mut c, "w");
    for (at, (state, spoil)) in [
        ("not_permanent", "ALTER TABLE b SET UNLOGGED"),
        (
            "forced_row_security",
            "ALTER TABLE b OWNER TO plain; ALTER TABLE b ENABLE ROW LEVEL SECURITY; ALTER TABLE b FORCE ROW LEVEL SECURITY",
        ),
        (
            "key_type_changed",
            "ALTER TABLE b ALTER k TYPE mood[] USING k::mood[]",
        ),
        ("order_type_changed", "ALTER TABLE b ALTER \"At\" TYPE text"),
        ("order_nullable", "ALTER TABLE b ALTER \"At\" DROP NOT NULL"),
        (
            "column_missing",
            "ALTER TABLE b ALTER h TYPE int USING length(h)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        run(&mut c, spoil);
        run(&mut c, "INSERT INTO a DEFAULT VALUES");
        assert_eq!(drained(&mut c, "w"), 1, "{state}: the other source goes on");
        assert_eq!(
            states(&mut c),
            ["public.a ready".to_owned(), format!("public.b {state}")]
        );
        let mend: String = one(
            &mut c,
            "SELECT state_mend FROM merkle_log_sources WHERE state <> 'ready'",
        );
        run(&mut c, &mend);
        let (key, order) = (["{sad}", "{}", "{ok,ok}", "{sad,ok}", "{ok,sad}", "{sad,sad}"][at], at + 2);
        let h = if state == "column_missing" { "7" } else { "'\\x02'" };
        run(&mut c, &format!("INSERT INTO b VALUES ('{key}', {order}, {h})"));
        assert_eq!(drained(&mut c, "w"), 1, "{state}: {mend}");
        assert_eq!(
            states(&mut c),
            ["public.a ready", "public.b ready"],
            "{state}: {mend}"
        );
        // What the hash column said is gone with its type.
        let lost: &[&str] = match state {
            "column_missing" => &["schema_changed public.b 0"],
            _ => &[],
        };
        assert_eq!(findings(&mut c, "w"), lost, "{state}");
    }
    // Back to what is logged whole: a hash column that is dropped.
    run(
        &mut c,
        "ALTER TABLE b ADD g text; SELECT alter_source('w', 'b', hash_column => 'g'); ALTER TABLE b DROP g",
    );
    drained(&mut c, "w");
    assert_eq!(states(&mut c)[1], "public.b column_missing");
    let mend: String = one(
        &mut c,
        "SELECT state_mend FROM merkle_log_sources WHERE state <> 'ready'",
    );
    run(&mut c, &mend);
    drained(&mut c, "w");
    assert_eq!(states(&mut c)[1], "public.b ready");
}

#[test]
fn a_source_whose_record_is_damaged_is_named_and_goes_on_when_the_record_is_back() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(&mut c, TWO);
    assert_eq!(drained(&mut c, "w"), 2);
    run(
        &mut c,
        "CREATE TABLE kept AS SELECT v.* FROM verification_source_versions v JOIN verification_sources USING (source_id) WHERE source_table = 'public.b';
         DELETE FROM verification_source_versions v USING kept WHERE v.source_id = kept.source_id",
    );
    // A session that has not asked before.
    let mut c = cluster.client("postgres");
    run(&mut c, "INSERT INTO a (note) VALUES ('meanwhile')");
    assert_eq!(drained(&mut c, "w"), 1);
    assert_eq!(states(&mut c), ["public.a ready", "public.b damaged"]);
    let mend: String = one(
        &mut c,
        "SELECT state_mend FROM merkle_log_sources WHERE state <> 'ready'",
    );
    let found: Vec<String> = column(&mut c, &mend.replace('*', "kind"));
    assert!(
        found.contains(&"configuration_altered".to_owned()),
        "{found:?}"
    );
    run(
        &mut c,
        "INSERT INTO verification_source_versions SELECT * FROM kept; INSERT INTO b (note) VALUES ('again')",
    );
    assert_eq!(drained(&mut c, "w"), 1);
    assert_eq!(states(&mut c), ["public.a ready", "public.b ready"]);
    assert_eq!(findings(&mut c, "w"), Vec::<String>::new());
}

#[test]
fn the_states_of_captured_sources_are_put_on_record_by_batches() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE b (id int PRIMARY KEY, v text); SELECT create_log('r'); SELECT add_source('r', 'b', capture => 'trigger')",
    );
    drain(&mut c, "r");
    let trigger = "merkle_log_1_change";
    for (state, spoil) in [
        (
            "trigger_disabled",
            format!("ALTER TABLE b DISABLE TRIGGER {trigger}"),
        ),
        ("trigger_missing", format!("DROP TRIGGER {trigger} ON b")),
        (
            "key_not_unique",
            "ALTER TABLE b DROP CONSTRAINT b_pkey".to_owned(),
        ),
    ] {
        // Seen by the session that has looked before, and by a new one.
        run(&mut c, &spoil);
        for client in [&mut c, &mut cluster.client("postgres")] {
            drain(client, "r");
            assert_eq!(states(client), [format!("public.b {state}")]);
        }
        assert_eq!(
            one::<String>(
                &mut c,
                "SELECT source_problems FROM merkle_log_status WHERE log_name = 'r'"
            ),
            format!("public.b: {state}")
        );
        let mend: String = one(&mut c, "SELECT state_mend FROM merkle_log_sources");
        match state {
            "key_not_unique" => run(&mut c, "ALTER TABLE b ADD PRIMARY KEY (id)"),
            _ => run(&mut c, &mend),
        }
        drain(&mut c, "r");
        assert_eq!(states(&mut c), ["public.b ready"], "{state}: {mend}");
    }
    run(&mut c, "ALTER TABLE b DROP id");
    drain(&mut c, "r");
    assert_eq!(states(&mut c), ["public.b key_dropped"]);
    let mend: String = one(&mut c, "SELECT state_mend FROM merkle_log_sources");
    run(&mut c, &mend);
    assert_eq!(states(&mut c), ["public.b removed"]);
}

#[test]
fn a_key_that_is_written_as_a_name_is_refused() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE k (id regclass PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE); CREATE TABLE other (); SELECT create_log('r'), create_log('w');
         INSERT INTO k VALUES ('other')",
    );
    for call in [
        "SELECT add_source('r', 'k', capture => 'trigger')",
        "SELECT add_source('w', 'k', 'n', key_columns => '{id}')",
    ] {
        let refused = error(&mut c, call);
        assert!(
            refused.contains("names that others may change"),
            "{refused}"
        );
    }
    // It can come later.
    run(
        &mut c,
        "ALTER TABLE k ALTER id TYPE oid; SELECT add_source('r', 'k', capture => 'trigger')",
    );
    drain(&mut c, "r");
    run(
        &mut c,
        "ALTER TABLE k ALTER id TYPE regclass; ALTER TABLE other RENAME TO another",
    );
    drain(&mut c, "r");
    assert_eq!(states(&mut c), ["public.k key_type_changed"]);
    assert_eq!(findings(&mut c, "r"), ["schema_changed public.k"]);
    let mend: String = one(&mut c, "SELECT state_mend FROM merkle_log_sources");
    run(&mut c, &mend);
    drain(&mut c, "r");
    assert_eq!(states(&mut c), ["public.k ready"]);
    run(&mut c, "SELECT reconcile('r')");
    assert_eq!(one::<i64>(&mut c, "SELECT merkle_size('r')"), 1);
}
