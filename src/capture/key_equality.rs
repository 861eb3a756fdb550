//! When two texts are one key.
//!
//! Entries hold a key as text, and a key can be equal to another for the server although their texts
//! differ: numeric 1.0 and 1.00, float -0 and 0, padded characters, intervals, jsonb, and texts under a
//! nondeterministic collation. A row is found under every spelling of its key, by a hash that equal keys
//! share; whatever has the hash is then compared.
//!
//! Most types write equal values alike, and for most of the others a canonical text is cut from the text.
//! The rest is hashed by the server's own hash function for the type, as a hash join would. That one may
//! give other values in another cluster, or after an update of the collation library, so what it depends
//! on is on record with the source ([`KeyEquality::record`]), and a batch that finds it changed computes
//! the source's hashes anew (`store::key_index`).

use super::retyped::Retyped;
use super::row_key;
use super::shape::Shape;
use super::table::Attribute;
use crate::pg::{datum, subtransaction};
use pgrx::pg_sys;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;

/// How equal values of a column can differ in their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spelling {
    /// Not at all.
    One,
    /// By zeros at the end of the fraction.
    Numeric,
    /// By the sign of zero.
    Float,
    /// By blanks at the end.
    Padded,
    /// In a way that only the type's own functions know, under this collation; also as values of other types, which
    /// the column had before.
    Value {
        type_oid: pg_sys::Oid,
        collation: pg_sys::Oid,
        retyped: Option<Retyped>,
    },
}

impl Spelling {
    fn of(shape: &Shape, column: &Attribute) -> Spelling {
        let type_oid = column.base_type;
        let retyped = shape.retyped(column);
        let is_retyped = retyped.is_some();
        let value = |collation| Spelling::Value {
            type_oid,
            collation,
            retyped,
        };
        if is_retyped {
            return value(column.collation_oid);
        }
        if datum::is_nondeterministic(column.collation_oid) {
            return value(column.collation_oid);
        }
        match type_oid {
            pg_sys::NUMERICOID => Spelling::Numeric,
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Spelling::Float,
            pg_sys::BPCHAROID => Spelling::Padded,
            pg_sys::INTERVALOID | pg_sys::JSONBOID => value(pg_sys::InvalidOid),
            _ => Spelling::One,
        }
    }

    /// The same text for equal values. Raises the type's own error where the text is no value of it.
    fn canonical<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Spelling::One => text.into(),
            Spelling::Numeric if text.contains('.') => {
                text.trim_end_matches('0').trim_end_matches('.').into()
            }
            Spelling::Numeric => text.into(),
            Spelling::Float if text == "-0" => "0".into(),
            Spelling::Float => text.into(),
            Spelling::Padded => text.trim_end_matches(' ').into(),
            Spelling::Value {
                type_oid,
                collation,
                retyped,
            } => datum::hash(*type_oid, *collation, &present(retyped, text))
                .to_string()
                .into(),
        }
    }

    /// Raises the type's own error where a text is no value of it.
    fn same(&self, a: &str, b: &str) -> bool {
        match self {
            Spelling::Value {
                type_oid,
                collation,
                retyped,
            } => {
                let (now_a, now_b) = (present(retyped, a), present(retyped, b));
                now_a == now_b || datum::equal(*type_oid, *collation, &now_a, &now_b)
            }
            _ => self.canonical(a) == self.canonical(b),
        }
    }
}

/// The text that a value has now.
fn present<'t>(retyped: &Option<Retyped>, text: &'t str) -> Cow<'t, str> {
    match retyped {
        None => text.into(),
        Some(retyped) => retyped.text(text),
    }
}

/// When two texts are one key of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyEquality {
    /// Of the key's columns; empty where each key has one text.
    columns: Vec<Spelling>,
}

impl KeyEquality {
    pub fn of(shape: &Shape) -> KeyEquality {
        let spelling = |column| Spelling::of(shape, column);
        let mut columns: Vec<Spelling> = shape.key.iter().map(spelling).collect();
        if columns.iter().all(|c| *c == Spelling::One) {
            columns.clear();
        }
        KeyEquality { columns }
    }

    /// The collations that it depends on.
    pub fn collations(&self) -> Vec<pg_sys::Oid> {
        let collation = |column: &Spelling| match column {
            Spelling::Value { collation, .. } if datum::is_nondeterministic(*collation) => {
                Some(*collation)
            }
            _ => None,
        };
        self.columns.iter().filter_map(collation).collect()
    }

    /// What the hashes depend on, beside the keys: the columns' spellings, and where the server's functions
    /// take part, `cluster` and the versions of the collations.
    pub fn record(&self, cluster: &str, collations: &str) -> String {
        let name = |column: &Spelling| match column {
            Spelling::One => "text".to_owned(),
            Spelling::Numeric => "numeric".to_owned(),
            Spelling::Float => "float".to_owned(),
            Spelling::Padded => "padded".to_owned(),
            Spelling::Value {
                type_oid, retyped, ..
            } => {
                let then = retyped.as_ref().map(|r| format!(" {}", r.record()));
                let number = type_oid.to_u32();
                format!(
                    "type {number} of {cluster} {collations}{}",
                    then.unwrap_or_default()
                )
            }
        };
        let names: Vec<String> = self.columns.iter().map(name).collect();
        names.join(", ")
    }

