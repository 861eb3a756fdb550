//! Rows of watermark sources that have two entries.
//!
//! A batch appends entries in the order of their order values, so one that is a row's second is not beyond all that
//! came before it, or its first was not in the order of keys, or was logged late. Only for such entries another one
//! is looked up.

use super::Verification;
use super::finding::{Finding, Kind};
use crate::capture::order::OrderValue;
use crate::capture::row_key;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::key_index;
use std::collections::{BTreeSet, HashMap};

/// Entries that may be another entry's row's, by source.
#[derive(Default)]
pub(super) struct Suspects<'e>(HashMap<i32, Vec<&'e Entry>>);

impl<'e> Suspects<'e> {
    /// `before` and `after`: the greatest order value of the source without and with this entry.
    pub fn note(
        &mut self,
        entry: &'e Entry,
        by_key: bool,
        is_late: bool,
        before: Option<&OrderValue>,
        after: Option<&OrderValue>,
    ) {
        let is_beyond = before.is_some() && after > before;
        let suspected = match by_key {
            true => entry.order.is_some(),
            false => is_late || !is_beyond,
        };
        if suspected {
            self.0.entry(entry.source_id).or_default().push(entry);
        }
    }
}

impl Verification {
    /// Looks up whether the rows of these entries have others.
    pub(super) fn logged_twice(
        &self,
        session: &Session,
        suspects: Suspects,
    ) -> Result<Vec<Finding>, Error> {
        let mut twice: BTreeSet<(i64, i64)> = BTreeSet::new();
        let mut keys: HashMap<i64, (i32, &str)> = HashMap::new();
        for (source_id, suspects) in &suspects.0 {
            let texts: Vec<String> = suspects.iter().map(|e| e.key.clone()).collect();
            let found = subtransaction::run(|| {
                key_index::find(session, Snapshot::Statement, &self.log, *source_id, &texts)
            });
            let mut pairs: Vec<(usize, i64)> = found.unwrap_or_default();
            for (place, entry) in suspects.iter().enumerate() {
                pairs.extend(self.in_order(session, entry)?.map(|at| (place, at)));
            }
            for (place, at) in pairs {
                let entry = suspects[place];
                if at != entry.leaf_index && self.says_the_same(session, entry, at)? {
                    let (first, second) = (at.min(entry.leaf_index), at.max(entry.leaf_index));
                    twice.insert((second, first));
                    keys.insert(second, (*source_id, &entry.key));
                }
            }
        }
        let finding = |(second, first): (i64, i64)| Finding {
            source_table: self.rows.name_of(keys[&second].0),
            source_key: Some(keys[&second].1.to_owned()),
            ..Finding::of_log(
                Kind::LoggedTwice,
                Some(second),
                format!("the row has entry {first} already"),
            )
        };
        Ok(twice.into_iter().map(finding).collect())
    }

    /// The entry of the same row that stands in the order of keys.
    fn in_order(&self, session: &Session, entry: &Entry) -> Result<Option<i64>, Error> {
        let shape = self.rows.shape(entry.source_id);
        let order = subtransaction::run(|| row_key::sort_key(shape?, &entry.key, entry.leaf_index));
        let order = order.ok().flatten();
        entries::in_order(
            session,
            Snapshot::Statement,
            &self.log,
            entry.source_id,
            &entry.key,
            order.as_ref(),
        )
    }

    /// True if another entry of the row has its order value: a row that was moved has got another one.
    fn says_the_same(&self, session: &Session, entry: &Entry, at: i64) -> Result<bool, Error> {
        let other = entries::between(session, &self.log, at, at + 1)?.pop();
        let order = |e: &Entry| e.order.clone().unwrap_or_else(|| e.key.clone());
        Ok(other.is_some_and(|other| order(&other) == order(entry)))
    }
}
