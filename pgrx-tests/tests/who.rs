//! Who made a change: the role in force, what the application says of its transaction, and the statement's text.

use server_tests::*;

const KEPT: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text);
     SELECT create_log('audit');
     SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
     CREATE ROLE app LOGIN; CREATE ROLE clerk; GRANT clerk TO app;
     GRANT ALL ON orders TO app, clerk;";

/// Columns of the last entry of row 1, as one text.
fn last(c: &mut Client, columns: &str) -> String {
    drain(c, "audit");
    one(
        c,
        &format!(
            "SELECT concat_ws('|', {columns}) FROM history('audit', 'orders', '1') ORDER BY leaf_index DESC LIMIT 1"
        ),
    )
}

fn intact(c: &mut Client) {
    assert_eq!(findings(c, "audit"), Vec::<String>::new());
}

#[test]
fn the_role_in_force_is_recorded_beside_the_sessions_user() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    let who = "operation, user_name, role_name";
    run(&mut app, "INSERT INTO orders VALUES (1, 'a')");
    assert_eq!(last(&mut a, who), "insert|app|app");
    run(
        &mut app,
        "SET ROLE clerk; UPDATE orders SET note = 'b'; RESET ROLE",
    );
    assert_eq!(last(&mut a, who), "update|app|clerk");
    // A function with SECURITY DEFINER writes as its owner, and what it calls back does, too.
    run(
        &mut a,
        "CREATE FUNCTION pay() RETURNS void SECURITY DEFINER LANGUAGE sql AS $$ UPDATE orders SET note = 'paid' $$;
         ALTER FUNCTION pay() OWNER TO clerk",
    );
    run(&mut app, "SELECT pay()");
    assert_eq!(last(&mut a, who), "update|app|clerk");
    // A trigger of SECURITY DEFINER on the table is no part of the writer's statement.
    run(
        &mut a,
        "CREATE FUNCTION stamp() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END $$;
         CREATE TRIGGER stamp BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp()",
    );
    run(&mut app, "UPDATE orders SET note = 'c'");
    assert_eq!(
        last(&mut a, &format!("{who}, row_data->>'note'")),
        "update|app|app|c!"
    );
    // A cascade is part of the statement that sets it off, though the server runs it as the table's owner.
    run(
        &mut a,
        "CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers VALUES (1); GRANT ALL ON customers TO app;
         ALTER TABLE orders ADD COLUMN customer int REFERENCES customers ON DELETE CASCADE; UPDATE orders SET customer = 1",
    );
    run(&mut app, "DELETE FROM customers");
    assert_eq!(last(&mut a, who), "delete|app|app");
    intact(&mut a);
}

#[test]
fn the_role_is_in_the_leaf_whether_leaf_data_are_kept_or_not() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    run(
        &mut a,
        "SELECT create_log('lean'); SELECT add_source('lean', 'orders', capture => 'trigger')",
    );
    let mut app = cluster.client_as("postgres", "app");
    run(
        &mut app,
        "SET ROLE clerk; INSERT INTO orders VALUES (1, 'a')",
    );
    drain(&mut a, "audit");
    drain(&mut a, "lean");
    for log in ["audit", "lean"] {
        assert!(findings(&mut a, log).is_empty());
        let named: bool = one(
            &mut a,
            &format!(
                "SELECT position('\\x64726f6c6565636c65726b'::bytea IN leaf_data('{log}', 0)) > 0"
            ),
        );
        assert!(named, "\"role\": \"clerk\" is in the leaf of log {log}");
    }
    run(&mut a, "UPDATE merkle_statement SET role_name = 'app'");
    assert_eq!(
        findings(&mut a, "lean"),
        ["metadata_altered public.orders 1 0"]
    );
    assert_eq!(
        findings(&mut a, "audit"),
        ["entry_altered public.orders 1 0"]
    );
    run(&mut a, "UPDATE merkle_statement SET role_name = NULL");
    assert_eq!(
        findings(&mut a, "lean"),
        ["metadata_altered public.orders 1 0"]
    );
    run(&mut a, "UPDATE merkle_statement SET role_name = 'clerk'");
    assert!(findings(&mut a, "lean").is_empty());
    intact(&mut a);
}

