//! Checkpoints: what is signed is true, is kept, and is never contradicted, whatever happens to the server.

use merkle_tree::{Hash, TreeSize};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tlog::{Checkpoint, KeyName, Policy, SignatureType, SignedNote, SigningKey};

const ORIGIN: &str = "example.com/shop/audit";

fn key(seed: u8) -> SigningKey {
    let name = KeyName::new("example.com/shop").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[seed; 32]).unwrap()
}

fn verifier(seed: u8) -> tlog::VerifierKey {
    let origin = KeyName::new(ORIGIN).unwrap();
    key(seed).of_log(origin).unwrap().verifier_key()
}

/// A server that has a key and signs under a prefix.
fn signing(settings: &str) -> Cluster {
    let cluster = Cluster::with(settings);
    give_key(&cluster);
    cluster
}

fn give_key(cluster: &Cluster) {
    let file = cluster.secret_file("key", &format!("{}\n", key(7).to_text().as_str()));
    cluster.reload_with(&format!(
        "merkle_log.signing_key_file = '{file}'\nmerkle_log.origin_prefix = 'example.com/shop'"
    ));
    let mut c = cluster.client("postgres");
    until(
        &mut c,
        "SELECT current_setting('merkle_log.signing_key_file', true) <> ''",
    );
}

fn log(c: &mut Client) {
    run(
        c,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text); SELECT create_log('audit');
         SELECT add_source('audit', 'orders', order_column => 'id')",
    );
}

fn grow(c: &mut Client, rows: i64) -> i64 {
    run(
        c,
        &format!("INSERT INTO orders (note) SELECT 'n' || i FROM generate_series(1, {rows}) i"),
    );
    drain(c, "audit")
}

/// The log's checkpoint, verified as an outsider would.
fn checkpoint(c: &mut Client) -> (String, Checkpoint) {
    let note: String = one(c, "SELECT checkpoint('audit')");
    let verified = verified(&note);
    (note, verified)
}

fn verified(note: &str) -> Checkpoint {
    let note: SignedNote = note.parse().unwrap();
    Policy::of_log(verifier(7))
        .verify(&note)
        .unwrap()
        .checkpoint
}

fn refusal(c: &mut Client) -> String {
    error(c, "SELECT checkpoint('audit')")
}

/// That every checkpoint that was ever seen is one of the log as it is now, and each extends the one before.
fn all_are_of_one_history(c: &mut Client, seen: &[String]) {
    let stored: Vec<String> = column(
        c,
        "SELECT note FROM merkle_log_checkpoints WHERE log_name = 'audit'",
    );
    let mut roots: BTreeMap<u64, Hash> = BTreeMap::new();
    for note in stored.iter().chain(seen) {
        let checkpoint = verified(note);
        let root = roots
            .entry(checkpoint.size().get())
            .or_insert(*checkpoint.root());
        assert_eq!(
            root,
            checkpoint.root(),
            "two roots of size {}",
            checkpoint.size()
        );
    }
    let mut before: Option<(u64, Hash)> = None;
    for (size, root) in roots {
        let now: Vec<u8> = one(c, &format!("SELECT merkle_root('audit', {size})"));
        assert_eq!(now, root.as_bytes(), "size {size}");
        if let Some((old, old_root)) = before {
            let path: Vec<Vec<u8>> = one(
                c,
                &format!("SELECT path FROM consistency_proof('audit', {old}, {size})"),
            );
            let path: Vec<Hash> = path
                .iter()
                .map(|h| Hash::try_from(h.as_slice()).unwrap())
                .collect();
            let size_of = |n| TreeSize::new(n).unwrap();
            merkle_tree::verify_consistency(size_of(old), size_of(size), &old_root, &root, &path)
                .unwrap();
        }
        before = Some((size, root));
    }
}

#[test]
fn a_checkpoint_is_verified_by_anyone_and_made_once() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    let (_, empty) = checkpoint(&mut c);
    assert_eq!((empty.size().get(), empty.origin()), (0, ORIGIN));
    assert_eq!(grow(&mut c, 700), 700);
    let (note, signed) = checkpoint(&mut c);
    assert_eq!(signed.size().get(), 700);
    assert_eq!(
        signed.root().as_bytes().to_vec(),
        one::<Vec<u8>>(&mut c, "SELECT merkle_root('audit')")
    );
    assert_eq!(checkpoint(&mut c).0, note, "nothing new, nothing signed");
    let vkey: String = one(&mut c, "SELECT checkpoint_key('audit')");
    assert_eq!(vkey, verifier(7).to_string());
    grow(&mut c, 70_000);
    checkpoint(&mut c);
    // A new name and a new prefix are nothing to those who know the log by its origin.
    cluster.reload_with("merkle_log.origin_prefix = 'elsewhere'");
    run(
        &mut c,
        "SELECT alter_log('audit', new_name => 'other'); SELECT alter_log('other', new_name => 'audit')",
    );
    grow(&mut c, 1);
    let (_, last) = checkpoint(&mut c);
    assert_eq!((last.size().get(), last.origin()), (70_701, ORIGIN));
    all_are_of_one_history(&mut c, &[note]);
    assert!(findings(&mut c, "audit").is_empty());
    // The log of what is done to logs is one like any other.
    let note: String = one(&mut c, "SELECT checkpoint('merkle_log_administration')");
    assert!(
        note.starts_with("elsewhere/merkle_log_administration\n"),
        "{note}"
    );
    // What was signed is public; signing is not.
    run(&mut c, "CREATE ROLE nobody LOGIN");
    let mut nobody = cluster.client_as("postgres", "nobody");
    assert_eq!(
        one::<i64>(
            &mut nobody,
            "SELECT count(*) FROM merkle_log_checkpoints WHERE log_name = 'audit'"
        ),
        4
    );
    for call in [
        "checkpoint('audit')",
        "checkpoint_key('audit')",
        "accept_checkpoint('x')",
        "add_cosignature('audit', 'x', '{}')",
    ] {
        assert!(
            error(&mut nobody, &format!("SELECT {call}")).starts_with("42501"),
            "{call}"
        );
    }
    // Whatever a session says before the library is there, it does not say where the key is.
    run(
        &mut nobody,
        "SET merkle_log.signing_key_file = '/tmp/mine'; SELECT merkle_size('audit')",
    );
    let setting = error(&mut nobody, "SHOW merkle_log.signing_key_file");
    assert!(setting.starts_with("42501"), "{setting}");
    let setting = error(&mut c, "SET merkle_log.signing_key_file = '/dev/null'");
    assert!(setting.starts_with("55P02"), "{setting}");
}

