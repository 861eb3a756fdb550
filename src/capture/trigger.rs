//! Trigger capture: a change becomes a leaf in the transaction that makes it.
//!
//! Row-level triggers see every change where it happens, one that moves a row to another partition or that
//! replication applies included. What they make waits in memory until the transaction commits (`gather`).

use super::change_order::Place as ChangePlace;
use super::context::Said;
use super::gather::{self, Captured, Origin};
use super::page::CapturedAs;
use super::partitions;
use super::queue::Pack;
use super::row_key;
use super::scan::new_salt;
use super::shape::{self, Shape};
use super::table::{Attribute, Table};
use super::truncation;
use crate::catalog::logs;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::Column;
use crate::encode::Decoder;
use crate::encode::{self, Settings};
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::relcache::{self, Changed};
use crate::pg::spi::Row;
use crate::pg::trigger::{Firing, Operation, Stored};
use crate::pg::{datum, error_memory, role, settings, xact};
use crate::session::Session;
use crate::store::leaves;
use crate::store::moves::{self, Tag};
use leaf_format::{Context, Encoder, Kind, Value};
use merkle_tree::leaf_hash;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// Room for the leaf data of most rows, in bytes.
const TYPICAL: usize = 512;

/// Bytes of memory that stay with the backend between rows.
const KEPT: usize = 1 << 20;

/// A column of the trigger's table.
struct Place {
    /// Attribute number, from 0.
    at: usize,
    base_type: pg_sys::Oid,
    decoder: Decoder,
}

/// How the changes of one table become leaves of one source, decided once a session.
pub struct Plan {
    source: Source,
    log: String,
    key: Vec<Place>,
    logged: Vec<Place>,
    /// For `insert`, `update` and `delete`.
    encoders: [(Kind, Encoder); 3],
    captured_as: CapturedAs<'static>,
    /// The source's table, and the relations of composite types among its columns.
    depends_on: Vec<pg_sys::Oid>,
    /// The types of its columns that someone may alter (`relcache::type_hash`).
    types: Vec<u32>,
    /// The settings by which texts of values go.
    settings: Settings,
    pack: Pack,
}

/// By source and by the table that the trigger is on.
type Plans = HashMap<(i32, pg_sys::Oid), Option<Rc<Plan>>>;

thread_local! {
    static PLANS: RefCell<Plans> = RefCell::new(HashMap::new());
    /// A table changed while the plans were in use.
    static STALE: Cell<bool> = const { Cell::new(false) };
    /// The row that is on its way to another partition: its source, the command that moves it, and its tag.
    static MOVING: Cell<Option<(i32, u32, Tag)>> = const { Cell::new(None) };
    static ORIGIN: RefCell<Option<Rc<Origin>>> = const { RefCell::new(None) };
    static WORKSPACE: RefCell<Option<Workspace>> = const { RefCell::new(None) };
}

/// Memory for a row at a time, kept from call to call and left to the process' end.
struct Workspace {
    /// Not given back when the process ends: the server's memory is gone before.
    scratch: ManuallyDrop<Scratch>,
    leaf_data: Vec<u8>,
}

/// What the triggers of a captured table call.
pub fn capture(firing: &Firing) -> Result<(), ErrorReport> {
    let _memory = error_memory::hold();
    let source_id = firing
        .number()
        .ok_or(Error::StrayTrigger { source_id: 0 })?;
    let Some(plan) = plan(source_id, firing.relation())? else {
        return Ok(());
    };
    match plan.settings {
        Settings::None => plan.capture(firing),
        Settings::Values => settings::pinned_for_values(|| plan.capture(firing)),
        Settings::All => settings::pinned(|| plan.capture(firing)),
    }?;
    Ok(())
}

