//! Entries of a log in leaf order, with what the caller may be shown of them, a page at a time.

use super::entries::{self, Entry};
use super::{heads, leaves};
use crate::catalog::logs::{ADMINISTRATION, Log};
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use std::collections::HashMap;

/// Entries that are read at once, and bytes of leaf data, of which there is always one entry's.
const PAGE: i64 = 1024;
const PAGE_BYTES: i64 = 4 << 20;

/// An entry as the caller is shown it.
pub struct Listed {
    pub leaf_index: i64,
    /// `None`: of a source that the caller may not read, as the key and the leaf data are.
    pub source_table: Option<String>,
    pub key: Option<String>,
    pub leaf_hash: Vec<u8>,
    /// What was hashed, where the log keeps it.
    pub leaf_data: Option<Vec<u8>>,
}

pub struct Stream {
    log: Log,
    /// By id, the names of the sources that the caller may read.
    readable: HashMap<i32, String>,
    next: i64,
    end: i64,
}

impl Stream {
    /// The entries `from .. to`, or to the end of the log, as the calling statement sees it.
    pub fn start(session: &Session, log: Log, from: i64, to: Option<i64>) -> Result<Stream, Error> {
        let size = heads::latest(session, Snapshot::Statement, &log)?.tree_size;
        let end = to.unwrap_or(size);
        if !(0..=size).contains(&from) {
            let log = log.name;
            return Err(Error::IndexOutOfRange {
                log,
                index: from,
                size,
            });
        }
        if !(0..=size).contains(&end) {
            let (log, wanted) = (log.name, end);
            return Err(Error::SizeOutOfRange { log, wanted, size });
        }
        if from < end {
            entries::check_not_pruned(&log, from)?;
        }
        let mut readable = HashMap::new();
        for source in sources::all(session, &log) {
            if session.caller_may_read(&source)? {
                readable.insert(source.id, source.name);
            }
        }
        let reads_own = match log.id {
            ADMINISTRATION => session.check_caller_is_owner().is_ok(),
            _ => session.caller_may_read_log(&log)?,
        };
        if reads_own {
            readable.insert(OF_LOG, String::new());
        }
        Ok(Stream {
            log,
            readable,
            next: from,
            end,
        })
    }

    /// The next entries; none when all have been read.
    pub fn page(&mut self, session: &Session) -> Result<Vec<Listed>, Error> {
        pgrx::check_for_interrupts!();
        let to = self.end.min(self.next + PAGE);
        if self.next >= to {
            return Ok(Vec::new());
        }
        let to = leaves::within(session, &self.log, self.next, to, PAGE_BYTES);
        let entries = entries::between(session, &self.log, self.next, to)?;
        let mut data = leaves::kept(session, &self.log, self.next, to);
        self.next = to;
        let listed = |entry: Entry| {
            let source = self.readable.get(&entry.source_id);
            let kept = data.remove(&entry.leaf_index);
            Listed {
                leaf_index: entry.leaf_index,
                source_table: source.filter(|name| !name.is_empty()).cloned(),
                key: source.map(|_| entry.key),
                leaf_hash: entry.leaf_hash,
                leaf_data: kept.filter(|_| source.is_some()),
            }
        };
        Ok(entries.into_iter().map(listed).collect())
    }
}
