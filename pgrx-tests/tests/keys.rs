//! The key of a row as applications have it: the functions whose names end in `_of`.

use server_tests::*;

/// Sources with keys of many types. Each table has two rows, and `index` is the leaf index of the second.
const TABLES: &[(&str, &str, &str)] = &[
    ("small", "id smallint PRIMARY KEY", "(1), (2)"),
    ("orders", "id bigint PRIMARY KEY", "(1), (2)"),
    ("amounts", "id numeric PRIMARY KEY", "(1), (2.50)"),
    ("floats", "id float8 PRIMARY KEY", "(1), (0.1)"),
    ("codes", "id text PRIMARY KEY", "('a'), ('2')"),
    ("padded", "id char(4) PRIMARY KEY", "('a'), ('b')"),
    (
        "ids",
        "id uuid PRIMARY KEY",
        "(uuid_nil()), ('00000000-0000-0000-0000-000000000002')",
    ),
    ("blobs", "id bytea PRIMARY KEY", "('a'), ('b')"),
    (
        "days",
        "id date PRIMARY KEY",
        "('2024-01-01'), ('2024-07-02')",
    ),
    (
        "hours",
        "id timestamp PRIMARY KEY",
        "('2024-01-01'), ('2024-07-02 14:00')",
    ),
    (
        "moments",
        "id timestamptz PRIMARY KEY",
        "('2024-01-01Z'), ('2024-07-02 12:00Z')",
    ),
    ("moods", "id mood PRIMARY KEY", "('sad'), ('glad')"),
    ("short", "id short_text PRIMARY KEY", "('a'), ('b')"),
    ("hosts", "id inet PRIMARY KEY", "('10.0.0.1'), ('10.0.0.2')"),
    (
        "lines",
        "id bigint, line int, PRIMARY KEY (id, line)",
        "(7, 1), (7, 3)",
    ),
    (
        "named",
        "id int, name varchar(10), PRIMARY KEY (id, name)",
        "(7, 'a,b'), (7, '{\"c\"}')",
    ),
];

fn sources(c: &mut Client) {
    run(
        c,
        "CREATE FUNCTION uuid_nil() RETURNS uuid LANGUAGE sql AS $$ SELECT '00000000-0000-0000-0000-000000000000'::uuid $$;
         CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN short_text AS varchar(20) CHECK (length(VALUE) < 10);
         SELECT create_log('audit')",
    );
    for (table, columns, _) in TABLES {
        run(c, &format!("CREATE TABLE {table} ({columns})"));
        run(
            c,
            &format!(
                "SELECT add_source('audit', '{table}', capture => 'trigger', store_leaf_data => true)"
            ),
        );
    }
    for (table, _, rows) in TABLES {
        run(c, &format!("INSERT INTO {table} VALUES {rows}"));
    }
    drain(c, "audit");
}

/// The number of the row that a call finds: 1 or 2.
fn found(c: &mut Client, table: &str, key: &str) -> i64 {
    let before: i64 = TABLES.iter().take_while(|(t, ..)| *t != table).count() as i64 * 2;
    let call = format!("SELECT leaf_index FROM inclusion_proof_of('audit', '{table}', {key})");
    one::<i64>(c, &call) - before + 1
}

