//! Keys of rows, as entries have them: texts, and what finds a row's entries by one.

use super::order::{Domain, OrderValue, SortKey};
use super::shape::{self, Shape};
use super::table::Attribute;
use crate::catalog::logs::Log;
use crate::catalog::sources;
use crate::encode::{self, Decoder};
use crate::error::Error;
use crate::pg::relcache::{self, Changed};
use crate::pg::{datum, role};
use crate::session::Session;
use crate::shared;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// The key of a row.
pub struct RowKey {
    pub text: String,
    /// As an order value, where it is one.
    pub order: Option<SortKey>,
}

/// Bytes of keys that are handed to a statement at once: an array has the limits of any of the server's values.
const HANDFUL: usize = 64 << 20;

/// Cuts a list of keys, of which the lengths are given, into pieces for one statement each.
pub fn handfuls(lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut handfuls: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0usize;
    for (place, length) in lengths.enumerate() {
        bytes = bytes.saturating_add(length);
        match handfuls.last_mut().filter(|_| bytes <= HANDFUL) {
            Some(last) => last.end = place + 1,
            None => {
                bytes = length;
                handfuls.push(place..place + 1);
            }
        }
    }
    handfuls
}

/// A key as one text: the column's own, or for a composite key the text form of a `text[]`.
pub fn text(mut parts: Vec<String>) -> String {
    match parts.len() {
        1 => parts.remove(0),
        _ => datum::array_literal(parts),
    }
}

/// The texts that a key of the table as it is now had under earlier versions of its columns: labels of enums may
/// have been others.
pub fn earlier(shape: &Shape, key: &str) -> Vec<String> {
    if shape.key.iter().all(|a| a.definition.is_none()) {
        return Vec::new();
    }
    let Ok(now) = parts(shape, key) else {
        return Vec::new();
    };
    let mut found: Vec<String> = Vec::new();
    for version in &shape.versions {
        let part = |(attribute, part): (&Attribute, &String)| {
            let mut columns = version.columns.iter();
            let column = columns.find(|c| c.attnum == Some(attribute.attnum));
            let then = column.and_then(|c| c.definition.as_ref());
            let renamed = then.and_then(|then| then.renamed(part, attribute.definition.as_ref()?));
            renamed.map_or_else(|| part.clone(), str::to_owned)
        };
        let then = text(shape.key.iter().zip(&now).map(part).collect());
        if then != key && !found.contains(&then) {
            found.push(then);
        }
    }
    found
}

/// A key's columns as texts, from the text form of the key. The texts are what was given, not
/// necessarily as the types write them.
pub fn parts(shape: &Shape, key: &str) -> Result<Vec<String>, Error> {
    split(&shape.source.name, shape.key.len(), key)
}

fn split(table: &str, columns: usize, key: &str) -> Result<Vec<String>, Error> {
    if columns == 1 {
        return Ok(vec![key.to_owned()]);
    }
    match datum::array_elements(key) {
        Some(parts) if parts.len() == columns => Ok(parts),
        _ => Err(Error::Key {
            table: table.to_owned(),
            key: key.to_owned(),
            problem: format!("its key has {columns} columns"),
        }),
    }
}

/// How rows of a table are found in a log, decided once a session.
pub struct Finder {
    /// The table's name, as it was registered last.
    pub name: String,
    /// The table's sources of the log, removed ones too, oldest first.
    pub sources: Vec<i32>,
    relation: pg_sys::Oid,
    is_still_its_table: bool,
    key: Vec<Attribute>,
    needs_pinned_settings: bool,
}

/// By extension, log and table.
type Finders = HashMap<(u64, i32, pg_sys::Oid), Rc<Finder>>;

