//! The way into the extension: whose call it is, and where the extension's tables are.
//!
//! Functions run with the caller's rights, so that the caller is known; the extension's own tables
//! are reached as the extension's owner, under pinned settings, for as long as `enter` lasts.

use crate::catalog::logs::Log;
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::spi::{self, Row, Snapshot};
use crate::pg::{role, settings};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;

pub struct Session {
    /// The schema the extension was created in, quoted where it must be.
    schema: String,
    extension: pg_sys::Oid,
    owner: pg_sys::Oid,
    caller: pg_sys::Oid,
}

impl Session {
    /// Runs `f` with access to the extension's tables, and turns its error into the server's.
    pub fn enter<T>(f: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, ErrorReport> {
        let session = Session::open()?;
        role::as_extension_owner(session.owner, || settings::pinned(|| f(&session)))
            .map_err(ErrorReport::from)
    }

    fn open() -> Result<Session, Error> {
        spi::query_one(
            Snapshot::Statement,
            "SELECT e.oid, e.extowner, pg_catalog.quote_ident(n.nspname)
               FROM pg_catalog.pg_extension e
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
              WHERE e.extname OPERATOR(pg_catalog.=) 'merkle_log'",
            &[],
            |row| Session {
                schema: row.required(2),
                extension: row.required(0),
                owner: row.required(1),
                caller: role::current(),
            },
        )
        .ok_or(Error::NotInstalled)
    }

    /// The role that called.
    pub fn caller(&self) -> pg_sys::Oid {
        self.caller
    }

    pub fn extension(&self) -> pg_sys::Oid {
        self.extension
    }

    /// Reads; `@extschema@` in `sql` is the extension's schema.
    pub fn query<T>(
        &self,
        snapshot: Snapshot,
        sql: &str,
        args: &[DatumWithOid],
        map: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        spi::query(
            snapshot,
            &sql.replace("@extschema@", &self.schema),
            args,
            map,
        )
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

    pub fn execute(&self, sql: &str, args: &[DatumWithOid]) {
        self.fresh(sql, args, |_| ());
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
