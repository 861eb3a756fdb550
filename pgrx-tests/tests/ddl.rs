//! DDL on record: what is done to the table of a source is in the administration log, noticed by batches, and with who and
//! which command where event triggers note it.

use server_tests::*;

const SOURCES: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
     CREATE TABLE accounts (id int PRIMARY KEY, owner text);
     SELECT create_log('audit'); SELECT add_source('audit', 'orders', order_column => 'id');
     SELECT create_log('history'); SELECT add_source('history', 'accounts', capture => 'trigger', store_leaf_data => true);
     CREATE ROLE app LOGIN; CREATE ROLE mallory LOGIN;";

/// What acts on tables say since the last call: table, act, and what they show of `path`.
fn altered(c: &mut Client, log: &str, path: &str) -> Vec<String> {
    drain(c, log);
    column(
        c,
        &format!(
            "SELECT concat_ws(' ', source_table, act, content->'detail' #>> '{path}') FROM administration('{log}')
              WHERE act LIKE 'table%' ORDER BY leaf_index"
        ),
    )
}

fn intact(c: &mut Client) {
    for log in ["audit", "history", "merkle_log_administration"] {
        assert_eq!(findings(c, log), Vec::<String>::new(), "{log}");
    }
}

#[test]
fn what_batches_notice_of_a_table_is_on_record() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    // What adding the source does is part of that act.
    assert_eq!(altered(&mut a, "audit", "{}"), Vec::<String>::new());
    assert_eq!(altered(&mut a, "history", "{}"), Vec::<String>::new());
    let steps = [
        (
            "GRANT UPDATE ON orders TO app",
            "{privileges,is,0}",
            "app=w/postgres",
        ),
        (
            "GRANT SELECT (note) ON orders TO mallory",
            "{privileges,is,0}",
            "note: mallory=r/postgres",
        ),
        ("ALTER TABLE orders OWNER TO app", "{owner,is}", "app"),
        (
            "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7",
            "{columns,is,0}",
            "extra integer DEFAULT 7",
        ),
        (
            "ALTER TABLE orders RENAME TO purchases",
            "{table_name,is}",
            "public.purchases",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER t BEFORE INSERT ON purchases FOR EACH ROW EXECUTE FUNCTION f()",
            "{triggers,is,0}",
            "CREATE TRIGGER t BEFORE INSERT ON public.purchases FOR EACH ROW EXECUTE FUNCTION public.f()",
        ),
        (
            "ALTER TABLE purchases DISABLE TRIGGER t",
            "{triggers,is,0}",
            "CREATE TRIGGER t BEFORE INSERT ON public.purchases FOR EACH ROW EXECUTE FUNCTION public.f() DISABLED",
        ),
        (
            "CREATE RULE r AS ON DELETE TO purchases DO ALSO NOTHING",
            "{rules,is,0}",
            "CREATE RULE r AS\n    ON DELETE TO public.purchases DO NOTHING;",
        ),
        (
            "CREATE POLICY p ON purchases USING (id > 0); ALTER TABLE purchases ENABLE ROW LEVEL SECURITY",
            "{row_security,is,0}",
            "enabled",
        ),
    ];
    for (place, (sql, path, shown)) in steps.into_iter().enumerate() {
        run(&mut a, sql);
        let acts = altered(&mut a, "audit", path);
        assert_eq!(acts.len(), place + 1, "{sql}: {acts:?}");
        assert_eq!(
            acts[place],
            format!("public.orders table altered {shown}"),
            "{sql}"
        );
    }
    // The same of a captured table, and nothing where nothing changed.
    run(
        &mut a,
        "REVOKE SELECT ON accounts FROM app; ALTER TABLE accounts DISABLE TRIGGER ALL",
    );
    let acts = altered(&mut a, "history", "{triggers,is}");
    assert_eq!(acts.len(), 1, "{acts:?}");
    assert!(acts[0].contains("DISABLED"), "{acts:?}");
    run(&mut a, "SELECT repair_capture('history', 'accounts')");
    assert_eq!(altered(&mut a, "history", "{}").len(), 2);
    let mut other = cluster.client("postgres");
    for _ in 0..3 {
        drain(&mut other, "audit");
        drain(&mut other, "history");
    }
    assert_eq!(altered(&mut other, "history", "{}").len(), 2);
    assert_eq!(altered(&mut other, "audit", "{}").len(), 9);
    run(&mut a, "DROP TABLE accounts CASCADE");
    let acts = altered(&mut a, "history", "{table_name,was}");
    assert_eq!(acts.len(), 3);
    assert_eq!(acts[2], "public.accounts table altered public.accounts");
    assert_eq!(altered(&mut a, "history", "{}").len(), 3);
    // Whoever alters what is stored of it is found.
    run(
        &mut a,
        "UPDATE verification_source_definitions SET owner = 'postgres' WHERE table_name IS NOT NULL",
    );
    assert!(
        findings(&mut a, "audit")
            .iter()
            .any(|f| f.starts_with("configuration_altered"))
    );
}

