//! Which columns of a source table make up its leaves, now and under every earlier version.
//!
//! Columns are followed by attribute number, so that a renamed column is still the same column, and stays what it
//! is: part of the key, the order column, one that is logged. A dump and restore renumbers them: then, once, they are
//! found by name and order (`binding`).

use super::binding;
use super::ready;
use super::retyped::Retyped;
use super::table::{Attribute, Table};
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::{self, Column, Version};
use crate::encode::definition::{DEPTH, Definition};
use crate::error::Error;
use crate::pg::{datum, lock, relcache};
use crate::session::Session;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;

/// A source bound to its table as it is now.
#[derive(Clone, Debug)]
pub struct Shape {
    pub source: Source,
    pub table: Table,
    /// First to last; the last is in force.
    pub versions: Vec<Version>,
    /// The key columns, in the order of the key's text form.
    pub key: Vec<Attribute>,
    /// What rows are read in order of: the order column, if there is one, then the key columns not yet
    /// named.
    pub sort: Vec<Attribute>,
    /// Version 0.3.0 did not put on record all that the columns are known by.
    incomplete: bool,
}

impl Shape {
    /// Binds `source` to its table as it is now. Writes nothing: `record` does.
    pub fn load(session: &Session, log: &Log, source: &Source) -> Result<Shape, Error> {
        Shape::of_versions(session, log, source, versions::load(session, source.id))
    }

    /// As `load`, with versions that were read before.
    pub fn of_versions(
        session: &Session,
        log: &Log,
        source: &Source,
        versions: Vec<Version>,
    ) -> Result<Shape, Error> {
        let table = Table::load(session, source.relation).ok_or_else(|| Error::SourceGone {
            log: log.name.clone(),
            table: source.name.clone(),
            relation: source.relation.to_u32(),
        })?;
        let now = identity(session, table.oid);
        if now != source.bound_to && database_of(&now) == database_of(&source.bound_to) {
            return Err(Error::AnotherTable {
                log: log.name.clone(),
                table: source.name.clone(),
                relation: source.relation.to_u32(),
            });
        }
        Shape::bound(session, log, source, table, versions)
    }

