//! Which columns of a source table make up its leaves, now and under every earlier version.
//!
//! Columns are followed by attribute number, so that a renamed column is still the same column. A
//! dump and restore renumbers them: then, once, they are followed by name.

use super::table::{Attribute, Table};
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::{self, Column, Version};
use crate::error::Error;
use crate::pg::{lock, relcache};
use crate::session::Session;
use pgrx::pg_sys;
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
        let versions = bind(session, source, &table, versions);
        let current = versions.last().ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!("source \"{}\" has no version", source.name),
        })?;
        let find = |name: &String| {
            current
                .column(name)
                .and_then(|c| table.attribute(c.attnum?))
                .cloned()
                .ok_or_else(|| Error::KeyDropped {
                    log: log.name.clone(),
                    table: source.name.clone(),
                    column: name.clone(),
                })
        };
        let order = source.order_column.as_ref().map(find).transpose()?;
        let key = source
            .key_columns
            .iter()
            .map(find)
            .collect::<Result<Vec<_>, _>>()?;
        let ordered_by = order.as_ref().map(|a| a.attnum);
        let others = key.iter().filter(|a| Some(a.attnum) != ordered_by).cloned();
        let sort = order.into_iter().chain(others).collect();
        Ok(Shape {
            source: source.clone(),
            table,
            versions,
            key,
            sort,
        })
    }

    /// As `load`, for those who then read rows: what is found out about the columns stays true until
    /// the end of the transaction.
    pub fn locked(session: &Session, log: &Log, source: &Source) -> Result<Shape, Error> {
        lock::access_share(source.relation);
        Shape::load(session, log, source)
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
        let rebound = self.rebind(session);
        if self.follow_names() || rebound {
            sources::update(session, &self.source);
        }
        let columns = self.columns_now()?;
        record_columns(session, &self.source, &mut self.versions, size, columns);
        Ok(())
    }

    /// Stores the numbers that the columns have now, after the table was restored from a dump. True
    /// if it was.
    pub fn rebind(&mut self, session: &Session) -> bool {
        let identity = identity(session, self.table.oid);
        let rebound = identity != self.source.bound_to;
        if rebound {
            self.source.bound_to = identity;
            self.versions
                .iter()
                .for_each(|v| versions::rebind(session, self.source.id, v));
        }
        rebound
    }

    /// The columns as a new version would have them.
    pub fn columns_now(&self) -> Result<Vec<Column>, Error> {
        let order = self.source.order_column.as_ref().map(|_| self.order());
        columns(&self.table, &self.source, &self.key, order)
    }

    /// Lets the names in the source's settings follow renamed columns; drops logged columns that
    /// are gone. True if any changed.
    fn follow_names(&mut self) -> bool {
        let now: HashMap<&str, Option<&str>> = self
            .current()
            .columns
            .iter()
            .map(|c| {
                let attribute = c.attnum.and_then(|n| self.table.attribute(n));
                (c.name.as_str(), attribute.map(|a| a.name.as_str()))
            })
            .collect();
        // A name the version in force does not know was just given by alter_source.
        let follow = |name: &String| match now.get(name.as_str()) {
            Some(new) => new.map(str::to_owned),
            None => Some(name.clone()),
        };
        let mut after = self.source.clone();
        after.order_column = after.order_column.map(|_| self.sort[0].name.clone());
        after.key_columns = self.key.iter().map(|a| a.name.clone()).collect();
        after.columns = after
            .columns
            .map(|names| names.iter().filter_map(follow).collect());
        after.hash_column = after.hash_column.map(|name| follow(&name).unwrap_or(name));
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

/// What attribute numbers refer to: a table of one database of one cluster.
pub fn identity(session: &Session, relation: pg_sys::Oid) -> String {
    session
        .fresh_one(
            "SELECT pg_catalog.format('%s/%s/%s', s.system_identifier, d.oid, $1)
               FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
              WHERE d.datname = pg_catalog.current_database()",
            &[relation.into()],
            |row| row.required(0),
        )
        .expect("the current database exists")
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
            || !source.removed && name == source.name
    })
}

/// The columns of a first version; also checks that all of them exist.
pub fn columns(
    table: &Table,
    source: &Source,
    key: &[Attribute],
    order: Option<&Attribute>,
) -> Result<Vec<Column>, Error> {
    let logged: Vec<i16> = match (&source.hash_column, &source.columns) {
        (Some(hash), _) => {
            let hash = table.attribute_named(hash)?;
            if !matches!(
                hash.base_type,
                pg_sys::BYTEAOID | pg_sys::TEXTOID | pg_sys::VARCHAROID
            ) {
                return Err(Error::HashType {
                    table: table.name.clone(),
                    column: hash.name.clone(),
                    type_name: hash.type_name.clone(),
                });
            }
            key.iter().map(|a| a.attnum).chain([hash.attnum]).collect()
        }
        (None, Some(names)) => names
            .iter()
            .map(|name| table.attribute_named(name).map(|a| a.attnum))
            .collect::<Result<_, _>>()?,
        (None, None) => table.attributes.iter().map(|a| a.attnum).collect(),
    };
    let known = |a: &&Attribute| {
        logged.contains(&a.attnum)
            || order.is_some_and(|o| o.attnum == a.attnum)
            || key.iter().any(|k| k.attnum == a.attnum)
    };
    Ok(table
        .attributes
        .iter()
        .filter(known)
        .map(|a| Column {
            name: a.name.clone(),
            type_name: a.type_name.clone(),
            attnum: Some(a.attnum),
            logged: logged.contains(&a.attnum),
        })
        .collect())
}

/// The versions with attribute numbers of the table as it is now.
fn bind(
    session: &Session,
    source: &Source,
    table: &Table,
    mut versions: Vec<Version>,
) -> Vec<Version> {
    if identity(session, table.oid) == source.bound_to {
        return versions;
    }
    let Some(last) = versions.last().cloned() else {
        return versions;
    };
    let renumbered: HashMap<i16, i16> = last
        .columns
        .iter()
        .filter_map(|c| Some((c.attnum?, table.attribute_named(&c.name).ok()?.attnum)))
        .collect();
    for column in versions.iter_mut().flat_map(|v| &mut v.columns) {
        column.attnum = column.attnum.and_then(|n| renumbered.get(&n).copied());
    }
    versions
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
