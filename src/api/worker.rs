//! Steering the background worker of this database.

use super::{log_name, required};
use crate::capture::shape::Shape;
use crate::catalog::identity::{self, Adoption};
use crate::catalog::{logs, sources};
use crate::checkpoint;
use crate::error::Error;
use crate::pg::server;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::shared::{self, Worker};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::SeqCst;

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn run_now(log: Option<&str>) -> Result<(), ErrorReport> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Fresh, log_name("log", log)?)?;
        let shared = shared::get().ok_or(Error::NoWorker {
            why: "the library is not preloaded",
        })?;
        let worker = shared::worker_of_log(log.id)
            .filter(|w| w.pid.load(SeqCst) != 0)
            .ok_or(Error::NoWorker {
                why: "none is running for this log",
            })?;
        if let Some(counters) = shared.counters(session, log.id) {
            counters.ask_to_run();
        }
        worker.ask();
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn adopt_database(role: Option<String>) -> Result<String, ErrorReport> {
    Session::write(None, |session| {
        let name = required("role", role)?;
        let adoption = Adoption::from_name(&name).ok_or(Error::Argument {
            name: "role",
            must: "'continue' or 'copy'",
            value: format!("'{name}'"),
        })?;
        let restored = bind_restored(session);
        let said = identity::adopt(session, adoption, restored)?;
        checkpoint::remember_all(session)?;
        if let Some(shared) = shared::get() {
            for log in logs::scheduled(session) {
                if let Some(counters) = shared.counters(session, log.id) {
                    xact::after_commit(|| counters.ask_to_run());
                }
            }
        }
        xact::after_commit(wake);
        Ok(said)
    })
}

/// Binds sources of this database to tables that a dump of it has restored under other numbers. True if there were
/// any.
fn bind_restored(session: &Session) -> bool {
    let logs = logs::ids(session).into_iter();
    let mut any = false;
    for log in logs.filter_map(|id| logs::by_id(session, id)) {
        for source in sources::active(session, &log) {
            if let Some(mut shape) = Shape::restored(session, &log, &source) {
                shape.rebind(session);
                sources::update(session, &shape.source);
                any = true;
            }
        }
    }
    any
}

/// The database whose logs this one has, where it is another and nobody has said what this one is.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
pub fn held_as_copy_of() -> Result<Option<String>, ErrorReport> {
    Session::enter(|session| Ok(identity::other(session).map(|other| other.name)))
}

/// Lets the workers, if there are any, look at their logs again.
pub fn wake() {
    let shared = shared::get().into_iter();
    shared
        .flat_map(|s| s.workers_of(server::my_database()))
        .for_each(Worker::ask);
}