#[test]
fn only_a_key_file_that_is_the_servers_alone_is_used() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    log(&mut c);
    let said = refusal(&mut c);
    assert!(
        said.starts_with("55000") && said.contains("origin_prefix"),
        "{said}"
    );
    cluster.reload_with("merkle_log.origin_prefix = 'example.com/shop'");
    until(
        &mut c,
        "SELECT current_setting('merkle_log.origin_prefix', true) <> ''",
    );
    let said = refusal(&mut c);
    assert!(
        said.contains("no signing key") && said.contains("merkle_log.signing_key_file"),
        "{said}"
    );
    let text = key(7).to_text();
    let good = format!("{}\n", text.as_str());
    let file = cluster.secret_file("key", &good);
    let dir = cluster.socket().display().to_string();
    cluster.shell(&format!(
        "cp --preserve=all {file} {dir}/open; chmod 640 {dir}/open; mkfifo {dir}/pipe"
    ));
    let witness = SigningKey::from_seed(
        KeyName::new("w").unwrap(),
        SignatureType::Ed25519Cosignature,
        &[1; 32],
    )
    .unwrap();
    for (path, says) in [
        (format!("{dir}/none"), "cannot be read"),
        (dir.clone(), "is no file"),
        (format!("{dir}/pipe"), "is no file"),
        (format!("{dir}/open"), "mode is 0640"),
        (
            cluster.secret_file("bad", "PRIVATE+KEY+a+00000000+AAAA\n"),
            "does not hold a key",
        ),
        (cluster.secret_file("empty", ""), "does not hold a key"),
        (
            cluster.secret_file("long", &"x".repeat(10_000)),
            "does not hold a key",
        ),
        (
            cluster.secret_file("binary", "\0\u{1}"),
            "does not hold a key",
        ),
        (
            cluster.secret_file("witness", witness.to_text().as_str()),
            "for cosignatures",
        ),
        (
            cluster.secret_file("two", &format!("{good}{good}")),
            "does not hold a key",
        ),
    ] {
        cluster.reload_with(&format!("merkle_log.signing_key_file = '{path}'"));
        until(
            &mut c,
            &format!("SELECT current_setting('merkle_log.signing_key_file') = '{path}'"),
        );
        let said = refusal(&mut c);
        assert!(
            said.starts_with("F0000") && said.contains(says) && said.contains("chmod 600"),
            "{path}: {said}"
        );
        assert!(
            !said.contains(text.rsplit('+').next().unwrap()),
            "a key was shown"
        );
    }
    cluster.reload_with(&format!("merkle_log.signing_key_file = '{file}'"));
    until(
        &mut c,
        &format!("SELECT current_setting('merkle_log.signing_key_file') = '{file}'"),
    );
    checkpoint(&mut c);
    // Another key at the same place counts for whoever signs next, and after a reload for this process too.
    cluster.secret_file("key", key(8).to_text().as_str());
    grow(&mut c, 1);
    let note: String = one(&mut c, "SELECT checkpoint('audit')");
    let note: SignedNote = note.parse().unwrap();
    assert!(Policy::of_log(verifier(8)).verify(&note).is_ok());
    cluster.reload_with("merkle_log.notify = on");
    until(
        &mut c,
        &format!("SELECT checkpoint_key('audit') = '{}'", verifier(8)),
    );
    assert!(findings(&mut c, "audit").is_empty());
}

#[test]
fn an_origin_is_of_one_log_for_ever() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    for (call, state, says) in [
        (
            "create_log('x', origin => 'https://example.com/x')",
            "22023",
            "scheme",
        ),
        (
            "create_log('x', origin => 'example.com/')",
            "22023",
            "slash",
        ),
        ("create_log('x', origin => 'a b')", "22023", "not valid"),
        ("create_log('x', origin => 'a+b')", "22023", "not valid"),
        ("create_log('x', origin => '')", "22023", "not valid"),
        (
            "create_log('x', checkpoint_interval => '-1 s')",
            "22023",
            "checkpoint_interval",
        ),
    ] {
        let said = error(&mut c, &format!("SELECT {call}"));
        assert!(
            said.starts_with(state) && said.contains(says),
            "{call}: {said}"
        );
    }
    run(
        &mut c,
        "SELECT create_log('x', origin => 'example.com/x'); SELECT create_log('with space')",
    );
    let said = error(&mut c, "SELECT create_log('y', origin => 'example.com/x')");
    assert!(said.starts_with("42710"), "{said}");
    let said = error(&mut c, "SELECT checkpoint('with space')");
    assert!(
        said.starts_with("22023") && said.contains("An origin is"),
        "{said}"
    );
    run(
        &mut c,
        "SELECT alter_log('with space', origin => 'example.com/space')",
    );
    run(&mut c, "SELECT checkpoint('with space')");
    checkpoint(&mut c);
    let said = error(
        &mut c,
        "SELECT alter_log('audit', origin => 'example.com/new')",
    );
    assert!(said.starts_with("55000") && said.contains(ORIGIN), "{said}");
    // Of a log that is gone, what was signed stays true.
    run(&mut c, "SELECT drop_log('audit', true)");
    run(&mut c, "SELECT create_log('audit')");
    let said = refusal(&mut c);
    assert!(said.starts_with("42710") && said.contains(ORIGIN), "{said}");
}