#[test]
fn what_the_application_sets_for_its_transaction_is_in_the_leaf() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    // Before anything has loaded the library into the session.
    run(
        &mut app,
        "BEGIN; SET LOCAL merkle_log.context = '{\"user\": \"Ada ✓\", \"request\": 7}'; INSERT INTO orders VALUES (1, 'a'); COMMIT",
    );
    assert_eq!(
        last(&mut a, "context->>'user', context->>'request'"),
        "Ada ✓|7"
    );
    run(&mut app, "UPDATE orders SET note = 'b'");
    assert_eq!(last(&mut a, "COALESCE(context::text, 'none')"), "none");
    // Each statement has the context that is set while it runs.
    run(
        &mut app,
        "BEGIN; SET LOCAL merkle_log.context = '1'; UPDATE orders SET note = 'c'; SET LOCAL merkle_log.context = '\"two\"';
         UPDATE orders SET note = 'd'; SAVEPOINT s; SET LOCAL merkle_log.context = '3'; ROLLBACK TO s; UPDATE orders SET note = 'e'; COMMIT",
    );
    drain(&mut a, "audit");
    let contexts: Vec<Option<String>> = column(
        &mut a,
        "SELECT context::text FROM changes('audit', 'orders') ORDER BY leaf_index OFFSET 2",
    );
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(contexts, [of("1"), of("\"two\""), of("\"two\"")]);
    intact(&mut a);
    // It is verified as the rest of the leaf is, and goes out with it.
    let leaf: Vec<u8> = one(&mut a, "SELECT leaf_data('audit', 0)");
    assert!(String::from_utf8_lossy(&leaf).contains("{\"user\": \"Ada ✓\", \"request\": 7}"));
    run(
        &mut a,
        "UPDATE merkle_leaf_data SET leaf_data = overlay(leaf_data placing 'Eve'::bytea from position('Ada'::bytea in leaf_data))
          WHERE log_id > 0 AND leaf_index = 0",
    );
    assert_eq!(
        findings(&mut a, "audit"),
        ["leaf_data_altered public.orders 1 0"]
    );
}

#[test]
fn a_context_that_is_none_is_refused_with_a_hint() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    // A session without the library takes any text; the first change that is captured is refused, and nothing is lost.
    run(&mut app, "SET merkle_log.context = '{\"user\": '");
    let refused = error(&mut app, "INSERT INTO orders VALUES (1, 'a')");
    assert!(
        refused.starts_with("22023") && refused.contains("merkle_log.context"),
        "{refused}"
    );
    assert!(refused.contains("RESET merkle_log.context"), "{refused}");
    assert_eq!(
        one::<String>(&mut app, "SHOW merkle_log.context"),
        "{\"user\": "
    );
    run(
        &mut app,
        "RESET merkle_log.context; INSERT INTO orders VALUES (1, 'a')",
    );
    // From then on the setting itself is checked.
    let too_long = format!("\"{}\"", "x".repeat(2047));
    for wrong in [
        "{",
        "{\"a\": 1,}",
        "{'a': 1}",
        "\"\\u0000\"",
        "{\"\\u0000\": 1}",
        "1e-20000",
        "[0e-99999999]",
        "1e200000",
        "0e99999999999",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        &too_long,
    ] {
        let refused = error(&mut app, &format!("SET merkle_log.context = $${wrong}$$"));
        assert!(
            refused.starts_with("22023") && refused.contains("invalid value"),
            "{wrong}: {refused}"
        );
    }
    let longest = format!("\"{}\"", "x".repeat(2046));
    for right in [
        "",
        "{}",
        "null",
        " [1, 2] ",
        "-1.5e300",
        "1e999",
        "1E-400",
        "{\"a\": \"\\ud83d\\ude00\"}",
        &longest,
    ] {
        run(
            &mut app,
            &format!("SET merkle_log.context = $${right}$$; UPDATE orders SET note = note || 'x'"),
        );
        let shown = last(&mut a, "COALESCE(context::text, 'none')");
        let wanted = match right {
            "" => "none".to_owned(),
            right => one::<String>(&mut a, &format!("SELECT $${right}$$::jsonb::text")),
        };
        assert_eq!(shown, wanted);
    }
    intact(&mut a);
}