/// Who makes the changes that are captured now.
fn origin() -> Rc<Origin> {
    let (user, role, at) = (
        xact::session_user(),
        xact::role_called(role::current()),
        encode::time::unix_micros(xact::statement_start()),
    );
    xact::application_name(|application| {
        ORIGIN.with_borrow_mut(|last| {
            let same = |o: &Rc<Origin>| {
                o.at == at && o.user == user && o.role == role && *o.application == *application
            };
            if let Some(last) = last.as_ref().filter(|o| same(o)) {
                return last.clone();
            }
            let now = Origin {
                user,
                role,
                application: application.into(),
                at,
            };
            last.insert(Rc::new(now)).clone()
        })
    })
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

fn forget(changed: Changed) {
    let ours = PLANS.with(|plans| match plans.try_borrow() {
        Ok(plans) => plans
            .iter()
            .any(|((_, on), plan)| match (changed, plan.as_deref()) {
                (Changed::Any, _) => true,
                (Changed::Relation(relation), plan) => {
                    *on == relation || plan.is_some_and(|p| p.depends_on.contains(&relation))
                }
                (Changed::Type(hash), plan) => plan.is_some_and(|p| p.types.contains(&hash)),
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
        let mut source = sources::by_id(session, source_id).ok_or_else(stray)?;
        if source.removed {
            return Ok(None);
        }
        let log = logs::by_id(session, source.log_id).ok_or_else(stray)?;
        // Whatever `relation` was altered to.
        let bound = shape::bound_here(session, &source.bound_to);
        if let Some(bound) = bound.filter(|table| relcache::exists(*table)) {
            source.relation = bound;
        }
        let shape = match Shape::restored(session, &log, &source) {
            Some(shape) => shape,
            None => Shape::load(session, &log, &source)?,
        };
        let table = match relation == source.relation {
            true => shape.table.clone(),
            false if shape.table.written_through.contains(&relation) => {
                Table::load(session, relation).ok_or_else(stray)?
            }
            false => return Ok(None),
        };
        let partition = match relation == source.relation {
            true => None,
            false => partitions::unrecorded(session, &shape, relation),
        };
        let now = shape.columns_now()?;
        let version = (shape.current().columns == now).then(|| shape.current().number);
        let bound_to = version
            .is_none()
            .then(|| shape::identity(session, source.relation));
        let (depends_on, types) = shape.depends_on();
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
        let in_key = key.iter().map(|p| encode::text_settings(p.base_type));
        let in_values = logged.iter().map(|p| p.decoder.settings());
        Ok(Some(Plan {
            settings: in_key.chain(in_values).max().unwrap_or(Settings::None),
            key,
            logged,
            encoders: [
                encoder(Kind::Insert)?,
                encoder(Kind::Update)?,
                encoder(Kind::Delete)?,
            ],
            captured_as: CapturedAs {
                source_id,
                version,
                columns: version.is_none().then(|| now.clone().into()),
                bound_to: bound_to.map(Into::into),
                keep: source.store_leaf_data,
                partition: partition.map(Cow::Owned),
            },
            depends_on,
            types,
            pack: Pack::load(session)?,
            log: log.name,
            source,
        }))
    }

    pub fn log_id(&self) -> i32 {
        self.source.log_id
    }

    pub fn source_id(&self) -> i32 {
        self.source.id
    }

    pub fn captured_as(&self) -> &CapturedAs<'static> {
        &self.captured_as
    }

    pub fn pack(&self) -> Pack {
        self.pack
    }

    fn capture(self: &Rc<Plan>, firing: &Firing) -> Result<(), Error> {
        let (old, new) = (firing.old_version(), firing.new_version());
        match (firing.operation(), old, new) {
            (Operation::Insert, _, Some(new)) => {
                self.made(Kind::Insert, &new, self.moved_here(&new))
            }
            (Operation::Delete, Some(old), _) => {
                self.ended(Kind::Delete, &old, &old, self.moves_away(&old))
            }
            (Operation::Update, Some(old), Some(new)) => {
                if self.key_of(old.row()) == self.key_of(new.row()) {
                    return self.ended(Kind::Update, &old, &new, None);
                }
                let tag = self.source.salted.then(moves::new_tag);
                self.ended(Kind::Delete, &old, &old, tag)?;
                self.made(Kind::Insert, &new, tag)
            }
            (Operation::Truncate, ..) if self.source.allow_truncate => {
                self.truncated(firing.relation())
            }
            (Operation::Truncate, ..) => Err(Error::TruncateRefused {
                log: self.log.clone(),
                table: self.source.name.clone(),
            }),
            _ => Err(self.old_trigger()),
        }
    }

    /// The tag of a row that an UPDATE moves to another partition. Its INSERT is the next of the same command.
    fn moves_away(&self, old: &Stored) -> Option<Tag> {
        let command = old
            .ended_by()
            .filter(|_| self.source.salted && old.has_moved())?;
        let tag = moves::new_tag();
        MOVING.set(Some((self.source.id, command, tag)));
        Some(tag)
    }

    /// The tag of a row that has just come from another partition.
    fn moved_here(&self, new: &Stored) -> Option<Tag> {
        let (source_id, command, tag) = MOVING.get()?;
        let is_it = source_id == self.source.id && command == new.made_by();
        is_it.then(|| {
            MOVING.set(None);
            tag
        })
    }

    fn old_trigger(&self) -> Error {
        Error::OldTrigger {
            log: self.log.clone(),
            table: self.source.name.clone(),
        }
    }

    fn made(self: &Rc<Plan>, kind: Kind, new: &Stored, tag: Option<Tag>) -> Result<(), Error> {
        let place = ChangePlace::Made {
            command: new.made_by(),
            ended: new.ended_by(),
        };
        self.add(kind, place, new.row(), tag)
    }

    fn ended(
        self: &Rc<Plan>,
        kind: Kind,
        old: &Stored,
        shown: &Stored,
        tag: Option<Tag>,
    ) -> Result<(), Error> {
        // A row trigger fires for what was ended by its own transaction.
        let command = old.ended_by().unwrap_or_else(xact::command);
        self.add(kind, ChangePlace::Ended { command }, shown.row(), tag)
    }

    /// Captures a change, of which `row` is what is logged. `tag`: what the two halves of an UPDATE of the key share.
    fn add(
        self: &Rc<Plan>,
        kind: Kind,
        place: ChangePlace,
        row: &Row,
        tag: Option<Tag>,
    ) -> Result<(), Error> {
        let origin = origin();
        let said = Said::now(&self.source, self.source.store_leaf_data)?;
        let salt = self.source.salted.then(|| {
            let mut salt = new_salt();
            salt.extend(tag.iter().flatten());
            salt
        });
        let context = Context {
            origin: Some(said.leaf_origin(&origin)),
            salt: salt.as_deref(),
        };
        let encoder = self.encoders.iter().find(|(of, _)| *of == kind);
        let (_, encoder) = encoder.expect("rows are inserted, updated or deleted");
        in_workspace(|scratch, leaf_data| {
            let encoded = scratch.reuse(|| {
                let decode = |place: &Place| -> Value {
                    // SAFETY: as in `key_of`; the values are used up before the row goes away.
                    unsafe { place.decoder.decode(row.datum(place.at)) }
                };
                let values: Vec<Value> = self.logged.iter().map(decode).collect();
                let key = self.key_of(row);
                let about = || (self.log.clone(), self.source.name.clone(), key.clone());
                let keep = self.source.store_leaf_data;
                leaves::encode(encoder, &values, &context, keep, about, leaf_data).map(|()| key)
            });
            let key = encoded?;
            self.gather(&origin, kind, place, &key, leaf_data, salt.as_deref());
            Ok(())
        })
    }

    /// TRUNCATE of a partitioned table fires the triggers of the table and of each partition, in any order.
    fn truncated(self: &Rc<Plan>, relation: pg_sys::Oid) -> Result<(), Error> {
        if relation != self.source.relation {
            if gather::is_truncated(self.source.id) {
                return Ok(());
            }
            let alone = Error::PartitionTruncated {
                log: self.log.clone(),
                table: self.source.name.clone(),
            };
            return truncation::of_partition(self.source.id, alone);
        }
        let command = truncation::of_source(self.source.id).ok_or_else(|| self.old_trigger())?;
        let origin = origin();
        let said = Said::now(&self.source, true)?;
        let salt = self.source.salted.then(new_salt);
        let context = Context {
            origin: Some(said.leaf_origin(&origin)),
            salt: salt.as_deref(),
        };
        let mut leaf_data = Vec::new();
        Encoder::new::<&str>(&self.source.name, Kind::Truncate, &[])
            .and_then(|e| e.encode(&[], &context, &mut leaf_data))
            .map_err(|e| Error::Damaged {
                log: self.log.clone(),
                problem: e.to_string(),
            })?;
        let key = truncation_key(self.source.id);
        let place = ChangePlace::Truncate { command };
        self.gather(
            &origin,
            Kind::Truncate,
            place,
            &key,
            &leaf_data,
            salt.as_deref(),
        );
        Ok(())
    }

    fn gather(
        self: &Rc<Plan>,
        origin: &Rc<Origin>,
        kind: Kind,
        place: ChangePlace,
        key: &str,
        leaf_data: &[u8],
        salt: Option<&[u8]>,
    ) {
        // What the log itself says is kept: there is no row to compute it from.
        let keep = self.source.store_leaf_data || kind == Kind::Truncate;
        let hash = (!keep).then(|| leaf_hash(leaf_data));
        let leaf = hash.as_ref().map_or(leaf_data, |h| h.as_bytes());
        let change = Captured {
            kind,
            place,
            key,
            leaf,
            salt,
        };
        gather::add(self, origin, change);
    }

    fn key_of(&self, row: &Row) -> String {
        let text = |place: &Place| match (row.datum(place.at), place.base_type) {
            (None, _) => String::new(),
            (Some(d), pg_sys::INT8OID) => (d.value() as i64).to_string(),
            (Some(d), pg_sys::INT4OID) => (d.value() as i32).to_string(),
            // SAFETY: the row is of the table that the place was found in.
            (Some(d), _) => unsafe { datum::output(place.base_type, d) },
        };
        row_key::text(self.key.iter().map(text).collect())
    }
}

/// Runs `f` with memory that is used again and again.
fn in_workspace<T>(f: impl FnOnce(&mut Scratch, &mut Vec<u8>) -> T) -> T {
    WORKSPACE.with_borrow_mut(|workspace| {
        let Workspace { scratch, leaf_data } = workspace.get_or_insert_with(|| Workspace {
            scratch: ManuallyDrop::new(Scratch::new()),
            leaf_data: Vec::with_capacity(TYPICAL),
        });
        let done = f(scratch, leaf_data);
        if leaf_data.capacity() > KEPT {
            *leaf_data = Vec::with_capacity(TYPICAL);
        }
        done
    })
}

/// The key of the entries that say that a source was truncated.
pub fn truncation_key(source_id: i32) -> String {
    format!("truncate {source_id}")
}