    pub fn is_by_server(&self) -> bool {
        let by_server = |column: &Spelling| matches!(column, Spelling::Value { .. });
        self.columns.iter().any(by_server)
    }

    /// The hash of a key of `source_id`: the first eight bytes of SHA-256. A text that is no key of the
    /// source is hashed as it is.
    pub fn hash(&self, source_id: i32, key: &str) -> i64 {
        let mut hash = Sha256::new();
        hash.update(source_id.to_be_bytes());
        hash.update(self.canonical(key).as_bytes());
        let digest = hash.finalize();
        let (first, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
        i64::from_be_bytes(*first)
    }

    /// The first half of SHA-256 of a key: unless `is_by_server`, nobody finds two keys that share it.
    pub fn long_hash(&self, key: &str) -> u128 {
        let digest = Sha256::digest(self.canonical(key).as_bytes());
        let (first, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
        u128::from_be_bytes(*first)
    }

    fn canonical<'k>(&self, key: &'k str) -> Cow<'k, str> {
        match self.columns.as_slice() {
            [] => key.into(),
            [column] if !self.is_by_server() => column.canonical(key),
            columns => {
                let canonical = |parts: &[String]| {
                    let canonical = columns.iter().zip(parts);
                    let parts = canonical.map(|(column, part)| column.canonical(part));
                    row_key::text(parts.map(Cow::into_owned).collect())
                };
                self.parts(key, canonical)
                    .map_or(Cow::Borrowed(key), Cow::Owned)
            }
        }
    }

    /// What `f` makes of the key's columns; `None` if the text is no key.
    fn parts<T>(&self, key: &str, f: impl FnOnce(&[String]) -> T) -> Option<T> {
        let parts = match self.columns.len() {
            1 => vec![key.to_owned()],
            columns => datum::array_elements(key).filter(|parts| parts.len() == columns)?,
        };
        match self.is_by_server() {
            true => subtransaction::run(|| f(&parts)).ok(),
            false => Some(f(&parts)),
        }
    }

    /// True if both texts are the same key.
    pub fn same(&self, a: &str, b: &str) -> bool {
        if a == b || self.columns.is_empty() {
            return a == b;
        }
        let same = |a: &[String]| {
            self.parts(b, |b| {
                let same = |((column, a), b): ((&Spelling, &String), &String)| column.same(a, b);
                self.columns.iter().zip(a).zip(b).all(same)
            })
        };
        self.parts(a, same).flatten().unwrap_or(false)
    }

    /// A map whose values are found under every spelling of their keys.
    pub fn map<T>(&self, values: impl IntoIterator<Item = (String, T)>) -> ByKey<T> {
        let mut map = ByKey {
            equality: self.clone(),
            ..ByKey::default()
        };
        values
            .into_iter()
            .for_each(|(key, value)| map.insert(key, value));
        map
    }
}

/// Keys that are looked for, under every spelling.
pub struct Wanted<'k> {
    equality: KeyEquality,
    by_text: HashMap<&'k str, &'k String>,
    /// Where a key can have several texts.
    by_hash: HashMap<i64, Vec<&'k String>>,
}

impl<'k> Wanted<'k> {
    pub fn new(equality: KeyEquality, keys: &'k [String]) -> Wanted<'k> {
        let mut by_hash: HashMap<i64, Vec<&String>> = HashMap::new();
        if !equality.columns.is_empty() {
            for key in keys {
                by_hash.entry(equality.hash(0, key)).or_default().push(key);
            }
        }
        Wanted {
            equality,
            by_text: keys.iter().map(|key| (key.as_str(), key)).collect(),
            by_hash,
        }
    }

    /// All that are the same key as `key`.
    pub fn of(&self, key: &str) -> Vec<&'k String> {
        if self.equality.columns.is_empty() {
            return self.by_text.get(key).copied().into_iter().collect();
        }
        let of_hash = self.by_hash.get(&self.equality.hash(0, key));
        let same = |wanted: &&&String| self.equality.same(wanted, key);
        of_hash
            .into_iter()
            .flatten()
            .filter(same)
            .copied()
            .collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &'k String> {
        self.by_text.values().copied()
    }
}

/// Values by key, found under every spelling of it.
#[derive(Debug)]
pub struct ByKey<T> {
    equality: KeyEquality,
    by_text: HashMap<String, T>,
    /// The texts by their hashes, where a key can have several.
    by_hash: HashMap<i64, Vec<String>>,
}

impl<T> Default for ByKey<T> {
    fn default() -> ByKey<T> {
        ByKey {
            equality: KeyEquality::default(),
            by_text: HashMap::new(),
            by_hash: HashMap::new(),
        }
    }
}

impl<T> ByKey<T> {
    pub fn insert(&mut self, key: String, value: T) {
        if !self.equality.columns.is_empty() {
            let hash = self.equality.hash(0, &key);
            self.by_hash.entry(hash).or_default().push(key.clone());
        }
        self.by_text.insert(key, value);
    }

    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &str) -> Option<&T> {
        self.by_text.get(key).or_else(|| {
            if self.equality.columns.is_empty() || self.by_text.is_empty() {
                return None;
            }
            let texts = self.by_hash.get(&self.equality.hash(0, key))?;
            let text = texts.iter().find(|text| self.equality.same(text, key))?;
            self.by_text.get(text)
        })
    }
}
