//! Logs in order of the rows' own values: what lies ahead of the watermarks.
//!
//! A batch that turns out large is read and hashed by a helper process, while this one writes.

use super::report;
use crate::capture::merge::Merge;
use crate::capture::shape::Shape;
use crate::capture::watermark::Span;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::parallel::{self, Helper};
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::append::{Appended, Appender, Entry, concat};
use crate::store::set_aside;
use crate::store::tree::hashes;
use merkle_tree::{TILE_WIDTH, tile_hash};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Rows of a batch after which a helper is worth its start.
const ALONE: i64 = 16_384;
/// Rows that are read in one go: in between, completed tiles are written.
const STRETCH: i64 = 8 << 20;
/// Rows that a helper hands over at once.
const HANDFUL: usize = 512;
/// Bytes after which it hands over fewer: a message has the limits of any of the server's allocations.
const MUCH: usize = 1 << 20;

/// Appends the rows of the spans, up to the log's batch size.
pub fn append(
    session: &Session,
    log: &Log,
    mut sources: Vec<(Shape, Span)>,
) -> Result<Appended, Error> {
    let progress = Progress::start(Command::Batch, log.id, log.batch_size as u64);
    let mut appender = Appender::open(session, log)?;
    let mut watermarks: HashMap<i32, Vec<String>> = HashMap::new();
    let batch_size = i64::from(log.batch_size);
    let mut set_aside = Vec::new();
    // What needs a closer look is read here.
    let mut helpers = !sources
        .iter()
        .any(|(_, span)| span.some_logged || span.careful);
    loop {
        let before = appender.entries();
        let helper = match helpers && before >= ALONE {
            true => Request {
                log: log.name.clone(),
                spans: sources.iter().map(|(_, span)| span.clone()).collect(),
                limit: STRETCH.min(batch_size - before),
                edge: concat(appender.edge()),
            }
            .start(),
            false => None,
        };
        // Rows that are passed over count as well: behind as many as were asked for there may be more.
        let mut passed_over = 0;
        let (limit, passed) = match helper {
            Some(helper) => (STRETCH, take_from(helper, &mut appender, &progress)?),
            None => {
                helpers &= before < ALONE;
                let limit = if helpers { ALONE } else { STRETCH };
                let limit = limit.min(batch_size - before);
                let mut merge = Merge::open(session, log, &sources, limit, Snapshot::Fresh)?;
                while appender.entries() - before < limit
                    && let Some((source_id, leaf)) = merge.next()?
                {
                    if leaf.logged {
                        passed_over += 1;
                        continue;
                    }
                    if let Some(problem) = &leaf.problem {
                        set_aside.push(set_aside::Row {
                            source_id,
                            key: leaf.key.clone(),
                            problem: problem.clone(),
                        });
                        passed_over += 1;
                        continue;
                    }
                    appender.push(&Entry::in_order(source_id, leaf))?;
                    report(&progress, appender.entries());
                }
                (limit, merge.watermarks()?)
            }
        };
        for (_, span) in &mut sources {
            if let Some((_, after)) = passed.iter().find(|(id, _)| *id == span.source_id) {
                span.after = Some(after.clone());
            }
        }
        watermarks.extend(passed);
        let taken = appender.entries() - before;
        if taken + passed_over < limit || appender.entries() >= batch_size {
            break;
        }
        appender.write_tiles();
    }
    for (source_id, watermark) in &watermarks {
        sources::set_watermark(session, *source_id, watermark);
    }
    set_aside::record(session, log, &set_aside);
    appender.finish()
}

/// Appends what a helper reads; returns how far it came.
fn take_from(
    mut helper: Helper,
    appender: &mut Appender,
    progress: &Progress,
) -> Result<Vec<(i32, Vec<String>)>, Error> {
    let mut watermarks = Vec::new();
    while let Some(answer) = helper.receive() {
        match Answer::read(answer) {
            Answer::Rows(mut rest) => {
                while let Some((entry, root)) = wire::entry(&mut rest) {
                    appender.push_known(&entry, root)?;
                    report(progress, appender.entries());
                }
            }
            Answer::Done(positions) => watermarks = positions,
        }
    }
    helper.finish();
    Ok(watermarks)
}

/// What a helper is asked for.
#[derive(Serialize, Deserialize)]
struct Request {
    log: String,
    spans: Vec<Span>,
    limit: i64,
    /// The hashes that the log's incomplete tile begins with: the helper computes what tiles come to.
    edge: Vec<u8>,
}

impl Request {
    fn start(&self) -> Option<Helper> {
        let request = serde_json::to_vec(self).expect("texts and numbers are JSON");
        Helper::start(c"merkle_log_read_ahead", &request, Snapshot::Fresh)
    }