#[test]
fn a_row_is_found_by_every_value_that_equals_its_key() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    sources(&mut c);
    run(
        &mut c,
        "SET TimeZone = 'Europe/Berlin'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -5; SET bytea_output = 'escape'",
    );
    for (table, key) in [
        ("small", "2"),
        ("small", "2::bigint"),
        ("small", "'2'"),
        ("orders", "2"),
        ("orders", "2::smallint"),
        ("orders", "2::oid"),
        ("orders", "2.00"),
        ("orders", "0.2e1::float8"),
        ("orders", "2::float4"),
        ("orders", "' 2'::text"),
        ("amounts", "2.5"),
        ("amounts", "2.5000::numeric"),
        ("amounts", "2.5::float8"),
        ("amounts", "'2.5'"),
        ("floats", "0.1"),
        ("floats", "0.10::float8"),
        ("codes", "'2'"),
        ("codes", "'2'::varchar"),
        ("codes", "'2'::char(8)"),
        ("codes", "'2'::name"),
        ("padded", "'b'"),
        ("padded", "'b'::char(2)"),
        ("ids", "'00000000-0000-0000-0000-000000000002'"),
        ("ids", "'00000000-0000-0000-0000-000000000002'::uuid"),
        ("blobs", "'b'::bytea"),
        ("blobs", "'\\x62'"),
        ("days", "'2024-07-02'::date"),
        ("days", "'2024-07-02'::timestamp"),
        ("days", "'2024-07-02 00:00'::timestamptz"),
        ("hours", "'2024-07-02 14:00'::timestamp"),
        ("hours", "'2024-07-02 12:00Z'::timestamptz"),
        ("moments", "'2024-07-02 12:00Z'::timestamptz"),
        ("moments", "'2024-07-02 14:00'::timestamp"),
        ("moods", "'glad'"),
        ("moods", "'glad'::mood"),
        ("short", "'b'"),
        ("short", "'b'::short_text"),
        ("hosts", "'10.0.0.2'::inet"),
        ("hosts", "'10.0.0.2/32'::cidr"),
        ("lines", "7, 3"),
        ("lines", "7.0, '3'"),
        ("lines", "VARIADIC ARRAY[7, 3]"),
        ("lines", "VARIADIC ARRAY['7', '3']"),
        ("named", "7, '{\"c\"}'"),
        ("named", "'7', '{\"c\"}'::varchar"),
    ] {
        assert_eq!(found(&mut c, table, key), 2, "{table}: {key}");
    }
    let literal = "PREPARE p AS SELECT leaf_index FROM inclusion_proof_of('audit', 'orders', $1); EXECUTE p('2')";
    run(&mut c, literal);
}

#[test]
fn what_equals_no_key_is_refused_with_a_hint_and_never_rounded() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    sources(&mut c);
    for (table, key, state, says) in [
        ("orders", "NULL", "22004", "column \"id\""),
        ("lines", "7, NULL", "22004", "column \"line\""),
        ("orders", "VARIADIC NULL::int[]", "22004", "not be null"),
        ("orders", "VARIADIC '{}'::int[]", "22023", "0 were given"),
        ("orders", "1, 2", "22023", "1 column (id), and 2 were given"),
        ("lines", "7", "22023", "\"id\", \"line\""),
        ("lines", "'{7,3}'", "22023", "\"id\", \"line\""),
        ("orders", "2.5", "22023", "can have 2.5"),
        ("orders", "1.5::float8", "22023", "can have 1.5"),
        ("orders", "'NaN'::float8", "22023", "can have NaN"),
        ("orders", "1e30", "22023", "type bigint"),
        ("small", "70000", "22023", "type smallint"),
        (
            "days",
            "'2024-07-02 00:01'::timestamp",
            "22023",
            "type date",
        ),
        (
            "orders",
            "now()",
            "42804",
            "does not compare to timestamp with time zone",
        ),
        ("orders", "'a'::bytea", "42804", "does not compare to bytea"),
        ("codes", "2", "42804", "does not compare to integer"),
        ("moods", "1", "42804", "does not compare to integer"),
        ("orders", "'glad'::mood", "42804", "does not compare to"),
        ("orders", "ROW(1)", "42804", "does not compare to record"),
        (
            "orders",
            "'{1}'::int[]",
            "42804",
            "does not compare to integer[]",
        ),
    ] {
        for function in [
            "inclusion_proof_of",
            "history_of",
            "verify_row_of",
            "wait_for_inclusion_of",
        ] {
            let said = error(
                &mut c,
                &format!("SELECT {function}('audit', '{table}', {key})"),
            );
            assert!(
                said.starts_with(state) && said.contains(says),
                "{table} {key}: {said}"
            );
            let hint = said.split_whitespace().count() > 12;
            assert!(hint, "{table} {key}: {said}");
        }
    }
    let said = error(&mut c, "SELECT inclusion_proof_of('audit', 'orders', 'x')");
    assert!(
        said.contains("invalid input syntax for type bigint: \"x\""),
        "{said}"
    );
    let said = error(&mut c, "SELECT inclusion_proof_of('audit', 'orders', 9)");
    assert!(
        said.starts_with("P0002") && said.contains("row 9"),
        "{said}"
    );
}

