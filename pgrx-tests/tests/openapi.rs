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
    // Of a log that there is, so that requests get further than to its name; and, in the long form, of any.
    is_described(&gateway, "[parameters]\n\"path.log\" = \"audit\"\n");
    if size(false, true) {
        is_described(&gateway, "");
    }
    // None of the requests stopped the gateway from answering others.
    assert_eq!(gateway.get("/logs/audit/root").status, 200);
}

fn is_described(gateway: &Gateway, configuration: &str) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/python/bin");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("schemathesis.toml"), configuration).unwrap();
    let (code, text) = says(
        // By the interpreter: the script names one at the place where it was installed.
        Command::new(clients.join("python"))
            .arg(clients.join("schemathesis"))
            .current_dir(directory.path())
            .args(["--no-color", "run"])
            .arg(format!("http://{}/openapi.json", gateway.address))
            .args(["--phases", "coverage,fuzzing"])
            .args(["--max-examples", size("10", "400")])
            .args(["--seed", &(seed() % u64::from(u32::MAX)).to_string()])
            // What a schema allows may still name an entry or a hash that is not there.
            .args([
                "--checks",
                "all",
                "--exclude-checks",
                "positive_data_acceptance",
            ])
            .args(["--generation-database", "none", "--request-timeout", "60"]),
    );
    println!("{text}");
    assert_eq!(code, 0, "{text}");
    // "455 generated, 455 passed"
    let cases = text.lines().find_map(|line| {
        let (made, passed) = line.trim().split_once(" generated, ")?;
        let passed = passed.strip_suffix(" passed")?;
        (made == passed).then(|| made.parse::<u32>().ok())?
    });
    assert!(cases > Some(200), "{text}");
}