#[test]
fn the_text_of_statements_is_recorded_where_it_is_asked_for() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    let text = "COALESCE(statement, 'none'), statement_bytes";
    run(&mut app, "INSERT INTO orders VALUES (1, 'a')");
    assert_eq!(last(&mut a, text), "none");
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', record_statement => true)",
    );
    // Of several in one message, the one.
    run(
        &mut app,
        "SELECT 1;  UPDATE orders SET note = 'ü' ; SELECT 2",
    );
    assert_eq!(last(&mut a, text), "UPDATE orders SET note = 'ü'|29");
    // What was prepared, and not the values of its parameters.
    app.execute("UPDATE orders SET note = $1", &[&"secret"])
        .unwrap();
    assert_eq!(last(&mut a, text), "UPDATE orders SET note = $1|27");
    // For what a function does, the statement that calls it.
    run(
        &mut app,
        "CREATE FUNCTION pg_temp.again() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE orders SET note = 'again'; END $$",
    );
    run(&mut app, "SELECT pg_temp.again()");
    assert_eq!(last(&mut a, text), "SELECT pg_temp.again()|22");
    // A long one is cut between characters, and says how long it was.
    for shift in 0..2 {
        let long = format!(
            "UPDATE orders SET note = '{}{}'",
            "x".repeat(shift),
            "€".repeat(3000)
        );
        run(&mut app, &long);
        let shown = last(
            &mut a,
            "octet_length(statement), statement_bytes, starts_with($$LONG$$, statement)"
                .replace("LONG", &long)
                .as_str(),
        );
        let bytes: usize = shown.split('|').next().unwrap().parse().unwrap();
        assert!((2046..=2048).contains(&bytes), "{shown}");
        assert_eq!(shown, format!("{bytes}|{}|t", long.len()));
    }
    intact(&mut a);
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', record_statement => false)",
    );
    run(&mut app, "UPDATE orders SET note = 'z'");
    assert_eq!(last(&mut a, text), "none");
    intact(&mut a);
    // It is in leaf data that are kept, and nowhere else.
    for sql in [
        "SELECT alter_source('audit', 'orders', record_statement => true, store_leaf_data => false)",
        "SELECT create_log('lean'); SELECT add_source('lean', 'orders', capture => 'trigger', record_statement => true)",
        "SELECT create_log('marked'); SELECT add_source('marked', 'orders', order_column => 'id', capture => 'watermark', store_leaf_data => true, record_statement => true)",
    ] {
        let refused = error(&mut a, sql);
        assert!(
            refused.starts_with("22023") && refused.contains("record_statement"),
            "{refused}"
        );
    }
}

#[test]
fn redaction_destroys_context_and_statement_with_the_row() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id int PRIMARY KEY, note text);
         SELECT create_log('audit');
         SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true, salted => true, record_statement => true)",
    );
    run(
        &mut a,
        "BEGIN; SET LOCAL merkle_log.context = '{\"patient\": \"Grace\"}'; INSERT INTO orders VALUES (1, 'Hopper'); COMMIT",
    );
    drain(&mut a, "audit");
    run(
        &mut a,
        "SELECT redact_row('audit', 'orders', '1', 'request 7'); DELETE FROM orders",
    );
    drain(&mut a, "audit");
    let tables: Vec<String> = column(
        &mut a,
        "SELECT format('%I', c.relname) FROM pg_class c WHERE c.relname ~ '^(merkle|verification)_' AND c.relkind = 'r'",
    );
    for table in tables {
        let found: i64 = one(
            &mut a,
            &format!(
                "SELECT count(*) FROM {table} t WHERE to_jsonb(t)::text ~ 'Grace|Hopper|{}|{}'",
                hex("Grace"),
                hex("Hopper")
            ),
        );
        assert_eq!(found, 0, "{table}");
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn what_is_recorded_survives_a_dump_and_a_queue_that_waits() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    run(
        &mut app,
        "SET ROLE clerk; SET merkle_log.context = '{\"request\": 1}'; INSERT INTO orders VALUES (1, 'a')",
    );
    run(&mut a, "CREATE DATABASE restored");
    let output = cluster.shell("pg_dump postgres | psql -qAt -v ON_ERROR_STOP=1 restored");
    assert!(output.status.success(), "{output:?}");
    let mut b = cluster.client("restored");
    run(&mut b, "SELECT adopt_database('continue')");
    assert_eq!(
        last(&mut b, "user_name, role_name, context"),
        "app|clerk|{\"request\": 1}"
    );
    assert!(findings(&mut b, "audit").is_empty());
}

