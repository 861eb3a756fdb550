//! A dump carries the log: restored elsewhere, it has the same roots and goes on.

use server_tests::*;

const SETUP: &str = r#"
    CREATE SCHEMA "My Shop";
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE "My Shop"."Orders" (gone int, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, at timestamptz DEFAULT now(), m mood DEFAULT 'happy');
    CREATE TABLE payments (a int, b text, id serial UNIQUE, amount numeric, PRIMARY KEY (a, b));
    INSERT INTO "My Shop"."Orders" (note) SELECT 'note ' || i FROM generate_series(1, 700) i;
    INSERT INTO payments (a, b, amount) SELECT i, 'b "' || i || '\', i / 7.0 FROM generate_series(1, 300) i;
    SELECT create_log('audit', batch_size => 400);
    SELECT add_source('audit', '"My Shop"."Orders"', order_column => 'id');
    SELECT add_source('audit', 'payments', order_column => 'id');
"#;

const EVOLVE: &str = r#"
    ALTER TABLE "My Shop"."Orders" DROP COLUMN gone;
    ALTER TABLE "My Shop"."Orders" RENAME COLUMN note TO remark;
    ALTER TABLE "My Shop"."Orders" ADD COLUMN extra int DEFAULT 7;
    ALTER TABLE "My Shop"."Orders" RENAME TO "Bestellungen";
    INSERT INTO "My Shop"."Bestellungen" (remark) SELECT 'second ' || i FROM generate_series(1, 100) i;
"#;

fn proofs(client: &mut Client) -> Vec<String> {
    column(
        client,
        "SELECT p::text FROM generate_series(0, merkle_size('audit') - 1, 17) i, LATERAL inclusion_proof('audit', i) p
         UNION ALL SELECT c::text FROM generate_series(1, merkle_size('audit'), 23) i, LATERAL consistency_proof('audit', i) c
         UNION ALL SELECT (h.tree_size, h.root_hash)::text FROM tree_heads('audit') h",
    )
}

fn check(cluster: &Cluster, expected: &[String]) {
    let mut client = cluster.client("copy");
    assert_eq!(proofs(&mut client), expected);
    assert_eq!(findings(&mut client, "audit"), Vec::<String>::new());
    run(&mut client, "SELECT adopt_database('continue')");
    run(
        &mut client,
        "INSERT INTO \"My Shop\".\"Bestellungen\" (remark) VALUES ('after'); INSERT INTO payments (a, b) VALUES (1000, 'x')",
    );
    assert_eq!(drain(&mut client, "audit"), 1102);
    assert_eq!(findings(&mut client, "audit"), Vec::<String>::new());
    let ids: Vec<i32> = column(&mut client, "SELECT log_id FROM verification_logs");
    let fresh: i32 = one(&mut client, "SELECT create_log('another')");
    assert!(!ids.contains(&fresh), "log ids are never used again");
    let versions: Vec<String> = column(
        &mut client,
        "SELECT change FROM verification_source_versions ORDER BY source_id, version",
    );
    assert_eq!(
        versions.len(),
        3,
        "a restore is no change of shape: {versions:?}"
    );
    let key: i64 = one(
        &mut client,
        r#"SELECT leaf_index FROM inclusion_proof('audit', 'payments', '{300,"b \"300\\"}')"#,
    );
    assert!(key > 0);
}

#[test]
fn dump_and_restore_gives_the_same_roots_and_goes_on() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(&mut client, SETUP);
    drain(&mut client, "audit");
    run(&mut client, EVOLVE);
    assert_eq!(drain(&mut client, "audit"), 1100);
    assert_eq!(findings(&mut client, "audit"), Vec::<String>::new());
    let expected = proofs(&mut client);

    for restore in [
        "pg_dump postgres | psql -q -v ON_ERROR_STOP=1 copy",
        "pg_dump -Fc -f dump.tmp postgres && pg_restore -e -j 2 -d copy dump.tmp",
    ] {
        // Other OIDs than in the first database, and other settings.
        cluster.shell("createdb copy && psql -q -c 'CREATE TABLE t (); DROP TABLE t' copy && psql -q -c \"ALTER DATABASE copy SET DateStyle = 'German'\" copy");
        cluster.shell(&format!("cd \"$PGHOST\" && {restore}"));
        check(&cluster, &expected);
        cluster.shell("dropdb copy");
    }
}

#[test]
fn a_dump_is_restored_beside_a_worker_that_verifies() {
    let cluster = Cluster::preloaded();
    cluster.shell("createdb shop && psql -q -c 'CREATE EXTENSION merkle_log' shop");
    let mut client = cluster.client("shop");
    run(&mut client, SETUP);
    until(
        &mut client,
        "SELECT count(*) >= 2 FROM merkle_verification WHERE ended_at IS NOT NULL",
    );
    drain(&mut client, "audit");
    let expected = proofs(&mut client);
    cluster.shell("createdb copy && cd \"$PGHOST\" && pg_dump -Fc -f dump.tmp shop && pg_restore -e --section=pre-data -d copy dump.tmp");
    // The worker finds a database with an extension and without what the dump brings.
    let mut copy = cluster.client("copy");
    until(
        &mut copy,
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                         WHERE datname = 'copy' AND backend_type LIKE 'merkle_log%' AND backend_start < clock_timestamp() - '3 s'::interval)",
    );
    cluster.shell(
        "cd \"$PGHOST\" && pg_restore -e --section=data --section=post-data -d copy dump.tmp",
    );
    assert_eq!(proofs(&mut copy), expected);
    assert_eq!(findings(&mut copy, "audit"), Vec::<String>::new());
}

#[test]
fn a_dump_that_is_restored_into_its_own_database_goes_on_once_someone_says_so() {
    let cluster = Cluster::start();
    cluster.shell("createdb shop && psql -q -c 'CREATE EXTENSION merkle_log' shop");
    let mut client = cluster.client("shop");
    run(
        &mut client,
        "CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); CREATE TABLE t (id int PRIMARY KEY);
         SELECT create_log('w'), create_log('t'); SELECT add_source('w', 'w', 'id'), add_source('t', 't', capture => 'trigger');
         INSERT INTO w (v) VALUES ('a'); INSERT INTO t VALUES (1)",
    );
    drain(&mut client, "w");
    drain(&mut client, "t");
    cluster.shell("cd \"$PGHOST\" && pg_dump -Fc -f dump.tmp shop && psql -q -c 'DROP TABLE w, t CASCADE; DROP EXTENSION merkle_log CASCADE' shop && pg_restore -e -d shop dump.tmp");
    let mut client = cluster.client("shop");
    run(
        &mut client,
        "INSERT INTO w (v) VALUES ('b'); INSERT INTO t VALUES (2)",
    );
    run(&mut client, "SELECT process_next_batch()");
    assert_eq!(one::<i64>(&mut client, "SELECT merkle_size('w')"), 1);
    let mend: String = one(
        &mut client,
        "SELECT mend FROM merkle_source_state JOIN verification_sources USING (source_id) WHERE source_table = 'public.w'",
    );
    assert!(mend.contains("adopt_database('continue')"), "{mend}");
    run(&mut client, "SELECT adopt_database('continue')");
    assert!(error(&mut client, "SELECT adopt_database('continue')").contains("nothing to adopt"));
    for log in ["w", "t"] {
        assert_eq!(drain(&mut client, log), 2);
        assert_eq!(findings(&mut client, log), Vec::<String>::new());
    }
}