    /// The helper's side.
    fn serve(self, session: &Session, send: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let log = logs::by_name(session, Snapshot::Statement, &self.log)?;
        let mut sources = Vec::new();
        for span in self.spans {
            let source = sources::by_id(session, span.source_id).ok_or_else(|| Error::Damaged {
                log: log.name.clone(),
                problem: format!("source {} is gone", span.source_id),
            })?;
            sources.push((Shape::locked(session, &log, &source)?, span));
        }
        let mut merge = Merge::open(session, &log, &sources, self.limit, Snapshot::Statement)?;
        let mut answer = vec![Answer::ROWS];
        let mut tile = hashes(&log, &self.edge)?;
        let (mut taken, mut held) = (0, 0);
        while taken < self.limit
            && let Some((source_id, leaf)) = merge.next()?
        {
            tile.push(leaf.hash);
            let root = (tile.len() == TILE_WIDTH as usize).then(|| tile_hash(&tile));
            wire::put(&mut answer, &Entry::in_order(source_id, leaf), root);
            if root.is_some() {
                tile.clear();
            }
            (taken, held) = (taken + 1, held + 1);
            if held == HANDFUL || answer.len() > MUCH {
                pgrx::check_for_interrupts!();
                if !send(&answer) {
                    return Ok(());
                }
                answer.truncate(1);
                held = 0;
            }
        }
        send(&answer);
        answer = vec![Answer::DONE];
        serde_json::to_writer(&mut answer, &merge.watermarks()?).expect("texts are JSON");
        send(&answer);
        Ok(())
    }
}

/// What a helper says: a byte for what it is, and the rest.
enum Answer<'a> {
    Rows(&'a [u8]),
    Done(Vec<(i32, Vec<String>)>),
}

impl Answer<'_> {
    const ROWS: u8 = 0;
    const DONE: u8 = 1;

    fn read(answer: &[u8]) -> Answer<'_> {
        match answer {
            [Answer::ROWS, rows @ ..] => Answer::Rows(rows),
            [_, done @ ..] => {
                Answer::Done(serde_json::from_slice(done).expect("written by this library"))
            }
            [] => Answer::Rows(&[]),
        }
    }
}

/// Entries as bytes, from a helper to its leader and nowhere else.
mod wire {
    use super::Entry;
    use merkle_tree::Hash;

    const NONE: u32 = u32::MAX;

    /// `root` is that of the tile that the entry completes.
    pub fn put(out: &mut Vec<u8>, entry: &Entry, root: Option<Hash>) {
        out.extend_from_slice(&entry.source_id.to_ne_bytes());
        out.extend_from_slice(entry.hash.as_bytes());
        for field in [
            Some(entry.key.as_bytes()),
            entry.order.map(str::as_bytes),
            entry.place.as_ref().map(<[u8; 16]>::as_slice),
            entry.salt,
            entry.leaf_data,
            root.as_ref().map(|root| root.as_bytes().as_slice()),
        ] {
            let length = field.map_or(NONE, |f| f.len() as u32);
            out.extend_from_slice(&length.to_ne_bytes());
            out.extend_from_slice(field.unwrap_or_default());
        }
    }

    /// The next entry of `rest`; `None` at its end.
    pub fn entry<'a>(rest: &mut &'a [u8]) -> Option<(Entry<'a>, Option<Hash>)> {
        let source_id = i32::from_ne_bytes(*array(rest)?);
        let hash = Hash::from(*array(rest)?);
        let text = |field: &'a [u8]| std::str::from_utf8(field).ok();
        let key = field(rest)?.and_then(text)?;
        let order = field(rest)?.and_then(text);
        let place = field(rest)?.and_then(|p| p.try_into().ok());
        let entry = Entry {
            source_id,
            key,
            order,
            place,
            hash,
            salt: field(rest)?,
            leaf_data: field(rest)?,
        };
        let root = field(rest)?.and_then(|root| Hash::try_from(root).ok());
        Some((entry, root))
    }

    fn array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
        let (array, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(array)
    }

    fn field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
        match u32::from_ne_bytes(*array(rest)?) {
            NONE => Some(None),
            length => {
                let (field, after) = rest.split_at_checked(length as usize)?;
                *rest = after;
                Some(Some(field))
            }
        }
    }
}

/// A helper process begins here.
///
/// # Safety
/// Called by the server with the segment that the leader made.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn merkle_log_read_ahead(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
) {
    let work = |request: &[u8], send: &mut dyn FnMut(&[u8]) -> bool| {
        let request: Request = serde_json::from_slice(request).expect("written by this library");
        let served: Result<(), ErrorReport> =
            Session::enter(|session| request.serve(session, send));
        if let Err(report) = served {
            Error::raise_report(report);
        }
    };
    // SAFETY: these are the arguments of the function that `Request::start` names.
    unsafe { parallel::serve(segment, toc, work) }
}
