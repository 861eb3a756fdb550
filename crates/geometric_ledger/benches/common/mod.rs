//! What the measurements share: settings from the environment, keys, chance, medians and rows of tables.
#![allow(dead_code)]

use geometric_ledger::Key;
use std::path::{Path, PathBuf};

/// A whole number from the environment, which may have `_` between its digits.
pub fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.replace('_', "").parse().expect(name))
}

/// The key of an account: 32 bytes that look random.
pub fn key(number: u64) -> Key {
    let mut key = [0; 32];
    let mut word = number;
    for bytes in key.chunks_exact_mut(8) {
        word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bytes.copy_from_slice(
            &(mixed ^ mixed >> 27)
                .wrapping_mul(0x94D0_49BB_1331_11EB)
                .to_le_bytes(),
        );
    }
    key
}

/// Marsaglia's xorshift, from a seed that is not 0.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }
}

pub fn fresh(path: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(path);
    path.to_owned()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Bytes on disk of the files of a directory.
pub fn size_of(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.path().is_dir() {
            true => size_of(&entry.path()),
            false => entry.metadata().map_or(0, |file| file.blocks() * 512),
        })
        .sum()
}
