//! What the program's user sees.

mod common;

use common::{all, all_of, fill, key, run, says};
use geometric_ledger::{Account, GeometricLedger, Options, Secret};
use std::process::Command;

#[test]
fn accounts_come_back_from_csv_and_parquet_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    for file in ["accounts.csv", "accounts.parquet"] {
        says(&["export", "ledger", file], at);
        let copy = format!("from-{file}");
        says(&["import", &copy, file, "--create", "--batch", "700"], at);
        assert_eq!(all(&at.join(copy)), all(&at.join("ledger")));
    }
    assert!(
        !run(&["export", "ledger", "accounts.txt"], at)
            .status
            .success()
    );
    std::fs::write(
        at.join("bad.csv"),
        "key,balance,nonce,flags,code,data\nxy,1,1,1,1,00\n",
    )
    .unwrap();
    let refused = run(&["import", "copy", "bad.csv", "--create"], at);
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("line 2"),
        "{refused:?}"
    );
}

#[test]
fn a_ledger_is_looked_at_snapshotted_restored_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    assert!(says(&["inspect", "ledger"], at).contains("closed       cleanly"));
    assert!(says(&["stats", "ledger"], at).contains("accounts     4999"));
    assert!(says(&["verify", "ledger"], at).contains("4999 accounts hold"));
    says(&["snapshot", "ledger", "full"], at);
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    ledger
        .update_batch(&[(key(1), Account::with_balance(5))])
        .unwrap();
    ledger.close().unwrap();
    says(&["snapshot", "ledger", "more", "--since", "2"], at);
    says(&["restore", "restored", "full", "more"], at);
    assert_eq!(all(&at.join("restored")), all(&at.join("ledger")));
    says(&["compact", "ledger"], at);
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    ledger
        .update_batch(&[(key(4), Account::with_balance(5))])
        .unwrap();
    ledger.close().unwrap();
    assert!(says(&["follow", "restored", "--from", "ledger", "--once"], at).contains("at batch 4"));
    assert_eq!(all(&at.join("restored")), all(&at.join("ledger")));
    assert!(!run(&["compact", "nothing"], at).status.success());
    assert!(!at.join("nothing").exists());
}

#[test]
fn a_restore_that_is_killed_leaves_nothing_and_can_be_done_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    for from in (0..100_000).step_by(10_000) {
        let batch: Vec<_> = (from..from + 10_000)
            .map(|number| (key(number), Account::with_balance(number.into())))
            .collect();
        ledger.update_batch(&batch).unwrap();
    }
    ledger.snapshot_to(at.join("snapshot"), None).unwrap();
    let audit = ledger.audit().unwrap();
    let mut left = 0;
    for round in 0..20 {
        let mut restore = Command::new(env!("CARGO_BIN_EXE_geometric-ledger"))
            .args(["restore", "restored", "snapshot"])
            .current_dir(at)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        common::wait_for("the restore", || {
            let begun = at.join("restored.restoring").exists();
            (begun || restore.try_wait().unwrap().is_some()).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(round));
        restore.kill().unwrap();
        restore.wait().unwrap();
        if at.join("restored").exists() {
            let restored = Options::new()
                .read_only()
                .open(at.join("restored"))
                .unwrap();
            assert_eq!(restored.audit().unwrap(), audit);
            drop(restored);
            std::fs::remove_dir_all(at.join("restored")).unwrap();
        } else {
            left += usize::from(at.join("restored.restoring").exists());
        }
    }
    assert!(left > 5, "only {left} were killed half way");
    says(&["restore", "restored", "snapshot"], at);
    assert!(!at.join("restored.lock").exists());
    assert_eq!(all(&at.join("restored")), all_of(&ledger));
}

#[test]
fn verify_names_the_slot_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    let file = at.join("ledger/shard-05.slots");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first 128 bytes are the file's stamp.
    bytes[4 * 128 + 50] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let output = run(&["verify", "ledger"], at);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("shard-05.slots, slot 3: the slot's checksum is wrong"),
        "{said}"
    );
}

#[test]
fn keys_come_from_a_file_or_a_command_and_are_rotated() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = Options::new()
        .key(Secret::new([0x11; 32]))
        .open(at.join("ledger"))
        .unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    std::fs::write(at.join("old"), [0x11; 32]).unwrap();
    std::fs::write(at.join("new"), "22".repeat(32)).unwrap();
    assert!(!run(&["stats", "ledger"], at).status.success());
    says(&["stats", "ledger", "--key-file", "old"], at);
    says(
        &[
            "rotate-key",
            "ledger",
            "--key-file",
            "old",
            "--new-key-file",
            "new",
        ],
        at,
    );
    assert!(
        !run(&["stats", "ledger", "--key-file", "old"], at)
            .status
            .success()
    );
    says(&["verify", "ledger", "--key-command", "cat new"], at);
    let failed = run(&["verify", "ledger", "--key-command", "exit 3"], at);
    assert!(String::from_utf8_lossy(&failed.stderr).contains("key command failed"));
}

#[test]
fn the_bench_ends_and_says_what_it_measured() {
    let directory = tempfile::tempdir().unwrap();
    let said = says(
        &["bench", "ledger", "--accounts", "20000", "--seconds", "1"],
        directory.path(),
    );
    assert!(said.contains("update") && said.contains("p99"), "{said}");
}
