//! Values by key that are changed step by step, and go back to an earlier step.

use std::collections::HashMap;
use std::hash::Hash;

/// What was loaded, what became of it, and every change on the way.
pub struct Tracked<K, V> {
    order: Vec<K>,
    /// As loaded, and now.
    values: HashMap<K, (V, V)>,
    changes: Vec<(K, V)>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Tracked {
            order: Vec::new(),
            values: HashMap::new(),
            changes: Vec::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy + PartialEq> Tracked<K, V> {
    /// The value of a key, loaded if it was not yet.
    pub fn try_load<E>(&mut self, key: K, load: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some((_, now)) = self.values.get(&key) {
            return Ok(*now);
        }
        let value = load()?;
        self.order.push(key);
        self.values.insert(key, (value, value));
        Ok(value)
    }

    /// Changes a value that was loaded.
    pub fn set(&mut self, key: K, value: V) {
        let (_, now) = self.values.get_mut(&key).expect("it was loaded");
        self.changes.push((key, *now));
        *now = value;
    }

    /// The present step.
    pub fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Takes the changes since a step back.
    pub fn roll_back(&mut self, mark: usize) {
        for (key, before) in self.changes.drain(mark..).rev() {
            if let Some((_, now)) = self.values.get_mut(&key) {
                *now = before;
            }
        }
    }

    /// The keys whose values are not as they were loaded, in the order in which they were loaded.
    pub fn changed(&self) -> impl Iterator<Item = (K, V)> + '_ {
        self.order.iter().filter_map(|key| {
            let (before, now) = self.values[key];
            (before != now).then_some((*key, now))
        })
    }
}
