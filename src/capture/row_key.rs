//! Keys of rows, as entries have them: texts, and what finds a row's entries by one.

use super::given_key::GivenKey;
use super::order::{Domain, OrderValue, SortKey};
use super::shape::{self, Shape};
use super::statement;
use super::table::Attribute;
use super::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::Version;
use crate::encode::definition::Definition;
use crate::encode::{self, Decoder};
use crate::error::Error;
use crate::pg::relcache::{self, Changed};
use crate::pg::spi::{Row, Snapshot};
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
    /// By source: from which leaf index of the log on the key was called what, where labels of enums had other
    /// names before.
    names: HashMap<i32, Vec<(i64, String)>>,
}

impl RowKey {
    /// Every text that entries of a source may have for the key.
    pub fn texts(&self, source_id: i32) -> Vec<String> {
        let mut texts = vec![self.text.clone()];
        for (_, name) in self.names.get(&source_id).into_iter().flatten() {
            if !texts.contains(name) {
                texts.push(name.clone());
            }
        }
        texts
    }

    /// True if `text`, one of `texts`, is what the key was called when the entry at `leaf_index` was logged. The
    /// same label may be another row's by now.
    pub fn was_called(&self, source_id: i32, text: &str, leaf_index: i64) -> bool {
        let Some(names) = self.names.get(&source_id) else {
            return true;
        };
        let last = names.last().is_some_and(|(from, _)| *from <= leaf_index);
        name_at(names, leaf_index) == Some(text) || last && text == self.text
    }
}

fn name_at(names: &[(i64, String)], leaf_index: i64) -> Option<&str> {
    let then = names.iter().rev().find(|(from, _)| *from <= leaf_index);
    then.or(names.first()).map(|(_, name)| name.as_str())
}

/// True if the key's columns have labels that may get other names.
pub fn has_labels(shape: &Shape) -> bool {
    shape.key.iter().any(|a| a.definition.is_some())
}

/// What a row that the entry at `leaf_index` calls `key` is called under each version of the columns, with the leaf
/// index from which that counts.
fn names(
    shape: &Shape,
    key: &str,
    of: impl Fn(&Attribute) -> Option<Definition>,
) -> Vec<(i64, String)> {
    let Ok(given) = parts(shape, key) else {
        return Vec::new();
    };
    let under = |version: &Version| {
        let part = |(attribute, part): (&Attribute, &String)| {
            let there = of(attribute);
            let then = definition_of(version, attribute);
            let renamed = then.and_then(|then| then.renamed(part, there.as_ref()?));
            renamed.map_or_else(|| part.clone(), str::to_owned)
        };
        let name = text(shape.key.iter().zip(&given).map(part).collect());
        (version.from_leaf_index, name)
    };
    shape.versions.iter().map(under).collect()
}

fn definition_of<'v>(version: &'v Version, attribute: &Attribute) -> Option<&'v Definition> {
    let column = version
        .columns
        .iter()
        .find(|c| c.attnum == Some(attribute.attnum));
    column.and_then(|c| c.definition.as_ref())
}

/// What the row that the entry at leaf index `at` calls `key` is called under each version of the columns, with the
/// leaf index from which that counts.
pub fn names_of(shape: &Shape, key: &str, at: i64) -> Vec<(i64, String)> {
    let version = shape.version_of(at);
    names(shape, key, |a| definition_of(version, a).cloned())
}

/// What that row is called by entries at leaf index `then`.
pub fn name_then(shape: &Shape, key: &str, at: i64, then: i64) -> String {
    let names = names_of(shape, key, at);
    name_at(&names, then).unwrap_or(key).to_owned()
}

/// The key columns whose values cannot be told under an earlier version of the columns: labels inside of arrays,
/// ranges and composite values got other names.
pub fn untold(shape: &Shape) -> Vec<&str> {
    let is_untold = |column: &&Attribute| {
        let now = column.definition.as_ref();
        let mut then = shape
            .versions
            .iter()
            .filter_map(|v| definition_of(v, column));
        !matches!(now, None | Some(Definition::Enum(_))) && then.any(|then| Some(then) != now)
    };
    let untold = shape.key.iter().filter(is_untold);
    untold.map(|column| column.name.as_str()).collect()
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
    if !has_labels(shape) {
        return Vec::new();
    }
    let mut found: Vec<String> = Vec::new();
    for (_, then) in names(shape, key, |a| a.definition.clone()) {
        if then != key && !found.contains(&then) {
            found.push(then);
        }
    }
    found
}

/// What the row that has `key` now has in other columns: the text that these would be as its key. `None` if there is no
/// such row.
pub fn of_row_now(
    shape: &Shape,
    key: &str,
    columns: &[Attribute],
) -> Result<Option<String>, Error> {
    let statement = statement::rows_by_key(shape, columns, &[parts(shape, key)?]);
    let read = |row: &Row| {
        let part = |(place, column): (usize, &Attribute)| {
            // SAFETY: the statement reads these columns, in this order.
            row.datum(place)
                .map(|d| unsafe { datum::output(column.base_type, d) })
        };
        let parts: Option<Vec<String>> = columns.iter().enumerate().map(part).collect();
        parts.map(text)
    };
    let row = TableQuery::on(shape).first(Snapshot::Fresh, &statement, read);
    Ok(row.flatten())
}

