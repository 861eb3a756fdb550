//! Who may do what, and that nobody's code runs as somebody else.

use server_tests::*;

#[test]
fn writing_is_granted_and_reading_asks_for_the_source() {
    let cluster = Cluster::start();
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE nobody LOGIN; GRANT CREATE ON SCHEMA public TO owner;
         SET ROLE owner; CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, secret text);
         INSERT INTO orders (secret) VALUES ('a'), ('b'); GRANT SELECT ON orders TO reader; RESET ROLE;
         SELECT create_log('audit')",
    );
    let mut nobody = cluster.client_as("postgres", "nobody");
    for call in [
        "create_log('x')",
        "drop_log('audit')",
        "alter_log('audit')",
        "enable_log('audit')",
        "disable_log('audit')",
        "reconcile('audit')",
        "add_source('audit', 'orders', 'id')",
        "alter_source('audit', 'orders')",
        "remove_source('audit', 'orders')",
        "process_next_batch('audit')",
    ] {
        assert!(
            error(&mut nobody, &format!("SELECT {call}")).starts_with("42501"),
            "{call}"
        );
    }
    for table in [
        "verification_logs",
        "verification_sources",
        "verification_source_versions",
        "verification_source_columns",
        "merkle_log",
        "merkle_tile",
        "merkle_tree_head",
    ] {
        for statement in ["SELECT * FROM", "DELETE FROM"] {
            assert!(
                error(&mut nobody, &format!("{statement} {table}")).starts_with("42501"),
                "{statement} {table}"
            );
        }
    }
    run(
        &mut admin,
        "GRANT EXECUTE ON FUNCTION add_source, process_next_batch TO owner, nobody",
    );
    let refused = error(
        &mut nobody,
        "SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    assert!(
        refused.starts_with("42501") && refused.contains("owner of table"),
        "{refused}"
    );
    let mut owner = cluster.client_as("postgres", "owner");
    run(
        &mut owner,
        "SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    // A role that may run batches logs tables that it cannot read.
    assert_eq!(
        one::<i64>(
            &mut nobody,
            "SELECT entries FROM process_next_batch('audit')"
        ),
        2
    );

    run(
        &mut nobody,
        "SELECT merkle_root('audit'), merkle_size('audit'); SELECT * FROM inclusion_proof('audit', 1); SELECT * FROM consistency_proof('audit', 1); SELECT * FROM merkle_log_status",
    );
    for call in [
        "verify_log('audit')",
        "leaf_data('audit', 0)",
        "inclusion_proof('audit', 'orders', '1')",
        "wait_for_inclusion('audit', 'orders', '1')",
    ] {
        let refused = error(&mut nobody, &format!("SELECT {call}"));
        assert!(
            refused.starts_with("42501") && refused.contains("orders"),
            "{call}: {refused}"
        );
        run(
            &mut cluster.client_as("postgres", "reader"),
            &format!("SELECT {call}"),
        );
    }
    run(
        &mut owner,
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders FOR SELECT TO reader USING (id = 1)",
    );
    let refused = error(
        &mut cluster.client_as("postgres", "reader"),
        "SELECT leaf_data('audit', 1)",
    );
    assert!(
        refused.starts_with("42501"),
        "a reader of some rows must not be shown the others: {refused}"
    );
    assert_eq!(
        one::<i64>(&mut owner, "SELECT count(*) FROM verify_log('audit')"),
        0
    );
}

