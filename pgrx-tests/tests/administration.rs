//! What is done to logs and sources is on record in a log of its own.

use server_tests::*;

const LOG: &str = "merkle_log_administration";

fn acts(client: &mut Client, log: &str) -> Vec<String> {
    column(
        client,
        &format!("SELECT concat_ws(' ', act, source_table) FROM administration({log})"),
    )
}

#[test]
fn every_act_is_an_entry_that_can_be_proven() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items VALUES (1, 'before')",
    );
    assert_eq!(
        one::<i64>(&mut a, &format!("SELECT merkle_size('{LOG}')")),
        0
    );
    each(
        &mut a,
        &[
            "SELECT create_log('audit')",
            "SELECT alter_log('audit', new_name => 'orders', batch_size => 10)",
            "SELECT disable_log('orders')",
            "SELECT enable_log('orders')",
            "SELECT pause_log('orders')",
            "SELECT resume_log('orders')",
            "SELECT add_source('orders', 'orders', order_column => 'id')",
            "SELECT alter_source('orders', 'orders', columns => '{id}')",
            "ALTER TABLE orders ADD COLUMN extra int",
            "SELECT alter_source('orders', 'orders', columns => '{}')",
            "INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, 600)",
            "SELECT create_log('items')",
            "SELECT add_source('items', 'items', capture => 'trigger')",
            "SELECT alter_log('orders', batch_size => 1000)",
        ],
    );
    drain(&mut a, "orders");
    drain(&mut a, "items");
    each(
        &mut a,
        &[
            "SELECT prune_log('orders', 256)",
            "SELECT remove_source('orders', 'orders')",
            "SELECT drop_log('orders', true)",
        ],
    );
    let expected = [
        "log created",
        "log altered",
        "log disabled",
        "log enabled",
        "log paused",
        "log resumed",
        "source added public.orders",
        "version recorded public.orders",
        "source altered public.orders",
        "version recorded public.orders",
        "source altered public.orders",
        "version recorded public.orders",
        "table altered public.orders",
        "log altered",
        "pruned",
        "source removed public.orders",
        "log dropped",
    ];
    assert_eq!(acts(&mut a, "'orders'"), expected);
    assert_eq!(
        acts(&mut a, "'items'"),
        [
            "log created",
            "source added public.items",
            "version recorded public.items",
            "backfill finished public.items",
        ]
    );
    // With the act that says which database this is.
    let size = expected.len() as i64 + 5;
    assert_eq!(acts(&mut a, "NULL").len() as i64, size);
    assert_eq!(
        column::<String>(
            &mut a,
            "SELECT DISTINCT concat_ws(' ', user_name, acted_at BETWEEN now() - interval '1 h' AND now()) FROM administration()"
        ),
        ["postgres t"]
    );
    // Roots, proofs and the status work on it like on any log.
    let proven: bool = one(
        &mut a,
        &format!(
            "SELECT bool_and(verify_inclusion(p.leaf_hash, p.leaf_index, p.tree_size, p.path, p.root_hash)
                             AND p.leaf_hash = sha256('\\x00'::bytea || leaf_data('{LOG}', i)))
               FROM generate_series(0, {size} - 1) i, inclusion_proof('{LOG}', i) p"
        ),
    );
    assert!(proven);
    assert!(one::<bool>(
        &mut a,
        &format!(
            "SELECT bool_and(verify_consistency(c.old_size, c.new_size, c.old_root, c.new_root, c.path))
               FROM generate_series(1, {size}) i, consistency_proof('{LOG}', i) c"
        ),
    ));
    assert_eq!(
        one::<i64>(
            &mut a,
            &format!("SELECT tree_size FROM merkle_log_status WHERE log_name = '{LOG}'")
        ),
        size
    );
    assert_eq!(findings(&mut a, LOG), Vec::<String>::new());
    assert_eq!(findings(&mut a, "items"), Vec::<String>::new());
    // An act that is rolled back leaves nothing.
    run(&mut a, "BEGIN; SELECT create_log('gone'); ROLLBACK");
    assert_eq!(acts(&mut a, "NULL").len() as i64, size);
}

#[test]
fn nothing_but_acts_writes_the_administration_log() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); SELECT create_log('audit')",
    );
    for call in [
        "create_log('{}')",
        "alter_log('audit', new_name => '{}')",
        "alter_log('{}', batch_size => 1)",
        "enable_log('{}')",
        "disable_log('{}')",
        "pause_log('{}')",
        "resume_log('{}')",
        "drop_log('{}', true)",
        "add_source('{}', 't', order_column => 'id')",
        "add_source('{}', 't', capture => 'trigger')",
        "remove_source('{}', 't')",
        "process_next_batch('{}')",
        "reconcile('{}')",
        "prune_log('{}', 256)",
        "redact('{}', 0, 'x')",
    ] {
        let call = call.replace("{}", LOG);
        let message = error(&mut a, &format!("SELECT {call}"));
        assert!(
            message.starts_with("42939") && message.contains(LOG),
            "{call}: {message}"
        );
    }
    assert_eq!(
        column::<String>(&mut a, "SELECT log_name FROM process_next_batch()"),
        ["audit"]
    );
}