#[test]
fn what_may_yet_be_rolled_back_is_not_signed() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    let said = error(
        &mut c,
        "BEGIN; INSERT INTO orders (note) VALUES ('a'); SELECT process_next_batch('audit'); SELECT checkpoint('audit')",
    );
    run(&mut c, "ROLLBACK");
    assert!(
        said.starts_with("55000") && said.contains("not committed"),
        "{said}"
    );
    let said = error(
        &mut c,
        "BEGIN; SELECT alter_log('audit', origin => 'example.com/audit'); SELECT checkpoint('audit')",
    );
    run(&mut c, "ROLLBACK");
    assert!(
        said.starts_with("55000") && said.contains("not committed"),
        "{said}"
    );
    let said = error(
        &mut c,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT checkpoint('audit')",
    );
    run(&mut c, "ROLLBACK");
    assert!(said.contains("REPEATABLE READ"), "{said}");
    grow(&mut c, 3);
    // Many who sign at once get one note.
    let signers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = cluster.client("postgres");
            std::thread::spawn(move || checkpoint(&mut client).0)
        })
        .collect();
    let notes: Vec<String> = signers.into_iter().map(|s| s.join().unwrap()).collect();
    assert!(notes.iter().all(|note| *note == notes[0]));
}

#[test]
fn a_signature_outlives_the_transaction_that_asked_for_it() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    run(
        &mut c,
        "BEGIN; INSERT INTO orders (note) VALUES ('rolled back')",
    );
    let (note, _) = checkpoint(&mut c);
    run(&mut c, "ROLLBACK");
    let kept: String = one(&mut c, "SELECT note FROM merkle_log_checkpoints");
    assert_eq!(kept, note);
    // So nothing else can be signed under this origin, whatever becomes of the log.
    run(
        &mut c,
        "SELECT drop_log('audit', true); SELECT create_log('audit')",
    );
    let said = refusal(&mut c);
    assert!(said.starts_with("42710") && said.contains(ORIGIN), "{said}");
}

#[test]
fn an_origin_has_one_history_on_a_server_whatever_becomes_of_the_database() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    checkpoint(&mut c);
    // Another database of the server, with the same configuration and a log of the same name.
    run(&mut c, "CREATE DATABASE other");
    let mut other = cluster.client("other");
    run(&mut other, "CREATE EXTENSION merkle_log");
    log(&mut other);
    run(&mut other, "INSERT INTO orders (note) VALUES ('other')");
    grow(&mut other, 20);
    let said = refusal(&mut other);
    assert!(
        said.starts_with("42710")
            && said.contains("database \"postgres\"")
            && said.contains("alter_log"),
        "{said}"
    );
    run(
        &mut other,
        "SELECT alter_log('audit', origin => 'example.com/other/audit')",
    );
    run(&mut other, "SELECT checkpoint('audit')");
    // The administration log of each database can have an origin too.
    run(
        &mut other,
        "SELECT alter_log('merkle_log_administration', origin => 'example.com/other/administration')",
    );
    run(&mut other, "SELECT checkpoint('merkle_log_administration')");
    let said = error(
        &mut other,
        "SELECT alter_log('merkle_log_administration', batch_size => 7)",
    );
    assert!(said.starts_with("42939"), "{said}");
    // The extension, and with it all that it knew, is gone: what was signed is not.
    run(
        &mut c,
        "DROP EXTENSION merkle_log CASCADE; DROP TABLE orders; CREATE EXTENSION merkle_log",
    );
    log(&mut c);
    grow(&mut c, 5);
    let said = refusal(&mut c);
    assert!(
        said.starts_with("42710") && said.contains("size 10"),
        "{said}"
    );
    grow(&mut c, 15);
    assert!(refusal(&mut c).starts_with("42710"));
    // A file of the server's memory that is damaged is never taken for none.
    let directory = cluster.data_directory().join("merkle_log_origins");
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none() {
            std::fs::write(path, "{").unwrap();
        }
    }
    let said = refusal(&mut c);
    assert!(
        said.starts_with("58030") && said.contains("damaged"),
        "{said}"
    );
}

#[test]
fn a_copy_signs_under_an_origin_of_its_own() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 100);
    let (signed, _) = checkpoint(&mut c);
    run(&mut c, "SELECT create_log('never signed')");
    drop(c);
    let mut t = cluster.client("template1");
    until(
        &mut t,
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'postgres')",
    );
    run(&mut t, "CREATE DATABASE copied TEMPLATE postgres");
    let mut copy = cluster.client("copied");
    assert!(refusal(&mut copy).contains("adopt_database"));
    run(&mut copy, "SELECT adopt_database('copy')");
    // What the original has signed is as true of the copy, as long as it is the same.
    assert_eq!(checkpoint(&mut copy).0, signed);
    assert_eq!(
        one::<String>(&mut copy, "SELECT checkpoint_key('audit')"),
        verifier(7).to_string()
    );
    grow(&mut copy, 10);
    for log in ["audit", "never signed", "merkle_log_administration"] {
        let said = error(&mut copy, &format!("SELECT checkpoint('{log}')"));
        assert!(
            said.starts_with("55000") && said.contains("is a copy"),
            "{log}: {said}"
        );
    }
    let said = error(
        &mut copy,
        &format!("SELECT alter_log('audit', origin => '{ORIGIN}')"),
    );
    assert!(said.starts_with("42710"), "{said}");
    run(
        &mut copy,
        "SELECT alter_log('audit', origin => 'example.com/copy/audit')",
    );
    let note: String = one(&mut copy, "SELECT checkpoint('audit')");
    assert!(note.starts_with("example.com/copy/audit\n110\n"), "{note}");
    assert!(findings(&mut copy, "audit").is_empty());
    let mut c = cluster.client("postgres");
    grow(&mut c, 10);
    assert_eq!(checkpoint(&mut c).1.size().get(), 110);
}

