//! The way into the extension: whose call it is, and where the extension's tables are.
//!
//! Functions run with the caller's rights, so that the caller is known; the extension's own tables
//! are reached as the extension's owner, under pinned settings, for as long as `enter` lasts.

use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::error::Error;
use crate::pg::spi::{self, Cursor, Row, Snapshot};
use crate::pg::{role, settings};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;

/// The version of the library; the SQL objects must be of the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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
        spi::query_kept(
            Snapshot::Statement,
            "SELECT e.oid, e.extowner, pg_catalog.quote_ident(n.nspname), e.extversion
               FROM pg_catalog.pg_extension e
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
              WHERE e.extname OPERATOR(pg_catalog.=) 'merkle_log'",
            &[],
            |row| {
                let session = Session {
                    schema: row.required(2),
                    extension: row.required(0),
                    owner: row.required(1),
                    caller: role::current(),
                };
                match row.required::<String>(3) {
                    version if version == VERSION => Ok(session),
                    installed => Err(Error::Version {
                        library: VERSION,
                        installed,
                    }),
                }
            },
        )
        .pop()
        .unwrap_or(Err(Error::NotInstalled))
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
        let sql = sql.replace("@extschema@", &self.schema);
        spi::query_kept(snapshot, &sql, args, map)
    }

    /// Runs a statement that will not come again, such as one that names a table in its text.
    pub fn command(&self, sql: &str) {
        let sql = sql.replace("@extschema@", &self.schema);
        spi::query(Snapshot::Fresh, &sql, &[], |_| ());
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
        Cursor::open(&sql.replace("@extschema@", &self.schema), args)
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