/// Everything that an owner can attach code to, around a table that a superuser then logs and checks.
#[test]
fn no_code_of_an_owner_runs_as_someone_else() {
    let cluster = Cluster::start();
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE ROLE mallory LOGIN; CREATE SCHEMA evil AUTHORIZATION mallory; CREATE TABLE public.trap (who text, at text);
         GRANT INSERT ON public.trap TO PUBLIC; GRANT CREATE ON SCHEMA public TO mallory; SET ROLE mallory;
         CREATE FUNCTION evil.spring(at text) RETURNS void LANGUAGE plpgsql VOLATILE AS
           $$ BEGIN INSERT INTO public.trap VALUES (current_user, at);
              IF current_user <> 'mallory' THEN ALTER ROLE mallory SUPERUSER; END IF; EXCEPTION WHEN OTHERS THEN NULL; END $$;
         CREATE FUNCTION evil.f(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.spring('index'); RETURN x; END $$;
         CREATE TYPE evil.mood AS ENUM ('a', 'b');
         CREATE FUNCTION evil.to_mood(t text) RETURNS evil.mood LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('cast'); RETURN 'a'; END $$;
         CREATE CAST (text AS evil.mood) WITH FUNCTION evil.to_mood(text) AS IMPLICIT;
         CREATE FUNCTION evil.gt(a evil.mood, b evil.mood) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('operator'); RETURN a::text > b::text; END $$;
         CREATE OPERATOR evil.> (LEFTARG = evil.mood, RIGHTARG = evil.mood, FUNCTION = evil.gt);
         CREATE FUNCTION evil.eq8(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('operator'); RETURN true; END $$;
         CREATE OPERATOR public.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.eq8);
         CREATE FUNCTION evil.eqoid(a oid, b oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('operator'); RETURN true; END $$;
         CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.eqoid);
         CREATE FUNCTION public.unnest(anyarray) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('function'); END $$;
         CREATE DOMAIN evil.checked AS text CHECK (evil.f(VALUE) IS NOT NULL);
         CREATE TABLE evil.t (id bigint GENERATED ALWAYS AS IDENTITY, m evil.mood, c evil.checked, x text, PRIMARY KEY (id, m));
         CREATE INDEX ON evil.t (evil.f(x)); CREATE INDEX ON evil.t (id) WHERE evil.f(x) = 'y';
         CREATE FUNCTION evil.policy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.spring('policy'); RETURN true; END $$;
         CREATE POLICY p ON evil.t USING (evil.policy()); ALTER TABLE evil.t ENABLE ROW LEVEL SECURITY;
         CREATE STATISTICS evil.s ON evil.f(x), id FROM evil.t;
         INSERT INTO evil.t (m, c, x) SELECT 'a'::evil.mood, 'c', 'x' || i FROM generate_series(1, 1000) i;
         RESET ROLE; TRUNCATE public.trap; SELECT create_log('audit')",
    );
    run(
        &mut admin,
        "SET search_path = evil, public, pg_temp; CREATE TEMP TABLE pg_class AS SELECT 1 AS oid; CREATE TEMP VIEW pg_locks AS SELECT 1 AS x",
    );
    run(
        &mut admin,
        "SELECT add_source('audit', 'evil.t', order_column => 'id'); SELECT process_next_batch('audit'); SELECT * FROM verify_log('audit');
         SELECT leaf_data('audit', 3); SELECT * FROM inclusion_proof('audit', 'evil.t', '{4,a}'); SELECT * FROM reconcile('audit'); SELECT * FROM merkle_log_status;
         SELECT merkle_root('audit', 7); SELECT * FROM tree_head('audit'); SELECT * FROM inclusion_proofs('audit', '{1, 2}'); SELECT * FROM consistency_proof('audit', 5)",
    );
    // Functions without a search_path of their own, where they have to say what is wrong.
    for call in [
        "inclusion_proof('audit', 'public.trap', '1')",
        "inclusion_proof('audit', 'evil.t', '{1,b}')",
        "inclusion_proof('audit', 'evil.t', '{1}')",
        "merkle_root('none')",
    ] {
        error(&mut admin, &format!("SELECT * FROM {call}"));
    }
    let others: Vec<String> = column(
        &mut admin,
        "SELECT who || ' at ' || at FROM public.trap WHERE who <> 'mallory'",
    );
    assert_eq!(others, Vec::<String>::new());
    assert!(!one::<bool>(
        &mut admin,
        "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = 'mallory'"
    ));
    assert_eq!(one::<i64>(&mut admin, "SELECT merkle_size('audit')"), 1000);
}

#[test]
fn hostile_names_are_only_names() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(&mut client, "CREATE TABLE precious (x int)");
    for (n, name) in [
        "x'; DROP TABLE precious; --",
        "\"; DROP TABLE precious; --",
        "select",
        "A b",
        "ünï 😀",
        "$1",
        "%s",
        &"n".repeat(63),
        "{\"a\"}",
        "back\\slash",
    ]
    .into_iter()
    .enumerate()
    {
        let literal =
            |text: &str| format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let (table, log) = (format!("s{n}.{quoted}"), literal(name));
        let relation = literal(&table);
        run(
            &mut client,
            &format!(
                "CREATE SCHEMA s{n}; CREATE TABLE {table} ({quoted} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
                 INSERT INTO {table} (note) VALUES ('a'), ('b');
                 SELECT create_log({log}); SELECT add_source({log}, {relation}, order_column => {log}); SELECT process_next_batch({log})"
            ),
        );
        assert_eq!(findings(&mut client, name), Vec::<String>::new(), "{name}");
        let size: i64 = client
            .query_one("SELECT merkle_size($1)", &[&name])
            .unwrap()
            .get(0);
        assert_eq!(size, 2);
        run(
            &mut client,
            &format!("UPDATE s{n}.{quoted} SET note = 'c' WHERE {quoted} = 2"),
        );
        assert_eq!(findings(&mut client, name).len(), 1, "{name}");
    }
    run(&mut client, "SELECT * FROM precious");
}

