//! `merkle_pending`: changes that triggers have captured and no batch has logged yet.
//!
//! A transaction writes a row a log just before it commits, or several where its changes do not fit a page.
//! Its rows stand in the queue where it does, and transactions stand in the order in which they wrote: a later
//! change of the same row can only be made, and so queued, after the earlier one has committed. Draining
//! needs no watermark: what is visible is committed.

use super::change_order::Rank;
use super::key_equality::Wanted;
use super::page::{CapturedAs, Filling, Item, Page};
use super::partitions::Seen;
use super::reorder::Reorder;
use crate::catalog::logs::Log;
use crate::catalog::sources::Source;
use crate::catalog::versions;
use crate::encode::time;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::{Cursor, Row, Snapshot};
use crate::pg::{alloc, insert, relcache, settings};
use crate::session::Session;
use crate::store::leaves::Statement;
use leaf_format::Kind;
use pgrx::{IntoDatum, pg_sys};
use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// Queue rows fetched at once.
const FETCH: i64 = 64;
/// Bytes of a queue row that is read only when its turn comes.
const LONG: usize = 64 << 10;

/// Where the queue is.
#[derive(Clone, Copy)]
pub struct Pack {
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    sequence: pg_sys::Oid,
}

impl Pack {
    pub fn load(session: &Session) -> Result<Pack, Error> {
        Ok(Pack {
            table: session.relation(c"merkle_pending")?,
            index: session.relation(c"merkle_pending_pkey")?,
            sequence: session.relation(c"merkle_pending_id")?,
        })
    }

    /// False once the extension was dropped, which the running transaction may have done.
    pub fn exists(&self) -> bool {
        relcache::exists(self.table)
    }
}

/// What a transaction has written to the queue of one log before its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Early {
    pub parts: i32,
    /// The number under which it stands; drawn with the first row.
    number: Option<i64>,
    last: Rank,
    unordered: bool,
}

impl Early {
    /// More is written, with ranks from `ranks.0` to `ranks.1`.
    pub fn add(&mut self, ranks: Option<(Rank, Rank)>) {
        if let Some((first, last)) = ranks {
            self.unordered |= first < self.last;
            self.last = self.last.max(last);
        }
    }
}

/// Writes changes of the running transaction to the queue of one log.
pub struct Writer<'a> {
    pack: Pack,
    log_id: i32,
    transaction: u64,
    early: &'a mut Early,
    /// The transaction goes on: where it stands in the queue is not known yet.
    is_early: bool,
    /// Drawn with the first row.
    id: Option<i64>,
    part: i32,
    page: Filling<'a>,
}

impl<'a> Writer<'a> {
    pub fn new(
        pack: Pack,
        log_id: i32,
        transaction: u64,
        early: &'a mut Early,
        is_early: bool,
    ) -> Writer<'a> {
        Writer {
            pack,
            log_id,
            transaction,
            part: if is_early { early.parts } else { 0 },
            early,
            is_early,
            id: None,
            page: Filling::default(),
        }
    }

    /// Places are written where the transaction's rows may have to be put in order.
    pub fn keeps_places(&self) -> bool {
        self.is_early || self.early.parts > 0
    }

    pub fn add(&mut self, item: Item<'a>) {
        if !self.page.has_room_for(&item) {
            self.write();
        }
        self.page.add(item);
    }

    /// Writes what is left. The last row says that the transaction is whole, even if all of its changes were
    /// written before.
    pub fn finish(mut self) {
        let nothing_yet = !self.is_early && self.id.is_none();
        if self.page.changes() > 0 || nothing_yet {
            self.write();
        }
        if self.is_early {
            self.early.parts = self.part;
        }
    }

    fn write(&mut self) {
        let sequence = self.pack.sequence;
        let draw = || insert::next_value(sequence);
        let id = match self.is_early {
            // Rows whose transaction has no place in the queue yet stand under a number that no place has.
            true => *self.early.number.get_or_insert_with(|| -draw()),
            false => *self.id.get_or_insert_with(draw),
        };
        let oldest = self.page.oldest();
        let changes = self.page.changes();
        let payload = self.page.take();
        // In the order of the table's columns; those in the middle are of earlier versions.
        let row = [
            self.log_id.into_datum(),
            id.into_datum(),
            None,
            None,
            None,
            None,
            Some(pg_sys::Datum::from(self.transaction)),
            None,
            None,
            oldest.map(|at| pg_sys::Datum::from(time::server_micros(at))),
            None,
            None,
            None,
            None,
            self.part.into_datum(),
            changes.into_datum(),
            0.into_datum(),
            self.early.number.into_datum(),
            (!self.early.unordered).into_datum(),
            payload.into_datum(),
        ];
        insert::insert(self.pack.table, self.pack.index, &row);
        self.part += 1;
    }
}