/// A key's columns as texts, from the text form of the key. The texts are what was given, not
/// necessarily as the types write them.
pub fn parts(shape: &Shape, key: &str) -> Result<Vec<String>, Error> {
    split(&shape.source.name, shape.key.len(), key)
}

pub fn split(table: &str, columns: usize, key: &str) -> Result<Vec<String>, Error> {
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
    /// The table's sources of the log that had the key that the last one has, removed ones too, oldest first.
    pub sources: Vec<i32>,
    /// Those that had another key.
    pub others: Vec<i32>,
    /// Of `sources`, those whose keys have labels that may get other names.
    labelled: Vec<Shape>,
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

    /// By the key that one source of the table has.
    pub fn of_source(session: &Session, log: &Log, source: &Source) -> Result<Finder, Error> {
        session.pinned(|| {
            Finder::of_sources(session, log, source.relation, std::slice::from_ref(source))
        })
    }

    fn make(session: &Session, log: &Log, relation: pg_sys::Oid) -> Result<Finder, Error> {
        let mut of_table = sources::all(session, log);
        of_table.retain(|s| s.relation == relation);
        Finder::of_sources(session, log, relation, &of_table)
    }

    fn of_sources(
        session: &Session,
        log: &Log,
        relation: pg_sys::Oid,
        of_table: &[Source],
    ) -> Result<Finder, Error> {
        let latest = of_table.last().ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
        })?;
        let name = latest.name.clone();
        let key = Shape::load(session, log, latest)?.key;
        let numbers = |key: &[Attribute]| key.iter().map(|a| a.attnum).collect::<Vec<_>>();
        let shapes = of_table
            .iter()
            .map(|s| (s.id, Shape::load(session, log, s)));
        // A key of other columns is no key of these, whatever its text.
        let (same, others): (Vec<_>, Vec<_>) = shapes.partition(|(_, shape)| {
            shape
                .as_ref()
                .is_ok_and(|s| numbers(&s.key) == numbers(&key))
        });
        Ok(Finder {
            name,
            sources: same.iter().map(|(id, _)| *id).collect(),
            others: others.iter().map(|(id, _)| *id).collect(),
            labelled: same
                .into_iter()
                .filter_map(|(_, shape)| shape.ok().filter(has_labels))
                .collect(),
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

    /// A key's columns as texts.
    pub fn parts(&self, key: &RowKey) -> Result<Vec<String>, Error> {
        split(&self.name, self.key.len(), &key.text)
    }

    /// A key as entries have it, from what the key's types accept.
    pub fn key(&self, session: &Session, key: GivenKey) -> Result<RowKey, Error> {
        let parts = key.parts(&self.name, &self.key)?;
        match self.needs_pinned_settings {
            true => session.pinned(|| self.normal(parts)),
            false => self.normal(parts),
        }
    }

    fn normal(&self, parts: Vec<String>) -> Result<RowKey, Error> {
        let mut order = None;
        let normal = |(column, part): (&Attribute, &String)| {
            let value = datum::input(column.base_type, part);
            if self.key.len() == 1 {
                order = sort_key_of(column.base_type, value.datum());
            }
            // SAFETY: a value that was just made of this type.
            unsafe { datum::output(column.base_type, value.datum()) }
        };
        let text = text(self.key.iter().zip(&parts).map(normal).collect());
        let of_source = |shape: &Shape| {
            let names = names(shape, &text, |a| a.definition.clone());
            (shape.source.id, names)
        };
        let names = self.labelled.iter().map(of_source).collect();
        Ok(RowKey { text, order, names })
    }
}

/// The key of the entry at `leaf_index` as an order value, where it is one: as a value of the type that the column had
/// then, since the entry stands where that one goes. Raises the type's own error where the text is not a value of it.
pub fn sort_key(shape: &Shape, key: &str, leaf_index: i64) -> Option<SortKey> {
    let [column] = shape.key.as_slice() else {
        return None;
    };
    let version = shape.version_of(leaf_index);
    let mut columns = version.columns.iter();
    let then = columns.find(|c| c.attnum == Some(column.attnum));
    let then = then.and_then(|c| datum::base_type_if_known(c.type_oid?));
    let base_type = then.unwrap_or(column.base_type);
    let value = datum::input(base_type, key);
    sort_key_of(base_type, value.datum())
}

/// An order value of a source from its text. Raises the type's own error where the text is not a value of it.
pub fn order_value(shape: &Shape, text: &str) -> OrderValue {
    let column = shape.order();
    let value = shape.input(column, text);
    // SAFETY: the value was just made for this column.
    let value = unsafe { Decoder::of_column(column).decode(Some(value.datum())) };
    OrderValue::new(column.base_type, &value)
}

/// `value` must be one of the type.
fn sort_key_of(base_type: pg_sys::Oid, value: pg_sys::Datum) -> Option<SortKey> {
    Domain::of_type(base_type)?;
    // SAFETY: both callers have just made the value for this type.
    let value = unsafe { Decoder::of_type(base_type, None).decode(Some(value)) };
    OrderValue::new(base_type, &value).sort_key()
}

fn forget(_: Changed) {
    STALE.set(true);
}
