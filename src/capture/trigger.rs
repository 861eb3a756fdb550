//! Trigger capture: a change becomes leaves in the transaction that makes it.
//!
//! Statement-level triggers with transition tables see each change once, as it was stored. Processes
//! that apply what logical replication brings fire row-level triggers only, so there those capture,
//! and only there. What is queued is visible to others exactly when the change is.

use super::queue::{Pack, Packed};
use super::row_key;
use super::scan::new_salt;
use super::shape::Shape;
use super::table::{Attribute, Table};
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::Column;
use crate::catalog::{logs, versions};
use crate::encode::Decoder;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::Row;
use crate::pg::trigger::{self, Firing, Operation};
use crate::pg::{datum, relcache, settings, xact};
use crate::session::Session;
use crate::{encode, shared};
use leaf_format::{Context, Encoder, Kind, Origin, Value};
use merkle_tree::leaf_hash;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// Room for the leaf data of most rows, in bytes.
const TYPICAL: usize = 512;

/// A column of the trigger's table.
struct Place {
    /// Attribute number, from 0.
    at: usize,
    base_type: pg_sys::Oid,
    decoder: Decoder,
}

/// How the changes of one table become leaves of one source, decided once a session.
struct Plan {
    source: Source,
    log: String,
    key: Vec<Place>,
    logged: Vec<Place>,
    /// For `insert`, `update` and `delete`.
    encoders: [(Kind, Encoder); 3],
    /// The version of the source's columns, or where none on record fits, the columns.
    version: Option<i32>,
    columns: Option<Vec<String>>,
    /// The text of some value depends on settings.
    needs_pinned_settings: bool,
    pack: Pack,
}

/// By source and by the table that the trigger is on.
type Plans = HashMap<(i32, pg_sys::Oid), Option<Rc<Plan>>>;

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(HashMap::new());
    /// Server memory for a row at a time, kept from call to call and left to the process' end.
    static SCRATCH: Cell<Option<ManuallyDrop<Scratch>>> = const { Cell::new(None) };
    /// A table changed while the plans were in use.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// What the triggers of a captured table call.
pub fn capture(firing: &Firing) -> Result<(), ErrorReport> {
    let operation = firing.operation();
    if operation != Operation::Truncate && firing.for_each_row() != trigger::in_logical_worker() {
        return Ok(());
    }
    if firing.is_empty() {
        return Ok(());
    }
    let source_id = firing
        .number()
        .ok_or(Error::StrayTrigger { source_id: 0 })?;
    let Some(plan) = plan(source_id, firing.relation())? else {
        return Ok(());
    };
    let queued = match plan.needs_pinned_settings {
        true => settings::pinned(|| plan.queue(firing)),
        false => plan.queue(firing),
    }?;
    if queued {
        xact::after_commit(shared::wake_worker);
    }
    Ok(())
}

/// `None` for a table that is none of the source's any more: a partition that was detached.
fn plan(source_id: i32, relation: pg_sys::Oid) -> Result<Option<Rc<Plan>>, ErrorReport> {
    if STALE.take() {
        PLANS.take();
    }
    let known = PLANS.with_borrow(|plans| plans.get(&(source_id, relation)).cloned());
    if let Some(plan) = known {
        return Ok(plan);
    }
    relcache::listen(forget);
    let plan = Session::enter(|session| Plan::make(session, source_id, relation))?.map(Rc::new);
    PLANS.with_borrow_mut(|plans| plans.insert((source_id, relation), plan.clone()));
    Ok(plan)
}

fn forget(relation: Option<pg_sys::Oid>) {
    let ours = PLANS.with(|plans| match plans.try_borrow() {
        Ok(plans) => relation.is_none_or(|changed| {
            plans.iter().any(|((_, on), plan)| {
                *on == changed || plan.as_ref().is_some_and(|p| p.source.relation == changed)
            })
        }),
        Err(_) => true,
    });
    if ours {
        STALE.set(true);
    }
}