    /// Binds `source` to a table, whichever that is: someone says that it is the source's.
    fn bound(
        session: &Session,
        log: &Log,
        source: &Source,
        table: Table,
        versions: Vec<Version>,
    ) -> Result<Shape, Error> {
        let Bound {
            versions,
            incomplete,
        } = bind(session, source, &table, versions);
        let current = versions.last().ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!("source \"{}\" has no version", source.name),
        })?;
        let find = |column: &Column| find(&table, log, source, column);
        let order = current.columns.iter().find(|c| c.orders);
        let order = order.map(find).transpose()?;
        let mut key: Vec<&Column> = current.columns.iter().filter(|c| c.key.is_some()).collect();
        key.sort_by_key(|c| c.key);
        let key = key.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let ordered_by = order.as_ref().map(|a| a.attnum);
        let others = key.iter().filter(|a| Some(a.attnum) != ordered_by).cloned();
        let sort: Vec<Attribute> = order.into_iter().chain(others).collect();
        if key.is_empty() {
            return Err(Error::Damaged {
                log: log.name.clone(),
                problem: format!("the key of source \"{}\" is not on record", source.name),
            });
        }
        Ok(Shape {
            source: source.clone(),
            table,
            versions,
            key,
            sort,
            incomplete,
        })
    }

    /// As `load`, of a source that was restored into the database that it is of, where its table has another
    /// number now; `None` of any other.
    pub fn restored(session: &Session, log: &Log, source: &Source) -> Option<Shape> {
        let table = Table::load(session, source.relation)?;
        let now = identity(session, table.oid);
        if now == source.bound_to || database_of(&now) != database_of(&source.bound_to) {
            return None;
        }
        let versions = versions::load(session, source.id);
        Shape::bound(session, log, source, table, versions).ok()
    }

    /// As `load`, for those who then read rows: what is found out about the columns stays true until
    /// the end of the transaction.
    pub fn locked(session: &Session, log: &Log, source: &Source) -> Result<Shape, Error> {
        lock::access_share(source.relation);
        Shape::load(session, log, source)
    }

    /// The relations and types (`relcache::type_hash`) whose definitions decide what is known about the table.
    pub fn depends_on(&self) -> (Vec<pg_sys::Oid>, Vec<u32>) {
        let attributes = &self.table.attributes;
        let altered = attributes.iter().filter(|a| a.definition.is_some());
        let composite = altered.flat_map(|a| Definition::relations(a.base_type));
        let own = self.table.written_through.iter().copied();
        let relations = composite.chain(own).chain([self.table.oid]).collect();
        let of_users = attributes.iter().map(|a| a.type_oid);
        let types = of_users
            .filter(|oid| oid.to_u32() >= pg_sys::FirstNormalObjectId)
            .map(relcache::type_hash)
            .collect();
        (relations, types)
    }

    /// How texts that a column's values had under another type are read; `None` if they never had others.
    pub fn retyped(&self, column: &Attribute) -> Option<Retyped> {
        Retyped::of(&self.versions, column)
    }

    /// A value of a column from a text that it has or had; raises the type's own error where it is none.
    pub fn input(&self, column: &Attribute, text: &str) -> datum::Value {
        match self.retyped(column) {
            None => datum::input(column.base_type, text),
            Some(retyped) => datum::input(column.base_type, &retyped.text(text)),
        }
    }

    /// The same table for a source that differs only in what is no part of its binding, such as its watermark.
    pub fn with_source(&self, source: &Source) -> Shape {
        Shape {
            source: source.clone(),
            ..self.clone()
        }
    }

    /// The version in force.
    pub fn current(&self) -> &Version {
        self.versions
            .last()
            .expect("load refuses a source without versions")
    }

    /// The version that the entry at `leaf_index` was logged under.
    pub fn version_of(&self, leaf_index: i64) -> &Version {
        self.versions
            .iter()
            .rev()
            .find(|v| v.from_leaf_index <= leaf_index)
            .unwrap_or(&self.versions[0])
    }

    /// The names that stand for another column, label or attribute now than they did under a version: rows that were
    /// logged under it read otherwise than they did.
    pub fn reused(&self, version: &Version) -> Vec<String> {
        let reused = |column: &Column| {
            let Some(now) = column.attnum.and_then(|n| self.table.attribute(n)) else {
                return Vec::new();
            };
            let named = self.table.attributes.iter().find(|a| a.name == column.name);
            let mut names = match named.is_some_and(|a| a.attnum != now.attnum) {
                true => vec![format!("column {}", column.name)],
                false => Vec::new(),
            };
            let inner = column.definition.as_ref();
            let inner = inner.map(|then| then.reused(now.definition.as_ref()));
            names.extend(
                inner
                    .unwrap_or_default()
                    .into_iter()
                    .map(|name| format!("{name} of column {}", now.name)),
            );
            names
        };
        let logged = version
            .columns
            .iter()
            .filter(|c| c.logged || c.key.is_some());
        logged.flat_map(reused).collect()
    }

    /// How the columns that entries are made of differ now from those that the entry at `leaf_index` was made of, in
    /// words; `None` if they do not.
    pub fn changes_since(&self, leaf_index: i64) -> Option<String> {
        let now = Version {
            columns: self.columns_now().ok()?,
            ..self.current().clone()
        };
        difference(self.version_of(leaf_index), &now)
    }

    /// What rows are read in order of first: the order column, where there is one.
    pub fn order(&self) -> &Attribute {
        &self.sort[0]
    }

    /// That the table can still be read as the source promises.
    pub fn check(&self, session: &Session, log: &Log) -> Result<(), Error> {
        self.table.check_fit(&log.name)?;
        if !self.source.by_trigger() {
            self.table.check_order(session, &log.name, self.order())?;
        }
        self.table
            .check_key(session, &self.key.iter().collect::<Vec<_>>())
    }

    /// Starts a new version if the table's columns differ from those of the version in force, and
    /// stores new names and numbers. `size` is the leaf index from which the new version counts.
    pub fn record(&mut self, session: &Session, size: i64) -> Result<(), Error> {
        if ready::is_recorded(&self.source) {
            return Ok(());
        }
        let since = ready::now();
        let incomplete = self.incomplete;
        let changed = self.rebind(session) | self.follow_names();
        if changed {
            sources::update(session, &self.source);
        }
        let columns = self.columns_now()?;
        let known = self.versions.len();
        record_columns(session, &self.source, &mut self.versions, size, columns);
        // Where nothing is written, a rollback takes nothing of it back.
        if !incomplete && !changed && self.versions.len() == known {
            ready::keep_recorded(since, &self.source);
        }
        Ok(())
    }

    /// Stores what the columns are known by, after the table was restored from a dump or the extension was
    /// updated from version 0.3.0. True if it was restored.
    pub fn rebind(&mut self, session: &Session) -> bool {
        let identity = identity(session, self.table.oid);
        let rebound = identity != self.source.bound_to;
        if rebound || self.incomplete {
            self.source.bound_to = identity;
            self.incomplete = false;
            self.versions
                .iter()
                .for_each(|v| versions::rebind(session, self.source.id, v));
            relcache::invalidate(self.source.relation);
        }
        rebound
    }

    /// The columns as a new version would have them.
    pub fn columns_now(&self) -> Result<Vec<Column>, Error> {
        let current = self.current();
        let logged = match &current.hash_column {
            Some(name) => {
                let hash = current
                    .column(name)
                    .and_then(|c| self.table.attribute(c.attnum?));
                let hash = hash.ok_or_else(|| Error::NoSuchColumn {
                    table: self.table.name.clone(),
                    column: name.clone(),
                })?;
                Logged::hash(&self.table, hash)?
            }
            None if self.source.columns.is_some() => Logged::These(self.logged()),
            None => Logged::All,
        };
        self.columns_with(logged)
    }

    /// The columns as a new version would have them that logs others.
    pub fn columns_with(&self, logged: Logged) -> Result<Vec<Column>, Error> {
        let order = self.current().columns.iter().any(|c| c.orders);
        columns(&self.table, &self.key, order.then(|| self.order()), logged)
    }

    /// The columns that are logged under the version in force, as far as they are there.
    fn logged(&self) -> Vec<&Attribute> {
        let logged = self.current().columns.iter().filter(|c| c.logged);
        logged
            .filter_map(|c| self.table.attribute(c.attnum?))
            .collect()
    }

    /// Lets the names in the source's settings, which are there for people, follow renamed columns. True if any
    /// changed.
    pub fn follow_names(&mut self) -> bool {
        let names = |attributes: &[&Attribute]| -> Vec<String> {
            attributes.iter().map(|a| a.name.clone()).collect()
        };
        let current = self.current();
        let hash = current.hash_column.as_ref().map(|name| {
            let hash = current
                .column(name)
                .and_then(|c| self.table.attribute(c.attnum?));
            hash.map_or_else(|| name.clone(), |a| a.name.clone())
        });
        let mut after = self.source.clone();
        after.order_column = after.order_column.map(|_| self.sort[0].name.clone());
        after.key_columns = self.key.iter().map(|a| a.name.clone()).collect();
        after.columns = after.columns.map(|_| names(&self.logged()));
        after.hash_column = hash;
        let changed = after.order_column != self.source.order_column
            || after.key_columns != self.source.key_columns
            || after.columns != self.source.columns
            || after.hash_column != self.source.hash_column;
        self.source = after;
        changed
    }
}