#[test]
fn who_may_not_read_a_source_learns_no_key_from_the_acts() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN;
         CREATE TABLE cust (email text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp()); CREATE INDEX ON cust (at);
         INSERT INTO cust SELECT 'secret' || i FROM generate_series(1, 600) i;
         SELECT create_log('audit'); SELECT add_source('audit', 'cust', order_column => 'at', capture => 'watermark');
         SELECT process_next_batch('audit')",
    );
    run(&mut a, "SELECT prune_log('audit', 256)");
    assert!(one::<bool>(
        &mut a,
        &format!(
            "SELECT bool_or(encode(leaf_data('{LOG}', i), 'escape') LIKE '%secret%') FROM generate_series(0, merkle_size('{LOG}') - 1) i"
        )
    ));
    let mut m = cluster.client_as("postgres", "monitor");
    let shown: Vec<String> = column(&mut m, "SELECT a::text FROM administration() a");
    assert_eq!(shown.len(), 5);
    assert!(
        shown.iter().all(|line| !line.contains("secret")),
        "{shown:?}"
    );
    let call = format!("SELECT leaf_data('{LOG}', i) FROM generate_series(0, 3) i");
    assert!(error(&mut m, &call).starts_with("42501"));
    let mut n = cluster.client_as("postgres", "nobody");
    assert!(error(&mut n, "SELECT * FROM administration()").starts_with("42501"));
}

#[test]
fn acts_on_different_logs_do_not_lock_each_other_out() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(&mut a, "SELECT create_log('a'); SELECT create_log('b')");
    // What is done in a transaction is on record when it commits; others wait for that and go on.
    run(&mut a, "BEGIN; SELECT disable_log('a')");
    let waiting = std::thread::spawn(move || {
        run(&mut b, "SELECT disable_log('b')");
        b
    });
    until(
        &mut cluster.client("postgres"),
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)",
    );
    run(&mut a, "COMMIT");
    let mut b = waiting.join().unwrap();
    assert_eq!(
        acts(&mut b, "NULL"),
        [
            "log created",
            "database recorded",
            "log created",
            "log disabled",
            "log disabled"
        ]
    );
    // A transaction whose snapshot is older than another's act cannot append after it.
    run(
        &mut a,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT merkle_size('a')",
    );
    run(&mut b, "SELECT enable_log('b')");
    assert!(error(&mut a, "SELECT enable_log('a')").starts_with("0A000"));
    run(
        &mut a,
        "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT enable_log('a'); COMMIT",
    );
    assert_eq!(findings(&mut a, LOG), Vec::<String>::new());
}

#[test]
fn acts_survive_a_dump_and_are_read_on_a_standby() {
    let primary = Cluster::start();
    let mut a = primary.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); INSERT INTO t DEFAULT VALUES;
         SELECT create_log('audit'); SELECT add_source('audit', 't', order_column => 'id'); SELECT process_next_batch('audit')",
    );
    let root = format!("SELECT merkle_root('{LOG}')");
    let expected: Vec<u8> = one(&mut a, &root);
    primary.shell("createdb copy && pg_dump postgres | psql -q -v ON_ERROR_STOP=1 copy");
    let mut copy = primary.client("copy");
    assert_eq!(one::<Vec<u8>>(&mut copy, &root), expected);
    assert_eq!(findings(&mut copy, LOG), Vec::<String>::new());
    assert_eq!(findings(&mut copy, "audit"), Vec::<String>::new());
    run(
        &mut copy,
        "SELECT adopt_database('continue'); INSERT INTO t DEFAULT VALUES",
    );
    drain(&mut copy, "audit");
    assert_eq!(
        acts(&mut copy, "NULL")[4..],
        [
            "database recorded",
            "source bound public.t",
            "source altered public.t"
        ]
    );
    assert_eq!(findings(&mut copy, LOG), Vec::<String>::new());
    assert_eq!(findings(&mut copy, "audit"), Vec::<String>::new());

    let standby = Cluster::standby_of(&primary);
    let mut s = standby.client("postgres");
    assert_eq!(one::<Vec<u8>>(&mut s, &root), expected);
    assert_eq!(findings(&mut s, LOG), Vec::<String>::new());
    assert_eq!(
        acts(&mut s, "'audit'"),
        [
            "log created",
            "source added public.t",
            "version recorded public.t"
        ]
    );
}

#[test]
fn the_documents_list_every_kind_of_finding() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    let kinds: Vec<String> = column(
        &mut a,
        "SELECT format('| `%s` | %s | %s |', kind, fault_of, meaning) FROM finding_kinds()",
    );
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/findings.md")).unwrap();
    let listed: Vec<&str> = page.lines().filter(|l| l.starts_with("| `")).collect();
    assert_eq!(listed, kinds);
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for kind in column::<String>(&mut a, "SELECT kind FROM finding_kinds()") {
        assert!(readme.contains(&format!("`{kind}`")), "{kind}");
    }
}
