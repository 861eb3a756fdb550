//! The way into the extension: whose call it is, and where the extension's tables are.
//!
//! Functions run with the caller's rights, so that the caller is known; the extension's own tables
//! are reached as the extension's owner, under pinned settings, for as long as `enter` lasts.

use crate::administration::{self, Act};
use crate::capture::shape;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, Source};
use crate::error::Error;
use crate::pg::bulk::BulkInsert;
use crate::pg::extension::{self, Extension};
use crate::pg::index::{self, Index};
use crate::pg::relcache::{self, Changed};
use crate::pg::spi::{self, Cursor, Row, Snapshot};
use crate::pg::{alloc, error_memory, parallel, role, server, settings, xact};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

/// What is said instead of a text that may name rows which the caller may not read; the view
/// merkle_log_status says the same.
pub const WITHHELD: &str = "withheld: the text may name rows of sources that you may not read";

/// Bytes of the longest name that a log can have.
const LONGEST_NAME: usize = 63;

/// The version of the library; the SQL objects must be of the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub struct Session {
    installed: Rc<Installed>,
    caller: pg_sys::Oid,
    /// The settings are pinned; otherwise they are for each statement.
    pinned: bool,
    /// What was done to logs and sources, to be put on record at the end of the call.
    acts: RefCell<Vec<Act>>,
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

/// That the transaction may write anything at all.
pub fn check_may_write(log: Option<&str>) -> Result<(), Error> {
    let what = || written(log);
    match () {
        _ if server::in_recovery() => Err(Error::Recovery { what: what() }),
        _ if server::is_read_only() => Err(Error::ReadOnly { what: what() }),
        _ => Ok(()),
    }
}

