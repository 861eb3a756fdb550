//! The way into the extension: whose call it is, and where the extension's tables are.
//!
//! Functions run with the caller's rights, so that the caller is known; the extension's own tables
//! are reached as the extension's owner, under pinned settings, for as long as `enter` lasts.

use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::error::Error;
use crate::pg::bulk::BulkInsert;
use crate::pg::extension::{self, Extension};
use crate::pg::index::{self, Index};
use crate::pg::relcache::{self, Changed};
use crate::pg::spi::{self, Cursor, Row, Snapshot};
use crate::pg::{role, settings};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

/// The version of the library; the SQL objects must be of the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub struct Session {
    installed: Rc<Installed>,
    caller: pg_sys::Oid,
    /// The settings are pinned; otherwise they are for each statement.
    pinned: bool,
}

struct Installed {
    extension: Extension,
    /// The schema the extension was created in, quoted where it must be.
    schema: String,
    /// Its tables and indexes that were asked for.
    relations: RefCell<HashMap<&'static CStr, pg_sys::Oid>>,
    /// Logs that were asked for, by name.
    logs: RefCell<HashMap<String, Log>>,
}

thread_local! {
    /// What was found last, until a definition changes: those of the extension's tables and functions do
    /// when it is created, moved, updated or dropped, and whoever changes a log says that its table has.
    static INSTALLED: RefCell<Option<Rc<Installed>>> = const { RefCell::new(None) };
    static STALE: Cell<bool> = const { Cell::new(false) };
}

fn forget(changed: Changed) {
    if !matches!(changed, Changed::Type(_)) {
        STALE.set(true);
    }
}

impl Installed {
    fn find() -> Result<Rc<Installed>, Error> {
        relcache::listen(forget);
        if STALE.take() {
            INSTALLED.take();
        }
        if let Some(known) = INSTALLED.with_borrow(Clone::clone) {
            return Ok(known);
        }
        let extension = Extension::find(c"merkle_log").ok_or(Error::NotInstalled)?;
        if extension.version != VERSION {
            return Err(Error::Version {
                library: VERSION,
                installed: extension.version,
            });
        }
        let schema = extension::quoted_schema(extension.schema).ok_or(Error::NotInstalled)?;
        let found = Rc::new(Installed {
            extension,
            schema,
            relations: RefCell::default(),
            logs: RefCell::default(),
        });
        INSTALLED.replace(Some(found.clone()));
        Ok(found)
    }
}