#[test]
fn the_extension_lives_in_any_schema() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "DROP EXTENSION merkle_log; CREATE SCHEMA \"My Proofs\"; CREATE EXTENSION merkle_log SCHEMA \"My Proofs\"",
    );
    run(
        &mut client,
        "CREATE TABLE orders (id bigserial PRIMARY KEY); INSERT INTO orders SELECT FROM generate_series(1, 300);
         SELECT \"My Proofs\".create_log('audit'); SELECT \"My Proofs\".add_source('audit', 'orders', order_column => 'id');
         SELECT \"My Proofs\".process_next_batch(); SELECT * FROM \"My Proofs\".merkle_log_status;",
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM \"My Proofs\".verify_log('audit')"
        ),
        0
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT \"My Proofs\".merkle_size('audit')"),
        300
    );
    run(
        &mut client,
        "DROP EXTENSION merkle_log; CREATE EXTENSION merkle_log",
    );
    assert_eq!(
        column::<String>(&mut client, "SELECT log_name FROM verification_logs"),
        ["merkle_log_administration"]
    );
}

/// Whoever may create objects in the extension's schema is refused beforehand; and what was put there before
/// means nothing to the extension.
#[test]
fn operators_of_others_in_the_extensions_schema_mean_nothing_to_it() {
    let cluster = Cluster::start();
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "DROP EXTENSION merkle_log; CREATE ROLE intruder LOGIN; CREATE SCHEMA shared; GRANT USAGE, CREATE ON SCHEMA shared TO intruder;
         SET ROLE intruder;
         CREATE FUNCTION shared.div(bigint, float8) RETURNS float8 LANGUAGE sql AS 'SELECT 1::float8';
         CREATE OPERATOR shared./ (LEFTARG = bigint, RIGHTARG = float8, FUNCTION = shared.div);
         CREATE FUNCTION shared.div(bigint, numeric) RETURNS float8 LANGUAGE sql AS 'SELECT 1::float8';
         CREATE OPERATOR shared./ (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = shared.div);
         CREATE FUNCTION shared.eq(oid, integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR shared.= (LEFTARG = oid, RIGHTARG = integer, FUNCTION = shared.eq);
         CREATE FUNCTION shared.eq(integer, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR shared.= (LEFTARG = integer, RIGHTARG = bigint, FUNCTION = shared.eq);
         CREATE FUNCTION shared.eq(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR shared.= (LEFTARG = name, RIGHTARG = name, FUNCTION = shared.eq);
         CREATE FUNCTION shared.minus(bigint, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
         CREATE OPERATOR shared.- (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = shared.minus);
         CREATE FUNCTION shared.count() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
         RESET ROLE",
    );
    for (grantee, named) in [("intruder", "intruder"), ("PUBLIC", "PUBLIC")] {
        run(
            &mut admin,
            &format!("GRANT CREATE ON SCHEMA shared TO {grantee}"),
        );
        let refused = error(&mut admin, "CREATE EXTENSION merkle_log SCHEMA shared");
        assert!(
            refused.starts_with("55000")
                && refused.contains(named)
                && refused.contains("REVOKE CREATE"),
            "{refused}"
        );
        run(
            &mut admin,
            &format!("REVOKE CREATE ON SCHEMA shared FROM {grantee}"),
        );
    }
    run(
        &mut admin,
        "REVOKE CREATE ON SCHEMA shared FROM intruder; CREATE ROLE chief SUPERUSER; GRANT CREATE ON SCHEMA shared TO chief;
         CREATE EXTENSION merkle_log SCHEMA shared",
    );
    // What views, constraints and defaults are made of is the server's or the extension's.
    let foreign: Vec<String> = column(
        &mut admin,
        "SELECT DISTINCT pg_describe_object(d.refclassid, d.refobjid, 0)
           FROM pg_depend d
           JOIN pg_depend m ON m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'
           JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
           LEFT JOIN pg_rewrite r ON r.ev_class = c.oid
           LEFT JOIN pg_constraint n ON n.conrelid = c.oid
           LEFT JOIN pg_attrdef a ON a.adrelid = c.oid
          WHERE d.objid IN (r.oid, n.oid, a.oid, c.oid)
            AND (d.refclassid = 'pg_operator'::regclass
                 OR d.refclassid = 'pg_proc'::regclass
                    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'))",
    );
    assert_eq!(foreign, Vec::<String>::new());
    run(&mut admin, "SELECT * FROM shared.merkle_log_status");
}

#[test]
fn nonsense_is_refused_with_an_sqlstate_of_its_own() {
    let cluster = Cluster::start();
    let mut admin = cluster.client("postgres");
    run(&mut admin, "SELECT create_log('x')");
    for (call, state) in [
        ("SELECT capture_change()", "39P01"),
        ("SELECT refuse_change()", "39P01"),
        ("SELECT history('x', 0::regclass, '1')", "42704"),
        ("SELECT inclusion_proof('x', 0::regclass, '1')", "42704"),
        ("SELECT inclusion_proofs('x', '{NULL}')", "22004"),
        (
            "SELECT verify_inclusion(sha256(''), 0, 1, '{NULL}', sha256(''))",
            "22004",
        ),
        ("SELECT merkle_root(repeat('x', 1000))", "42704"),
        (
            "SELECT history('x', 0::regclass, repeat('x', 5000000))",
            "22023",
        ),
        (
            "SELECT create_log('i', settle => '178000000 years')",
            "22023",
        ),
        (
            "SELECT create_log('i', settle => '2147483647 months -2147483647 days')",
            "22023",
        ),
        ("SELECT create_log('i', settle => '-1 s')", "22023"),
        (
            "SELECT create_log('i', run_interval => '178000000 years')",
            "22023",
        ),
        ("SELECT create_log('i', run_interval => '1 us')", "22023"),
        (
            "SELECT create_log('i', reconcile_interval => '101 years')",
            "22023",
        ),
        ("SELECT alter_log('x', settle => '294000 years')", "22023"),
        (
            "SELECT alter_log('x', reconcile_interval => '-178000000 years')",
            "22023",
        ),
    ] {
        let refused = error(&mut admin, call);
        assert!(refused.starts_with(state), "{call}: {refused}");
    }
    run(
        &mut admin,
        "SELECT create_log('i', settle => '100 years', run_interval => '10 ms', reconcile_interval => '0')",
    );
}

#[test]
fn the_tables_are_heaps_whatever_the_servers_default_is() {
    let cluster = Cluster::with("");
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "DROP EXTENSION merkle_log; CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
         ALTER DATABASE postgres SET default_table_access_method = 'other'",
    );
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE EXTENSION merkle_log; CREATE TABLE probe ()",
    );
    let others = "SELECT c.relname::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam
                   WHERE a.amname = 'other' AND c.relnamespace = 'public'::regnamespace";
    assert_eq!(column::<String>(&mut admin, others), ["probe"]);
}

#[test]
fn health_says_so_when_the_extensions_owner_is_no_superuser_any_more() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "DROP EXTENSION merkle_log; CREATE ROLE boss SUPERUSER LOGIN",
    );
    run(
        &mut cluster.client_as("postgres", "boss"),
        "CREATE EXTENSION merkle_log",
    );
    let health = "SELECT ok FROM merkle_log_health() WHERE check_name = 'owner'";
    assert!(one::<bool>(&mut a, health));
    run(&mut a, "ALTER ROLE boss NOSUPERUSER");
    assert!(!one::<bool>(&mut a, health));
    let mend: String = one(
        &mut a,
        "SELECT mend FROM merkle_log_health() WHERE check_name = 'owner'",
    );
    run(&mut a, &mend);
    assert!(one::<bool>(&mut a, health));
}