#[test]
fn event_triggers_tell_who_ran_which_command() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "GRANT app TO mallory; ALTER TABLE orders OWNER TO app; ALTER TABLE accounts OWNER TO app",
    );
    drain(&mut a, "audit");
    drain(&mut a, "history");
    assert!(one::<bool>(&mut a, "SELECT record_ddl()"));
    assert!(!one::<bool>(&mut a, "SELECT record_ddl(true)"));
    let mut mallory = cluster.client_as("postgres", "mallory");
    run(
        &mut mallory,
        "SET application_name = 'psql'; SET ROLE app; SET merkle_log.context = '{\"ticket\": 7}'",
    );
    run(
        &mut mallory,
        "SELECT 1; ALTER TABLE orders ADD COLUMN x int; SELECT 2",
    );
    run(
        &mut mallory,
        "BEGIN; GRANT ALL ON orders, accounts TO PUBLIC; COMMIT",
    );
    run(
        &mut mallory,
        "BEGIN; DROP TRIGGER merkle_log_2_change ON accounts; COMMIT",
    );
    run(
        &mut mallory,
        "BEGIN; ALTER TABLE orders DROP COLUMN note; ROLLBACK",
    );
    run(
        &mut mallory,
        "SET search_path = pg_temp; CREATE TABLE orders (id int); ALTER TABLE orders ADD COLUMN y int; GRANT ALL ON orders TO PUBLIC",
    );
    drain(&mut a, "audit");
    drain(&mut a, "history");
    let told = |c: &mut Client, log: &str| -> Vec<String> {
        column(
            c,
            &format!(
                "SELECT concat_ws('|', k->>'user_name', k->>'role_name', k->>'application_name', k->>'context', k->>'command_tag', k->>'objects', k->>'statement')
                   FROM administration('{log}') a, jsonb_array_elements(a.content->'detail'->'commands') k
                  WHERE a.act = 'table altered' ORDER BY a.leaf_index, k->>'executed_at'"
            ),
        )
    };
    let who = "mallory|app|psql|{\"ticket\": 7}";
    assert_eq!(
        told(&mut a, "audit"),
        [
            format!("{who}|ALTER TABLE|table public.orders|ALTER TABLE orders ADD COLUMN x int"),
            format!("{who}|GRANT|table public.orders|GRANT ALL ON orders, accounts TO PUBLIC"),
        ]
    );
    assert_eq!(
        told(&mut a, "history"),
        [
            format!("{who}|GRANT|table public.accounts|GRANT ALL ON orders, accounts TO PUBLIC"),
            format!(
                "{who}|DROP TRIGGER|trigger merkle_log_2_change on public.accounts|DROP TRIGGER merkle_log_2_change ON accounts"
            ),
        ]
    );
    // The library's own triggers are part of the calls that make them.
    run(&mut a, "SELECT repair_capture('history', 'accounts')");
    assert_eq!(told(&mut a, "history").len(), 2);
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM merkle_ddl_command"),
        0
    );
    let acts: Vec<String> = column(
        &mut a,
        "SELECT act FROM administration('merkle_log_administration') WHERE act LIKE 'DDL%'",
    );
    assert_eq!(acts, ["DDL noted"]);
    assert!(one::<bool>(&mut a, "SELECT record_ddl(false)"));
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM pg_event_trigger"),
        0
    );
    intact(&mut a);
}