thread_local! {
    static FINDERS: RefCell<Finders> = RefCell::new(HashMap::new());
    /// A table changed, and none of them may be right.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

impl Finder {
    pub fn of(session: &Session, log: &Log, relation: pg_sys::Oid) -> Result<Rc<Finder>, Error> {
        relcache::listen(forget);
        if STALE.take() {
            FINDERS.take();
        }
        let at = (shared::owner(session), log.id, relation);
        if let Some(finder) = FINDERS.with_borrow(|f| f.get(&at).cloned()) {
            return Ok(finder);
        }
        let finder = session.pinned(|| Finder::make(session, log, relation));
        let finder = Rc::new(finder?);
        FINDERS.with_borrow_mut(|f| f.insert(at, finder.clone()));
        Ok(finder)
    }

    fn make(session: &Session, log: &Log, relation: pg_sys::Oid) -> Result<Finder, Error> {
        let mut of_table = sources::all(session, log);
        of_table.retain(|s| s.relation == relation);
        let latest = of_table.last().ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
        })?;
        let key = Shape::load(session, log, latest)?.key;
        Ok(Finder {
            name: latest.name.clone(),
            sources: of_table.iter().map(|s| s.id).collect(),
            relation,
            is_still_its_table: of_table
                .iter()
                .all(|s| shape::is_still_its_table(session, s)),
            needs_pinned_settings: key
                .iter()
                .any(|a| encode::text_depends_on_settings(a.base_type)),
            key,
        })
    }

    /// That the caller may be shown whether a row is in the log: who may read the key of every row.
    pub fn check_caller_reads(&self, session: &Session, log: &Log) -> Result<(), Error> {
        let (log, table) = (log.name.clone(), self.name.clone());
        if !self.is_still_its_table {
            return match session.caller_may_read_entries()? {
                true => Ok(()),
                false => Err(Error::MayNotRead { log, table }),
            };
        }
        let key: Vec<i16> = self.key.iter().map(|column| column.attnum).collect();
        match role::may_read_columns(session.caller(), self.relation, &key) {
            true => Ok(()),
            false => Err(Error::MayNotReadKey { log, table }),
        }
    }

    /// A key as entries have it, from any text that the key's types accept.
    pub fn key(&self, session: &Session, key: &str) -> Result<RowKey, Error> {
        match self.needs_pinned_settings {
            true => session.pinned(|| self.normal(key)),
            false => self.normal(key),
        }
    }

    fn normal(&self, key: &str) -> Result<RowKey, Error> {
        let mut order = None;
        let normal = |(column, part): (&Attribute, &String)| {
            let value = datum::input(column.base_type, part);
            if self.key.len() == 1 {
                order = sort_key_of(column, value.datum());
            }
            // SAFETY: a value that was just made of this type.
            unsafe { datum::output(column.base_type, value.datum()) }
        };
        let parts = split(&self.name, self.key.len(), key)?;
        let text = text(self.key.iter().zip(&parts).map(normal).collect());
        Ok(RowKey { text, order })
    }
}

/// A key as an order value, from its text, where it is one. Raises the type's own error where the text
/// is not a value of it.
pub fn sort_key(shape: &Shape, key: &str) -> Option<SortKey> {
    let [column] = shape.key.as_slice() else {
        return None;
    };
    let value = datum::input(column.base_type, key);
    sort_key_of(column, value.datum())
}

/// An order value from its text. Raises the type's own error where the text is not a value of it.
pub fn order_value(column: &Attribute, text: &str) -> OrderValue {
    let value = datum::input(column.base_type, text);
    // SAFETY: the value was just made for this column.
    let value = unsafe { Decoder::of_column(column).decode(Some(value.datum())) };
    OrderValue::new(column.base_type, &value)
}

/// `value` must be one of the column's type.
fn sort_key_of(column: &Attribute, value: pg_sys::Datum) -> Option<SortKey> {
    Domain::of_type(column.base_type)?;
    // SAFETY: both callers have just made the value for this column.
    let value = unsafe { Decoder::of_column(column).decode(Some(value)) };
    OrderValue::new(column.base_type, &value).sort_key()
}

fn forget(_: Changed) {
    STALE.set(true);
}