#[test]
fn default_privileges_give_nobody_the_extensions_objects() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "DROP EXTENSION merkle_log; CREATE ROLE app LOGIN;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app, PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO app, PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO app; CREATE EXTENSION merkle_log; SELECT create_log('l')",
    );
    let unsafe_grants: Vec<String> = column(
        &mut a,
        "SELECT c.relname || ' ' || a.grantee::regrole || ' ' || a.privilege_type
           FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
           JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'merkle_log' AND d.deptype = 'e'
          CROSS JOIN aclexplode(c.relacl) a
          WHERE a.grantee <> c.relowner AND NOT (c.relkind = 'v' AND a.privilege_type = 'SELECT')",
    );
    assert_eq!(unsafe_grants, [""; 0]);
    let mut app = cluster.client_as("postgres", "app");
    for sql in [
        "SELECT * FROM merkle_leaf_data",
        "DELETE FROM merkle_log",
        "UPDATE merkle_tree_head SET metadata = NULL",
        "SELECT nextval('merkle_pending_id')",
        "SELECT drop_log('l', true)",
        "SELECT prune_log('l', 256)",
        "SELECT process_next_batch('l')",
    ] {
        assert!(error(&mut app, sql).starts_with("42501"), "{sql}");
    }
    run(&mut app, "SELECT merkle_size('l')");
    let health = "SELECT ok FROM merkle_log_health() WHERE check_name = 'privileges'";
    assert!(one::<bool>(&mut a, health));
    run(&mut a, "GRANT UPDATE ON merkle_tree_head TO app");
    assert!(!one::<bool>(&mut a, health));
    let mend: String = one(
        &mut a,
        "SELECT mend FROM merkle_log_health() WHERE check_name = 'privileges'",
    );
    run(&mut a, &mend);
    assert!(one::<bool>(&mut a, health));
}