/// A change as it was captured.
pub struct Change {
    pub table: Rc<CapturedAs<'static>>,
    pub statement: Rc<Statement>,
    pub kind: Kind,
    pub key: String,
    /// Leaf data, in full, or their hash.
    leaf: Captured,
    pub salt: Option<Vec<u8>>,
    /// How many changes of the transaction were captured before it, and its rank.
    pub(super) place: Option<(u32, Rank)>,
}

/// What was captured of a change.
enum Captured {
    Here(Vec<u8>),
    /// Alone in the queue row at this place.
    Queued(String),
}

impl Change {
    /// The leaf is leaf data, not a hash.
    pub fn is_whole(&self) -> bool {
        self.table.keep || self.kind == Kind::Truncate
    }

    /// Leaf data, in full, or their hash.
    ///
    /// # Errors
    /// If its row of the queue cannot be read.
    pub fn leaf(&self, session: &Session, log: &Log) -> Result<Cow<'_, [u8]>, Error> {
        match &self.leaf {
            Captured::Here(leaf) => Ok(leaf.into()),
            Captured::Queued(place) => {
                let alone = read(session, log, place)?.pop().map(|change| change.leaf);
                match alone {
                    Some(Captured::Here(leaf)) => Ok(leaf.into()),
                    _ => Err(unreadable(&log.name)),
                }
            }
        }
    }
}

fn unreadable(log: &str) -> Error {
    Error::Damaged {
        log: log.to_owned(),
        problem: "a queue row cannot be read".to_owned(),
    }
}

/// The changes of a long row of the queue.
fn read(session: &Session, log: &Log, place: &str) -> Result<Vec<Change>, Error> {
    let changes = session.fresh_one(
        "SELECT p.payload, p.transaction_id::pg_catalog.text FROM @extschema@.merkle_pending p
          WHERE p.ctid = $1::pg_catalog.tid",
        &[place.into()],
        |row| {
            let transaction = row.required::<String>(1).parse().unwrap_or(0);
            let page = row.get::<&[u8]>(0).and_then(Page::read)?;
            Some(changes(&page, transaction))
        },
    );
    changes.flatten().ok_or_else(|| unreadable(&log.name))
}

/// Changes of one transaction that stand next to each other.
pub struct Piece {
    /// Where the transaction stands in the queue.
    pub id: i64,
    /// The queue rows of which nothing is left to log after these changes.
    pub places: Vec<String>,
    /// Changes that are not logged yet.
    pub changes: Vec<Change>,
    /// The row with which it is put down how many changes are logged, and how many were before these.
    pub at: String,
    pub taken: i32,
    /// How many are to be put down after these, without those of `places`; `None` where that row is among them.
    pub rest: Option<i32>,
}

/// One row of the queue.
struct Stored {
    place: String,
    id: i64,
    taken: i32,
    /// The number under which rows stand that its transaction wrote early.
    early: Option<i64>,
    ordered: bool,
    /// `None` of a long row.
    changes: Option<Result<Vec<Change>, Error>>,
}

