//! A source that was removed from its log, or whose table is another one by now, launders nothing: its entries are
//! held against its table as far as that is there, and are always spoken of.

use server_tests::*;
use std::sync::{Arc, Mutex};

fn detail(client: &mut Client, log: &str) -> String {
    one(
        client,
        &format!("SELECT detail FROM verify_log('{log}') WHERE kind = 'source_removed'"),
    )
}

#[test]
fn a_removed_source_is_spoken_of_and_held_against_its_table() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    for (mode, order) in [("watermark", "'id'"), ("trigger", "NULL")] {
        run(
            &mut c,
            &format!(
                "CREATE TABLE p (id int PRIMARY KEY, u int NOT NULL UNIQUE, amount int); SELECT create_log('l');
                 SELECT add_source('l', 'p', {order}, capture => '{mode}'); INSERT INTO p VALUES (1, 1, 100), (2, 2, 200), (3, 3, 300)"
            ),
        );
        drain(&mut c, "l");
        run(&mut c, "SELECT remove_source('l', 'p')");
        assert_eq!(
            findings(&mut c, "l"),
            ["source_removed public.p 0"],
            "{mode}"
        );
        let said = detail(&mut c, "l");
        assert!(
            said.contains("contradicts none of its 3 entries"),
            "{mode}: {said}"
        );
        run(
            &mut c,
            "UPDATE p SET amount = 1 WHERE id = 2; DELETE FROM p WHERE id = 3",
        );
        let check = |c: &mut Client| {
            assert_eq!(findings(c, "l"), ["source_removed public.p 1"], "{mode}");
            let said = detail(c, "l");
            assert!(
                said.contains("2 of its 3 entries are not what it holds"),
                "{mode}: {said}"
            );
        };
        check(&mut c);
        // Under another key it is another source, and still what the first logged is told.
        run(
            &mut c,
            &format!(
                "SELECT add_source('l', 'p', {order}, capture => '{mode}', key_columns => '{{u}}')"
            ),
        );
        drain(&mut c, "l");
        check(&mut c);
        run(&mut c, "SELECT drop_log('l', true); DROP TABLE p");
    }
}

#[test]
fn a_table_of_the_same_name_does_not_vouch_for_the_one_that_is_gone() {
    let cluster = Cluster::start();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut c = cluster.client_hearing("postgres", notices.clone());
    for (mode, order) in [("watermark", "'id'"), ("trigger", "NULL")] {
        run(
            &mut c,
            &format!(
                "CREATE TABLE p (id int PRIMARY KEY, amount int); SELECT create_log('l');
                 SELECT add_source('l', 'p', {order}, capture => '{mode}'); INSERT INTO p VALUES (1, 100), (2, 200)"
            ),
        );
        drain(&mut c, "l");
        let table: u32 = one(&mut c, "SELECT 'p'::regclass::oid");
        run(
            &mut c,
            "CREATE TABLE q (LIKE p INCLUDING ALL); INSERT INTO q SELECT id, 1 FROM p; DROP TABLE p; ALTER TABLE q RENAME TO p",
        );
        assert_eq!(findings(&mut c, "l"), ["deleted public.p"], "{mode}");
        let said: String = one(&mut c, "SELECT detail FROM verify_log('l')");
        assert!(
            said.contains("Another table of the same name is another source"),
            "{mode}: {said}"
        );
        run(&mut c, &format!("SELECT remove_source('l', {table})"));
        notices.lock().expect("nobody else holds it").clear();
        run(
            &mut c,
            &format!("SELECT add_source('l', 'p', {order}, capture => '{mode}')"),
        );
        let heard = notices.lock().expect("nobody else holds it").join("\n");
        assert!(
            heard.contains("this one is a new source"),
            "{mode}: {heard}"
        );
        drain(&mut c, "l");
        assert_eq!(
            findings(&mut c, "l"),
            ["source_removed public.p 0"],
            "{mode}"
        );
        let said = detail(&mut c, "l");
        assert!(
            said.contains("its 2 entries cannot be held against any row"),
            "{mode}: {said}"
        );
        let said: String = one(&mut c, "SELECT detail FROM verify_row('l', 'p', '1')");
        assert!(
            said.contains("the log also has an earlier source of this name"),
            "{mode}: {said}"
        );
        run(&mut c, "SELECT drop_log('l', true); DROP TABLE p");
    }
}

