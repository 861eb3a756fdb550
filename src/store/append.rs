//! Appending to a log: entries in bulk, each tile written once, one tree head at the end.

use super::leaves::Statement;
use super::metadata::{self, Metadata};
use super::moves::{self, SALT};
use super::order_index::{self, Mark};
use super::redacted::{self, Hashes};
use super::tree::{TreeReader, tree_error, tree_size};
use super::{hash_index, heads, heads::Head, key_index};
use crate::cache;
use crate::capture::key_equality::KeyEquality;
use crate::capture::order::SortKey;
use crate::capture::scan::Leaf;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::bulk::{BulkInsert, Column};
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::settings;
use merkle_tree::{Frontier, Hash};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::rc::Rc;
use std::time::Instant;

/// Runs that are written by one statement.
const CHUNK: usize = 8192;

/// An entry to be.
pub struct Entry<'a> {
    pub source_id: i32,
    pub key: &'a str,
    /// Text form of the order value; `None` where the key is the order value and `place` is known.
    pub order: Option<&'a str>,
    /// The key as an order value, of an entry that stands in the order of its source's keys.
    pub place: Option<SortKey>,
    pub hash: Hash,
    pub salt: Option<&'a [u8]>,
    pub leaf_data: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// The entry of a row that comes after all its source's rows before it.
    pub fn in_order(source_id: i32, leaf: &'a Leaf) -> Entry<'a> {
        let order = match leaf.place {
            Some(_) => None,
            None => Some(leaf.order_text.as_deref().unwrap_or(&leaf.key)),
        };
        Entry {
            place: leaf.place,
            order,
            ..Entry::unordered(source_id, leaf)
        }
    }

    /// The entry of a row that comes after rows that sort behind it.
    pub fn late(source_id: i32, leaf: &'a Leaf) -> Entry<'a> {
        Entry {
            order: Some(leaf.order_text.as_deref().unwrap_or(&leaf.key)),
            ..Entry::unordered(source_id, leaf)
        }
    }

    /// The entry of a row in a log that does not go by the rows' order values.
    pub fn unordered(source_id: i32, leaf: &'a Leaf) -> Entry<'a> {
        Entry {
            source_id,
            key: &leaf.key,
            order: Some(""),
            place: None,
            hash: leaf.hash,
            salt: leaf.salt.as_deref(),
            leaf_data: leaf.leaf_data.as_deref(),
        }
    }
}

pub struct Appender<'a> {
    session: &'a Session,
    log: &'a Log,
    start: i64,
    began: Instant,
    frontier: Frontier,
    entries: Rows,
    kept: Rows,
    marks: Rows,
    /// The tile that each source was last seen in with an entry in order.
    marked: HashMap<i32, i64>,
    /// The source and tile of the last of these.
    last_marked: (i32, i64),
    /// The source of the last entry with a key hash, and when its keys are equal.
    keyed: (i32, Rc<KeyEquality>),
    /// Runs of entries and the statements that made them: first index, number, statement.
    runs: Vec<(i64, i32, Rc<Statement>)>,
    metadata: Metadata,
    scratch: Scratch,
    /// By source with salted entries: the hashes of keys that are redacted.
    redacted: HashMap<i32, Hashes>,
    /// Entries that may be of these keys.
    of_redacted: Vec<i64>,
    /// By source with redacted keys: the first entry of an UPDATE that changed a key.
    moved: BTreeMap<i32, i64>,
}

/// Rows of a table, which is opened with the first.
struct Rows {
    table: &'static CStr,
    open: Option<BulkInsert>,
}

impl Rows {
    fn of(table: &'static CStr) -> Rows {
        Rows { table, open: None }
    }

    fn push<const COLUMNS: usize>(
        &mut self,
        session: &Session,
        row: [Column; COLUMNS],
    ) -> Result<(), Error> {
        match &mut self.open {
            Some(table) => table.push(row),
            closed => closed.insert(session.bulk_insert(self.table)?).push(row),
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(table) = &mut self.open {
            table.flush();
        }
    }

    fn close(self) {
        if let Some(table) = self.open {
            table.close();
        }
    }
}

impl<'a> Appender<'a> {
    /// Goes on where the log's latest head ends. The caller holds the log's lock.
    pub fn open(session: &'a Session, log: &'a Log) -> Result<Appender<'a>, Error> {
        let began = Instant::now();
        let start = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
        let frontier = Frontier::load(
            &mut TreeReader::new(session, log, Snapshot::Fresh),
            tree_size(log, start)?,
        )
        .map_err(|e| tree_error(log, e))?;
        Ok(Appender {
            session,
            log,
            start,
            began,
            frontier,
            entries: Rows::of(c"merkle_log"),
            kept: Rows::of(c"merkle_leaf_data"),
            marks: Rows::of(c"merkle_order_index"),
            marked: order_index::marked_since(session, log, start),
            last_marked: (OF_LOG, 0),
            keyed: (OF_LOG, Rc::default()),
            runs: Vec::new(),
            metadata: Metadata::default(),
            scratch: Scratch::new(),
            redacted: HashMap::new(),
            of_redacted: Vec::new(),
            moved: BTreeMap::new(),
        })
    }

    /// Appends a leaf and returns its index.
    pub fn push(&mut self, entry: &Entry) -> Result<i64, Error> {
        self.push_known(entry, None)
    }

    /// As `push`, with the root of the tile that the leaf completes where that is known.
    pub fn push_known(&mut self, entry: &Entry, root: Option<Hash>) -> Result<i64, Error> {
        let index = self.size();
        let pushed = match root {
            None => self.frontier.push(entry.hash),
            Some(root) => self.frontier.push_last(entry.hash, root),
        };
        pushed.map_err(|e| Error::Damaged {
            log: self.log.name.clone(),
            problem: e.to_string(),
        })?;
        let (session, log_id) = (self.session, self.log.id);
        if let Some(key) = entry.place {
            let at = (entry.source_id, order_index::tile_of(index));
            let known = self.last_marked == at;
            self.last_marked = at;
            if !known && self.marked.insert(at.0, at.1) != Some(at.1) {
                let mark = Mark {
                    source_id: entry.source_id,
                    key,
                    leaf_index: index,
                };
                self.marks.push(session, mark.row())?;
            }
        }
        if entry.salt.is_some() {
            self.look_for_redaction(index, entry);
        }
        if entry.salt.is_some() || entry.leaf_data.is_some() {
            self.kept.push(
                session,
                [
                    Column::Int4(log_id),
                    Column::Int8(index),
                    entry.salt.map_or(Column::Null, Column::Bytes),
                    entry.leaf_data.map_or(Column::Null, Column::Bytes),
                    Column::Null,
                ],
            )?;
        }
        let order = entry.order;
        self.metadata
            .entry(index, entry.source_id, entry.key, order);
        if let Some(salt) = entry.salt {
            self.metadata.salt(index, salt);
        }
        if entry.leaf_data.is_some_and(leaf_format::is_digest) {
            self.metadata.digest(index);
        }
        let key_hash = match order {
            None => Column::Null,
            Some(_) => Column::Int8(
                self.equality(entry.source_id)
                    .hash(entry.source_id, entry.key),
            ),
        };
        self.entries.push(
            session,
            [
                Column::Int4(log_id),
                Column::Int4(entry.source_id),
                Column::Int8(index),
                Column::Text(entry.key),
                entry.order.map_or(Column::Null, Column::Text),
                Column::Bytes(entry.hash.as_bytes()),
                key_hash,
            ],
        )?;
        Ok(index)
    }

    /// Remembers a salted entry whose key may be one that is redacted.
    fn look_for_redaction(&mut self, index: i64, entry: &Entry) {
        let (session, id) = (self.session, entry.source_id);
        let log = self.log;
        let of_source = self.redacted.entry(id);
        let of_source = of_source.or_insert_with(|| Hashes::load(session, log, id));
        if of_source.is_empty() {
            return;
        }
        if of_source.is_stale(session, log, id) {
            *of_source = Hashes::load(session, log, id);
        }
        if entry.salt.is_some_and(|salt| salt.len() > SALT) {
            self.moved.entry(id).or_insert(index);
        }
        let hash = self.equality(id).hash(id, entry.key);
        if self.redacted[&id].contains(hash) {
            self.of_redacted.push(index);
        }
    }

    /// When two texts are one key of a source.
    fn equality(&mut self, source_id: i32) -> &KeyEquality {
        let (of, equality) = &mut self.keyed;
        if *of != source_id {
            *of = source_id;
            *equality = key_index::equality(self.session, self.log, source_id);
        }
        equality
    }

    /// The entries from `first` on were made by `statement`.
    pub fn made_by(&mut self, first: i64, statement: Rc<Statement>) {
        let entries = (self.size() - first) as i32;
        match self.runs.last_mut() {
            // Statements are packed in pieces; their run is one.
            Some((_, run, last)) if *last == statement => *run += entries,
            _ => self.runs.push((first, entries, statement)),
        }
    }

    /// The hashes of the entries in the incomplete tile at the end.
    pub fn edge(&self) -> &[Hash] {
        self.frontier.edge()
    }

    /// Entries so far, those of earlier batches included.
    pub fn size(&self) -> i64 {
        self.frontier.size().get() as i64
    }

    /// Entries of this batch.
    pub fn entries(&self) -> i64 {
        self.size() - self.start
    }

    /// Writes the entries that wait in memory.
    pub fn flush(&mut self) {
        self.entries.flush();
        self.kept.flush();
        self.marks.flush();
    }

    /// Writes what is left, and a tree head if anything was appended.
    pub fn finish(mut self) -> Result<Appended, Error> {
        self.flush();
        self.follow_redacted_rows()?;
        if !self.of_redacted.is_empty() {
            let indexes = std::mem::take(&mut self.of_redacted);
            for redaction in redacted::erase_logged(self.session, self.log, indexes)? {
                self.push(&redaction.entry())?;
            }
            self.flush();
        }
        self.write_runs();
        let entries = self.entries();
        if entries == 0 {
            let head = heads::latest(self.session, Snapshot::Fresh, self.log)?;
            return Ok(Appended::nothing(head));
        }
        self.write_tiles();
        let (size, root) = (self.size(), self.frontier.root());
        for rows in [self.entries, self.kept, self.marks] {
            rows.close();
        }
        let created_at = xact::now();
        self.metadata.head(size, created_at);
        let written = heads::Written {
            created_at,
            duration: self.began.elapsed(),
            metadata: metadata::bytes(&self.metadata.sum()),
        };
        let head = heads::insert(self.session, self.log, size, root, written);
        hash_index::extend(self.session, self.log, size)?;
        cache::learn_after_commit(self.session, self.log, self.frontier.peaks());
        // An act must not keep the transaction that does it from being prepared.
        if settings::notify() && self.log.id != logs::ADMINISTRATION {
            heads::notify(self.session, self.log, &head);
        }
        Ok(Appended {
            entries,
            head,
            more: false,
        })
    }

    /// Redacts rows also under the keys that they have got in place of redacted ones.
    fn follow_redacted_rows(&mut self) -> Result<(), Error> {
        let (session, log) = (self.session, self.log);
        for (source_id, first) in std::mem::take(&mut self.moved) {
            for moved in moves::of_redacted(session, log, source_id, first) {
                let followed = moves::follow(session, log, source_id, &moved, self.size())?;
                if let Some((redaction, entries)) = followed {
                    self.push(&redaction.entry())?;
                    self.of_redacted.extend(entries);
                }
            }
        }
        self.flush();
        Ok(())
    }

    fn write_runs(&mut self) {
        let Appender {
            session,
            log,
            runs,
            metadata,
            scratch,
            ..
        } = self;
        for (first, entries, statement) in runs.iter() {
            metadata.statement(*first, *entries, statement);
        }
        for runs in std::mem::take(runs).chunks(CHUNK) {
            let of =
                |f: fn(&Statement) -> String| runs.iter().map(|(.., s)| f(s)).collect::<Vec<_>>();
            scratch.scope(|| {
                session.execute(
                    "INSERT INTO @extschema@.merkle_statement
                        (log_id, from_leaf_index, entries, source_id, kind, transaction_id, user_name, application_name, statement_at, role_name)
                     SELECT $1, t.first, t.entries, t.source_id, t.kind, t.xid::pg_catalog.xid8, t.user_name, t.application_name,
                            '1970-01-01 00:00:00+00'::pg_catalog.timestamptz + t.at * '1 microsecond'::pg_catalog.interval, t.role_name
                       FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                                       pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),
                                       pg_catalog.unnest($10))
                            t (first, entries, source_id, kind, xid, user_name, application_name, at, role_name)",
                    &[
                        log.id.into(),
                        runs.iter().map(|(first, ..)| *first).collect::<Vec<_>>().into(),
                        runs.iter().map(|(_, entries, _)| *entries).collect::<Vec<_>>().into(),
                        runs.iter().map(|(.., s)| s.source_id).collect::<Vec<_>>().into(),
                        of(|s| s.kind.clone()).into(),
                        of(|s| s.transaction.to_string()).into(),
                        of(|s| s.user.clone()).into(),
                        of(|s| s.application.clone()).into(),
                        runs.iter().map(|(.., s)| s.at).collect::<Vec<_>>().into(),
                        runs.iter().map(|(.., s)| s.role.clone()).collect::<Vec<_>>().into(),
                    ],
                )
            });
        }
    }

    /// Writes the tiles that were completed.
    pub fn write_tiles(&mut self) {
        let Appender {
            session,
            log,
            scratch,
            frontier,
            ..
        } = self;
        let tiles = frontier.take_tiles();
        if tiles.is_empty() {
            return;
        }
        scratch.scope(|| {
            session.execute(
                "INSERT INTO @extschema@.merkle_tile (log_id, level, tile_index, hashes)
                 SELECT $1, t.* FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) t
                 ON CONFLICT (log_id, level, tile_index) DO UPDATE SET hashes = EXCLUDED.hashes",
                &[
                    log.id.into(),
                    tiles.iter().map(|(t, _)| i16::from(t.level)).collect::<Vec<_>>().into(),
                    tiles.iter().map(|(t, _)| t.index as i64).collect::<Vec<_>>().into(),
                    tiles.iter().map(|(_, h)| concat(h)).collect::<Vec<_>>().into(),
                ],
            )
        });
    }
}

/// What a batch did.
pub struct Appended {
    pub entries: i64,
    pub head: Head,
    /// There is more to log at once.
    pub more: bool,
}

impl Appended {
    pub fn nothing(head: Head) -> Appended {
        Appended {
            entries: 0,
            head,
            more: false,
        }
    }
}

/// Hashes as a tile stores them.
pub fn concat(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|h| *h.as_bytes()).collect()
}