const COLUMNS: &str = "p.ctid::pg_catalog.text, p.pending_id, p.transaction_id::pg_catalog.text, p.taken, p.early,
    p.ordered, CASE WHEN pg_catalog.octet_length(p.payload) <= $3 THEN p.payload END, p.source_id, p.version, p.columns, p.kind, p.user_name, p.application_name,
    (EXTRACT(epoch FROM p.statement_at) * 1000000)::pg_catalog.int8, p.keys, p.whole, p.leaves, p.salts,
    p.payload IS NOT NULL";

fn stored(log: &str, row: &Row) -> Stored {
    let id = row.required(1);
    let transaction: u64 = row.required::<String>(2).parse().unwrap_or(0);
    let changes = match row.get::<&[u8]>(6) {
        Some(payload) => Some(match Page::read(payload) {
            Some(page) => Ok(changes(&page, transaction)),
            None => Err(Error::Damaged {
                log: log.to_owned(),
                problem: format!("queue row {id} cannot be read"),
            }),
        }),
        None if row.required(18) => None,
        None => Some(Ok(changes_of_0_3(row, transaction))),
    };
    Stored {
        place: row.required(0),
        id,
        taken: row.required(3),
        early: row.get(4),
        ordered: row.required(5),
        changes,
    }
}

fn changes(page: &Page, transaction: u64) -> Vec<Change> {
    let own = |table: &CapturedAs| {
        Rc::new(CapturedAs {
            source_id: table.source_id,
            version: table.version,
            columns: table.columns.as_ref().map(|c| c.to_vec().into()),
            bound_to: table.bound_to.as_ref().map(|b| b.to_string().into()),
            keep: table.keep,
            partition: table.partition.as_ref().map(|p| Cow::Owned(Seen::clone(p))),
        })
    };
    let tables: Vec<Rc<CapturedAs<'static>>> = page.tables.iter().map(own).collect();
    // One for each that differs from the change before.
    let mut last: Option<(u32, u32, Kind, Rc<Statement>)> = None;
    let change = |change: &super::page::PageChange| {
        let kind = change.kind()?;
        let at = (change.table, change.origin, kind);
        let statement = match &last {
            Some((table, origin, kind, statement)) if (*table, *origin, *kind) == at => {
                statement.clone()
            }
            _ => {
                let origin = &page.origins[at.1 as usize];
                Rc::new(Statement {
                    source_id: tables[at.0 as usize].source_id,
                    kind: kind.as_str().to_owned(),
                    transaction,
                    user: origin.user.to_owned(),
                    role: Some(origin.role.to_owned()),
                    application: origin.application.to_owned(),
                    at: origin.at,
                })
            }
        };
        last = Some((at.0, at.1, at.2, statement.clone()));
        Some(Change {
            table: tables[at.0 as usize].clone(),
            statement,
            kind,
            key: change.key.to_owned(),
            leaf: Captured::Here(alloc::copy_bytes(change.leaf)),
            salt: change.salt().map(<[u8]>::to_vec),
            place: change.place,
        })
    };
    page.changes.iter().filter_map(change).collect()
}

/// The changes of a row that version 0.3.0 wrote: of one kind and statement, in columns of their own.
fn changes_of_0_3(row: &Row, transaction: u64) -> Vec<Change> {
    let bytes = |column| -> Vec<Vec<u8>> {
        let array: Option<pgrx::Array<&[u8]>> = row.get(column);
        array.map_or_else(Vec::new, |a| {
            a.iter().flatten().map(<[u8]>::to_vec).collect()
        })
    };
    let columns: Option<Vec<String>> = row.get(9);
    let table = Rc::new(CapturedAs {
        source_id: row.get(7).unwrap_or_default(),
        version: row.get(8),
        columns: columns.map(|texts| versions::unflatten(&texts).into()),
        bound_to: None,
        keep: row.get(15).unwrap_or_default(),
        partition: None,
    });
    let kind = row.get::<String>(10).unwrap_or_default();
    let kind = Kind::try_from(kind.as_str()).unwrap_or(Kind::Insert);
    let statement = Rc::new(Statement {
        source_id: table.source_id,
        kind: kind.as_str().to_owned(),
        transaction,
        user: row.get(11).unwrap_or_default(),
        role: None,
        application: row.get(12).unwrap_or_default(),
        at: row.get(13).unwrap_or_default(),
    });
    let mut salts = bytes(17).into_iter();
    let keys: Vec<String> = row.get(14).unwrap_or_default();
    keys.into_iter()
        .zip(bytes(16))
        .map(|(key, leaf)| Change {
            table: table.clone(),
            statement: statement.clone(),
            kind,
            key,
            leaf: Captured::Here(leaf),
            salt: salts.next(),
            place: None,
        })
        .collect()
}

