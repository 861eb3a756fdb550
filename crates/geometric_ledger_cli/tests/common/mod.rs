//! Running the program, and ledgers for it.
#![allow(dead_code)]

use geometric_ledger::{Account, Flags, GeometricLedger, Key, Options, Update};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub fn program(arguments: &[&str], directory: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_geometric-ledger"));
    program
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    program
}

pub fn run(arguments: &[&str], directory: &Path) -> Output {
    program(arguments, directory).output().unwrap()
}

/// What the program says, which must succeed.
pub fn says(arguments: &[&str], directory: &Path) -> String {
    let output = run(arguments, directory);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Why the program refuses.
pub fn refuses(arguments: &[&str], directory: &Path) -> String {
    let output = run(arguments, directory);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    error
}

pub fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[8..16].copy_from_slice(&number.to_be_bytes());
    key
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Accounts with something in every field; some are frozen, some are below zero.
pub fn accounts(count: u64) -> Vec<(Key, Account)> {
    let account = |number: u64| Account {
        balance: i128::from(number) * 10i128.pow(28) - 10i128.pow(31),
        nonce: u64::MAX - number,
        flags: Flags(number as u32 % 4),
        code: u32::MAX - number as u32,
        data: [number as u8; 24],
    };
    (0..count)
        .map(|number| (key(number), account(number)))
        .collect()
}

pub fn fill(ledger: &GeometricLedger) {
    let put = |(key, account)| Update::Put(key, account);
    let updates: Vec<_> = accounts(5_000).into_iter().map(put).collect();
    ledger.import(&updates).unwrap();
    ledger.apply(&[Update::Delete(key(17))]).unwrap();
}

pub fn all(path: &Path) -> BTreeMap<Key, Account> {
    all_of(&Options::new().read_only().open(path).unwrap())
}

pub fn all_of(ledger: &GeometricLedger) -> BTreeMap<Key, Account> {
    ledger.view().iter().map(Result::unwrap).collect()
}

/// Waits for something, and fails if it does not come.
pub fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
