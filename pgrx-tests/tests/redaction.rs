//! Personal data can be erased from a log that goes on proving everything else.

use server_tests::*;

#[test]
fn a_redacted_row_is_redacted_not_deleted_and_cannot_be_guessed() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, born date);
         SELECT create_log('audit'); SELECT add_source('audit', 'people', order_column => 'id', salted => true);
         INSERT INTO people (born) SELECT date '1980-01-01' + i FROM generate_series(1, 300) i",
    );
    drain(&mut a, "audit");
    let root: Vec<u8> = one(&mut a, "SELECT merkle_root('audit')");
    // Two equal rows have different hashes, and the salt is what makes the hash.
    let salted: bool = one(
        &mut a,
        "SELECT leaf_hash = sha256('\\x00'::bytea || leaf_data('audit', 6)) AND position(salt in leaf_data('audit', 6)) > 0
           FROM merkle_log JOIN merkle_leaf_data USING (log_id, leaf_index) WHERE log_id > 0 AND leaf_index = 6",
    );
    assert!(salted);
    let before: Vec<u8> = one(&mut a, "SELECT leaf_data('audit', 6)");
    run(
        &mut a,
        "SELECT create_log('plain'); SELECT add_source('plain', 'people', order_column => 'id')",
    );
    drain(&mut a, "plain");
    let unsalted: Vec<u8> = one(&mut a, "SELECT leaf_data('plain', 6)");
    let leaf: Vec<u8> = one(
        &mut a,
        "SELECT leaf_hash FROM merkle_log WHERE log_id = 1 AND leaf_index = 6",
    );

    assert_eq!(
        one::<i64>(&mut a, "SELECT redact('audit', 6, 'request 12')"),
        300
    );
    run(&mut a, "DELETE FROM people WHERE id = 7");
    assert_eq!(findings(&mut a, "audit"), ["redacted public.people 7 6"]);
    let detail: String = one(&mut a, "SELECT detail FROM verify_log('audit')");
    assert!(detail.contains("request 12"), "{detail}");
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(*) FROM merkle_leaf_data WHERE log_id > 0 AND leaf_index = 6 AND (salt IS NOT NULL OR leaf_data IS NOT NULL)"
        ),
        0
    );
    // Whoever guesses the row, but has not the salt, cannot tell that the guess is right.
    use sha2::{Digest, Sha256};
    let hash = |data: &[u8]| {
        Sha256::new()
            .chain_update([0])
            .chain_update(data)
            .finalize()
            .to_vec()
    };
    assert_eq!(hash(&before), leaf);
    let context = 1 + "?salt".len() + 1 + 16;
    let mut guess = before[..before.len() - context].to_vec();
    guess[0] = 0x84;
    assert_eq!(guess, unsalted, "the guess is the row");
    assert_ne!(hash(&guess), leaf);
    let message = error(&mut a, "SELECT leaf_data('audit', 6)");
    assert!(message.contains("no longer exists"), "{message}");
    // The rest of the tree is as it was.
    let proven: i64 = one(
        &mut a,
        "SELECT count(*) FROM generate_series(0, 300) i, inclusion_proof('audit', i::bigint) p
          WHERE verify_inclusion(p.leaf_hash, p.leaf_index, p.tree_size, p.path, p.root_hash)",
    );
    assert_eq!(proven, 301);
    let now: Vec<u8> = one(&mut a, "SELECT merkle_root('audit')");
    assert!(oracle::consistent(&mut a, "audit", (300, root), (301, now)));
}

#[test]
fn captured_versions_are_redacted_one_by_one_with_what_the_log_keeps() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE people (id int PRIMARY KEY, name text); SELECT create_log('audit');
         SELECT add_source('audit', 'people', capture => 'trigger', salted => true, store_leaf_data => true)",
    );
    run(&mut a, "INSERT INTO people VALUES (1, 'Ada')");
    run(&mut a, "UPDATE people SET name = 'Ada L.'");
    run(&mut a, "DELETE FROM people");
    drain(&mut a, "audit");
    for index in 0..3 {
        run(
            &mut a,
            &format!("SELECT redact('audit', {index}, 'right to be forgotten')"),
        );
    }
    let history: Vec<String> = column(
        &mut a,
        "SELECT concat_ws(' ', operation, row_data) FROM history('audit', 'people', '1')",
    );
    assert_eq!(history, ["redacted", "redacted", "redacted"]);
    let found = findings(&mut a, "audit");
    assert_eq!(
        found,
        [
            "redacted public.people 1 0",
            "redacted public.people 1 1",
            "redacted public.people 1 2"
        ]
    );
    let kept: i64 = one(
        &mut a,
        "SELECT count(*) FROM merkle_leaf_data WHERE position('Ada'::bytea in leaf_data) > 0",
    );
    assert_eq!(kept, 0);
    for (sql, words) in [
        ("SELECT redact('audit', 0, 'again')", "redacted before"),
        (
            "SELECT redact('audit', 3, 'the redaction')",
            "the log itself",
        ),
        ("SELECT redact('audit', 99, 'x')", "does not exist"),
        ("SELECT redact('audit', 0, ' ')", "reason"),
    ] {
        let message = error(&mut a, sql);
        assert!(message.contains(words), "{sql}: {message}");
    }
}

#[test]
fn erasing_without_a_redaction_on_record_is_tampering() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
         SELECT create_log('audit'); SELECT add_source('audit', 'people', order_column => 'id', salted => true);
         CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         SELECT add_source('audit', 'plain', order_column => 'id');
         INSERT INTO people (name) VALUES ('a'), ('b'), ('c'); INSERT INTO plain DEFAULT VALUES",
    );
    drain(&mut a, "audit");
    run(
        &mut a,
        "BEGIN; UPDATE merkle_leaf_data SET salt = NULL WHERE leaf_index = 0",
    );
    assert_eq!(
        findings(&mut a, "audit"),
        ["entry_altered public.people 1 0"]
    );
    run(
        &mut a,
        "ROLLBACK; BEGIN; UPDATE merkle_leaf_data SET salt = sha256(salt) WHERE leaf_index = 0",
    );
    assert_eq!(findings(&mut a, "audit"), ["modified public.people 1 0"]);
    run(&mut a, "ROLLBACK");
    let plain: i64 = one(
        &mut a,
        "SELECT leaf_index FROM inclusion_proof('audit', 'plain', '1')",
    );
    let message = error(&mut a, &format!("SELECT redact('audit', {plain}, 'x')"));
    assert!(
        message.starts_with("55000") && message.contains("salted => true"),
        "{message}"
    );
    run(&mut a, "SELECT redact('audit', 0, 'x')");
    // The record of it cannot be moved to another entry.
    run(
        &mut a,
        "UPDATE merkle_log SET source_key = 'redact 2' WHERE source_key = 'redact 0'; UPDATE merkle_leaf_data SET salt = NULL WHERE leaf_index = 2",
    );
    let mut found = findings(&mut a, "audit");
    found.sort();
    assert_eq!(
        found,
        [
            "entry_altered public.people 1 0",
            "entry_altered public.people 2 2",
            "entry_altered redact 2 4"
        ]
    );
    // Only the table's owner may redact.
    run(
        &mut a,
        "CREATE ROLE dpo LOGIN; GRANT EXECUTE ON FUNCTION redact TO dpo",
    );
    let message = error(
        &mut cluster.client_as("postgres", "dpo"),
        "SELECT redact('audit', 1, 'x')",
    );
    assert!(message.starts_with("42501"), "{message}");
}
