//! A row is erased under every key that it had: an UPDATE of its key does not take it out of reach.

use server_tests::*;
use std::sync::{Arc, Mutex};

const PEOPLE: &str = "CREATE TABLE people (id int PRIMARY KEY, name text, note text); SELECT create_log('h');
    SELECT add_source('h', 'people', capture => 'trigger', salted => true, store_leaf_data => true)";

/// Keys and kinds of entries that still have something to erase, of those that say `words`.
fn left(client: &mut Client, words: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT m.source_key || ' ' || s.kind FROM merkle_leaf_data d JOIN merkle_log m USING (log_id, leaf_index)
               JOIN LATERAL (SELECT t.kind FROM merkle_statement t WHERE t.log_id = m.log_id AND t.from_leaf_index <= m.leaf_index
                              ORDER BY t.from_leaf_index DESC LIMIT 1) s ON true
              WHERE m.source_id > 0 AND encode(d.leaf_data, 'escape') LIKE '%{words}%' ORDER BY m.leaf_index"
        ),
    )
}

fn redact(client: &mut Client, key: &str) -> i64 {
    one(
        client,
        &format!("SELECT redact_row('h', 'people', '{key}', 'request 12')"),
    )
}

fn only_redactions(client: &mut Client) {
    let found = findings(client, "h");
    assert!(
        found.iter().all(|f| f.starts_with("redacted ")),
        "{found:?}"
    );
}

#[test]
fn a_row_is_redacted_under_every_key_that_it_had_whichever_of_them_is_named() {
    for key in ["1", "2", "3"] {
        let cluster = Cluster::start();
        let mut a = cluster.client("postgres");
        run(&mut a, PEOPLE);
        run(
            &mut a,
            "INSERT INTO people VALUES (1, 'PII', 'a'), (9, 'other', 'b')",
        );
        run(&mut a, "UPDATE people SET note = 'c' WHERE id = 1");
        drain(&mut a, "h");
        run(&mut a, "UPDATE people SET id = 2 WHERE id = 1");
        run(&mut a, "UPDATE people SET note = 'd' WHERE id = 2");
        drain(&mut a, "h");
        // Waits in the queue when the row is redacted.
        run(&mut a, "UPDATE people SET id = 3, note = 'e' WHERE id = 2");
        assert_eq!(redact(&mut a, key), 7, "{key}");
        assert_eq!(left(&mut a, "PII"), [""; 0], "{key}");
        assert_eq!(left(&mut a, "other"), ["9 insert"]);
        // And so it stays, whatever it is called later.
        run(
            &mut a,
            "UPDATE people SET note = 'f' WHERE id = 3; UPDATE people SET id = 4 WHERE id = 3",
        );
        drain(&mut a, "h");
        run(
            &mut a,
            "UPDATE people SET id = 5 WHERE id = 4; UPDATE people SET id = 6 WHERE id = 5; UPDATE people SET note = 'g' WHERE id = 6",
        );
        drain(&mut a, "h");
        run(&mut a, "DELETE FROM people WHERE id = 6");
        drain(&mut a, "h");
        assert_eq!(left(&mut a, "PII"), [""; 0], "{key}");
        assert_eq!(left(&mut a, "other"), ["9 insert"]);
        only_redactions(&mut a);
    }
}

#[test]
fn rows_of_one_statement_are_told_apart() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, PEOPLE);
    run(
        &mut a,
        "INSERT INTO people SELECT i, 'row ' || i || '.', '' FROM generate_series(1, 5) i",
    );
    for update in ["id + 100", "106 - id", "id + 10", "id - 9"] {
        run(&mut a, &format!("UPDATE people SET id = {update}"));
    }
    drain(&mut a, "h");
    // Row 2 is now 5. Others had key 5 before.
    assert_eq!(
        one::<i32>(&mut a, "SELECT id FROM people WHERE name = 'row 2.'"),
        5
    );
    redact(&mut a, "5");
    assert_eq!(left(&mut a, "row 2."), [""; 0]);
    for row in [1, 3, 4, 5] {
        assert!(!left(&mut a, &format!("row {row}.")).is_empty(), "{row}");
    }
    only_redactions(&mut a);
}