#[test]
fn a_new_key_signs_the_newest_checkpoint_as_well() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    let (before, _) = checkpoint(&mut c);
    let new = cluster.secret_file("new_key", &format!("{}\n", key(9).to_text().as_str()));
    cluster.reload_with(&format!("merkle_log.signing_key_file = '{new}'"));
    until(
        &mut c,
        &format!("SELECT current_setting('merkle_log.signing_key_file') = '{new}'"),
    );
    // Until then, the key is that of what there is.
    let keys = "SELECT checkpoint_key('audit')";
    assert_eq!(one::<String>(&mut c, keys), verifier(7).to_string());
    let (after, _) = checkpoint(&mut c);
    assert_eq!(one::<String>(&mut c, keys), verifier(9).to_string());
    let after: SignedNote = after.parse().unwrap();
    assert_eq!(after.signatures().len(), 2);
    for seed in [7, 9] {
        assert!(Policy::of_log(verifier(seed)).verify(&after).is_ok());
    }
    // What was given out before is known as the log's own, also as psql has written it into a file.
    assert_eq!(
        one::<String>(&mut c, &format!("SELECT accept_checkpoint('{before}\n')")),
        "contained"
    );
    grow(&mut c, 1);
    let note: SignedNote = one::<String>(&mut c, "SELECT checkpoint('audit')")
        .parse()
        .unwrap();
    assert!(Policy::of_log(verifier(9)).verify(&note).is_ok());
}

#[test]
fn a_signature_is_never_put_under_what_stands_in_a_table() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    let (note, _) = checkpoint(&mut c);
    let mut lines = note.splitn(4, '\n');
    let [origin, size, root, rest] = std::array::from_fn(|_| lines.next().unwrap());
    let other_root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let set = |c: &mut Client, text: &str| {
        c.execute(
            "UPDATE merkle_checkpoint SET note = $1 WHERE log_id = 1",
            &[&text],
        )
        .unwrap();
    };
    for forged in [
        format!("{origin}\n{size}\n{other_root}\n{rest}"),
        format!("{origin}\n9\n{root}\n{rest}"),
        format!("{origin}/other\n{size}\n{root}\n{rest}"),
        "nothing".to_owned(),
    ] {
        set(&mut c, &forged);
        let said = refusal(&mut c);
        assert!(said.contains("does not say what the log is"), "{said}");
    }
    // With a tree head and a checkpoint that no batch and no key has made.
    set(&mut c, &note);
    run(
        &mut c,
        &format!(
            "INSERT INTO merkle_tree_head (log_id, tree_size, root_hash) VALUES (1, 12, sha256('x'));
             INSERT INTO merkle_checkpoint (log_id, tree_size, root_hash, origin, note, verifier_key)
             SELECT 1, 12, sha256('x'), '{origin}', E'{origin}\\n12\\n' || encode(sha256('x'), 'base64') || E'\\n\\n{}', 'none'",
            rest.trim_start()
        ),
    );
    refusal(&mut c);
    run(
        &mut c,
        "DELETE FROM merkle_tree_head WHERE tree_size = 12 AND log_id = 1; DELETE FROM merkle_checkpoint WHERE tree_size = 12",
    );
    assert_eq!(checkpoint(&mut c).0, note);
    grow(&mut c, 5);
    let (next, _) = checkpoint(&mut c);
    all_are_of_one_history(&mut c, &[note, next]);
}

#[test]
fn a_server_that_took_over_remembers_what_the_other_signed() {
    let primary = signing("shared_preload_libraries = 'merkle_log'");
    let mut c = primary.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    checkpoint(&mut c);
    let standby = Cluster::standby_of(&primary);
    give_key(&standby);
    grow(&mut c, 10);
    checkpoint(&mut c);
    standby.catches_up_with(&primary);
    primary.stop();
    standby.promote();
    let mut s = standby.client("postgres");
    // Nobody asks for a checkpoint here: the worker puts on file what is on record.
    until(
        &mut s,
        "SELECT EXISTS (SELECT FROM pg_ls_dir('merkle_log_origins') f
                         WHERE position('\\n20\\n' IN pg_read_file('merkle_log_origins/' || f)) > 0)",
    );
    run(
        &mut s,
        "DROP EXTENSION merkle_log CASCADE; DROP TABLE orders; CREATE EXTENSION merkle_log",
    );
    log(&mut s);
    grow(&mut s, 30);
    let said = refusal(&mut s);
    assert!(said.starts_with("42710"), "{said}");
}

#[test]
fn what_another_key_has_signed_takes_nothing_from_what_the_server_remembers() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    checkpoint(&mut c);
    run(&mut c, "CREATE DATABASE other");
    let mut other = cluster.client("other");
    run(&mut other, "CREATE EXTENSION merkle_log");
    log(&mut other);
    run(
        &mut other,
        "INSERT INTO orders (note) VALUES ('another history')",
    );
    grow(&mut other, 20);
    assert!(refusal(&mut other).starts_with("42710"));
    // A key that is only in the table, and a checkpoint of the second history that it has signed.
    let stranger = key(9).of_log(KeyName::new(ORIGIN).unwrap()).unwrap();
    run(
        &mut other,
        &format!(
            "UPDATE verification_logs SET origin = '{ORIGIN}' WHERE log_id = 1;
             INSERT INTO merkle_checkpoint (log_id, tree_size, root_hash, origin, note, verifier_key)
             VALUES (1, 0, sha256(''), '{ORIGIN}', 'none', '{}')",
            stranger.verifier_key()
        ),
    );
    let root: Vec<u8> = one(&mut other, "SELECT merkle_root('audit')");
    let forged = Checkpoint::new(
        ORIGIN,
        TreeSize::new(21).unwrap(),
        Hash::try_from(root.as_slice()).unwrap(),
    );
    let mut forged = SignedNote::new(&forged.unwrap().to_string()).unwrap();
    forged.sign(&stranger, 0).unwrap();
    let accept = format!("SELECT accept_checkpoint('{forged}')");
    assert_eq!(one::<String>(&mut other, &accept), "contained");
    run(&mut other, "DELETE FROM merkle_checkpoint");
    let said = refusal(&mut other);
    assert!(said.starts_with("42710"), "{said}");
}

