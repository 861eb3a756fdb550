//! Sources that were found ready, kept in the session until something that this depends on changes.
//!
//! Whether a source is ready is read from the server's catalogs and from our own, by a dozen statements. The server
//! tells every session which definitions change, so that a session asks again only about the sources that these are
//! of. An alteration of the extension's own tables by hand is told by nobody: `verify_log` finds it.

use super::shape::Shape;
use crate::catalog::sources::Source;
use crate::pg::relcache::{self, Changed};
use crate::pg::server;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A source that is ready, and what else was found out about it.
struct Ready {
    shape: Shape,
    /// Its triggers are all there, and its order column is filled as it should be.
    guarded: bool,
    /// Its columns and names are those on record.
    recorded: bool,
    /// Its partitions are those on record.
    partitions_recorded: bool,
    /// Its table is defined as is on record.
    described: bool,
    /// The sequences that fill its order column, where they were asked for.
    sequences: Option<Vec<pg_sys::Oid>>,
}

#[derive(Default)]
struct Known {
    sources: HashMap<i32, Ready>,
    /// The sources that depend on a definition.
    dependents: HashMap<Changed, Vec<i32>>,
}

impl Known {
    fn depend(&mut self, source_id: i32, definitions: impl Iterator<Item = Changed>) {
        for definition in definitions {
            let dependents = self.dependents.entry(definition).or_default();
            if !dependents.contains(&source_id) {
                dependents.push(source_id);
            }
        }
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
    /// How many changes were told.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

fn forget(changed: Changed) {
    CHANGES.set(CHANGES.get() + 1);
    KNOWN.with_borrow_mut(|known| match changed {
        Changed::Any => *known = Known::default(),
        changed => {
            for source in known.dependents.remove(&changed).into_iter().flatten() {
                known.sources.remove(&source);
            }
        }
    });
}

/// What was told until a moment: what is found out later is kept only if nothing has been told since.
#[derive(Clone, Copy)]
pub struct Moment(u64);

/// Before a source is looked at.
pub fn now() -> Moment {
    relcache::listen(forget);
    Moment(CHANGES.get())
}

/// Only statements of READ COMMITTED see what the server has told of.
fn is_usable() -> bool {
    server::transaction_snapshot_level().is_none()
}

fn with<T>(source: &Source, f: impl FnOnce(&mut Ready) -> T) -> Option<T> {
    if !is_usable() {
        return None;
    }
    KNOWN.with_borrow_mut(|known| {
        let ready = known.sources.get_mut(&source.id)?;
        same(&ready.shape.source, source).then(|| f(ready))
    })
}

/// True if the settings that decide how the table is read are the same.
fn same(a: &Source, b: &Source) -> bool {
    let of = |s: &Source| {
        (
            s.log_id,
            s.relation,
            s.capture,
            s.append_only,
            s.removed,
            s.hash_column.is_some(),
        )
    };
    of(a) == of(b)
        && a.bound_to == b.bound_to
        && a.order_column == b.order_column
        && a.key_columns == b.key_columns
        && a.columns == b.columns
        && a.hash_column == b.hash_column
}

/// The source bound to its table, if it is known to be ready.
pub fn shape(source: &Source) -> Option<Shape> {
    with(source, |ready| ready.shape.with_source(source))
}

/// The source bound to its table, if a batch has nothing to find out about it: it is known to be ready, and all of it is
/// on record.
pub fn settled(source: &Source) -> Option<Shape> {
    let settled = |ready: &mut Ready| {
        let is_settled = match source.by_trigger() {
            true => ready.guarded,
            false => {
                ready.recorded && (ready.partitions_recorded || !ready.shape.table.partitioned)
            }
        };
        is_settled.then(|| ready.shape.with_source(source))
    };
    with(source, settled).flatten()
}

/// Keeps that a source is ready, as was found out since `since`.
pub fn keep(since: Moment, shape: &Shape) {
    if CHANGES.get() != since.0 || !is_usable() {
        return;
    }
    let (relations, types) = shape.depends_on();
    let relations = relations.into_iter().map(Changed::Relation);
    let types = types.into_iter().map(Changed::Type);
    let id = shape.source.id;
    let ready = Ready {
        shape: shape.clone(),
        guarded: false,
        recorded: false,
        partitions_recorded: false,
        described: false,
        sequences: None,
    };
    KNOWN.with_borrow_mut(|known| {
        known.depend(id, relations.chain(types));
        known.sources.insert(id, ready);
    });
}

/// Looks at the source again the next time.
pub fn forget_source(source_id: i32) {
    KNOWN.with_borrow_mut(|known| known.sources.remove(&source_id));
}

/// True if the source is known to have all of its triggers, and an order column that is filled as it should be.
pub fn is_guarded(source: &Source) -> bool {
    with(source, |ready| ready.guarded) == Some(true)
}

pub fn keep_guarded(since: Moment, source: &Source) {
    if CHANGES.get() == since.0 {
        with(source, |ready| ready.guarded = true);
    }
}

/// True if the columns of the source are known to be those on record.
pub fn is_recorded(source: &Source) -> bool {
    with(source, |ready| ready.recorded) == Some(true)
}

pub fn keep_recorded(since: Moment, source: &Source) {
    if CHANGES.get() == since.0 {
        with(source, |ready| ready.recorded = true);
    }
}

/// True if the partitions of the source are known to be those on record.
pub fn is_partitions_recorded(source: &Source) -> bool {
    with(source, |ready| ready.partitions_recorded) == Some(true)
}

pub fn keep_partitions_recorded(since: Moment, source: &Source) {
    if CHANGES.get() == since.0 {
        with(source, |ready| ready.partitions_recorded = true);
    }
}

/// True if the table of the source is known to be defined as is on record.
pub fn is_described(source: &Source) -> bool {
    with(source, |ready| ready.described) == Some(true)
}

pub fn keep_described(since: Moment, source: &Source) {
    if CHANGES.get() == since.0 {
        with(source, |ready| ready.described = true);
    }
}

/// The sequences that fill the order column of the source, if they are known.
pub fn sequences(source: &Source) -> Option<Vec<pg_sys::Oid>> {
    with(source, |ready| ready.sequences.clone()).flatten()
}

/// What is known of the source is known until one of its sequences is altered, too.
pub fn keep_sequences(since: Moment, source: &Source, sequences: &[pg_sys::Oid]) {
    if CHANGES.get() == since.0 {
        with(source, |ready| ready.sequences = Some(sequences.to_vec()));
        let definitions = sequences.iter().copied().map(Changed::Relation);
        KNOWN.with_borrow_mut(|known| known.depend(source.id, definitions));
    }
}