/// A log's queue as it is when this is opened: whole transactions, in the order in which they wrote.
pub struct Queue<'a> {
    session: &'a Session,
    log: &'a Log,
    rows: Rows,
    /// Rows that the transaction, which is next, wrote before its end.
    early: Option<Rows>,
    /// A transaction that has to be put in order.
    reorder: Option<Reorder>,
    /// The transaction that is next, or was last.
    id: i64,
    /// All rows of that transaction have been handed out.
    skip: bool,
    next: Option<Stored>,
}

/// Rows of the queue from a cursor.
struct Rows {
    cursor: Cursor,
    fetched: VecDeque<Stored>,
    done: bool,
    log: String,
}

impl Rows {
    fn next(&mut self) -> Option<Stored> {
        if self.fetched.is_empty() && !self.done {
            let Rows {
                cursor,
                fetched,
                log,
                ..
            } = self;
            cursor.fetch(FETCH, |row| fetched.push_back(stored(log, row)));
            self.done = (self.fetched.len() as i64) < FETCH;
        }
        self.fetched.pop_front()
    }
}

impl<'a> Queue<'a> {
    /// The rows from the first on, about as many as `rows`.
    pub fn open(session: &'a Session, log: &'a Log, rows: i64) -> Queue<'a> {
        let sql = format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_pending p
              WHERE p.log_id = $1 AND p.pending_id > 0 ORDER BY p.pending_id, p.part LIMIT $2"
        );
        let args = [log.id.into(), rows.into(), (LONG as i32).into()];
        let cursor = settings::in_index_order(|| session.cursor(&sql, &args));
        Queue {
            session,
            log,
            rows: Rows::over(log, cursor),
            early: None,
            reorder: None,
            id: 0,
            skip: false,
            next: None,
        }
    }

    /// All rows of one transaction; those that it wrote early, or last.
    fn of_transaction(&self, id: i64) -> Rows {
        let sql = format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_pending p
              WHERE p.log_id = $1 AND p.pending_id = $2 ORDER BY p.part"
        );
        let args = [self.log.id.into(), id.into(), (LONG as i32).into()];
        let cursor = settings::in_index_order(|| self.session.cursor(&sql, &args));
        Rows::over(self.log, cursor)
    }

    pub fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(reorder) = &mut self.reorder {
                let (session, log) = (self.session, self.log);
                match reorder.next(|place| changes_at(session, log, place))? {
                    Some(piece) => return Ok(Some(piece)),
                    None => self.reorder = None,
                }
            }
            if let Some(row) = self.early.as_mut().and_then(Rows::next) {
                return self.piece(row).map(Some);
            }
            self.early = None;
            let Some(row) = self.next.take().or_else(|| self.rows.next()) else {
                return Ok(None);
            };
            if row.id == self.id && self.skip {
                continue;
            }
            let first = row.id != self.id;
            self.id = row.id;
            self.skip = !row.ordered;
            if !row.ordered {
                self.reorder = Some(self.reorder(&row)?);
                continue;
            }
            if let Some(early) = row.early.filter(|_| first) {
                self.early = Some(self.of_transaction(early));
                self.next = Some(row);
                continue;
            }
            return self.piece(row).map(Some);
        }
    }

    fn piece(&self, row: Stored) -> Result<Piece, Error> {
        let mut changes = match row.changes {
            Some(changes) => changes?,
            None => read(self.session, self.log, &row.place)?,
        };
        changes.drain(..(row.taken as usize).min(changes.len()));
        Ok(Piece {
            id: self.id,
            at: row.place.clone(),
            places: vec![row.place],
            changes,
            taken: row.taken,
            rest: None,
        })
    }

    /// A transaction whose rows were not written in the order of its changes: subtransactions write what is theirs, so
    /// that what was captured earlier may be written later, and what is captured later may belong before it.
    fn reorder(&self, row: &Stored) -> Result<Reorder, Error> {
        let mut reorder = Reorder::new(self.log, row.id, &row.place, row.taken);
        for id in row.early.into_iter().chain([row.id]) {
            let mut rows = self.of_transaction(id);
            while let Some(row) = rows.next() {
                let changes = match row.changes {
                    Some(changes) => changes?,
                    None => read(self.session, self.log, &row.place)?,
                };
                reorder.add(row.place, &changes, id < 0)?;
            }
        }
        Ok(reorder)
    }
}