#[test]
fn a_tree_whose_stored_nodes_were_changed_is_not_signed_on() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 200);
    let (note, _) = checkpoint(&mut c);
    grow(&mut c, 100);
    // A false node over entries that were signed, the head that follows from it, and a checkpoint of that.
    let fake = [1u8; 32];
    let right = column::<Vec<u8>>(
        &mut c,
        "SELECT leaf_hash FROM merkle_log WHERE log_id = 1 AND leaf_index >= 256 ORDER BY leaf_index",
    );
    let node = |l: &[u8], r: &[u8]| -> Vec<u8> { Sha256::digest([&[1], l, r].concat()).to_vec() };
    let root = node(&fake, &oracle::root(&right));
    for sql in [
        "UPDATE merkle_tile SET hashes = $1 WHERE log_id = 1 AND level = 1 AND tile_index = 0 AND $2::bytea IS NOT NULL",
        "UPDATE merkle_tree_head SET root_hash = $2 WHERE log_id = 1 AND tree_size = 300 AND $1::bytea IS NOT NULL",
        "INSERT INTO merkle_checkpoint (log_id, tree_size, root_hash, origin, note, verifier_key)
         SELECT 1, 300, $2, origin, note, verifier_key FROM merkle_checkpoint WHERE tree_size = 200 AND $1::bytea IS NOT NULL",
    ] {
        assert_eq!(c.execute(sql, &[&fake.as_slice(), &root]).unwrap(), 1, "{sql}");
    }
    run(&mut c, "INSERT INTO orders (note) VALUES ('one more')");
    let _ = c.batch_execute("SELECT process_next_batch('audit')");
    refusal(&mut c);
    let signed: i64 = one(
        &mut c,
        "SELECT count(*) FROM merkle_checkpoint WHERE tree_size > 300",
    );
    assert_eq!(signed, 0);
    verified(&note);
}

#[test]
fn what_is_known_outside_is_remembered_when_the_log_is_gone() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 5);
    let known = Checkpoint::new(
        ORIGIN,
        TreeSize::new(10).unwrap(),
        Hash::try_from(&[1u8; 32][..]).unwrap(),
    );
    let mut known = SignedNote::new(&known.unwrap().to_string()).unwrap();
    known
        .sign(&key(7).of_log(KeyName::new(ORIGIN).unwrap()).unwrap(), 0)
        .unwrap();
    let accept = format!("SELECT accept_checkpoint('{known}')");
    assert_eq!(one::<String>(&mut c, &accept), "lost_tail");
    run(
        &mut c,
        "SELECT drop_log('audit', true); SELECT create_log('audit')",
    );
    assert!(refusal(&mut c).starts_with("42710"));
    run(
        &mut c,
        "DROP EXTENSION merkle_log CASCADE; DROP TABLE orders; CREATE EXTENSION merkle_log",
    );
    log(&mut c);
    grow(&mut c, 10);
    assert!(refusal(&mut c).starts_with("42710"));
}

#[test]
fn what_keeps_a_log_from_being_signed_is_said_by_health_and_metrics() {
    let cluster = signing("shared_preload_libraries = 'merkle_log'");
    let mut c = cluster.client("postgres");
    log(&mut c);
    run(
        &mut c,
        "SELECT alter_log('audit', checkpoint_interval => '100 ms')",
    );
    let health =
        "SELECT ok FROM merkle_log_health() WHERE check_name = 'checkpoint' AND object = 'audit'";
    let size = grow(&mut c, 5);
    until(
        &mut c,
        "SELECT EXISTS (SELECT FROM merkle_log_checkpoints WHERE tree_size = 5)",
    );
    assert_eq!(size, 5);
    assert!(one::<bool>(&mut c, health));
    let metrics: String = one(&mut c, "SELECT merkle_log_metrics()");
    assert!(
        metrics.contains("merkle_log_signed_entries{database=\"postgres\",log=\"audit\"} 5"),
        "{metrics}"
    );
    cluster.reload_with("merkle_log.signing_key_file = '/nowhere'");
    until(
        &mut c,
        "SELECT current_setting('merkle_log.signing_key_file') = '/nowhere'",
    );
    grow(&mut c, 1);
    until(&mut c, &format!("SELECT NOT ({health})"));
    let detail: String = one(&mut c, &health.replace("SELECT ok", "SELECT detail"));
    assert!(detail.contains("/nowhere"), "{detail}");
}

#[test]
fn nothing_is_signed_until_synchronous_standbys_have_it() {
    let primary = signing("synchronous_commit = local\nmerkle_log.fence_timeout = 300");
    let mut c = primary.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    let standby = Cluster::standby_of(&primary);
    primary.reload_with("synchronous_standby_names = '*'");
    until(
        &mut c,
        "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))",
    );
    checkpoint(&mut c);
    standby.stop();
    grow(&mut c, 1);
    until(
        &mut c,
        "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)",
    );
    let said = refusal(&mut c);
    assert!(
        said.starts_with("55P03") && said.contains("synchronous standbys"),
        "{said}"
    );
    standby.restart();
    until(
        &mut c,
        "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))",
    );
    assert_eq!(checkpoint(&mut c).1.size().get(), 11);
}