#[test]
fn nobodys_command_fails_because_it_cannot_be_noted() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT record_ddl(); ALTER TABLE orders OWNER TO app; ALTER TABLE merkle_ddl_command ADD CHECK (command_tag <> 'GRANT')",
    );
    let mut app = cluster.client_as("postgres", "app");
    run(&mut app, "GRANT SELECT ON orders TO mallory");
    assert!(one::<bool>(
        &mut a,
        "SELECT has_table_privilege('mallory', 'orders', 'SELECT')"
    ));
    // What was not noted is noticed.
    drain(&mut a, "audit");
    let seen: i64 = one(
        &mut a,
        "SELECT count(*) FROM administration('audit') WHERE content->'detail'->'privileges'->>'is' ~ 'mallory=r/app'",
    );
    assert_eq!(seen, 1);
    run(&mut a, "ALTER TABLE merkle_ddl_command RENAME TO elsewhere");
    run(
        &mut app,
        "ALTER TABLE orders ADD COLUMN z int; CREATE TEMP TABLE t (i int); GRANT SELECT ON t TO PUBLIC; DROP TABLE t",
    );
    run(&mut a, "ALTER TABLE elsewhere RENAME TO merkle_ddl_command");
    // Long transactions and savepoints are those of the command.
    run(
        &mut app,
        "BEGIN; SAVEPOINT s; ALTER TABLE orders ADD COLUMN w int; ROLLBACK TO s; ALTER TABLE orders ADD COLUMN v int; COMMIT",
    );
    assert_eq!(
        column::<String>(
            &mut a,
            "SELECT statement FROM merkle_ddl_command WHERE statement ~ 'COLUMN [vw]'"
        ),
        ["ALTER TABLE orders ADD COLUMN v int"]
    );
}

#[test]
fn an_ordinary_role_gains_nothing() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(&mut a, "SELECT record_ddl()");
    let mut mallory = cluster.client_as("postgres", "mallory");
    for sql in [
        "SELECT record_ddl(false)",
        "SELECT note_ddl_command()",
        "SELECT * FROM merkle_ddl_command",
        "INSERT INTO merkle_ddl_command (source_id) VALUES (1)",
        "SELECT * FROM verification_source_definitions",
        "DROP EVENT TRIGGER merkle_log_sql_drop",
    ] {
        let refused = error(&mut mallory, sql);
        assert!(refused.starts_with("42501"), "{sql}: {refused}");
    }
    run(&mut a, "GRANT EXECUTE ON FUNCTION record_ddl TO mallory");
    assert!(error(&mut mallory, "SELECT record_ddl(false)").starts_with("42501"));
    // Even a superuser calls it as nothing but an event trigger.
    let refused = error(&mut a, "SELECT note_ddl_command()");
    assert!(!refused.starts_with("XX"), "{refused}");
    // Operators and functions of her own, first on the path and in the temporary schema, are not used.
    run(
        &mut a,
        "CREATE SCHEMA trap AUTHORIZATION mallory; ALTER ROLE mallory SET search_path = trap, pg_catalog",
    );
    let mut mallory = cluster.client_as("postgres", "mallory");
    run(
        &mut mallory,
        "CREATE FUNCTION trap.evil(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF current_user = 'postgres' THEN ALTER ROLE mallory SUPERUSER; END IF; RETURN true; END $$;
         CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.evil);
         CREATE FUNCTION trap.pg_event_trigger_ddl_commands() RETURNS int LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN 1; END $$;
         CREATE TABLE trap.mine (id int); GRANT SELECT ON trap.mine TO PUBLIC; DROP TABLE trap.mine",
    );
    assert!(!one::<bool>(
        &mut a,
        "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"
    ));
}

#[test]
fn it_survives_a_dump_and_goes_with_the_extension() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT record_ddl(); ALTER TABLE orders ADD COLUMN x int",
    );
    run(&mut a, "CREATE DATABASE restored");
    let output = cluster.shell("pg_dump postgres | psql -qAt -v ON_ERROR_STOP=1 restored");
    assert!(output.status.success(), "{output:?}");
    let mut b = cluster.client("restored");
    run(&mut b, "SELECT adopt_database('continue')");
    drain(&mut b, "audit");
    // What was noted before the dump is put on record after it, and what is run there, too.
    run(&mut b, "ALTER TABLE orders ADD COLUMN y int");
    drain(&mut b, "audit");
    drain(&mut b, "history");
    let told: Vec<String> = column(
        &mut b,
        "SELECT k->>'statement' FROM administration('audit') a, jsonb_array_elements(a.content->'detail'->'commands') k ORDER BY a.leaf_index",
    );
    assert_eq!(
        told,
        [
            "ALTER TABLE orders ADD COLUMN x int",
            "ALTER TABLE orders ADD COLUMN y int"
        ]
    );
    intact(&mut b);
    // A restored table is defined as it was.
    let changed: Vec<String> = column(
        &mut b,
        "SELECT content->>'detail' FROM administration('history') WHERE act LIKE 'table%'",
    );
    assert_eq!(changed, Vec::<String>::new());
    run(
        &mut b,
        "DROP EXTENSION merkle_log CASCADE; CREATE TABLE later (i int); DROP TABLE later; GRANT SELECT ON orders TO PUBLIC",
    );
    assert_eq!(
        one::<i64>(&mut b, "SELECT count(*) FROM pg_event_trigger"),
        0
    );
    run(&mut b, "CREATE EXTENSION merkle_log; SELECT record_ddl()");
}