/// Starts a new version if `columns` differ from those of the version in force, the last.
pub fn record_columns(
    session: &Session,
    source: &Source,
    versions: &mut Vec<Version>,
    size: i64,
    columns: Vec<Column>,
) {
    let Some(current) = versions.last() else {
        return;
    };
    let next = Version {
        number: current.number + 1,
        from_leaf_index: size,
        hash_column: source.hash_column.clone(),
        columns,
    };
    if let Some(change) = difference(current, &next) {
        versions::insert(session, source.id, &next, &change);
        relcache::invalidate(source.relation);
        versions.push(next);
    }
}

thread_local! {
    /// The cluster and database that the session is in.
    static DATABASE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What attribute numbers refer to: a table of one database of one cluster.
pub fn identity(session: &Session, relation: pg_sys::Oid) -> String {
    let known = DATABASE.with_borrow(Clone::clone);
    let database = known.unwrap_or_else(|| {
        let found: Option<String> = session.fresh_one(
            "SELECT pg_catalog.format('%s/%s', s.system_identifier, d.oid)
               FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
              WHERE d.datname = pg_catalog.current_database()",
            &[],
            |row| row.required(0),
        );
        let found = found.expect("the current database exists");
        DATABASE.set(Some(found.clone()));
        found
    });
    format!("{database}/{}", relation.to_u32())
}

/// The table that a source was bound to in this database; `None` if it was bound in another.
pub fn bound_here(session: &Session, bound_to: &str) -> Option<pg_sys::Oid> {
    let number: u32 = bound_to.rsplit('/').next()?.parse().ok()?;
    let oid = pg_sys::Oid::from(number);
    (identity(session, oid) == bound_to).then_some(oid)
}

/// The cluster and database of what `identity` gave.
fn database_of(identity: &str) -> &str {
    identity
        .rsplit_once('/')
        .map_or("", |(database, _)| database)
}

/// True while a source's `relation` is the table that was registered: neither gone, nor another one that
/// has got its number since, as after a restore.
pub fn is_still_its_table(session: &Session, source: &Source) -> bool {
    let name = session.fresh_one(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[source.relation.into()],
        |row| row.required::<String>(0),
    );
    // A restored table is bound to the source by its name, at the next batch.
    name.is_some_and(|name| {
        identity(session, source.relation) == source.bound_to
            || !source.removed
                && name == sources::table_name(&source.name)
                && database_of(&identity(session, source.relation)) != database_of(&source.bound_to)
    })
}

/// Which columns make up the leaves.
pub enum Logged<'a> {
    All,
    These(Vec<&'a Attribute>),
    /// The key and this one, which brings the row's hash.
    Hash(&'a Attribute),
}

impl Logged<'_> {
    /// As given by name; `hash` and `columns` as `add_source` takes them.
    pub fn named<'a>(
        table: &'a Table,
        hash: Option<&str>,
        columns: Option<&[String]>,
    ) -> Result<Logged<'a>, Error> {
        Ok(match (hash, columns) {
            (Some(hash), _) => Logged::hash(table, table.attribute_named(hash)?)?,
            (None, Some(names)) => Logged::These(
                names
                    .iter()
                    .map(|name| table.attribute_named(name))
                    .collect::<Result<_, _>>()?,
            ),
            (None, None) => Logged::All,
        })
    }

    fn hash<'a>(table: &Table, column: &'a Attribute) -> Result<Logged<'a>, Error> {
        match column.base_type {
            pg_sys::BYTEAOID | pg_sys::TEXTOID | pg_sys::VARCHAROID => Ok(Logged::Hash(column)),
            _ => Err(Error::HashType {
                table: table.name.clone(),
                column: column.name.clone(),
                type_name: column.type_name.clone(),
            }),
        }
    }

    fn has(&self, attribute: &Attribute, key: &[Attribute]) -> bool {
        let same = |a: &Attribute| a.attnum == attribute.attnum;
        match self {
            Logged::All => true,
            Logged::These(these) => these.iter().any(|a| same(a)),
            Logged::Hash(hash) => same(hash) || key.iter().any(same),
        }
    }
}

