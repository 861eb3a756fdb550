//! Texts that a column's values had under another type: ALTER TYPE writes them anew, and entries keep the old ones.
//!
//! A text is read as a value of the type that the column has now, or where it is none, as one of a type that it had
//! before, which is then cast as ALTER TYPE does without USING.

use super::table::Attribute;
use crate::catalog::versions::Version;
use crate::pg::{datum, subtransaction};
use pgrx::pg_sys;
use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retyped {
    now: pg_sys::Oid,
    modifier: i32,
    /// The types that it had before, last to first; none if only the modifier was another one.
    then: Vec<pg_sys::Oid>,
}

impl Retyped {
    /// `None` if the column's values have always had the same texts.
    pub fn of(versions: &[Version], column: &Attribute) -> Option<Retyped> {
        let now = column.base_type;
        let mut then = Vec::new();
        let mut changed = false;
        let of_column = versions.iter().rev().filter_map(|version| {
            let same = |c: &&crate::catalog::versions::Column| c.attnum == Some(column.attnum);
            version.columns.iter().find(same)
        });
        for before in of_column {
            let Some(base_type) = before.type_oid.and_then(datum::base_type_if_known) else {
                continue;
            };
            let modified = before.type_modifier != Some(column.type_modifier);
            changed |= base_type != now || modified && before.type_oid == Some(now.to_u32());
            if base_type != now && !then.contains(&base_type) {
                then.push(base_type);
            }
        }
        let family = then.iter().chain([&now]).map(|t| family(*t));
        let families: Vec<Option<u8>> = family.collect();
        let same_texts = families[0].is_some() && families.iter().all(|f| *f == families[0]);
        let modifier = match column.type_oid == now {
            true => column.type_modifier,
            false => -1,
        };
        (changed && !same_texts).then_some(Retyped {
            now,
            modifier,
            then,
        })
    }

    /// The text that the value has now; the same one if it is no value of any of the types.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let now = subtransaction::run(|| datum::normal(self.now, self.modifier, text));
        if let Ok(now) = now {
            return now.into();
        }
        let cast = |then: &pg_sys::Oid| {
            let cast = || datum::cast(*then, self.now, self.modifier, text);
            subtransaction::run(cast).ok()
        };
        let found = self.then.iter().find_map(cast);
        found.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// What it depends on, in words.
    pub fn record(&self) -> String {
        let then: Vec<String> = self.then.iter().map(|t| t.to_u32().to_string()).collect();
        format!("retyped from {} modifier {}", then.join(" "), self.modifier)
    }
}

/// Types of one family write equal values alike.
fn family(type_oid: pg_sys::Oid) -> Option<u8> {
    match type_oid {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => Some(0),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => Some(1),
        _ => None,
    }
}
