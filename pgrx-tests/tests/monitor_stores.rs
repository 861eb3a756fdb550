//! `merkle-log monitor` over object stores: moto and Azurite, which speak the protocols of S3 and Azure, on this machine.

use server_tests::command_line::{program, says};
use server_tests::followers::Shop;
use server_tests::stores::Store;
use std::path::Path;
use std::time::{Duration, Instant};

fn export(shop: &Shop, store: &Store, prefix: &str) {
    let mut command = program();
    command
        .envs(store.environment())
        .args(["export", "audit", "--dbname", &shop.conninfo("postgres")])
        .arg(format!("{}://bucket/{prefix}", store.kind));
    let (code, text) = says(&mut command);
    assert_eq!(code, 0, "{text}");
}

/// One look at the tree below a prefix.
fn look(shop: &Shop, store: &Store, prefix: &str, directory: &Path) -> (i32, String) {
    let configuration = format!(
        "state = '{}'\n[[log]]\nname = 'audit'\nkey = '{}'\ntiles = '{}://bucket/{prefix}'\nall_entries = true\ntimeout_seconds = 20\n",
        directory.join("state").display(),
        shop.key(),
        store.kind
    );
    let file = directory.join("monitor.toml");
    std::fs::write(&file, configuration).unwrap();
    let mut command = program();
    command
        .envs(store.environment())
        .args(["monitor", "--once", "--config"])
        .arg(file);
    says(&mut command)
}

#[test]
fn a_log_in_s3_is_followed_and_convicted() {
    is_followed_and_convicted(Store::s3());
}

#[test]
fn a_log_in_azure_is_followed_and_convicted() {
    is_followed_and_convicted(Store::azure());
}

fn is_followed_and_convicted(mut store: Store) {
    let shop = Shop::open("audit", 700);
    let directory = tempfile::tempdir().unwrap();
    for rows in [0, 40, 2_000] {
        shop.grow(rows);
        export(&shop, &store, "logs/audit");
        let (code, text) = look(&shop, &store, "logs/audit", directory.path());
        assert_eq!(code, 0, "{text}");
    }
    let (_, text) = look(&shop, &store, "logs/audit", directory.path());
    assert!(
        text.contains("good, 2740 entries, 2740 of them hashed"),
        "{text}"
    );
    // What is not there, or cannot be asked, is never tampering.
    let (code, text) = look(&shop, &store, "logs/nothing", directory.path());
    assert!(code == 2 && text.contains("could not tell"), "{text}");
    shop.rewrite_history();
    shop.grow(7);
    export(&shop, &store, "rewritten/audit");
    let (code, text) = look(&shop, &store, "rewritten/audit", directory.path());
    assert!(code == 1 && text.contains("BAD: fork"), "{text}");
    let evidence = directory.path().join("state/audit/evidence");
    assert_eq!(std::fs::read_dir(&evidence).unwrap().count(), 1);
    let fresh = tempfile::tempdir().unwrap();
    store.stop();
    let started = Instant::now();
    let (code, text) = look(&shop, &store, "logs/audit", fresh.path());
    assert!(code == 2 && text.contains("could not tell"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(60));
}
