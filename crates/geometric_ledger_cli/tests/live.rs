//! A ledger that a process has open is looked at by others, who do not disturb it.

mod common;

use common::{accounts, all_of, fill, hex, key, program, refuses, run, says, wait_for};
use geometric_ledger::{Account, Durability, Error, GeometricLedger, Options, Reader, Secret};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Every command that reads, on a ledger at `ledger`.
fn look_at_everything(at: &Path) {
    assert!(says(&["stats", "ledger"], at).contains("accounts     4999"));
    assert!(says(&["stats", "ledger", "--json"], at).contains("\"accounts\":4999"));
    assert!(says(&["inspect", "ledger"], at).contains("batches      2"));
    assert!(says(&["verify", "ledger"], at).contains("4999 accounts hold"));
    assert!(says(&["audit", "ledger"], at).contains("4999 accounts hold"));
    assert!(says(&["get", "ledger", &hex(&key(3))], at).contains("data      030303"));
    let gone = run(&["get", "ledger", &hex(&key(17))], at);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(
        says(&["get", "ledger", &hex(&key(17)), "--batch", "1"], at).contains("as of     batch 1")
    );
    let history = says(&["history", "ledger", &hex(&key(17))], at);
    assert!(
        history.lines().next().unwrap().ends_with("deleted"),
        "{history}"
    );
    assert!(
        history.lines().nth(1).unwrap().starts_with("batch 1 "),
        "{history}"
    );
    let proof = says(&["proof", "ledger", "1"], at);
    std::fs::write(at.join("proof.json"), &proof).unwrap();
    let root = proof.rsplit_once("\"root\": \"").unwrap().1[..64].to_owned();
    assert!(says(&["check-proof", "proof.json", "--root", &root], at).contains("batch 1 is in"));
    says(&["export", "ledger", "all.csv"], at);
    says(&["export", "ledger", "all.parquet"], at);
    says(&["snapshot", "ledger", "snapshot"], at);
    says(&["restore", "restored", "snapshot"], at);
    std::fs::remove_dir_all(at.join("restored")).unwrap();
}

#[test]
fn everything_that_reads_works_beside_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    look_at_everything(at);
    let inspected = says(&["inspect", "ledger"], at);
    assert!(
        inspected.contains(&format!("in process {}", std::process::id())),
        "{inspected}"
    );
    let refused = refuses(&["put", "ledger", &hex(&key(1)), "--balance", "5"], at);
    assert!(
        refused.contains("another process has the ledger open"),
        "{refused}"
    );
    ledger
        .update_batch(&[(key(9_999), Account::with_balance(1))])
        .unwrap();
    assert!(says(&["stats", "ledger"], at).contains("accounts     5000"));
    ledger.close().unwrap();
    assert!(!at.join("ledger/socket").exists());
    assert!(says(&["inspect", "ledger"], at).contains("in no process"));
}

#[test]
fn everything_that_reads_works_where_nobody_has_the_ledger_open() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    look_at_everything(at);
}

#[test]
fn a_replica_is_read_and_backed_up_while_it_follows() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let leader = GeometricLedger::new(at.join("leader")).unwrap();
    fill(&leader);
    let follower = program(
        &["follow", "ledger", "--from", "leader", "--report", "1"],
        at,
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    wait_for("the replica", || {
        let output = run(&["stats", "ledger"], at);
        String::from_utf8_lossy(&output.stdout)
            .contains("batches      2")
            .then_some(())
    });
    assert!(says(&["inspect", "ledger"], at).contains("which follows another ledger"));
    look_at_everything(at);
    leader
        .update_batch(&[(key(9_999), Account::with_balance(1))])
        .unwrap();
    wait_for("the next batch", || {
        says(&["stats", "ledger"], at)
            .contains("batches      3")
            .then_some(())
    });
    // It goes on to say how far it is, and stops when it is told to.
    std::thread::sleep(Duration::from_millis(2_500));
    let stop = std::process::Command::new("kill")
        .arg(follower.id().to_string())
        .status();
    assert!(stop.unwrap().success());
    let ended = follower.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(
        said.contains("at batch 3, which is the source's last"),
        "{said}"
    );
    assert!(said.ends_with("3 batches taken, at batch 3\n"), "{said}");
    assert!(says(&["inspect", "ledger"], at).contains("closed       cleanly"));
}

#[test]
fn readers_of_a_ledger_under_load_see_whole_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = Options::new()
        .durability(Durability::None)
        .open(&path)
        .unwrap();
    let batch = |balance: i128| -> Vec<_> {
        (0..2_000)
            .map(|number| (key(number), Account::with_balance(balance)))
            .collect()
    };
    ledger.update_batch(&batch(1)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut balance = 1;
            while !stop.load(Ordering::Relaxed) {
                balance += 1;
                ledger.update_batch(&batch(balance)).unwrap();
                // A reader goes back through every batch since it began.
                std::thread::sleep(Duration::from_millis(5));
            }
            balance
        });
        let mut last = 0;
        for _ in 0..10 {
            let mut reader = Reader::open(&path, Options::new()).unwrap();
            assert!(reader.is_live());
            let accounts = reader.accounts().unwrap();
            let head = accounts.head();
            let found: BTreeMap<_, _> = accounts.map(Result::unwrap).collect();
            assert_eq!(found.len(), 2_000);
            // Batch n gives every account the balance n.
            let balance = i128::from(head.sequence);
            assert!(found.values().all(|account| account.balance == balance));
            assert!(head.sequence >= last);
            last = head.sequence;
            let (sequence, some) = reader.get_many(&[key(1), key(1_999)], None).unwrap();
            let balances: Vec<_> = some.iter().map(|it| it.unwrap().balance).collect();
            assert_eq!(balances, [i128::from(sequence); 2]);
            assert_eq!(reader.verify().unwrap(), (0, Vec::new()));
            let audit = reader.audit().unwrap();
            assert_eq!(audit.balances, 2_000 * i128::from(audit.sequence));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 10);
    });
}