#[test]
fn a_key_is_looked_up_among_sources_that_had_its_columns_as_key() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE people (email text PRIMARY KEY, nick text NOT NULL UNIQUE); SELECT create_log('p');
         SELECT add_source('p', 'people', capture => 'trigger'); INSERT INTO people VALUES ('secret@x', 'nick')",
    );
    drain(&mut c, "p");
    run(
        &mut c,
        "SELECT remove_source('p', 'people'); SELECT add_source('p', 'people', capture => 'trigger', key_columns => '{nick}')",
    );
    drain(&mut c, "p");
    run(
        &mut c,
        "CREATE ROLE app LOGIN; GRANT SELECT (nick) ON people TO app",
    );
    let mut app = cluster.client_as("postgres", "app");
    assert_eq!(
        one::<i64>(
            &mut app,
            "SELECT leaf_index FROM inclusion_proof('p', 'people', 'nick')"
        ),
        1
    );
    // Whoever may read one key learns nothing of another.
    for email in ["secret@x", "other@x"] {
        let said = error(
            &mut app,
            &format!("SELECT inclusion_proof('p', 'people', '{email}')"),
        );
        assert!(said.contains("is not in log"), "{said}");
    }
}

#[test]
fn what_was_redacted_is_not_logged_again_without_salt() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, h bytea); SELECT create_log('w');
         SELECT add_source('w', 'w', 'id', salted => true, store_leaf_data => true); INSERT INTO w (v) SELECT g FROM generate_series(1, 6) g",
    );
    drain(&mut c, "w");
    run(
        &mut c,
        "SELECT redact_row('w', 'w', '5', 'gdpr'); SELECT remove_source('w', 'w')",
    );
    let refused = error(&mut c, "SELECT add_source('w', 'w', 'id')");
    assert!(
        refused.starts_with("55000") && refused.contains("redacted"),
        "{refused}"
    );
    // Whatever else is chosen, it goes on as the same source.
    for choice in [
        "salted => true",
        "salted => true, columns => '{id}'",
        "salted => true, hash_column => 'h'",
        "salted => true",
    ] {
        let id: i32 = one(
            &mut c,
            &format!("SELECT add_source('w', 'w', 'id', {choice})"),
        );
        assert_eq!(id, 1, "{choice}");
        run(&mut c, "INSERT INTO w (v, h) VALUES ('more', '\\x01')");
        drain(&mut c, "w");
        let unexpected: Vec<String> = findings(&mut c, "w")
            .into_iter()
            .filter(|f| !f.starts_with("redacted ") && !f.starts_with("schema_changed "))
            .collect();
        assert_eq!(unexpected, [""; 0], "{choice}");
        run(&mut c, "SELECT remove_source('w', 'w')");
    }
}

#[test]
fn a_leaf_says_which_of_the_tables_of_one_name_it_is_of() {
    let cluster = Cluster::start();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut c = cluster.client_hearing("postgres", notices.clone());
    run(
        &mut c,
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text); SELECT create_log('l');
         SELECT add_source('l', 'a', capture => 'trigger', store_leaf_data => true); INSERT INTO a VALUES (1, 'old a')",
    );
    drain(&mut c, "l");
    run(
        &mut c,
        "ALTER TABLE a RENAME TO was_a; ALTER TABLE b RENAME TO a; INSERT INTO a VALUES (1, 'new a')",
    );
    // The one is still a source, then is none, and then its table is gone.
    let mut names = Vec::new();
    for change in [
        "SELECT 1",
        "SELECT remove_source('l', 'a')",
        "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text)",
    ] {
        run(&mut c, change);
        let id: i32 = one(
            &mut c,
            "SELECT add_source('l', 'a', capture => 'trigger', store_leaf_data => true)",
        );
        let name = format!("SELECT source_table FROM verification_sources WHERE source_id = {id}");
        names.push(one::<String>(&mut c, &name));
    }
    assert_eq!(names, ["public.a (2)", "public.a (2)", "public.a (3)"]);
    assert!(
        notices
            .lock()
            .unwrap()
            .join("\n")
            .contains("whose entries have the name \"public.a (2)\"")
    );
    run(
        &mut c,
        "INSERT INTO a VALUES (1, 'newest a'); UPDATE was_a SET v = 'old a again'",
    );
    drain(&mut c, "l");
    let named = |c: &mut Client, words: &str| -> Vec<bool> {
        let sql = "SELECT position('public.a (3)'::bytea in leaf_data) > 0 FROM merkle_leaf_data WHERE log_id > 0";
        column(
            c,
            &format!("{sql} AND position('{words}'::bytea in leaf_data) > 0"),
        )
    };
    assert_eq!(named(&mut c, "old a"), [false, false]);
    assert_eq!(named(&mut c, "newest a"), [true]);
    assert_eq!(
        one::<String>(
            &mut c,
            "SELECT row_data ->> 'v' FROM history('l', 'a', '1')"
        ),
        "newest a"
    );
    assert_eq!(
        one::<String>(&mut c, "SELECT status FROM verify_row('l', 'a', '1')"),
        "logged"
    );
    let found = findings(&mut c, "l");
    let kinds: Vec<&str> = found.iter().map(|f| f.split(' ').next().unwrap()).collect();
    assert!(
        kinds
            .iter()
            .all(|k| ["source_removed", "deleted"].contains(k)),
        "{found:?}"
    );
}