impl Session {
    /// Runs `f` with access to the extension's tables, and turns its error into the server's.
    pub fn enter<T>(f: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, ErrorReport> {
        let session = Session::open(true)?;
        let owner = session.installed.extension.owner;
        role::as_extension_owner(owner, || settings::pinned(|| f(&session)))
            .map_err(ErrorReport::from)
    }

    /// As `enter`, for what runs hardly any statement and turns no value into text: setting and resetting
    /// the settings would cost as much as the answer.
    pub fn look<T>(f: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, ErrorReport> {
        let session = Session::open(false)?;
        let owner = session.installed.extension.owner;
        role::as_extension_owner(owner, || f(&session)).map_err(ErrorReport::from)
    }

    fn open(pinned: bool) -> Result<Session, Error> {
        Ok(Session {
            installed: Installed::find()?,
            caller: role::current(),
            pinned,
        })
    }

    /// Opens one of the extension's tables with one of its indexes.
    pub fn index(&self, table: &'static CStr, index: &'static CStr) -> Result<Index, Error> {
        Ok(Index::open(self.relation(table)?, self.relation(index)?))
    }

    /// Opens one of the extension's tables for writing.
    pub fn bulk_insert(&self, table: &'static CStr) -> Result<BulkInsert, Error> {
        self.relation(table).map(BulkInsert::open)
    }

    /// One of the extension's tables or indexes.
    pub fn relation(&self, name: &'static CStr) -> Result<pg_sys::Oid, Error> {
        let Installed {
            relations,
            extension,
            ..
        } = &*self.installed;
        if let Some(oid) = relations.borrow().get(name) {
            return Ok(*oid);
        }
        let oid = index::relation(extension.schema, name).ok_or(Error::NotInstalled)?;
        relations.borrow_mut().insert(name, oid);
        Ok(oid)
    }

    /// The log of that name, as `find` finds it or found it before. What lies in between is kept up with;
    /// only a statement under an older snapshot may see what is newer than itself.
    pub fn known_log(
        &self,
        name: &str,
        find: impl FnOnce() -> Result<Log, Error>,
    ) -> Result<Log, Error> {
        if let Some(log) = self.installed.logs.borrow().get(name) {
            return Ok(log.clone());
        }
        let log = find()?;
        let mut logs = self.installed.logs.borrow_mut();
        logs.insert(name.to_owned(), log.clone());
        Ok(log)
    }

    /// Tells all sessions that what they know about logs is stale, once this transaction commits.
    pub fn logs_changed(&self) -> Result<(), Error> {
        relcache::invalidate(self.relation(c"verification_logs")?);
        Ok(())
    }

    /// The role that called.
    pub fn caller(&self) -> pg_sys::Oid {
        self.caller
    }

    pub fn extension(&self) -> pg_sys::Oid {
        self.installed.extension.oid
    }

    /// Reads; `@extschema@` in `sql` is the extension's schema.
    pub fn query<T>(
        &self,
        snapshot: Snapshot,
        sql: &str,
        args: &[DatumWithOid],
        map: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        let sql = sql.replace("@extschema@", &self.installed.schema);
        self.pinned(|| spi::query_kept(snapshot, &sql, args, map))
    }

    /// Runs `f` under the pinned settings: no name in a statement means anything else than it says.
    pub fn pinned<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.pinned {
            true => f(),
            false => settings::pinned(f),
        }
    }

    /// Runs a statement that will not come again, such as one that names a table in its text.
    pub fn command(&self, sql: &str) {
        let sql = sql.replace("@extschema@", &self.installed.schema);
        self.pinned(|| spi::query(Snapshot::Fresh, &sql, &[], |_| ()));
    }

    /// Reads with the snapshot of the calling statement.
    pub fn read<T>(&self, sql: &str, args: &[DatumWithOid], map: impl FnMut(&Row) -> T) -> Vec<T> {
        self.query(Snapshot::Statement, sql, args, map)
    }

    pub fn read_one<T>(
        &self,
        sql: &str,
        args: &[DatumWithOid],
        map: impl FnMut(&Row) -> T,
    ) -> Option<T> {
        self.read(sql, args, map).into_iter().next()
    }

    /// Reads or writes with a fresh snapshot.
    pub fn fresh<T>(&self, sql: &str, args: &[DatumWithOid], map: impl FnMut(&Row) -> T) -> Vec<T> {
        self.query(Snapshot::Fresh, sql, args, map)
    }

    pub fn fresh_one<T>(
        &self,
        sql: &str,
        args: &[DatumWithOid],
        map: impl FnMut(&Row) -> T,
    ) -> Option<T> {
        self.fresh(sql, args, map).into_iter().next()
    }

    /// A cursor with a fresh snapshot; `@extschema@` in `sql` is the extension's schema.
    pub fn cursor(&self, sql: &str, args: &[DatumWithOid]) -> Cursor {
        let sql = sql.replace("@extschema@", &self.installed.schema);
        self.pinned(|| Cursor::open(Snapshot::Fresh, &sql, args))
    }

    pub fn execute(&self, sql: &str, args: &[DatumWithOid]) {
        self.fresh(sql, args, |_| ());
    }

    /// That the caller owns a source's table, if there still is one.
    pub fn check_caller_owns(&self, log: &Log, source: &Source) -> Result<(), Error> {
        let owns = self.fresh_one(
            "SELECT pg_catalog.pg_has_role($1, c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = $2",
            &[self.caller.into(), source.relation.into()],
            |row| row.required(0),
        );
        match owns {
            Some(true) | None => Ok(()),
            Some(false) => Err(Error::NotOwner {
                log: log.name.clone(),
                table: source.name.clone(),
            }),
        }
    }

    /// That the caller may read every row of a source, and so may be shown its keys and content.
    pub fn check_caller_reads(&self, log: &Log, relation: pg_sys::Oid) -> Result<(), Error> {
        if role::may_read_all(self.caller, relation) {
            return Ok(());
        }
        Err(Error::MayNotRead {
            log: log.name.clone(),
            table: sources::relation_name(self, relation),
        })
    }
}