/// What functions read from cursors has a text of its own, which whoever wrote the function chose.
#[test]
fn a_function_cannot_put_its_own_text_in_place_of_the_clients() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', record_statement => true);
         INSERT INTO orders VALUES (1, 'a');
         CREATE FUNCTION write() RETURNS int LANGUAGE sql AS $$ UPDATE orders SET note = note || 'x' RETURNING id $$;
         CREATE FUNCTION dynamic() RETURNS void LANGUAGE plpgsql AS $$
             DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT write() /* UPDATE orders SET note = 1 */' LOOP END LOOP; END $$;
         CREATE FUNCTION looping() RETURNS void LANGUAGE plpgsql AS $$
             DECLARE r record; BEGIN FOR r IN SELECT write() LOOP END LOOP; END $$;
         CREATE FUNCTION opening() RETURNS void LANGUAGE plpgsql AS $$
             DECLARE c refcursor; r record; BEGIN OPEN c FOR SELECT write(); FETCH c INTO r; END $$;
         CREATE FUNCTION forged() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN EXECUTE 'PREPARE forged AS UPDATE orders SET note = note'; EXECUTE 'EXECUTE forged'; EXECUTE 'DEALLOCATE forged'; END $$",
    );
    let mut app = cluster.client_as("postgres", "app");
    for (sent, recorded) in [
        ("SELECT dynamic()", "SELECT dynamic()"),
        ("SELECT looping()", "SELECT looping()"),
        ("SELECT opening()", "SELECT opening()"),
        ("SELECT forged()", "SELECT forged()"),
        (
            "PREPARE own AS UPDATE orders SET note = 'p'",
            "SELECT forged()",
        ),
        // What a client has prepared is its own word.
        (
            "/* a /* b */ */ -- c\n execute own",
            "PREPARE own AS UPDATE orders SET note = 'p'",
        ),
        // It cannot be told which of several it was.
        ("SELECT 1; SELECT looping()", "SELECT 1; SELECT looping()"),
    ] {
        run(&mut app, sent);
        assert_eq!(last(&mut a, "statement"), recorded, "{sent}");
    }
    intact(&mut a);
}

/// A context is shown by `jsonb`, which does not have all numbers that JSON has.
#[test]
fn what_is_accepted_as_a_context_can_be_shown() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, KEPT);
    let mut app = cluster.client_as("postgres", "app");
    run(&mut app, "INSERT INTO orders VALUES (1, 'a')");
    let mut taken = 0;
    for exponent in [
        0,
        16_000,
        16_382,
        16_383,
        16_384,
        20_000,
        131_000,
        131_071,
        131_072,
        140_000,
        1 << 30,
        i32::MAX,
    ] {
        for digits in ["1", "0", "0.000", "-1.5", "123456.789"] {
            for sign in ["", "-"] {
                let set = format!("SET merkle_log.context = '[{digits}e{sign}{exponent}]'");
                if app.batch_execute(&set).is_ok() {
                    run(&mut app, "UPDATE orders SET note = note || 'x'");
                    taken += 1;
                }
            }
        }
    }
    for depth in [1, 100, 999, 1000, 1001, 1020] {
        let set = format!(
            "SET merkle_log.context = '{}{}'",
            "[".repeat(depth),
            "]".repeat(depth)
        );
        if app.batch_execute(&set).is_ok() {
            run(&mut app, "UPDATE orders SET note = note || 'x'");
            taken += 1;
        }
    }
    drain(&mut a, "audit");
    let shown: i64 = one(
        &mut a,
        "SELECT count(context) FROM changes('audit', 'orders', 0, merkle_size('audit'))",
    );
    assert!(taken > 40, "{taken}");
    assert_eq!(shown, taken);
    intact(&mut a);
}