#[test]
fn dropping_a_log_takes_what_was_noted_with_it() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT record_ddl(); ALTER TABLE orders ADD COLUMN x int; SELECT drop_log('audit', confirm => true)",
    );
    for table in ["merkle_ddl_command", "verification_source_definitions"] {
        assert_eq!(
            one::<i64>(
                &mut a,
                &format!("SELECT count(*) FROM {table} WHERE source_id = 1")
            ),
            0,
            "{table}"
        );
    }
    assert!(findings(&mut a, "merkle_log_administration").is_empty());
}

/// An owner can nest an expression so that the server stores it and cannot write it any more, and make one as long as he
/// likes.
#[test]
fn what_an_owner_makes_of_his_table_stops_no_batch() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "CREATE TABLE others (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); SELECT add_source('audit', 'others', order_column => 'id');
         CREATE TABLE dated (at timestamptz PRIMARY KEY); SELECT create_log('dates');
         SELECT add_source('dates', 'dated', order_column => 'at', capture => 'watermark')",
    );
    let deep = |depth: usize| format!("{}note{}", "lower(".repeat(depth), ")".repeat(depth));
    let mut depth = 4000;
    while a
        .batch_execute(&format!(
            "CREATE POLICY deep ON orders USING ({} = note)",
            deep(depth)
        ))
        .is_err()
    {
        depth -= 200;
    }
    assert!(depth > 1000);
    let unshown = error(
        &mut a,
        "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polname = 'deep'",
    );
    assert!(unshown.starts_with("54001"), "{unshown}");
    let nested = format!("{}'x'{}", "lower(".repeat(depth), ")".repeat(depth));
    let now = format!(
        "{}now(){}",
        "date_trunc('second', ".repeat(depth / 2),
        ")".repeat(depth / 2)
    );
    run(
        &mut a,
        &format!(
            "ALTER TABLE accounts ALTER owner SET DEFAULT {nested}; ALTER TABLE dated ALTER at SET DEFAULT {now};
             INSERT INTO orders (note) VALUES ('a'); INSERT INTO others DEFAULT VALUES; INSERT INTO dated VALUES ('2024-01-01')"
        ),
    );
    assert_eq!(altered(&mut a, "audit", "{row_security,is}").len(), 1);
    assert_eq!(altered(&mut a, "history", "{columns,is}").len(), 1);
    altered(&mut a, "dates", "{columns,is}");
    for (log, size) in [("audit", 2), ("dates", 1)] {
        assert_eq!(
            one::<i64>(&mut a, &format!("SELECT merkle_size('{log}')")),
            size
        );
    }
    // Nothing is put on record twice, and what is changed next is.
    assert_eq!(altered(&mut a, "audit", "{}").len(), 1);
    run(
        &mut a,
        &format!(
            "DROP POLICY deep ON orders; CREATE POLICY deep ON orders USING ({} = 'b')",
            deep(depth)
        ),
    );
    assert_eq!(altered(&mut a, "audit", "{row_security,is}").len(), 2);
    run(
        &mut a,
        "DROP POLICY deep ON orders; CREATE POLICY long ON orders USING (note = repeat('x', 10)); ALTER TABLE orders ALTER note SET DEFAULT 'short'",
    );
    let literal = "y".repeat(5000);
    run(
        &mut a,
        &format!(
            "DROP POLICY long ON orders; CREATE POLICY long ON orders USING (note = '{literal}')"
        ),
    );
    let acts = altered(&mut a, "audit", "{row_security,is,0}");
    let last = acts.last().unwrap();
    assert!(last.contains("… (SHA-256 ") && last.len() < 2200, "{last}");
    intact(&mut a);
}

