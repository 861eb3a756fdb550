//! A database that has the logs of another does not go on by itself: two histories of one log would come of it.

use server_tests::*;

const SETUP: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    SELECT create_log('audit'); SELECT add_source('audit', 'orders', 'id');
    INSERT INTO orders (note) VALUES ('a')";

fn held(client: &mut Client) -> Option<String> {
    one(client, "SELECT held_as_copy_of FROM merkle_log_status WHERE log_name = 'audit'")
}

#[test]
fn a_restored_dump_and_a_database_made_from_a_template_hold_until_someone_says_what_they_are() {
    let cluster = Cluster::start();
    cluster.shell("createdb shop && psql -q -c 'CREATE EXTENSION merkle_log' shop");
    let mut shop = cluster.client("shop");
    run(&mut shop, SETUP);
    assert_eq!(drain(&mut shop, "audit"), 1);
    // What another server waited for, and what failed there, says nothing here.
    run(
        &mut shop,
        "UPDATE verification_logs SET waiting_for = 'pid 4711', last_error = 'no space left on that disk', last_error_at = now()",
    );
    drop(shop);
    for (way, adoption) in [
        ("createdb -T shop copy", "copy"),
        ("createdb copy && pg_dump shop | psql -q -v ON_ERROR_STOP=1 copy", "continue"),
    ] {
        cluster.shell(way);
        let mut copy = cluster.client("copy");
        run(&mut copy, "INSERT INTO orders (note) VALUES ('b')");
        assert_eq!(held(&mut copy), Some("shop".to_owned()), "{way}");
        assert!(one::<bool>(
            &mut copy,
            "SELECT waiting_for IS NULL AND last_error IS NULL AND last_error_at IS NULL FROM merkle_log_status WHERE log_name = 'audit'"
        ));
        assert!(one::<bool>(
            &mut copy,
            "SELECT NOT ok AND mend LIKE '%adopt_database%' FROM merkle_log_health() WHERE check_name = 'database'"
        ));
        for call in [
            "process_next_batch('audit')",
            "reconcile('audit')",
            "prune_log('audit', 1)",
            "remove_source('audit', 'orders')",
            "redact('audit', 0, 'x')",
        ] {
            let message = error(&mut copy, &format!("SELECT {call}"));
            assert!(message.starts_with("55000") && message.contains("adopt_database"), "{call}: {message}");
        }
        // Reading goes on.
        assert_eq!(findings(&mut copy, "audit"), Vec::<String>::new());
        assert_eq!(one::<i64>(&mut copy, "SELECT merkle_size('audit')"), 1);
        assert!(error(&mut copy, "SELECT adopt_database('mine')").starts_with("22023"));
        run(&mut copy, &format!("SELECT adopt_database('{adoption}')"));
        assert_eq!(held(&mut copy), None);
        assert!(error(&mut copy, &format!("SELECT adopt_database('{adoption}')")).contains("nothing to adopt"));
        let logs: Vec<String> = column(&mut copy, "SELECT log_name FROM process_next_batch()");
        match adoption {
            "continue" => assert_eq!(logs, ["audit"]),
            _ => {
                assert!(logs.is_empty(), "the logs of a copy are disabled");
                run(&mut copy, "SELECT enable_log('audit'); SELECT process_next_batch()");
            }
        }
        assert_eq!(one::<i64>(&mut copy, "SELECT merkle_size('audit')"), 2);
        drop(copy);
        cluster.shell("dropdb copy");
    }
    // The original never was held, and a new name makes no copy of it.
    cluster.shell("psql -q -c 'ALTER DATABASE shop RENAME TO store' postgres");
    let mut store = cluster.client("store");
    assert_eq!(held(&mut store), None);
    run(&mut store, "INSERT INTO orders (note) VALUES ('c')");
    assert_eq!(drain(&mut store, "audit"), 2);
    assert_eq!(
        one::<String>(&mut store, "SELECT database_name FROM merkle_database"),
        "store"
    );
}

#[test]
fn the_worker_of_a_copy_holds_and_goes_on_when_it_is_told() {
    let cluster = Cluster::preloaded();
    cluster.shell("createdb shop && psql -q -c 'CREATE EXTENSION merkle_log' shop");
    let mut shop = cluster.client("shop");
    run(&mut shop, SETUP);
    until(&mut shop, "SELECT merkle_size('audit') = 1");
    cluster.shell("createdb copy && pg_dump shop | psql -q -v ON_ERROR_STOP=1 copy");
    let mut copy = cluster.client("copy");
    run(&mut copy, "INSERT INTO orders (note) VALUES ('b')");
    until(&mut copy, "SELECT failures > 0 FROM merkle_log_status WHERE log_name = 'audit'");
    assert_eq!(one::<i64>(&mut copy, "SELECT merkle_size('audit')"), 1);
    run(&mut copy, "SELECT adopt_database('continue')");
    until(&mut copy, "SELECT merkle_size('audit') = 2 AND failures = 0 FROM merkle_log_status WHERE log_name = 'audit'");
}

#[test]
fn a_promoted_standby_goes_on() {
    let primary = Cluster::start();
    let mut a = primary.client("postgres");
    run(&mut a, SETUP);
    assert_eq!(drain(&mut a, "audit"), 1);
    let standby = Cluster::standby_of(&primary);
    let mut b = standby.client("postgres");
    until(&mut b, "SELECT merkle_size('audit') = 1");
    assert_eq!(held(&mut b), None);
    standby.promote();
    until(&mut b, "SELECT NOT pg_is_in_recovery()");
    run(&mut b, "INSERT INTO orders (note) VALUES ('b')");
    assert_eq!(drain(&mut b, "audit"), 2);
    assert!(one::<bool>(
        &mut b,
        "SELECT count(*) = 1 AND min(timeline) > 1 FROM merkle_database"
    ));
}
