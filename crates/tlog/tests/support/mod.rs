//! Keys and notes for tests.
#![allow(dead_code)]

pub mod log;
pub mod sealed;
pub mod vectors;

use merkle_tree::{TreeSize, leaf_hash};
use tlog::*;

pub fn key(name: &str, seed: u8) -> SigningKey {
    let name = KeyName::new(name).unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[seed; 32]).unwrap()
}

pub fn witness(name: &str, seed: u8) -> SigningKey {
    let name = KeyName::new(name).unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519Cosignature, &[seed; 32]).unwrap()
}

pub fn checkpoint(size: u64) -> Checkpoint {
    let root = leaf_hash(&size.to_be_bytes());
    Checkpoint::new("example.com/log", TreeSize::new(size).unwrap(), root).unwrap()
}

pub fn note(checkpoint: &Checkpoint, signers: &[&dyn Signer], time: u64) -> SignedNote {
    let mut note = SignedNote::new(&checkpoint.to_string()).unwrap();
    for signer in signers {
        note.sign(*signer, time).unwrap();
    }
    note
}
