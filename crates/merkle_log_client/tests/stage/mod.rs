//! A log in a directory, and a client of it.
#![allow(dead_code)]

#[path = "../../../tlog/tests/support/mod.rs"]
pub mod support;

use merkle_log_client::*;
use std::path::PathBuf;
use std::time::Duration;
use support::key;
use support::log::{Log, export, order};
use tempfile::TempDir;
use tlog::{Policy, ProofBundle, SignedNote};

pub const IMPATIENT: Retry = Retry {
    attempts: 4,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
};

/// A log that grows in a directory, and a client's file.
pub struct Stage {
    pub directory: TempDir,
}

impl Stage {
    pub fn new() -> Stage {
        Stage {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn exported(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn kept(&self) -> PathBuf {
        self.directory.path().join("kept")
    }

    /// Shows this log from now on.
    pub fn show(&self, log: &Log) -> SignedNote {
        let note = signed(log);
        export(log, &note, &self.exported());
        note
    }

    /// Shows no leaf data of the entries of one bundle.
    pub fn withhold(&self, log: &Log, bundle: u64) {
        let bundles = tlog::tiles_of(log.size()).filter(|path| path.tile().is_none());
        for path in bundles.filter(|path| path.index() == bundle) {
            let withheld = vec![0; 2 * usize::from(path.width())];
            std::fs::write(self.exported().join(path.to_string()), withheld).unwrap();
        }
    }

    pub fn client(&self) -> Client {
        Client::new(Directory::new(self.exported()), policy(), self.kept()).with_retry(IMPATIENT)
    }

    pub fn kept_note(&self) -> String {
        std::fs::read_to_string(self.kept()).unwrap()
    }
}

pub fn policy() -> Policy {
    Policy::of_log(key("example.com/log", 1).verifier_key())
}

pub fn signed(log: &Log) -> SignedNote {
    log.signed(&[&key("example.com/log", 1)])
}

pub fn orders(size: u64) -> Log {
    Log::of_orders("example.com/log", size)
}

/// The log with another entry 3: everything is computed and signed anew.
pub fn rewritten(size: u64) -> Log {
    let mut log = orders(size);
    log.entries[3] = order(99);
    log
}

pub fn entry_of(log: &Log, index: u64) -> Entry {
    Entry::LeafData(log.entries[index as usize].clone())
}

pub fn bundle(log: &Log, index: u64) -> ProofBundle {
    log.bundle(&[index], &[&key("example.com/log", 1)])
}
