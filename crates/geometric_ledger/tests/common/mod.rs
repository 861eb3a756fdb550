//! What several tests need: keys, small ledgers, and a disk that can fail in all the ways disks do.
#![allow(dead_code)]

pub mod sim;

use geometric_ledger::*;
use std::collections::BTreeMap;

/// A ledger small enough that segments, checkpoints and reclaiming happen all the time.
pub fn small() -> Options {
    Options::new()
        .shards(4)
        .segment_bytes(1 << 16)
        .checkpoint_bytes(1 << 16)
        .history_bytes(1 << 15)
        .receipts(8)
}

pub fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key[24..].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    key
}

/// Numbers that look random and are the same for the same seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        // splitmix64 (Steele, Lea, Flood, 2014)
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ word >> 31) % end
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// What a ledger must hold after each batch.
#[derive(Clone, Default)]
pub struct Model {
    /// The accounts after batch `n`, at `n`.
    pub states: Vec<BTreeMap<Key, Account>>,
}

impl Model {
    pub fn new() -> Self {
        Model {
            states: vec![BTreeMap::new()],
        }
    }

    pub fn now(&self) -> &BTreeMap<Key, Account> {
        self.states.last().unwrap()
    }

    pub fn sequence(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    pub fn apply(&mut self, updates: &[Update]) {
        let mut state = self.now().clone();
        for update in updates {
            match update {
                Update::Put(key, account) => {
                    state.insert(*key, *account);
                }
                Update::Delete(key) => {
                    state.remove(key);
                }
            }
        }
        self.states.push(state);
    }

    /// Checks everything a ledger shows.
    pub fn check(&self, ledger: &GeometricLedger) {
        let view = ledger.view();
        let expected = &self.states[view.sequence() as usize];
        let mut found = BTreeMap::new();
        for item in view.iter() {
            let (key, account) = item.unwrap();
            assert_eq!(
                found.insert(key, account),
                None,
                "an account is there twice"
            );
        }
        assert_eq!(&found, expected);
        for (key, account) in expected {
            assert_eq!(ledger.get(key).unwrap(), Some(*account));
        }
        assert_eq!(ledger.verify().unwrap(), []);
        let audit = ledger.audit().unwrap();
        assert_eq!(audit.accounts, expected.len() as u64);
        assert_eq!(
            audit.balances,
            expected.values().map(|account| account.balance).sum()
        );
    }
}