#[test]
fn rows_that_had_the_key_before_are_named_and_not_redacted_elsewhere() {
    let cluster = Cluster::start();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut a = cluster.client_hearing("postgres", notices.clone());
    run(&mut a, PEOPLE);
    run(&mut a, "INSERT INTO people VALUES (1, 'first', '')");
    run(&mut a, "UPDATE people SET id = 7 WHERE id = 1");
    run(&mut a, "INSERT INTO people VALUES (1, 'second', '')");
    drain(&mut a, "h");
    redact(&mut a, "1");
    assert_eq!(left(&mut a, "second"), [""; 0]);
    assert_eq!(left(&mut a, "first"), ["7 insert"]);
    let heard = notices.lock().unwrap().join("\n");
    assert!(
        heard.contains("rows that had the key before it") && heard.contains("not redacted: 7"),
        "{heard}"
    );
    // A row that was deleted under its last key is found by an earlier one, and what has that key since is another's.
    run(&mut a, "INSERT INTO people VALUES (20, 'gone', '')");
    run(
        &mut a,
        "UPDATE people SET id = 21 WHERE id = 20; DELETE FROM people WHERE id = 21",
    );
    run(&mut a, "INSERT INTO people VALUES (21, 'new', '')");
    drain(&mut a, "h");
    notices.lock().unwrap().clear();
    assert_eq!(redact(&mut a, "20"), 4);
    assert_eq!(left(&mut a, "gone"), [""; 0]);
    assert_eq!(left(&mut a, "new"), ["21 insert"]);
    assert!(
        notices
            .lock()
            .unwrap()
            .join("\n")
            .contains("other keys in log \"h\" (21)")
    );
    only_redactions(&mut a);
}

#[test]
fn a_row_is_followed_over_partitions_batches_and_single_redactions() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE people (id int PRIMARY KEY, name text, note text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF people FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF people FOR VALUES FROM (100) TO (1000);
         SELECT create_log('h', batch_size => 7);
         SELECT add_source('h', 'people', capture => 'trigger', salted => true, store_leaf_data => true);
         INSERT INTO people SELECT i, 'row ' || i || '.', '' FROM generate_series(1, 50) i",
    );
    drain(&mut a, "h");
    redact(&mut a, "20");
    // To another partition, in a transaction that takes many batches.
    run(&mut a, "UPDATE people SET id = id + 200");
    run(&mut a, "UPDATE people SET id = 320 WHERE id = 220");
    drain(&mut a, "h");
    assert_eq!(left(&mut a, "row 20."), [""; 0]);
    assert_eq!(left(&mut a, "row 30.").len(), 3);
    // What was erased by itself still leads on.
    let at: i64 = one(
        &mut a,
        "SELECT leaf_index FROM history('h', 'people', '30') ORDER BY 1 DESC LIMIT 1",
    );
    run(&mut a, &format!("SELECT redact('h', {at}, 'one')"));
    assert_eq!(redact(&mut a, "30"), 2);
    assert_eq!(left(&mut a, "row 30."), [""; 0]);
    only_redactions(&mut a);
    // What leads from one to the other cannot be changed unseen.
    let cut = "UPDATE merkle_leaf_data SET erased_salt = substr(erased_salt, 1, 32) WHERE length(erased_salt) > 32";
    let turned = "UPDATE merkle_leaf_data SET erased_salt = set_byte(erased_salt, 35, 1 + get_byte(erased_salt, 35) % 250) WHERE length(erased_salt) > 32";
    for edit in [cut, turned] {
        run(&mut a, &format!("BEGIN; {edit}"));
        let found = findings(&mut a, "h");
        assert!(
            found.iter().any(|f| f.starts_with("metadata_altered")),
            "{found:?}"
        );
        run(&mut a, "ROLLBACK");
    }
}

#[test]
fn what_earlier_versions_captured_is_named_where_it_cannot_be_followed() {
    let cluster = Cluster::start();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let mut a = cluster.client_hearing("postgres", notices.clone());
    run(&mut a, PEOPLE);
    run(&mut a, "INSERT INTO people VALUES (1, 'PII', '')");
    // As entries of before: the two of one statement have nothing in common.
    run(
        &mut a,
        "WITH gone AS (DELETE FROM people WHERE id = 1 RETURNING *) INSERT INTO people SELECT 2, name, note FROM gone",
    );
    drain(&mut a, "h");
    assert_eq!(redact(&mut a, "2"), 1);
    let heard = notices.lock().unwrap().join("\n");
    assert!(
        heard.contains("not redacted: 1") && heard.contains("redact_row('h'"),
        "{heard}"
    );
    assert_eq!(left(&mut a, "PII"), ["1 insert", "1 delete"]);
}
