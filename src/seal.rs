//! Sealing ranges of a log: the keys of the entries are committed in an index, whose root is an entry of the log.
//!
//! What is sealed never changes again, as the entries themselves, so that a range is sealed once. Nothing is sealed unless
//! somebody asks for it.

use crate::batch;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::{random, xact};
use crate::session::Session;
use crate::store::append::{Appender, Entry};
use crate::store::heads;
use crate::store::leaves;
use crate::store::sealed::{self, MOST, Sealed};
use merkle_tree::Secret;
use std::ops::Range;

/// Ranges that one call seals at most: batches wait for it.
const AT_ONCE: usize = 4;

/// Seals what a log has before `up_to`, or all that it has, from where the last sealed range ends; returns the ranges.
pub fn seal(session: &Session, name: &str, up_to: Option<i64>) -> Result<Vec<Sealed>, Error> {
    batch::check_writable(Some(name))?;
    let log = logs::lock_and_wait(session, name)?;
    logs::check_not_administration(&log)?;
    // What other transactions have committed before the log was locked counts.
    xact::with_new_snapshot(|| of_log(session, &log, up_to))
}

fn of_log(session: &Session, log: &Log, up_to: Option<i64>) -> Result<Vec<Sealed>, Error> {
    let size = heads::latest(session, Snapshot::Statement, log)?.tree_size;
    let end = up_to.unwrap_or(size);
    if !(0..=size).contains(&end) {
        return Err(Error::SizeOutOfRange {
            log: log.name.clone(),
            wanted: end,
            size,
        });
    }
    let last = sealed::end(session, Snapshot::Statement, log);
    let mut next = last.max(log.pruned_to);
    let mut ranges = Vec::new();
    while next < end && ranges.len() < AT_ONCE {
        let range = next..end.min(next + MOST);
        let Some(made) = index(session, log, range)? else {
            break;
        };
        next = made.range.end;
        ranges.push(made);
    }
    if ranges.is_empty() {
        return Ok(ranges);
    }
    let mut appender = Appender::open(session, log)?;
    for made in &mut ranges {
        let leaf_data = sealed::leaf_data(session, log, &made.seal(log)?)?;
        made.leaf_index = appender.push(&Entry {
            source_id: OF_LOG,
            key: &sealed::entry_key(made.range.start),
            order: Some(""),
            place: None,
            hash: leaves::hash(&leaf_data),
            salt: None,
            leaf_data: Some(&leaf_data),
        })?;
        sealed::insert(session, log, made);
    }
    appender.finish()?;
    Ok(ranges)
}

/// Makes and stores the index of a range; `None` if its entries only seal earlier ranges, which goes on for ever otherwise.
fn index(session: &Session, log: &Log, range: Range<i64>) -> Result<Option<Sealed>, Error> {
    let root = sealed::root_at(session, Snapshot::Statement, log, range.end)?;
    let (keys, has_content) = sealed::keys_of(session, log, &range, &root)?;
    if !has_content {
        return Ok(None);
    }
    let secret = random::bytes().map(Secret);
    let secret = secret.expect("the server has a source of random bytes");
    let index_root = sealed::insert_index(session, log, range.start, &keys, &secret);
    Ok(Some(Sealed {
        range,
        leaf_index: 0,
        keys: keys.len() as i64,
        root: root.as_bytes().to_vec(),
        index_root: index_root.as_bytes().to_vec(),
        secret: secret.0.to_vec(),
    }))
}