/// The changes of the queue row at a place; the leaf of a long one is left where it is.
fn changes_at(session: &Session, log: &Log, place: &str) -> Result<Vec<Change>, Error> {
    let mut changes = read(session, log, place)?;
    if let [change] = changes.as_mut_slice()
        && matches!(&change.leaf, Captured::Here(leaf) if leaf.len() > LONG)
    {
        change.leaf = Captured::Queued(place.to_owned());
    }
    Ok(changes)
}

impl Rows {
    fn over(log: &Log, cursor: Cursor) -> Rows {
        Rows {
            cursor,
            fetched: VecDeque::new(),
            done: false,
            log: log.name.clone(),
        }
    }
}

/// Puts down how many changes of a queue row have been logged.
pub fn set_taken(session: &Session, place: &str, taken: i32) {
    session.execute(
        "UPDATE @extschema@.merkle_pending p SET taken = $2 WHERE p.ctid = $1::pg_catalog.tid",
        &[place.into(), taken.into()],
    );
}

/// Deletes queue rows that have been logged, by their places: only the batch, which holds the log's lock,
/// moves them.
pub fn forget(session: &Session, places: &[String]) {
    for places in places.chunks(10_000) {
        session.execute(
            "DELETE FROM @extschema@.merkle_pending p WHERE p.ctid = ANY ($1::pg_catalog.tid[])",
            &[places.to_vec().into()],
        );
    }
}

/// The queue's table, and its size in bytes.
pub fn table(session: &Session) -> Option<(pg_sys::Oid, i64)> {
    let table = session.relation(c"merkle_pending").ok()?;
    let size = session.fresh_one(
        "SELECT pg_catalog.pg_relation_size($1)",
        &[table.into()],
        |row| row.required(0),
    );
    size.map(|size| (table, size))
}

/// Those of the keys that have changes in the queue; all of them where the source was truncated.
pub fn waiting(
    session: &Session,
    snapshot: Snapshot,
    source: &Source,
    wanted: &Wanted,
) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut scratch = Scratch::new();
    session.query(
        snapshot,
        "SELECT p.payload, p.source_id, p.keys, p.kind FROM @extschema@.merkle_pending p WHERE p.log_id = $1",
        &[source.log_id.into()],
        |row| {
            let mut look = |source_id: i32, kind: Option<Kind>, key: &str| {
                if source_id != source.id {
                    return;
                }
                if kind == Some(Kind::Truncate) {
                    found.extend(wanted.all().cloned());
                } else {
                    found.extend(wanted.of(key).into_iter().cloned());
                }
            };
            scratch.reuse(|| match row.get::<&[u8]>(0).and_then(Page::read) {
                Some(page) => page.changes.iter().for_each(|change| {
                    let table = &page.tables[change.table as usize];
                    look(table.source_id, change.kind(), change.key);
                }),
                None => {
                    let keys: Vec<String> = row.get(2).unwrap_or_default();
                    let source_id = row.get(1).unwrap_or_default();
                    let kind = row.get::<String>(3);
                    let kind = kind.and_then(|kind| Kind::try_from(kind.as_str()).ok());
                    keys.iter().for_each(|key| look(source_id, kind, key));
                }
            })
        },
    );
    found
}
