//! The gateway against its own OpenAPI document, by schemathesis, which makes requests that the document allows and such
//! that it forbids: no failure, no answer that is not described, and all that is allowed is served.

use server_tests::command_line::says;
use server_tests::gateway::Gateway;
use server_tests::*;
use std::path::Path;
use std::process::Command;

#[test]
fn every_answer_is_one_that_the_document_describes() {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
         SELECT create_log('audit', find_by_hash => true, origin => 'example.com/audit'); SELECT create_log('empty');
         SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
         INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 600) i",
    );
    drain(&mut c, "audit");
    run(&mut c, "SELECT checkpoint('audit')");
    let gateway = Gateway::start(
        &cluster,
        "public_logs = ['audit']\n[limits]\nrate_per_client = 1000000\nburst_per_client = 1000000",
    );
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/python/bin");
    let directory = tempfile::tempdir().unwrap();
    let (code, text) = says(
        Command::new(clients.join("schemathesis"))
            .current_dir(directory.path())
            .args(["--no-color", "run"])
            .arg(format!("http://{}/openapi.json", gateway.address))
            .args(["--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", size("20", "400")])
            .args(["--seed", &(seed() % u64::from(u32::MAX)).to_string()])
            .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
            .args(["--generation-database", "none", "--request-timeout", "60"]),
    );
    println!("{text}");
    assert_eq!(code, 0, "{text}");
    // It has made requests, and none of them stopped the gateway from answering others.
    assert!(text.contains("passed"), "{text}");
    assert_eq!(gateway.get("/logs/audit/root").status, 200);
}