/// The tag of a command does not say what it is about.
#[test]
fn commands_are_noted_whatever_they_are_called() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "CREATE SEQUENCE numbers; ALTER TABLE orders ADD COLUMN number bigint DEFAULT nextval('numbers');
         CREATE MATERIALIZED VIEW one AS SELECT 1 AS i; CREATE POLICY p ON orders USING (id > (SELECT i FROM one));
         CREATE TABLE spare (i int, j int); CREATE POLICY q ON orders USING (id > (SELECT i FROM spare LIMIT 1));
         CREATE TABLE parts (id int, place int, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
         CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2);
         SELECT add_source('history', 'parts', capture => 'trigger');
         SELECT process_next_batch(); SELECT record_ddl()",
    );
    let cases = [
        ("ALTER VIEW orders RENAME COLUMN note TO a", "public.orders"),
        (
            "ALTER MATERIALIZED VIEW orders RENAME COLUMN a TO b",
            "public.orders",
        ),
        (
            "ALTER FOREIGN TABLE orders RENAME COLUMN b TO c",
            "public.orders",
        ),
        (
            "ALTER TYPE orders RENAME ATTRIBUTE c TO note",
            "public.orders",
        ),
        ("COMMENT ON TABLE orders IS 'x'", "public.orders"),
        ("DROP SEQUENCE numbers CASCADE", "public.orders"),
        ("DROP MATERIALIZED VIEW one CASCADE", "public.orders"),
        ("DROP TABLE part_1", "public.parts"),
        ("ALTER TABLE part_2 ADD CHECK (id > 0)", "public.parts"),
        (
            "ALTER TABLE part_2 DROP CONSTRAINT part_2_id_check",
            "public.parts",
        ),
        (
            "ALTER TABLE orders ALTER note SET DEFAULT 'x'",
            "public.orders",
        ),
        (
            "ALTER TABLE orders ALTER note DROP DEFAULT",
            "public.orders",
        ),
        ("ALTER TABLE orders DROP COLUMN number", "public.orders"),
        ("ALTER TABLE spare DROP COLUMN i CASCADE", "public.orders"),
    ];
    for (sql, table) in cases {
        run(&mut a, sql);
        let told: Vec<String> = column(
            &mut a,
            "SELECT s.source_table || ' ' || d.statement FROM merkle_ddl_command d JOIN verification_sources s USING (source_id)",
        );
        assert_eq!(told, [format!("{table} {sql}")], "{sql}");
        run(&mut a, "DELETE FROM merkle_ddl_command");
    }
    // Commands about other tables are not noted.
    run(
        &mut a,
        "CREATE TABLE free (i int); COMMENT ON TABLE free IS 'x'; DROP TABLE free",
    );
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM merkle_ddl_command"),
        0
    );
    intact(&mut a);
}

/// Members of pg_monitor see what was done to tables, and no text that may hold values of rows.
#[test]
fn texts_of_commands_are_for_those_who_read_the_rows() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT record_ddl(); CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher;
         CREATE ROLE auditor LOGIN; GRANT pg_monitor, pg_read_all_data TO auditor",
    );
    run(
        &mut a,
        r#"SET merkle_log.context = '{"patient": "Grace"}'; DO $$ BEGIN INSERT INTO orders (note) VALUES ('secret'); ALTER TABLE orders ADD COLUMN x int; END $$"#,
    );
    drain(&mut a, "audit");
    for (role, shown) in [("watcher", false), ("auditor", true), ("postgres", true)] {
        let mut client = cluster.client_as("postgres", role);
        let acts: String = one(
            &mut client,
            "SELECT string_agg(content::text, ' ') FROM administration('audit') WHERE act = 'table altered'",
        );
        assert!(
            acts.contains("ALTER TABLE") && acts.contains("public.orders"),
            "{acts}"
        );
        assert_eq!(acts.contains("secret"), shown, "{role}: {acts}");
        assert_eq!(acts.contains("Grace"), shown, "{role}: {acts}");
    }
}

#[test]
fn event_triggers_that_are_not_as_they_were_made_are_no_good_health() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    let check = |c: &mut Client| -> Vec<bool> {
        column(
            c,
            "SELECT ok FROM merkle_log_health() WHERE check_name = 'ddl'",
        )
    };
    assert_eq!(check(&mut a), Vec::<bool>::new());
    for harm in [
        "ALTER EVENT TRIGGER merkle_log_sql_drop DISABLE",
        "ALTER EVENT TRIGGER merkle_log_ddl_command_end ENABLE REPLICA",
        "DROP EVENT TRIGGER merkle_log_ddl_command_end",
    ] {
        run(&mut a, "SELECT record_ddl()");
        assert_eq!(check(&mut a), [true]);
        run(&mut a, harm);
        assert_eq!(check(&mut a), [false], "{harm}");
    }
    run(&mut a, "SELECT record_ddl(false)");
    assert_eq!(check(&mut a), Vec::<bool>::new());
    // Whoever may write one column of the extension's tables is named as well.
    let writers = "SELECT ok FROM merkle_log_health() WHERE check_name = 'privileges'";
    assert!(one::<bool>(&mut a, writers));
    run(&mut a, "GRANT UPDATE (leaf_hash) ON merkle_log TO mallory");
    assert!(!one::<bool>(&mut a, writers));
}
