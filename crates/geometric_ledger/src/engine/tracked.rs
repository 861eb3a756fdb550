//! Values by key that are changed step by step, and go back to an earlier step.

use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// What was loaded, what became of it, and every change on the way.
pub struct Tracked<K, V> {
    /// Where a key's value is.
    numbers: HashMap<K, u32, Keyed>,
    /// In the order in which they were loaded.
    values: Vec<Value<K, V>>,
    changes: Vec<(u32, V)>,
}

struct Value<K, V> {
    key: K,
    loaded: V,
    now: V,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Tracked {
            numbers: HashMap::default(),
            values: Vec::new(),
            changes: Vec::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy + PartialEq> Tracked<K, V> {
    /// The value of a key, loaded if it was not yet.
    pub fn try_load<E>(&mut self, key: K, load: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(self.values[*number as usize].now);
        }
        let value = load()?;
        self.numbers.insert(key, self.values.len() as u32);
        self.values.push(Value {
            key,
            loaded: value,
            now: value,
        });
        Ok(value)
    }

    /// Changes a value that was loaded.
    pub fn set(&mut self, key: K, value: V) {
        let number = self.numbers[&key];
        let now = &mut self.values[number as usize].now;
        self.changes.push((number, *now));
        *now = value;
    }

    /// The present step.
    pub fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Takes the changes since a step back.
    pub fn roll_back(&mut self, mark: usize) {
        for (number, before) in self.changes.drain(mark..).rev() {
            self.values[number as usize].now = before;
        }
    }

    /// The keys whose values are not as they were loaded, in the order in which they were loaded.
    pub fn changed(&self) -> impl Iterator<Item = (K, V)> + '_ {
        let changed = self.values.iter().filter(|it| it.loaded != it.now);
        changed.map(|it| (it.key, it.now))
    }
}

/// SipHash-1-3 under a random key, as the standard library's, of keys that are bytes and all of one length: in one
/// call instead of byte by byte.
#[derive(Clone)]
struct Keyed(SipHasher13);

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Keyed(SipHasher13::new_with_keys(
            random.hash_one(0),
            random.hash_one(1),
        ))
    }
}

impl BuildHasher for Keyed {
    type Hasher = OneCall;

    fn build_hasher(&self) -> OneCall {
        OneCall {
            hasher: self.0,
            hash: 0,
        }
    }
}

struct OneCall {
    hasher: SipHasher13,
    hash: u64,
}

impl Hasher for OneCall {
    fn write(&mut self, bytes: &[u8]) {
        self.hash = self.hash.rotate_left(1) ^ self.hasher.hash(bytes);
    }

    /// The length, which all keys of a table have in common.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}