#[test]
fn a_reader_needs_the_key_of_an_encrypted_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let options = Options::new().key(Secret::new([0x11; 32]));
    let ledger = options.clone().open(at.join("ledger")).unwrap();
    fill(&ledger);
    std::fs::write(at.join("key"), [0x11; 32]).unwrap();
    std::fs::write(at.join("wrong"), [0x12; 32]).unwrap();
    assert!(says(&["stats", "ledger", "--key-file", "key"], at).contains("4999"));
    refuses(&["stats", "ledger"], at);
    refuses(&["stats", "ledger", "--key-file", "wrong"], at);
    says(&["snapshot", "ledger", "snapshot", "--key-file", "key"], at);
    says(
        &["restore", "restored", "snapshot", "--key-file", "key"],
        at,
    );
    let restored = options.read_only().open(at.join("restored")).unwrap();
    assert_eq!(all_of(&restored), all_of(&ledger));
}

/// What a program that does not know the key, and asks the socket itself, is told.
#[test]
fn the_socket_tells_nothing_to_who_cannot_prove_the_key() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let options = Options::new().key(Secret::new([0x11; 32]));
    let ledger = options.open(&path).unwrap();
    fill(&ledger);
    let mut socket = std::os::unix::net::UnixStream::connect(path.join("socket")).unwrap();
    let mut hello = [0; 5 + 33];
    socket.read_exact(&mut hello).unwrap();
    // An answer of the version that was said, with a proof of zeros, as a plain ledger's reader gives it.
    let mut admission = vec![5, 33, 0, 0, 0, hello[5]];
    admission.extend([0; 32]);
    socket.write_all(&admission).unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).unwrap();
    assert_eq!(said[0], 6, "a failure");
    assert!(String::from_utf8_lossy(&said).contains("does not open this ledger"));
}

#[test]
fn a_reader_that_hangs_holds_up_neither_batches_nor_closing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = GeometricLedger::new(&path).unwrap();
    for from in (0..200_000).step_by(20_000) {
        let batch: Vec<_> = (from..from + 20_000)
            .map(|number| (key(number), Account::with_balance(1)))
            .collect();
        ledger.update_batch(&batch).unwrap();
    }
    let mut reader = Reader::open(&path, Options::new()).unwrap();
    // 17 MB, of which nobody takes more than the first frame.
    let mut hanging = reader.accounts().unwrap();
    hanging.next().unwrap().unwrap();
    ledger
        .update_batch(&[(key(1), Account::with_balance(2))])
        .unwrap();
    ledger.checkpoint().unwrap();
    let start = Instant::now();
    ledger.close().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    // And what it was reading ends with an error, not as if that were all.
    assert!(matches!(
        hanging.find(Result::is_err),
        Some(Err(Error::Reader(_)))
    ));
    GeometricLedger::new(&path).unwrap();
}

#[test]
fn a_reader_who_would_have_too_much_log_kept_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = Options::new()
        .reader_log_bytes(1 << 20)
        .open(&path)
        .unwrap();
    let accounts: Vec<_> = (0..100_000)
        .map(|number| (key(number), Account::with_balance(1)))
        .collect();
    ledger.update_batch(&accounts).unwrap();
    let mut reader = Reader::open(&path, Options::new()).unwrap();
    let mut reading = reader.accounts().unwrap();
    reading.next().unwrap().unwrap();
    ledger.update_batch(&accounts).unwrap();
    let failed = reading.find_map(Result::err).unwrap();
    assert!(failed.to_string().contains("reader_log_bytes"), "{failed}");
    drop(reading);
    // Who asks anew is answered.
    assert_eq!(
        Reader::open(&path, Options::new())
            .unwrap()
            .stats()
            .unwrap()
            .accounts,
        100_000
    );
}

#[test]
fn what_a_killed_process_left_of_its_socket_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    fill(&ledger);
    ledger.close().unwrap();
    drop(std::os::unix::net::UnixListener::bind(at.join("ledger/socket")).unwrap());
    assert!(says(&["stats", "ledger"], at).contains("4999"));
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    assert!(
        Reader::open(at.join("ledger"), Options::new())
            .unwrap()
            .is_live()
    );
    drop(ledger);
    // One that nobody answers for is said to be so, in time.
    let ledger = Options::new().serve(false).open(at.join("ledger")).unwrap();
    let refused = refuses(&["stats", "ledger"], at);
    assert!(refused.contains("does not answer"), "{refused}");
    drop(ledger);
    let long = at.join("a".repeat(100)).join("b".repeat(100));
    let ledger = GeometricLedger::new(&long).unwrap();
    ledger.update_batch(&accounts(1)[..0]).unwrap();
    assert!(Reader::open(&long, Options::new()).unwrap().is_live());
}
