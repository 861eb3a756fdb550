//! `merkle-log export` into object stores: moto and Azurite, which speak the protocols of S3 and Azure, on this machine.

use server_tests::command_line::{program, says};
use server_tests::stores::Store;
use server_tests::*;

fn logged(client: &mut Client, note: &str, size: i64) {
    run(
        client,
        &format!(
            "CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, note text DEFAULT '{note}');
             INSERT INTO orders (id) SELECT generate_series((SELECT coalesce(max(id), 0) + 1 FROM orders), {size})"
        ),
    );
    if one::<i64>(
        client,
        "SELECT count(*) FROM verification_logs WHERE log_name = 'audit'",
    ) == 0
    {
        run(
            client,
            "SELECT create_log('audit', batch_size => 100000, origin => 'example.com/audit');
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark')",
        );
    }
    assert_eq!(drain(client, "audit"), size);
}

#[test]
fn a_bucket_of_s3_holds_a_tree_that_goes_on_and_never_forks() {
    holds_a_tree_that_goes_on_and_never_forks(&Store::s3());
}

#[test]
fn a_container_of_azure_holds_a_tree_that_goes_on_and_never_forks() {
    holds_a_tree_that_goes_on_and_never_forks(&Store::azure());
}

fn holds_a_tree_that_goes_on_and_never_forks(store: &Store) {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut c = cluster.client("postgres");
    let export = |database: &str, arguments: &[&str]| {
        let mut command = program();
        command
            .env("PGHOST", cluster.socket())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        command.envs(store.environment());
        says(
            command
                .args([
                    "export",
                    "audit",
                    &format!("{}://bucket/logs/audit", store.kind),
                ])
                .args(arguments),
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let verified = |c: &mut Client, size: i64| {
        let copy = directory.path().join(size.to_string());
        store.objects(&["bucket", copy.to_str().unwrap()]);
        let key: String = one(c, "SELECT checkpoint_key('audit')");
        let (code, text) = says(
            program()
                .args(["verify", "--key", &key])
                .arg(copy.join("logs/audit")),
        );
        assert!(
            code == 0 && text.contains(&format!("{size} entries")),
            "{code} {text}"
        );
        copy.join("logs/audit")
    };
    for size in [100, 300, 70_000] {
        logged(&mut c, "", size);
        let (code, text) = export("postgres", &[]);
        assert_eq!(code, 0, "{text}");
        let copy = verified(&mut c, size);
        assert!(!copy.join("tile/0/000.p").exists() || size < 256);
    }
    let (code, text) = export("postgres", &["--again"]);
    assert_eq!(code, 0, "{text}");
    // Another history under the same name is refused, and so are tiles that it would have left.
    run(&mut c, "CREATE DATABASE forked");
    let mut forked = cluster.client("forked");
    run(&mut forked, "CREATE EXTENSION merkle_log");
    logged(&mut forked, "forked", 71_000);
    cluster.forgets_what_it_signed();
    let (code, text) = export("forked", &[]);
    assert!(
        code == 1 && text.contains("not a continuation"),
        "{code} {text}"
    );
    verified(&mut c, 70_000);
}