/// The columns of a version.
pub fn columns(
    table: &Table,
    key: &[Attribute],
    order: Option<&Attribute>,
    logged: Logged,
) -> Result<Vec<Column>, Error> {
    let column = |a: &Attribute| {
        let place = key.iter().position(|k| k.attnum == a.attnum);
        Column {
            name: a.name.clone(),
            type_name: a.type_name.clone(),
            attnum: Some(a.attnum),
            logged: logged.has(a, key),
            key: place.map(|place| place as i16 + 1),
            orders: order.is_some_and(|o| o.attnum == a.attnum),
            type_oid: Some(a.type_oid.to_u32()),
            type_modifier: Some(a.type_modifier),
            definition: a.definition.clone(),
        }
    };
    let known = |c: &Column| c.logged || c.orders || c.key.is_some();
    let columns: Vec<Column> = table.attributes.iter().map(column).filter(known).collect();
    let is_too_deep = |c: &&Column| c.definition.as_ref().is_some_and(Definition::is_too_deep);
    match columns.iter().find(is_too_deep) {
        None => Ok(columns),
        Some(column) => Err(Error::TypeDepth {
            table: table.name.clone(),
            column: column.name.clone(),
            levels: DEPTH,
        }),
    }
}

/// The column of the table that a version's key or order column is now.
fn find(table: &Table, log: &Log, source: &Source, column: &Column) -> Result<Attribute, Error> {
    let (log, name) = (log.name.clone(), column.name.clone());
    let Some(number) = column.attnum else {
        return Err(Error::KeyUnknown {
            log,
            table: source.name.clone(),
            column: name,
        });
    };
    table.attribute(number).cloned().ok_or(Error::KeyDropped {
        log,
        table: source.name.clone(),
        column: name,
    })
}

struct Bound {
    versions: Vec<Version>,
    incomplete: bool,
}

/// The versions with what their columns are known by in the table as it is now.
fn bind(session: &Session, source: &Source, table: &Table, mut versions: Vec<Version>) -> Bound {
    let incomplete = complete(source, &mut versions);
    if identity(session, table.oid) != source.bound_to {
        renumber(&mut versions, source, table);
    }
    let mut adopted = false;
    for column in versions.iter_mut().flat_map(|v| &mut v.columns) {
        adopted |= adopt(column, table);
    }
    Bound {
        versions,
        incomplete: incomplete || adopted,
    }
}