impl Plan {
    fn make(
        session: &Session,
        source_id: i32,
        relation: pg_sys::Oid,
    ) -> Result<Option<Plan>, Error> {
        let stray = || Error::StrayTrigger { source_id };
        let source = sources::by_id(session, source_id).ok_or_else(stray)?;
        if source.removed {
            return Ok(None);
        }
        let log = logs::by_id(session, source.log_id).ok_or_else(stray)?;
        let shape = Shape::load(session, &log, &source)?;
        let table = match relation == source.relation {
            true => shape.table.clone(),
            false if shape.table.written_through.contains(&relation) => {
                Table::load(session, relation).ok_or_else(stray)?
            }
            false => return Ok(None),
        };
        let now = shape.columns_now()?;
        let version = (shape.current().columns == now).then(|| shape.current().number);
        let place = |attribute: &Attribute| {
            let here = table.attribute_named(&attribute.name)?;
            Ok(Place {
                at: here.attnum as usize - 1,
                base_type: here.base_type,
                decoder: Decoder::of_column(here),
            })
        };
        let logged: Vec<&Column> = now.iter().filter(|c| c.logged).collect();
        let names: Vec<&str> = logged.iter().map(|c| c.name.as_str()).collect();
        let encoder = |kind| {
            let encoder = Encoder::new(&source.name, kind, &names);
            encoder.map(|e| (kind, e)).map_err(|e| Error::Damaged {
                log: log.name.clone(),
                problem: e.to_string(),
            })
        };
        let key = shape
            .key
            .iter()
            .map(place)
            .collect::<Result<Vec<_>, Error>>()?;
        let logged = logged
            .iter()
            .filter_map(|c| shape.table.attribute(c.attnum?))
            .map(place)
            .collect::<Result<Vec<_>, Error>>()?;
        let in_key = |p: &Place| encode::text_depends_on_settings(p.base_type);
        Ok(Some(Plan {
            needs_pinned_settings: key.iter().any(in_key)
                || logged.iter().any(|p| p.decoder.depends_on_settings()),
            key,
            logged,
            encoders: [
                encoder(Kind::Insert)?,
                encoder(Kind::Update)?,
                encoder(Kind::Delete)?,
            ],
            version,
            columns: version.is_none().then(|| versions::flatten(&now)),
            pack: Pack::load(session)?,
            log: log.name,
            source,
        }))
    }

    /// Queues what the trigger was called for; false if that is nothing.
    fn queue(&self, firing: &Firing) -> Result<bool, Error> {
        let (user, application) = (xact::session_user(), xact::application_name());
        let origin = Origin {
            transaction: xact::id(),
            user: &user,
            application: &application,
            at: encode::time::unix_micros(xact::statement_start()),
        };
        let mut scratch = SCRATCH
            .take()
            .unwrap_or_else(|| ManuallyDrop::new(Scratch::lasting()));
        let queued = self.queue_changes(firing, origin, &mut scratch);
        SCRATCH.set(Some(scratch));
        queued
    }

    fn queue_changes(
        &self,
        firing: &Firing,
        origin: Origin,
        scratch: &mut Scratch,
    ) -> Result<bool, Error> {
        let writer = |kind| Writer {
            plan: self,
            origin,
            kind,
            packed: Packed::default(),
            queued: false,
        };
        match firing.operation() {
            Operation::Insert | Operation::Delete => {
                let (kind, mut rows) = match firing.operation() {
                    Operation::Insert => (Kind::Insert, firing.new_rows()),
                    _ => (Kind::Delete, firing.old_rows()),
                };
                let mut changes = writer(kind);
                while let Some(row) = rows.next() {
                    changes.push(scratch, &row)?;
                }
                Ok(changes.finish(scratch))
            }
            Operation::Update => {
                // Rows that go by another key are first deleted, all of them, then inserted: keys may
                // move from row to row.
                let (mut old, mut new) = (firing.old_rows(), firing.new_rows());
                let mut deletes = writer(Kind::Delete);
                while let (Some(before), Some(after)) = (old.next(), new.next()) {
                    if scratch.scope(|| self.key_of(&before) != self.key_of(&after)) {
                        deletes.push(scratch, &before)?;
                    }
                }
                let moved = deletes.finish(scratch);
                new.rewind();
                old.rewind();
                let (mut inserts, mut updates) = (writer(Kind::Insert), writer(Kind::Update));
                while let Some(after) = new.next() {
                    let changes = match moved {
                        true if old.next().is_some_and(|before| {
                            scratch.scope(|| self.key_of(&before) != self.key_of(&after))
                        }) =>
                        {
                            &mut inserts
                        }
                        _ => &mut updates,
                    };
                    changes.push(scratch, &after)?;
                }
                Ok(inserts.finish(scratch) | updates.finish(scratch) | moved)
            }
            Operation::Truncate if self.source.allow_truncate => {
                let mut truncate = writer(Kind::Truncate);
                truncate.truncated(scratch)?;
                Ok(truncate.finish(scratch))
            }
            Operation::Truncate => Err(Error::TruncateRefused {
                log: self.log.clone(),
                table: self.source.name.clone(),
            }),
        }
    }