#[test]
fn a_standby_serves_and_never_signs() {
    let primary = signing("");
    let mut c = primary.client("postgres");
    log(&mut c);
    grow(&mut c, 10);
    let standby = Cluster::standby_of(&primary);
    give_key(&standby);
    standby.catches_up_with(&primary);
    let mut s = standby.client("postgres");
    let said = refusal(&mut s);
    assert!(said.starts_with("P0002"), "{said}");
    let (note, _) = checkpoint(&mut c);
    grow(&mut c, 5);
    standby.catches_up_with(&primary);
    assert_eq!(checkpoint(&mut s).0, note);
    assert_eq!(
        one::<String>(&mut s, "SELECT checkpoint_key('audit')"),
        verifier(7).to_string()
    );
    for call in [
        format!("accept_checkpoint('{note}')"),
        format!("add_cosignature('audit', '{note}', '{{}}')"),
    ] {
        let said = error(&mut s, &format!("SELECT {call}"));
        assert!(said.starts_with("25006"), "{call}: {said}");
    }
    // Without a key it is as healthy: it has nothing to sign.
    run(
        &mut c,
        "SELECT alter_log('audit', checkpoint_interval => '1 hour')",
    );
    standby.catches_up_with(&primary);
    standby.reload_with("merkle_log.signing_key_file = '/nowhere'");
    until(
        &mut s,
        "SELECT current_setting('merkle_log.signing_key_file') = '/nowhere'",
    );
    let health =
        "SELECT ok FROM merkle_log_health() WHERE check_name = 'checkpoint' AND object = 'audit'";
    assert!(one::<bool>(&mut s, health));
    give_key(&standby);
    // Promoted, it goes on where the other was.
    standby.promote();
    let (_, next) = checkpoint(&mut s);
    assert_eq!(next.size().get(), 15);
    all_are_of_one_history(&mut s, &[note]);
}

/// What follows when a server lacks the last checkpoint, which is known outside.
fn refuses_until_it_contains(c: &mut Client, known: &str, size: i64) {
    let standing: String = one(c, &format!("SELECT accept_checkpoint('{known}')"));
    assert_eq!(standing, "lost_tail");
    let said = refusal(c);
    assert!(
        said.starts_with("XX001")
            && said.contains("lost its tail")
            && said.contains(&size.to_string()),
        "{said}"
    );
    assert_eq!(
        findings(c, "audit"),
        [format!("checkpoint_mismatch {}", size - 1)]
    );
    // Other rows in the place of the lost ones are another history.
    run(
        c,
        &format!(
            "INSERT INTO orders (note) SELECT 'other ' || i FROM generate_series(1, {size}) i"
        ),
    );
    drain(c, "audit");
    let said = refusal(c);
    assert!(
        said.starts_with("XX001")
            && said.contains("was rewritten")
            && said.contains("Nothing was signed"),
        "{said}"
    );
    let standing: String = one(c, &format!("SELECT accept_checkpoint('{known}')"));
    assert_eq!(standing, "rewrote_history");
}

#[test]
fn a_lagging_standby_that_takes_over_signs_nothing_against_what_is_known() {
    let primary = signing("");
    let mut c = primary.client("postgres");
    log(&mut c);
    grow(&mut c, 300);
    let (first, _) = checkpoint(&mut c);
    let standby = Cluster::standby_of(&primary);
    give_key(&standby);
    standby.catches_up_with(&primary);
    standby.stop();
    grow(&mut c, 50);
    let (known, _) = checkpoint(&mut c);
    primary.kill_9();
    standby.restart();
    standby.promote();
    let mut s = standby.client("postgres");
    assert_eq!(
        one::<String>(&mut s, &format!("SELECT accept_checkpoint('{first}')")),
        "contained"
    );
    assert_eq!(checkpoint(&mut s).0, first);
    refuses_until_it_contains(&mut s, &known, 350);
}

#[test]
fn a_server_recovered_to_an_earlier_point_signs_nothing_against_what_is_known() {
    let primary = signing("recovery_target_name = 'before'\nrecovery_target_action = 'promote'");
    let mut c = primary.client("postgres");
    log(&mut c);
    grow(&mut c, 300);
    checkpoint(&mut c);
    let recovered = Cluster::standby_of(&primary);
    give_key(&recovered);
    run(&mut c, "SELECT pg_create_restore_point('before')");
    grow(&mut c, 50);
    let (known, _) = checkpoint(&mut c);
    let mut r = recovered.client("postgres");
    until(&mut r, "SELECT NOT pg_is_in_recovery()");
    refuses_until_it_contains(&mut r, &known, 350);
}

#[test]
fn a_restored_dump_goes_on_from_what_it_holds_and_refuses_what_it_lacks() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 300);
    let (first, _) = checkpoint(&mut c);
    run(&mut c, "CREATE DATABASE copy");
    cluster.shell("pg_dump postgres | psql -qX -v ON_ERROR_STOP=1 copy >/dev/null");
    grow(&mut c, 10);
    let (known, _) = checkpoint(&mut c);
    let mut r = cluster.client("copy");
    assert_eq!(
        one::<String>(&mut r, "SELECT note FROM merkle_log_checkpoints"),
        first
    );
    let said = refusal(&mut r);
    assert!(
        said.contains("adopt_database"),
        "a copy signs nothing: {said}"
    );
    run(&mut r, "SELECT adopt_database('continue')");
    assert_eq!(checkpoint(&mut r).0, first);
    refuses_until_it_contains(&mut r, &known, 310);
}

#[test]
fn what_is_not_the_logs_own_is_not_accepted() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 5);
    let (note, signed) = checkpoint(&mut c);
    let forged = {
        let mut forged = SignedNote::new(&signed.to_string()).unwrap();
        forged
            .sign(&key(9).of_log(KeyName::new(ORIGIN).unwrap()).unwrap(), 0)
            .unwrap();
        forged.to_string()
    };
    for (text, says) in [
        (forged, "no known key"),
        (note.replace("\n5\n", "\n6\n"), "false"),
        (note.replace(ORIGIN, "example.com/nix"), "no log here"),
        ("x".to_owned(), "not a signed note"),
        ("x".repeat(600_000), "never this long"),
    ] {
        let said = error(&mut c, &format!("SELECT accept_checkpoint('{text}')"));
        assert!(said.contains(says), "{said}");
    }
    // One whom the key belongs to signs two roots of one size: whoever shows the other is believed.
    let other = Checkpoint::new(
        ORIGIN,
        TreeSize::new(5).unwrap(),
        Hash::try_from(&[1u8; 32][..]).unwrap(),
    )
    .unwrap();
    let mut fork = SignedNote::new(&other.to_string()).unwrap();
    fork.sign(&key(7).of_log(KeyName::new(ORIGIN).unwrap()).unwrap(), 0)
        .unwrap();
    let standing: String = one(&mut c, &format!("SELECT accept_checkpoint('{fork}')"));
    assert_eq!(standing, "rewrote_history");
    assert!(refusal(&mut c).contains("was rewritten"));
}

