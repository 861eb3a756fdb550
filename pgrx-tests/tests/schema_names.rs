//! The schema that holds the extension may belong to an ordinary role, who may call it anything.

use server_tests::*;

const NAMES: [&str; 5] = [
    "x') t(q),a.f() --",
    "m'l",
    r"back\'slash",
    r#"two "quotes""#,
    "@extschema@",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[test]
fn nothing_breaks_out_of_the_name_of_the_extensions_schema() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "DROP EXTENSION merkle_log; CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory;
         CREATE SCHEMA app AUTHORIZATION mallory; CREATE EXTENSION merkle_log SCHEMA app;
         CREATE SCHEMA a AUTHORIZATION mallory; GRANT USAGE ON SCHEMA a TO PUBLIC;
         SET ROLE mallory;
         CREATE FUNCTION a.f() RETURNS SETOF oid LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE mallory SUPERUSER; RETURN; END $$;
         RESET ROLE;
         CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         CREATE TABLE \"a@extschema@\" (id int PRIMARY KEY, note text);
         SET search_path = app, public;
         SELECT create_log('w'); SELECT add_source('w', 'orders', order_column => 'id');
         SELECT create_log('t'); SELECT add_source('t', '\"a@extschema@\"', capture => 'trigger', store_leaf_data => true);",
    );
    let (mut before, mut rows) = ("app".to_owned(), 0);
    for (round, name) in NAMES.into_iter().enumerate() {
        let schema = quoted(name);
        run(
            &mut a,
            &format!(
                "SET ROLE mallory; ALTER SCHEMA {before} RENAME TO {schema}; RESET ROLE; SET search_path = {schema}, public"
            ),
        );
        before = schema;
        // A session that has seen nothing of it yet, and the one that has.
        let mut b = cluster.client("postgres");
        run(&mut b, &format!("SET search_path = {before}, public"));
        for client in [&mut a, &mut b] {
            run(
                client,
                "INSERT INTO orders (note) VALUES ('x');
                 INSERT INTO \"a@extschema@\" SELECT COALESCE(max(id), 0) + 1, 'y' FROM \"a@extschema@\"",
            );
            rows += 1;
            assert_eq!(drain(client, "w"), rows, "{name}");
            assert_eq!(drain(client, "t"), rows, "{name}");
            run(
                client,
                "SELECT reconcile('w'); SELECT * FROM merkle_log_health(); SELECT * FROM merkle_log_coverage;
                 SELECT * FROM merkle_log_status; SELECT * FROM merkle_log_sources; SELECT merkle_log_metrics();
                 SELECT * FROM history('t', '\"a@extschema@\"', '1')",
            );
            let unfit = "SELECT problem FROM merkle_log_coverage UNION ALL SELECT state FROM merkle_log_sources WHERE state <> 'ready'";
            assert_eq!(
                column::<String>(client, unfit),
                Vec::<String>::new(),
                "{name}"
            );
            assert_eq!(findings(client, "w"), Vec::<String>::new(), "{name}");
            assert_eq!(findings(client, "t"), Vec::<String>::new(), "{name}");
            let log = format!(
                "made {round} by {}",
                one::<i32>(client, "SELECT pg_backend_pid()")
            );
            run(
                client,
                &format!(
                    "SELECT repair_capture('t', '\"a@extschema@\"'); SELECT create_log('{log}'); SELECT add_source('{log}', '\"a@extschema@\"', capture => 'trigger');
                     SELECT process_next_batch('{log}'); SELECT remove_source('{log}', '\"a@extschema@\"'); SELECT drop_log('{log}', true)"
                ),
            );
        }
        assert!(
            !one::<bool>(
                &mut a,
                "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"
            ),
            "{name}"
        );
    }
}