    fn key_of(&self, row: &Row) -> String {
        let text = |place: &Place| match (row.datum(place.at), &place.decoder) {
            (None, _) => String::new(),
            (Some(d), Decoder::Int8) => (d.value() as i64).to_string(),
            (Some(d), Decoder::Int4) => (d.value() as i32).to_string(),
            // SAFETY: the row is of the table that the place was found in.
            (Some(d), _) => unsafe { datum::output(place.base_type, d) },
        };
        row_key::text(self.key.iter().map(text).collect())
    }
}

/// Changes of one kind, packed into rows of the queue.
struct Writer<'a> {
    plan: &'a Plan,
    origin: Origin<'a>,
    kind: Kind,
    packed: Packed,
    queued: bool,
}

impl Writer<'_> {
    fn push(&mut self, scratch: &mut Scratch, row: &Row) -> Result<(), Error> {
        let plan = self.plan;
        let salt = plan.source.salted.then(new_salt);
        let mut leaf_data = Vec::with_capacity(TYPICAL);
        let encoded = scratch.scope(|| {
            let decode = |place: &Place| -> Value {
                // SAFETY: as in `key_of`; the values are used up before the row goes away.
                unsafe { place.decoder.decode(row.datum(place.at)) }
            };
            let values: Vec<Value> = plan.logged.iter().map(decode).collect();
            let context = Context {
                origin: Some(self.origin),
                salt: salt.as_deref(),
            };
            let encoder = plan.encoders.iter().find(|(kind, _)| *kind == self.kind);
            let (_, encoder) = encoder.expect("rows are inserted, updated or deleted");
            let key = plan.key_of(row);
            match encoder.encode(&values, &context, &mut leaf_data) {
                Ok(()) => Ok(key),
                Err(problem) => Err((key, problem.to_string())),
            }
        });
        let key = encoded.map_err(|(key, problem)| Error::Encode {
            log: plan.log.clone(),
            table: plan.source.name.clone(),
            key,
            problem,
        })?;
        self.add(scratch, key, leaf_data, salt);
        Ok(())
    }

    fn truncated(&mut self, scratch: &mut Scratch) -> Result<(), Error> {
        let salt = self.plan.source.salted.then(new_salt);
        let context = Context {
            origin: Some(self.origin),
            salt: salt.as_deref(),
        };
        let mut leaf_data = Vec::new();
        Encoder::new::<&str>(&self.plan.source.name, Kind::Truncate, &[])
            .and_then(|e| e.encode(&[], &context, &mut leaf_data))
            .map_err(|e| Error::Damaged {
                log: self.plan.log.clone(),
                problem: e.to_string(),
            })?;
        let key = truncation_key(self.plan.source.id);
        self.add(scratch, key, leaf_data, salt);
        Ok(())
    }

    fn add(
        &mut self,
        scratch: &mut Scratch,
        key: String,
        leaf_data: Vec<u8>,
        salt: Option<Vec<u8>>,
    ) {
        // What the log itself says is kept: there is no row to compute it from.
        let leaf = match self.plan.source.store_leaf_data || self.kind == Kind::Truncate {
            true => leaf_data,
            false => leaf_hash(&leaf_data).as_bytes().to_vec(),
        };
        if !self.packed.has_room_for(&key, &leaf) {
            self.write(scratch);
        }
        self.packed.add(key, leaf, salt);
    }

    fn write(&mut self, scratch: &mut Scratch) {
        let packed = std::mem::take(&mut self.packed);
        if packed.is_empty() {
            return;
        }
        self.queued = true;
        let plan = self.plan;
        let whole = plan.source.store_leaf_data || self.kind == Kind::Truncate;
        scratch.scope(|| {
            plan.pack.write(
                &plan.source,
                (plan.version, plan.columns.as_ref()),
                (self.kind, whole),
                &self.origin,
                packed,
            )
        });
    }

    fn finish(mut self, scratch: &mut Scratch) -> bool {
        self.write(scratch);
        self.queued
    }
}

/// The key of the entries that say that a source was truncated.
pub fn truncation_key(source_id: i32) -> String {
    format!("truncate {source_id}")
}