#[test]
fn what_a_superuser_altered_is_not_signed_and_is_found() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 70_000);
    let (_, before) = checkpoint(&mut c);
    run(
        &mut c,
        "INSERT INTO orders (note) SELECT 'm' || i FROM generate_series(1, 300) i",
    );
    drain(&mut c, "audit");
    // Each before the next head is signed: entries, tiles and heads, below and above what was signed last.
    for (damage, says) in [
        (
            "UPDATE merkle_log SET leaf_hash = sha256('x') WHERE log_id = 1 AND leaf_index = 70100",
            "",
        ),
        (
            "DELETE FROM merkle_log WHERE log_id = 1 AND leaf_index = 70100",
            "missing",
        ),
        (
            "UPDATE merkle_tile SET hashes = overlay(hashes PLACING '\\x0102' FROM 4) WHERE log_id = 1 AND level = 2",
            "",
        ),
        (
            "UPDATE merkle_tile SET hashes = overlay(hashes PLACING '\\x0102' FROM 545) WHERE log_id = 1 AND level = 1 AND tile_index = 1",
            "",
        ),
        (
            "UPDATE merkle_checkpoint SET root_hash = sha256('x') WHERE log_id = 1",
            "was rewritten",
        ),
    ] {
        let table = damage
            .split(' ')
            .find(|word| word.starts_with("merkle_"))
            .unwrap();
        run(
            &mut c,
            &format!("CREATE TEMP TABLE saved AS SELECT * FROM {table}; {damage}"),
        );
        let said = error(&mut c, "SELECT checkpoint('audit')");
        run(
            &mut c,
            &format!(
                "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved; DROP TABLE saved"
            ),
        );
        assert!(
            said.starts_with("XX001") && said.contains(says),
            "{damage}: {said}"
        );
    }
    // A head that is altered is another transaction's.
    let root: Vec<u8> = one(
        &mut c,
        "SELECT root_hash FROM merkle_tree_head WHERE log_id = 1 ORDER BY tree_size DESC LIMIT 1",
    );
    let set_root =
        "UPDATE merkle_tree_head SET root_hash = $1 WHERE log_id = 1 AND tree_size > 70000";
    c.execute(set_root, &[&vec![1u8; 32]]).unwrap();
    let said = refusal(&mut c);
    assert!(
        said.starts_with("XX001") && said.contains("the tree head has"),
        "{said}"
    );
    c.execute(set_root, &[&root]).unwrap();
    checkpoint(&mut c);
    for damage in [
        "UPDATE merkle_checkpoint SET note = replace(note, E'\\n70000\\n', E'\\n69999\\n')",
        "UPDATE merkle_checkpoint SET root_hash = sha256('x') WHERE tree_size = 70000",
        "UPDATE merkle_checkpoint SET tree_size = 70001 WHERE tree_size = 70000",
        "UPDATE merkle_checkpoint SET origin = 'example.com/other' WHERE tree_size = 70000",
        "UPDATE merkle_checkpoint SET note = left(note, -4) || 'AA==' || E'\\n' WHERE tree_size = 70000",
        "UPDATE merkle_checkpoint SET note = 'gone' WHERE tree_size = 70000",
        "DELETE FROM merkle_tree_head WHERE log_id = 1 AND tree_size = 70000",
    ] {
        let mut t = c.transaction().unwrap();
        t.batch_execute(damage).unwrap();
        let found = t
            .query("SELECT kind FROM verify_log('audit')", &[])
            .unwrap();
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        assert!(
            found.contains(&"checkpoint_mismatch".to_owned()),
            "{damage}: {found:?}"
        );
        t.rollback().unwrap();
    }
    assert!(findings(&mut c, "audit").is_empty());
    assert_eq!(before.size().get(), 70_000);
    // An old entry and its row rewritten, with all that follows from it: only what was signed before tells.
    run(
        &mut c,
        "BEGIN; UPDATE merkle_log SET leaf_hash = sha256('forged') WHERE log_id = 1 AND leaf_index = 70250;
         INSERT INTO orders (note) VALUES ('later'); SELECT process_next_batch('audit')",
    );
    run(&mut c, "COMMIT");
    let said = refusal(&mut c);
    assert!(
        said.starts_with("XX001") && said.contains("was rewritten"),
        "{said}"
    );
}