/// Version 0.3.0 knew key and order column by their names only. True if that was so.
fn complete(source: &Source, versions: &mut [Version]) -> bool {
    if versions
        .last()
        .is_none_or(|v| v.columns.iter().any(|c| c.key.is_some()))
    {
        return false;
    }
    let number = |name: &String| versions.iter().rev().find_map(|v| v.column(name)?.attnum);
    let key: Vec<Option<i16>> = source.key_columns.iter().map(number).collect();
    let order = source.order_column.as_ref().and_then(number);
    for column in versions.iter_mut().flat_map(|v| &mut v.columns) {
        if column.attnum.is_some() {
            let place = key.iter().position(|k| *k == column.attnum);
            column.key = place.map(|place| place as i16 + 1);
            column.orders = order == column.attnum;
        }
    }
    true
}

/// Takes over what version 0.3.0 did not put on record of a column's type, where it still is that type.
fn adopt(column: &mut Column, table: &Table) -> bool {
    let attribute = column.attnum.and_then(|n| table.attribute(n));
    match attribute {
        Some(a) if column.type_oid.is_none() && a.type_name == column.type_name => {
            column.type_oid = Some(a.type_oid.to_u32());
            column.type_modifier = Some(a.type_modifier);
            column.definition = a.definition.clone();
            true
        }
        _ => false,
    }
}

/// Gives columns the numbers that they have in a table that was restored from a dump, if it is certain which is
/// which.
pub fn renumber(versions: &mut [Version], source: &Source, table: &Table) {
    let Some(last) = versions.last() else {
        return;
    };
    let mut recorded: Vec<&Column> = last.columns.iter().filter(|c| c.attnum.is_some()).collect();
    recorded.sort_by_key(|c| c.attnum);
    let names: Vec<String> = recorded.iter().map(|c| c.name.clone()).collect();
    let now: Vec<String> = table.attributes.iter().map(|a| a.name.clone()).collect();
    let all = source.columns.is_none() && last.hash_column.is_none();
    let renumbered: HashMap<i16, &Attribute> = recorded
        .iter()
        .zip(binding::bind(&names, &now, all))
        .filter_map(|(column, place)| Some((column.attnum?, &table.attributes[place?])))
        .collect();
    for column in versions.iter_mut().flat_map(|v| &mut v.columns) {
        let attribute = column.attnum.and_then(|n| renumbered.get(&n));
        column.attnum = attribute.map(|a| a.attnum);
        if let Some(attribute) = attribute
            && column.type_name == attribute.type_name
        {
            column.type_oid = Some(attribute.type_oid.to_u32());
            column.type_modifier = Some(attribute.type_modifier);
            if let Some(definition) = &mut column.definition {
                definition.rebind(attribute.definition.as_ref());
            }
        }
    }
}

/// What `next` changes about `last`, in words; `None` if nothing.
fn difference(last: &Version, next: &Version) -> Option<String> {
    let mut words = Vec::new();
    let by_number = |v: &Version, n: Option<i16>| {
        v.columns
            .iter()
            .find(|c| n.is_some() && c.attnum == n)
            .cloned()
    };
    for old in &last.columns {
        match by_number(next, old.attnum) {
            None => words.push(format!("column {} is gone", old.name)),
            Some(new) => {
                if new.name != old.name {
                    words.push(format!("column {} is now {}", old.name, new.name));
                }
                if new.type_name != old.type_name {
                    words.push(format!(
                        "column {} is now {} instead of {}",
                        new.name, new.type_name, old.type_name
                    ));
                }
                if let (Some(last), Some(next)) = (&old.definition, &new.definition) {
                    let changes = last.changes(next).into_iter();
                    words.extend(changes.map(|change| format!("column {}: {change}", new.name)));
                }
                if new.logged != old.logged {
                    let how = if new.logged { "now" } else { "no longer" };
                    words.push(format!("column {} is {how} logged", new.name));
                }
            }
        }
    }
    for new in &next.columns {
        if by_number(last, new.attnum).is_none() {
            words.push(format!("column {} {} is new", new.name, new.type_name));
        }
    }
    if last.hash_column != next.hash_column {
        words.push(match &next.hash_column {
            Some(column) => format!("hash column is {column}"),
            None => "rows are hashed by the log".to_owned(),
        });
    }
    (!words.is_empty()).then(|| words.join("; "))
}
