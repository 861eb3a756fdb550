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
        ["leaf_data_altered public.people 1 0"]
    );
    run(
        &mut a,
        "ROLLBACK; BEGIN; UPDATE merkle_leaf_data SET salt = sha256(salt) WHERE leaf_index = 0",
    );
    assert_eq!(
        findings(&mut a, "audit"),
        ["metadata_altered public.people 1 0"]
    );
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
            "entry_altered redact 2 4",
            "leaf_data_altered public.people 1 0",
            "leaf_data_altered public.people 2 2"
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

/// Entries of `log` that still have a salt or leaf data, of those whose leaf data say `words`; and all that have a
/// salt.
fn kept(client: &mut Client, log: &str, words: &str) -> (i64, i64) {
    let of = |condition: &str| {
        format!(
            "SELECT count(*) FROM merkle_leaf_data d JOIN merkle_log m USING (log_id, leaf_index) JOIN verification_logs l USING (log_id)
              WHERE log_name = '{log}' AND m.source_id > 0 AND {condition}"
        )
    };
    (
        one(
            client,
            &of(&format!("encode(leaf_data, 'escape') LIKE '%{words}%'")),
        ),
        one(client, &of("salt IS NOT NULL")),
    )
}

#[test]
fn a_row_is_redacted_under_every_name_that_its_label_had_and_no_other_row_is() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TYPE who AS ENUM ('alice', 'bob'); CREATE TABLE people (k who PRIMARY KEY, ssn text); SELECT create_log('h');
         SELECT add_source('h', 'people', capture => 'trigger', store_leaf_data => true, salted => true);
         INSERT INTO people VALUES ('alice', 'ssn of alice'), ('bob', 'ssn of bob')",
    );
    drain(&mut a, "h");
    run(&mut a, "ALTER TYPE who RENAME VALUE 'alice' TO 'p1'");
    let versions: i64 = one(&mut a, "SELECT count(*) FROM history('h', 'people', 'p1')");
    assert_eq!(versions, 1);
    assert_eq!(
        one::<i64>(&mut a, "SELECT redact_row('h', 'people', 'p1', 'erasure')"),
        1
    );
    assert_eq!(kept(&mut a, "h", "ssn of alice"), (0, 1));
    // What was redacted stays so when its label gets another name again, and when another label gets its name.
    run(
        &mut a,
        "UPDATE people SET ssn = 'again ssn of alice' WHERE k = 'p1'",
    );
    drain(&mut a, "h");
    run(
        &mut a,
        "ALTER TYPE who RENAME VALUE 'p1' TO 'p2'; ALTER TYPE who RENAME VALUE 'bob' TO 'p1'",
    );
    run(
        &mut a,
        "UPDATE people SET ssn = 'once more ssn of alice' WHERE k = 'p2'; UPDATE people SET ssn = 'new ssn of bob' WHERE k = 'p1'",
    );
    drain(&mut a, "h");
    run(&mut a, "DELETE FROM people WHERE k = 'p2'");
    drain(&mut a, "h");
    assert_eq!(kept(&mut a, "h", "ssn of alice"), (0, 2));
    assert_eq!(kept(&mut a, "h", "ssn of bob"), (2, 2));
    let versions: i64 = one(&mut a, "SELECT count(*) FROM history('h', 'people', 'p1')");
    assert_eq!(versions, 2, "an entry is of the row that its label was of");
    assert_eq!(
        one::<i64>(&mut a, "SELECT redact_row('h', 'people', 'p1', 'erasure')"),
        2
    );
    assert_eq!(kept(&mut a, "h", "ssn"), (0, 0));
    let found = findings(&mut a, "h");
    assert!(
        found
            .iter()
            .all(|f| f.starts_with("redacted") || f.starts_with("renamed")),
        "{found:?}"
    );
}

#[test]
fn a_row_is_redacted_under_the_key_of_an_earlier_registration_or_the_caller_is_told() {
    let cluster = Cluster::start();
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut a = cluster.client_hearing("postgres", notices.clone());
    run(
        &mut a,
        "CREATE TABLE people (email text PRIMARY KEY, id int NOT NULL UNIQUE, ssn text); SELECT create_log('p');
         SELECT add_source('p', 'people', capture => 'trigger', salted => true, store_leaf_data => true);
         INSERT INTO people VALUES ('a@x', 42, 'ssn of a'), ('b@x', 43, 'ssn of b')",
    );
    drain(&mut a, "p");
    run(
        &mut a,
        "SELECT remove_source('p', 'people');
         SELECT add_source('p', 'people', capture => 'trigger', salted => true, store_leaf_data => true, key_columns => '{id}')",
    );
    drain(&mut a, "p");
    assert_eq!(kept(&mut a, "p", "ssn of"), (4, 4));
    assert_eq!(
        one::<i64>(&mut a, "SELECT redact_row('p', 'people', '42', 'erasure')"),
        2
    );
    assert_eq!(kept(&mut a, "p", "ssn of a"), (0, 2));
    // Of a row that is not there nobody can tell what its key was.
    run(&mut a, "DELETE FROM people WHERE id = 43");
    notices.lock().unwrap().clear();
    assert_eq!(
        one::<i64>(&mut a, "SELECT redact_row('p', 'people', '43', 'erasure')"),
        2
    );
    let heard = notices.lock().unwrap().join("\n");
    assert!(
        heard.contains(
            "has 1 entries of table \"public.people\" by another key (email) that are not redacted"
        ),
        "{heard}"
    );
    assert_eq!(kept(&mut a, "p", "ssn of b"), (1, 1));
    run(&mut a, "SELECT redact('p', 1, 'erasure')");
    assert_eq!(kept(&mut a, "p", "ssn of"), (0, 0));
}

#[test]
fn a_key_that_was_never_redacted_is_not_believed_where_entries_were_pruned() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT create_log('h');
         SELECT add_source('h', 't', capture => 'trigger', store_leaf_data => true, salted => true);
         INSERT INTO t SELECT g, 'x' FROM generate_series(1, 3) g",
    );
    drain(&mut a, "h");
    run(&mut a, "SELECT redact_row('h', 't', '2', 'asked for')");
    run(
        &mut a,
        "INSERT INTO t SELECT g, 'x' FROM generate_series(4, 600) g",
    );
    drain(&mut a, "h");
    run(&mut a, "SELECT prune_log('h', 256)");
    assert_eq!(findings(&mut a, "h"), [""; 0]);
    for edit in [
        "INSERT INTO merkle_redacted_key (source_id, source_key, leaf_index, reason, redacted_at, key_hash)
         SELECT source_id, '9999', 0, 'invented', redacted_at, key_hash FROM merkle_redacted_key",
        "UPDATE merkle_redacted_key SET source_key = '3'",
        "UPDATE merkle_redacted_key SET reason = 'another'",
        "UPDATE merkle_redacted_key SET redacted_at = redacted_at + interval '1 s'",
        "DELETE FROM merkle_redacted_key",
    ] {
        run(&mut a, &format!("BEGIN; {edit}"));
        let found = findings(&mut a, "h");
        assert!(
            found.iter().any(|f| f.starts_with("entry_altered")),
            "{edit}: {found:?}"
        );
        run(&mut a, "ROLLBACK");
    }
    // Pruning goes on from there.
    run(
        &mut a,
        "SELECT redact_row('h', 't', '400', 'asked for'); SELECT prune_log('h', 512)",
    );
    assert_eq!(findings(&mut a, "h"), [""; 0]);
}