/// What a call writes, for messages.
pub fn written(log: Option<&str>) -> String {
    match log.filter(|name| name.len() <= LONGEST_NAME) {
        Some(name) => format!("log \"{name}\""),
        None => "the logs of this database".to_owned(),
    }
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
        let _memory = error_memory::hold();
        let session = Session::open(true)?;
        let owner = session.installed.extension.owner;
        let call = |session: &Session| {
            let value = f(session)?;
            administration::append_recorded(session)?;
            Ok(value)
        };
        role::as_extension_owner(owner, || settings::pinned(|| session.run(call)))
            .map_err(ErrorReport::from)
    }

    /// As `enter`, for what writes: refused on a standby and in a read-only transaction before anything is done.
    /// `log`: the one that was named, if the call is about one.
    pub fn write<T>(
        log: Option<&str>,
        f: impl FnOnce(&Session) -> Result<T, Error>,
    ) -> Result<T, ErrorReport> {
        Session::enter(|session| {
            check_may_write(log)?;
            f(session)
        })
    }

    /// As `enter`, for what runs hardly any statement and turns no value into text: setting and resetting
    /// the settings would cost as much as the answer.
    pub fn look<T>(f: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, ErrorReport> {
        let _memory = error_memory::hold();
        let session = Session::open(false)?;
        let owner = session.installed.extension.owner;
        role::as_extension_owner(owner, || session.run(f)).map_err(ErrorReport::from)
    }

    fn run<T>(&self, f: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let value = f(self).map_err(|error| self.for_caller(error))?;
        alloc::check();
        Ok(value)
    }

    fn open(pinned: bool) -> Result<Session, Error> {
        if role::is_table_owner() {
            return Err(Error::CalledBySource);
        }
        Ok(Session {
            installed: Installed::find()?,
            caller: role::current(),
            pinned,
            acts: RefCell::default(),
        })
    }

    /// What was done to logs and sources so far during this call.
    pub fn acts(&self) -> &RefCell<Vec<Act>> {
        &self.acts
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

    /// The log of that name, as `find` finds it under a snapshot, or as it was found before.
    ///
    /// Only what has been committed and is the latest state is remembered: a transaction that has written
    /// may see a log that is rolled back later, and a statement under an older snapshot one that has been
    /// renamed since. Whatever commits after the look-up invalidates what is remembered.
    pub fn known_log(
        &self,
        name: &str,
        find: impl Fn(Snapshot) -> Result<Log, Error>,
    ) -> Result<Log, Error> {
        if let Some(log) = self.installed.logs.borrow().get(name) {
            return Ok(log.clone());
        }
        let log = find(Snapshot::Statement)?;
        if xact::has_written_nothing() && !parallel::is_parallel() {
            let latest = find(Snapshot::Latest);
            if latest.is_ok_and(|latest| latest == log) {
                let mut logs = self.installed.logs.borrow_mut();
                logs.insert(name.to_owned(), log.clone());
            }
        }
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
        let sql = self.in_schema(sql);
        self.pinned(|| spi::query_kept(snapshot, &sql, args, map))
    }

    /// Runs `f` under the pinned settings: no name in a statement means anything else than it says.
    pub fn pinned<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.pinned {
            true => f(),
            false => settings::pinned(f),
        }
    }

    /// Runs a statement that will not come again, such as one that names a table in its text. Nothing in it is
    /// replaced: names come from `schema` and the catalogs.
    pub fn command(&self, sql: &str) {
        self.pinned(|| spi::query(Snapshot::Fresh, sql, &[], |_| ()));
    }

    /// The extension's schema, quoted as an identifier.
    pub fn schema(&self) -> &str {
        &self.installed.schema
    }

    /// `sql` with the extension's schema for `@extschema@`, which stands where an identifier does: in a string
    /// the schema's name would end it.
    fn in_schema(&self, sql: &str) -> String {
        debug_assert!(!sql.contains("'@extschema@"), "a name in a string: {sql}");
        sql.replace("@extschema@", &self.installed.schema)
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
        let sql = self.in_schema(sql);
        self.pinned(|| Cursor::open(Snapshot::Fresh, &sql, args))
    }

    pub fn execute(&self, sql: &str, args: &[DatumWithOid]) {
        self.fresh(sql, args, |_| ());
    }

    /// That the caller is the extension's owner, who may read its tables.
    pub fn check_caller_is_owner(&self) -> Result<(), Error> {
        let owner = self.installed.extension.owner;
        let is = self.fresh_one(
            "SELECT pg_catalog.pg_has_role($1, $2, 'USAGE')",
            &[self.caller.into(), owner.into()],
            |row| row.required(0),
        );
        match is {
            Some(true) => Ok(()),
            _ => Err(Error::MayNotReadAdministration),
        }
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

    /// Whether the caller may be shown keys and content of a source, and that anything of it was redacted.
    ///
    /// While the source's table is there, that is who may read every row of it. Of a table that is gone
    /// nobody can tell who might have read it: then it is who may read the extension's tables of entries
    /// and of leaf data, which have its keys and what was kept of its rows.
    pub fn caller_may_read(&self, source: &Source) -> Result<bool, Error> {
        match shape::is_still_its_table(self, source) {
            true => Ok(role::may_read_all(self.caller, source.relation)),
            false => self.caller_may_read_entries(),
        }
    }

    /// Whether the caller may read every entry of every log, by privileges on the extension's tables:
    /// the extension's owner, superusers, members of `pg_read_all_data`, and who was granted SELECT.
    pub fn caller_may_read_entries(&self) -> Result<bool, Error> {
        let tables = [
            self.relation(c"merkle_log")?,
            self.relation(c"merkle_leaf_data")?,
        ];
        Ok(tables.map(|t| role::may_read_all(self.caller, t)) == [true, true])
    }

    /// That the caller may be shown keys and content of a source.
    pub fn check_caller_reads(&self, log: &Log, source: &Source) -> Result<(), Error> {
        match self.caller_may_read(source)? {
            true => Ok(()),
            false => Err(Error::MayNotRead {
                log: log.name.clone(),
                table: source.name.clone(),
            }),
        }
    }

    /// That the caller may be shown what the log says of itself under a key, a truncation or a redaction:
    /// who may read the source that it is about.
    pub fn check_caller_reads_own(&self, log: &Log, key: &str) -> Result<(), Error> {
        let source_id = self.read_one(
            "SELECT COALESCE(
                 (SELECT m.source_id FROM @extschema@.merkle_log m
                   WHERE m.log_id = $1 AND m.leaf_index = pg_catalog.substring($2, '^redact ([0-9]{1,18})$')::pg_catalog.int8),
                 pg_catalog.substring($2, '^(?:truncate|redact row of source) ([0-9]{1,9})(?:$|:)')::pg_catalog.int4)",
            &[log.id.into(), key.into()],
            |row| row.get::<i32>(0),
        );
        let all = sources::all(self, log);
        let about = source_id.flatten();
        match all.iter().find(|s| Some(s.id) == about) {
            Some(source) => self.check_caller_reads(log, source),
            None if self.caller_may_read_entries()? => Ok(()),
            None => Err(Error::MayNotReadLog {
                log: log.name.clone(),
            }),
        }
    }

    /// Whether the caller may be shown keys and content of all sources that a log has had.
    pub fn caller_may_read_log(&self, log: &Log) -> Result<bool, Error> {
        if log.id == logs::ADMINISTRATION {
            return self.caller_may_read_entries();
        }
        for source in sources::all(self, log) {
            if !self.caller_may_read(&source)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An error as the caller may see it: without the key of a row that the caller may not read, and
    /// without what was wrong with its content.
    fn for_caller(&self, error: Error) -> Error {
        let Error::Encode { log, table, .. } = &error else {
            return error;
        };
        let source = logs::by_name(self, Snapshot::Fresh, log).map(|log| {
            let mut of_log = sources::all(self, &log).into_iter();
            of_log.rfind(|s| s.name == *table)
        });
        match source {
            Ok(Some(source)) if matches!(self.caller_may_read(&source), Ok(true)) => error,
            _ => Error::Encode {
                log: log.clone(),
                table: table.clone(),
                key: "of a key that you may not read".to_owned(),
                problem: WITHHELD.to_owned(),
            },
        }
    }

    /// A message about a log, which may name rows, for the caller.
    pub fn message_for_caller(&self, log: &Log, message: &str) -> String {
        match self.caller_may_read_log(log) {
            Ok(true) => message.to_owned(),
            _ => WITHHELD.to_owned(),
        }
    }
}