#[test]
fn each_function_of_a_key_answers_as_its_form_with_one_text_does() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE lines (id bigint, line int, note text, PRIMARY KEY (id, line)); SELECT create_log('audit');
         SELECT add_source('audit', 'lines', capture => 'trigger', salted => true, store_leaf_data => true);
         INSERT INTO lines VALUES (7, 3, 'a'), (7, 4, 'b')",
    );
    run(&mut c, "UPDATE lines SET note = 'c' WHERE line = 3");
    drain(&mut c, "audit");
    for (of_key, of_text) in [
        (
            "inclusion_proof_of('audit', 'lines', 7, 3)",
            "inclusion_proof('audit', 'lines', '{7,3}')",
        ),
        (
            "history_of('audit', 'lines', 7, 3)",
            "history('audit', 'lines', '{7,3}')",
        ),
        (
            "verify_row_of('audit', 'lines', 7, 3)",
            "verify_row('audit', 'lines', '{7,3}')",
        ),
        (
            "wait_for_inclusion_of('audit', 'lines', 7, 3)",
            "wait_for_inclusion('audit', 'lines', '{7,3}')",
        ),
    ] {
        let rows = |c: &mut Client, call: &str| -> Vec<String> {
            column(c, &format!("SELECT t::text FROM {call} t"))
        };
        let (a, b) = (rows(&mut c, of_key), rows(&mut c, of_text));
        assert!(a == b && !a.is_empty(), "{of_key}: {a:?} {b:?}");
    }
    let waited = error(
        &mut c,
        "SET merkle_log.inclusion_timeout = '50ms'; SELECT wait_for_inclusion_of('audit', 'lines', 7, 9)",
    );
    assert!(
        waited.starts_with("55P03") && waited.contains("0.05 s"),
        "{waited}"
    );
    let redacted: i64 = one(
        &mut c,
        "SELECT redact_row_of('audit', 'lines', 'request 12', 7, 3)",
    );
    assert_eq!(redacted, 2);
    let status: String = one(
        &mut c,
        "SELECT status FROM verify_row_of('audit', 'lines', 7, 3)",
    );
    assert_eq!(status, "redacted");
}

#[test]
fn no_code_of_others_runs_for_a_key() {
    let cluster = Cluster::start();
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; SET ROLE mallory;
         CREATE FUNCTION strike() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
         CREATE TYPE mood AS ENUM ('sad');
         CREATE FUNCTION mood_number(mood) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.strike(); RETURN 1; END $$;
         CREATE CAST (mood AS bigint) WITH FUNCTION mood_number(mood) AS IMPLICIT;
         CREATE FUNCTION mood_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.strike(); RETURN 'x'; END $$;
         CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood) AS ASSIGNMENT;
         CREATE FUNCTION mood_equals(bigint, mood) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.strike(); RETURN true; END $$;
         CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = mood, FUNCTION = mood_equals);
         CREATE FUNCTION checked(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF current_user <> 'mallory' THEN PERFORM public.strike(); END IF; RETURN true; END $$;
         CREATE DOMAIN trap AS bigint CHECK (public.checked(VALUE));
         CREATE TABLE orders (id trap PRIMARY KEY); CREATE TABLE codes (id text PRIMARY KEY); CREATE TABLE moods (id mood PRIMARY KEY);
         INSERT INTO orders VALUES (1); INSERT INTO codes VALUES ('sad'); INSERT INTO moods VALUES ('sad'); RESET ROLE;
         SELECT create_log('audit')",
    );
    for table in ["orders", "codes", "moods"] {
        run(
            &mut admin,
            &format!(
                "SELECT add_source('audit', '{table}', capture => 'trigger', backfill => true)"
            ),
        );
    }
    drain(&mut admin, "audit");
    for call in [
        "'orders', 1",
        "'orders', '1'",
        "'orders', 1.0",
        "'codes', 'sad'",
        "'moods', 'sad'",
        "'moods', 'sad'::mood",
    ] {
        for function in ["inclusion_proof_of", "verify_row_of"] {
            run(&mut admin, &format!("SELECT {function}('audit', {call})"));
        }
    }
    for call in ["'orders', 'sad'::mood", "'codes', 'sad'::mood"] {
        let said = error(
            &mut admin,
            &format!("SELECT inclusion_proof_of('audit', {call})"),
        );
        assert!(said.starts_with("42804"), "{call}: {said}");
    }
}