#[test]
fn cosignatures_of_known_witnesses_are_kept() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 5);
    let (note, _) = checkpoint(&mut c);
    let witness = |seed| {
        let name = KeyName::new(format!("witness.example/{seed}")).unwrap();
        SigningKey::from_seed(name, SignatureType::Ed25519Cosignature, &[seed; 32]).unwrap()
    };
    let (first, second, unknown) = (witness(1), witness(2), witness(3));
    let cosigned = |by: &[&SigningKey]| {
        let mut note: SignedNote = note.parse().unwrap();
        by.iter()
            .for_each(|key| note.sign(*key, 1_800_000_000).unwrap());
        note.to_string()
    };
    let keys = format!(
        "ARRAY['{}', '{}']",
        first.verifier_key(),
        second.verifier_key()
    );
    let add = |note: &str| format!("SELECT add_cosignature('audit', '{note}', {keys})");
    assert_eq!(one::<i32>(&mut c, &add(&cosigned(&[&first, &unknown]))), 1);
    assert_eq!(one::<i32>(&mut c, &add(&cosigned(&[&second]))), 1);
    let (now, _) = checkpoint(&mut c);
    let now: SignedNote = now.parse().unwrap();
    assert_eq!(now.signatures().len(), 3, "the log's and two witnesses'");
    let policy = format!(
        "log {}\nwitness a {}\nwitness b {}\ngroup both all a b\nquorum both\n",
        verifier(7),
        first.verifier_key(),
        second.verifier_key()
    );
    assert!(
        Policy::from_bytes(policy.as_bytes())
            .unwrap()
            .verify(&now)
            .is_ok()
    );
    // What a witness has said since is not taken back.
    let mut earlier: SignedNote = note.parse().unwrap();
    earlier.sign(&first, 5).unwrap();
    assert_eq!(one::<i32>(&mut c, &add(&earlier.to_string())), 1);
    assert_eq!(checkpoint(&mut c).0, now.to_string());
    let damaged = cosigned(&[&first]).replace("\n5\n", "\n4\n");
    for (text, state, says) in [
        (cosigned(&[&unknown]), "22023", "no known key"),
        (damaged, "22023", "false"),
    ] {
        let said = error(&mut c, &add(&text));
        assert!(said.starts_with(state) && said.contains(says), "{said}");
    }
    let other = Checkpoint::new(
        ORIGIN,
        TreeSize::new(3).unwrap(),
        Hash::try_from(&[1u8; 32][..]).unwrap(),
    )
    .unwrap();
    let mut other = SignedNote::new(&other.to_string()).unwrap();
    other.sign(&first, 1).unwrap();
    let said = error(&mut c, &add(&other.to_string()));
    assert!(
        said.starts_with("P0002") && said.contains("size 3"),
        "{said}"
    );
    let plain = format!(
        "SELECT add_cosignature('audit', '{note}', ARRAY['{}'])",
        verifier(7)
    );
    assert!(error(&mut c, &plain).contains("not one for cosignatures"));
}

#[test]
fn pruned_logs_are_signed_on() {
    let cluster = signing("");
    let mut c = cluster.client("postgres");
    log(&mut c);
    grow(&mut c, 700);
    let (note, _) = checkpoint(&mut c);
    grow(&mut c, 700);
    run(&mut c, "SELECT prune_log('audit', 1100)");
    checkpoint(&mut c);
    run(&mut c, "SELECT prune_log('audit', 1400)");
    grow(&mut c, 10);
    checkpoint(&mut c);
    all_are_of_one_history(&mut c, &[note]);
    // Of a size that was no head, and whose entries are pruned, nobody can say whether it was the log's.
    let root = Hash::try_from(&[1u8; 32][..]).unwrap();
    let unknown = Checkpoint::new(ORIGIN, TreeSize::new(333).unwrap(), root).unwrap();
    let mut unknown = SignedNote::new(&unknown.to_string()).unwrap();
    let of_log = key(7).of_log(KeyName::new(ORIGIN).unwrap()).unwrap();
    unknown.sign(&of_log, 0).unwrap();
    let accept = format!("SELECT accept_checkpoint('{unknown}')");
    assert_eq!(one::<String>(&mut c, &accept), "pruned");
    grow(&mut c, 1);
    checkpoint(&mut c);
    assert!(findings(&mut c, "audit").is_empty());
}

/// Writes rows, and reads the newest checkpoint; `None` if the server went away.
fn grown_and_signed(c: &mut Client) -> Option<Vec<String>> {
    c.batch_execute("INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 50)")
        .ok()?;
    let sql = "SELECT note FROM merkle_log_checkpoints WHERE log_name = 'audit' ORDER BY tree_size DESC LIMIT 1";
    let notes = c.query(sql, &[]).ok()?;
    Some(notes.iter().map(|row| row.get(0)).collect())
}

#[test]
fn a_signing_worker_that_is_killed_leaves_one_history() {
    let cluster = signing("shared_preload_libraries = 'merkle_log'");
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         SELECT create_log('audit', run_interval => '20 ms', checkpoint_interval => '30 ms');
         SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    let mut random = StdRng::seed_from_u64(seed());
    let mut seen: Vec<String> = Vec::new();
    let mut c = Some(c);
    let mut killed = 0;
    while killed < size(10, 100) {
        // Under writes, until something new was signed; then at any moment of what comes next.
        let deadline = Instant::now() + Duration::from_secs(60);
        let before = seen.len();
        while seen.len() == before {
            assert!(Instant::now() < deadline, "nothing was signed any more");
            let notes = c.as_mut().and_then(grown_and_signed);
            match notes {
                Some(notes) => seen.extend(
                    notes
                        .into_iter()
                        .filter(|n| !seen.contains(n))
                        .collect::<Vec<_>>(),
                ),
                None => c = cluster.try_client("postgres"),
            }
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        let worker = c.as_mut().and_then(|c| {
            c.query_one("SELECT worker_pid FROM merkle_log_status LIMIT 1", &[])
                .ok()?
                .get::<_, Option<i32>>(0)
        });
        if let Some(pid) = worker {
            signal("KILL", &[&pid.to_string()]);
            killed += 1;
        }
    }
    // The last kill may take this connection with it as well.
    let all_signed = "SELECT max(k.tree_size) = merkle_size('audit') AND merkle_size('audit') = (SELECT count(*) FROM orders)
           FROM merkle_log_checkpoints k WHERE k.log_name = 'audit'";
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut c = loop {
        assert!(
            Instant::now() < deadline,
            "the server did not come back, or signed no more"
        );
        let client = cluster.try_client("postgres");
        let signed = client.and_then(|mut client| {
            let row = client.query_one(all_signed, &[]).ok()?;
            (row.get::<_, Option<bool>>(0) == Some(true)).then_some(client)
        });
        if let Some(client) = signed {
            break client;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    all_are_of_one_history(&mut c, &seen);
    assert!(findings(&mut c, "audit").is_empty());
}
