//! Entries against the source rows as they are now.

use super::configuration::Record;
use super::finding::{Finding, Kind as Finds};
use super::walk::{Covered, Facts, Range, Stray, Walked, walk};
use crate::administration;
use crate::capture::gather;
use crate::capture::key_equality::{ByKey, KeyEquality};
use crate::capture::partitions::Partitions;
use crate::capture::row_key;
use crate::capture::scan::{Leaf as SourceRow, Scan};
use crate::capture::shape::{Shape, bound_here};
use crate::capture::state::{self, Problem, State};
use crate::capture::statement;
use crate::capture::table;
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG};
use crate::catalog::versions::Version;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::redaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::leaves::{self, Annex};
use crate::store::order_index::{self, Mark};
use crate::store::redacted::{self, RedactedKeys};
use crate::store::retired::Retired;
use leaf_format::{Kind, Leaf};
use merkle_tree::Hash;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What the source says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The row's leaf hash now.
    Is(Hash),
    /// The hash of the leaf data that the log keeps.
    Kept(Hash),
    Gone,
    /// What must be kept of it beside its hash is not there: what.
    Erased(String),
    /// Its salt and leaf data were destroyed, which is on record: why.
    Redacted(String),
    /// It went with a partition that left the table.
    Detached(String),
    /// It was retired, and is gone.
    Retired,
    /// Its key was redacted, and it was not.
    Unredacted,
    /// Not to be had: the source was removed or dropped, or its columns changed too much.
    Unknown,
    /// No row can have this key, or there is no such source.
    Impossible(String),
}

/// A source, and a version of its columns.
type Versioned = (i32, i32);

/// How many entries could not be recomputed, the first, and why.
type Unchecked = (u64, i64, String);

/// The entries of a source that was removed.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Departed {
    entries: u64,
    first: i64,
    /// Those that are not what its table holds now, and the first of them.
    differing: u64,
    first_differing: Option<i64>,
}

impl Departed {
    fn starting(first: i64) -> Departed {
        Departed {
            entries: 0,
            first,
            differing: 0,
            first_differing: None,
        }
    }
}

/// What one part of a verification leaves for the whole.
#[derive(Serialize, Deserialize)]
pub struct Notes {
    unchecked: Vec<(Versioned, Unchecked)>,
    departed: Vec<(i32, Departed)>,
    #[serde(default)]
    released: Vec<i32>,
    covered: HashMap<i32, Covered>,
}

impl Notes {
    /// For who reads on under another snapshot.
    pub fn without_covered(mut self) -> Notes {
        self.covered.clear();
        self
    }
}

enum Source {
    Here(Box<Shape>),
    /// Removed from the log: its table may change as it likes, and whether it did is still told.
    Removed {
        salted: bool,
        /// The table, where it can still be read; else why not.
        shape: Result<Box<Shape>, String>,
    },
    /// The table cannot be read any more.
    Unreadable {
        name: String,
        salted: bool,
        kind: Finds,
        reason: String,
    },
}

impl Source {
    /// The table, where it can be read.
    fn shape(&self) -> Option<&Shape> {
        match self {
            Source::Here(shape) => Some(shape),
            Source::Removed { shape, .. } => shape.as_deref().ok(),
            Source::Unreadable { .. } => None,
        }
    }

    fn salted(&self) -> bool {
        match self {
            Source::Here(shape) => shape.source.salted,
            Source::Removed { salted, .. } | Source::Unreadable { salted, .. } => *salted,
        }
    }
}

/// All sources that ever fed the log, and what could not be checked about them.
pub struct Rows {
    sources: HashMap<i32, Source>,
    /// How each is set up.
    settings: HashMap<i32, sources::Source>,
    /// By leaf index, what the rows looked up last say about their order.
    facts: HashMap<i64, Facts>,
    /// What is kept of the entries looked up last.
    annexes: HashMap<i64, Annex>,
    unchecked: BTreeMap<Versioned, Unchecked>,
    /// By removed source.
    departed: BTreeMap<i32, Departed>,
    /// By source: its partitions, where it has or had some on record.
    partitions: HashMap<i32, Partitions>,
    /// By source: the entries of rows that were retired.
    retired: HashMap<i32, Retired>,
    /// The sources of which rows were come across that were retired and are gone.
    released: BTreeSet<i32>,
    /// By source: which rows were read along with the entries.
    covered: HashMap<i32, Covered>,
    /// Rows without an entry that were come across.
    unlogged: Vec<Stray>,
    /// The first entries to come are those of the whole log.
    from_start: bool,
    redacted: RedactedKeys,
    /// That order columns get their values otherwise than when their sources were added.
    reordered: Vec<Finding>,
}

impl Rows {
    /// The sources as they were put on record, so that a setting that was altered is one finding, not one a row.
    /// None of them is open yet.
    pub fn of(session: &Session, log: &Log, record: &Record, from_start: bool) -> Rows {
        let stored = sources::all(session, log);
        let replay = record.replay.as_ref();
        let recorded = replay.map(|r| r.sources(log, &stored)).unwrap_or_default();
        // A source that is not on record is a finding, and nothing more is said about it.
        let mut all: Vec<sources::Source> = match replay {
            Some(_) => recorded.into_values().collect(),
            None => stored,
        };
        for source in &mut all {
            if let Some(table) = bound_here(session, &source.bound_to) {
                source.relation = table;
            }
        }
        Rows {
            sources: HashMap::new(),
            settings: all.into_iter().map(|s| (s.id, s)).collect(),
            facts: HashMap::new(),
            annexes: HashMap::new(),
            unchecked: BTreeMap::new(),
            departed: BTreeMap::new(),
            partitions: HashMap::new(),
            retired: HashMap::new(),
            released: BTreeSet::new(),
            covered: HashMap::new(),
            unlogged: Vec::new(),
            from_start,
            redacted: RedactedKeys::load(session, Snapshot::Statement, log),
            reordered: Vec::new(),
        }
    }

    /// Opens those sources that `which` chooses and that are not open yet; returns their ids.
    pub fn open(
        &mut self,
        session: &Session,
        log: &Log,
        record: &Record,
        which: impl Fn(&sources::Source) -> bool,
    ) -> Vec<i32> {
        let is_new = |s: &&sources::Source| !self.sources.contains_key(&s.id) && which(s);
        let mut new: Vec<sources::Source> =
            self.settings.values().filter(is_new).cloned().collect();
        new.sort_by_key(|s| s.id);
        let replay = record.replay.as_ref();
        for source in &new {
            let versions = replay.map(|r| r.versions(source.id)).unwrap_or_default();
            let opened = opened(session, log, source, versions);
            let retired = match replay {
                Some(replay) => Retired::on_record(&replay.retirements(source.id)),
                None => Retired::load(session, Snapshot::Statement, source.id),
            };
            self.retired.insert(source.id, retired);
            if let Source::Here(shape) = &opened {
                self.reordered.extend(reordered(session, log, shape));
                let on_record = replay.map(|r| r.partitions(source.id));
                let partitions = Partitions::load(session, shape, on_record);
                self.partitions.insert(source.id, partitions);
            }
            self.sources.insert(source.id, opened);
        }
        new.into_iter().map(|s| s.id).collect()
    }

    /// The shapes of the sources that can be read, by source id.
    pub fn shapes(&self) -> Vec<&Shape> {
        let mut shapes: Vec<&Shape> = self
            .sources
            .values()
            .filter_map(|s| match s {
                Source::Here(shape) => Some(shape.as_ref()),
                _ => None,
            })
            .collect();
        shapes.sort_by_key(|s| s.source.id);
        shapes
    }

    /// Why entries of a source cannot be recomputed, where some could not.
    pub fn obstacles(&self, source_id: i32) -> Option<String> {
        let of_source = |((id, _), (.., why)): (&Versioned, &Unchecked)| {
            (*id == source_id).then(|| why.clone())
        };
        self.unchecked.iter().find_map(of_source)
    }

    /// How a source is set up.
    pub fn source(&self, source_id: i32) -> Option<&sources::Source> {
        self.settings.get(&source_id)
    }

    /// The ids of all sources that ever fed the log.
    pub fn ids(&self) -> Vec<i32> {
        let mut ids: Vec<i32> = self.settings.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// A source that can be read.
    pub fn shape(&self, source_id: i32) -> Option<&Shape> {
        match self.sources.get(&source_id) {
            Some(Source::Here(shape)) => Some(shape),
            _ => None,
        }
    }

    /// The names of the captured sources.
    pub fn captured(&self) -> Vec<&str> {
        let captured = |s: &&sources::Source| s.by_trigger() && !s.removed;
        let captured = self.settings.values().filter(captured);
        captured.map(|s| s.name.as_str()).collect()
    }

    /// The tables of sources.
    pub fn relations(&self, of: &[i32]) -> Vec<pg_sys::Oid> {
        let relation = |id| self.settings.get(id).map(|s| s.relation);
        of.iter().filter_map(relation).collect()
    }

    /// True if a source was looked for, readable or not.
    pub fn is_open(&self, source_id: i32) -> bool {
        self.sources.contains_key(&source_id)
    }

    pub fn set_watermark(&mut self, source_id: i32, watermark: Option<Vec<String>>) {
        if let Some(Source::Here(shape)) = self.sources.get_mut(&source_id) {
            shape.source.watermark = watermark;
        }
    }

    /// What the rows that were looked up last say about their order, by leaf index.
    pub fn take_facts(&mut self) -> HashMap<i64, Facts> {
        std::mem::take(&mut self.facts)
    }

    /// What is kept of the entries that were looked up last, by leaf index.
    pub fn take_annexes(&mut self) -> HashMap<i64, Annex> {
        std::mem::take(&mut self.annexes)
    }

    /// The rows of a source that were not read along with the entries.
    pub fn gaps(&self, source_id: i32) -> Vec<Range> {
        let whole = || Covered::default().gaps();
        self.covered
            .get(&source_id)
            .map_or_else(whole, Covered::gaps)
    }

    /// How many rows were read along with the entries.
    pub fn walked(&self) -> u64 {
        self.covered.values().map(|c| c.rows).sum()
    }

    /// The rows without an entry that were come across since the last call.
    pub fn take_unlogged(&mut self) -> Vec<Stray> {
        std::mem::take(&mut self.unlogged)
    }

    /// What is found out on the way and belongs to the whole log.
    pub fn notes(self) -> Notes {
        Notes {
            unchecked: self.unchecked.into_iter().collect(),
            departed: self.departed.into_iter().collect(),
            released: self.released.into_iter().collect(),
            covered: self.covered,
        }
    }

    /// Takes over what was found out about the entries behind these.
    pub fn absorb(&mut self, notes: Notes) {
        for (at, (count, first, why)) in notes.unchecked {
            self.unchecked.entry(at).or_insert((0, first, why)).0 += count;
        }
        for (source_id, theirs) in notes.departed {
            let ours = self.departed.entry(source_id);
            let ours = ours.or_insert(Departed::starting(theirs.first));
            ours.entries += theirs.entries;
            ours.differing += theirs.differing;
            ours.first_differing = ours.first_differing.or(theirs.first_differing);
        }
        self.released.extend(notes.released);
        for (source_id, covered) in notes.covered {
            self.covered.entry(source_id).or_default().append(covered);
        }
    }

    pub fn name_of(&self, source_id: i32) -> Option<String> {
        self.settings.get(&source_id).map(|s| s.name.clone())
    }

    /// What the sources, and what is kept of entries, say about each of `entries`, in their order.
    pub fn look_up(
        &mut self,
        session: &Session,
        log: &Log,
        record: &Record,
        entries: &[Entry],
    ) -> Result<Vec<Row>, Error> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Vec::new());
        };
        let annexes = leaves::annexes(session, log, first.leaf_index, last.leaf_index + 1);
        let nothing = Annex::default();
        let annex = |entry: &Entry| annexes.get(&entry.leaf_index).unwrap_or(&nothing);
        let latest = self.latest(session, log, entries);
        let mut rows = vec![Row::Unknown; entries.len()];
        let mut groups: BTreeMap<(i32, i32), Vec<usize>> = BTreeMap::new();
        for (place, entry) in entries.iter().enumerate() {
            if let Some(Source::Removed { .. }) = self.sources.get(&entry.source_id) {
                let note = self.departed.entry(entry.source_id);
                let note = note.or_insert(Departed::starting(entry.leaf_index));
                note.entries += 1;
            }
            let kept = annex(entry).leaf_data.as_ref().map(|kept| kept.hash);
            let source = self.sources.get(&entry.source_id);
            rows[place] = match (kept, source) {
                (Some(hash), _) if hash.as_bytes().as_slice() != entry.leaf_hash => Row::Kept(hash),
                (Some(_), _) if self.contradicts(session, log, entry, annex(entry)) => {
                    Row::Impossible("what is on record about it is not what was hashed".to_owned())
                }
                (Some(hash), _) if entry.source_id == OF_LOG => Row::Kept(hash),
                (None, _) if entry.source_id == OF_LOG => {
                    Row::Erased("what the log recorded about itself is gone".to_owned())
                }
                (_, None) => Row::Impossible(format!("there is no source {}", entry.source_id)),
                (_, Some(source))
                    if source.salted()
                        && annex(entry).salt.is_some()
                        && self
                            .redacted
                            .has(entry.source_id, &entry.key, entry.leaf_index) =>
                {
                    Row::Unredacted
                }
                (_, Some(source)) if source.salted() && annex(entry).salt.is_none() => {
                    match redaction::on_record(session, log, entry) {
                        Some(reason) => Row::Redacted(reason),
                        None => Row::Erased(
                            "its salt is gone, and no redaction is on record".to_owned(),
                        ),
                    }
                }
                (None, _)
                    if record.replay.as_ref().is_some_and(|r| {
                        let captured = annex(entry).statement.is_some();
                        r.keeps(entry.source_id, entry.leaf_index, captured)
                    }) =>
                {
                    Row::Erased("its leaf data are gone, which its source keeps".to_owned())
                }
                (_, Some(source))
                    if source.shape().is_some_and(|shape| {
                        !shape.source.by_trigger() || latest.contains(&entry.leaf_index)
                    }) =>
                {
                    let shape = source.shape().expect("looked for above");
                    let version = shape.version_of(entry.leaf_index).number;
                    let group = groups.entry((entry.source_id, version)).or_default();
                    group.push(place);
                    Row::Unknown
                }
                (Some(hash), _) => Row::Kept(hash),
                (None, _) => Row::Unknown,
            };
        }
        for ((source_id, version), places) in groups {
            let Some(source) = self.sources.get(&source_id) else {
                continue;
            };
            let Some(shape) = source.shape() else {
                continue;
            };
            let removed = matches!(source, Source::Removed { .. });
            let members: Vec<(&Entry, &Annex)> = places
                .iter()
                .map(|p| (&entries[*p], annex(&entries[*p])))
                .collect();
            let mut scan = scan_of(log, shape, version, &members)?;
            let obstacle = obstacle(&scan);
            let mut walked = Walked::default();
            if !shape.source.by_trigger() && !removed {
                let entries: Vec<&Entry> = members.iter().map(|(entry, _)| *entry).collect();
                let covered = self.covered.entry(source_id).or_default();
                let start = self.from_start;
                walked = walk(session, log, shape, &mut scan, &entries, covered, start)
                    .unwrap_or_default();
                let stray = |row: SourceRow| Stray {
                    source_table: shape.source.name.clone(),
                    hash: row.hash.as_bytes().to_vec(),
                    key: row.key,
                };
                self.unlogged.extend(walked.unlogged.drain(..).map(stray));
            }
            let (mut found, facts) = recompute(shape, &mut scan, &members, &walked.hashes);
            for (place, facts) in walked.facts.drain(..).chain(facts) {
                let entry = &entries[places[place]];
                self.facts.insert(entry.leaf_index, facts);
            }
            if shape.source.by_trigger() {
                excuse_queued(session, shape, &members, &mut found);
            }
            if found.contains(&Row::Gone) && table::is_replaced(session, shape.source.relation) {
                let gone = found.iter_mut().filter(|row| **row == Row::Gone);
                gone.for_each(|row| *row = Row::Unknown);
            }
            if let Some(partitions) = self.partitions.get(&source_id) {
                excuse_detached(shape, partitions, &members, &mut found);
            }
            if let Some(retired) = self.retired.get(&source_id) {
                for (row, (entry, _)) in found.iter_mut().zip(&members) {
                    let is_released = retired.contains(entry.leaf_index)
                        && (*row == Row::Gone
                            || differs(row, entry) && is_replaced(session, log, shape, entry)?);
                    if is_released {
                        *row = Row::Retired;
                        self.released.insert(source_id);
                    }
                }
            }
            for (place, row) in places.into_iter().zip(found) {
                let entry = &entries[place];
                if removed && differs(&row, entry) {
                    if let Some(note) = self.departed.get_mut(&source_id) {
                        note.differing += 1;
                        note.first_differing.get_or_insert(entry.leaf_index);
                    }
                    rows[place] = Row::Unknown;
                    continue;
                }
                let differs = match &row {
                    Row::Is(hash) => hash.as_bytes().as_slice() != entry.leaf_hash,
                    Row::Gone | Row::Impossible(_) => !scan.relabelled.is_empty(),
                    _ => false,
                };
                rows[place] = match &obstacle {
                    Some(why) if differs => {
                        let note = self.unchecked.entry((source_id, version)).or_insert((
                            0,
                            entry.leaf_index,
                            why.clone(),
                        ));
                        note.0 += 1;
                        Row::Unknown
                    }
                    _ => row,
                };
            }
        }
        self.annexes = annexes;
        Ok(rows)
    }

    /// True if an entry's kept leaf data say something else than its key, where it is the log's own, or
    /// than the statement on record: which of a row's entries is to be held against it, and whether it
    /// should be there at all, is told by these.
    fn contradicts(&self, session: &Session, log: &Log, entry: &Entry, annex: &Annex) -> bool {
        let kept = annex.leaf_data.as_ref();
        // Of a row's entry, the columns are not looked at.
        let leaf = match kept.is_some_and(|k| k.is_long) && entry.source_id == OF_LOG {
            true => leaves::in_full(session, Snapshot::Statement, log, entry.leaf_index),
            false => kept.and_then(|k| Leaf::decode(&k.leaf_data).ok()),
        };
        let Some(leaf) = leaf else {
            return true;
        };
        if leaf.kind == Kind::Redact {
            let row = redacted::row_of(&leaf);
            return !redacted::is_of(&leaf, &entry.key)
                || row.is_some_and(|row| !self.redacted.is_recorded(&row, entry.leaf_index));
        }
        if leaf.kind == Kind::Seal {
            return super::sealed::contradicts(session, log, entry, &leaf);
        }
        if leaf.kind == Kind::Administration {
            return administration::listing::Listed::new(&leaf)
                .is_none_or(|l| l.key() != entry.key);
        }
        if entry.source_id == OF_LOG {
            let truncated = |(id, source): (&i32, &sources::Source)| {
                source.name == leaf.source && truncation_key(*id) == entry.key
            };
            return leaf.kind != Kind::Truncate || !self.settings.iter().any(truncated);
        }
        let hashed = leaf
            .origin
            .map(|o| (o.transaction, o.user, o.role, o.application, o.at));
        let recorded = annex.statement.as_ref();
        let recorded = recorded.map(|s| {
            let (user, role, application) = (s.user.clone(), s.role.clone(), s.application.clone());
            (s.transaction, user, role, application, s.at)
        });
        let kind = match leaf.kind {
            Kind::Hash => Kind::Insert,
            kind => kind,
        };
        annex.kind() != Some(kind) || hashed != recorded
    }

    /// Those of `entries` that the order index does not lead to. Keys that are no values of their type are
    /// not judged here.
    pub fn unmarked<'e>(
        &self,
        session: &Session,
        entries: Vec<&'e Entry>,
    ) -> Result<Vec<&'e Entry>, Error> {
        let key = |entry: &Entry| match self.sources.get(&entry.source_id) {
            Some(Source::Here(shape)) => row_key::sort_key(shape, &entry.key, entry.leaf_index),
            _ => None,
        };
        let marks = subtransaction::run(|| {
            let mark = |entry: &&'e Entry| {
                let mark = Mark {
                    source_id: entry.source_id,
                    key: key(entry)?,
                    leaf_index: entry.leaf_index,
                };
                Some((mark, *entry))
            };
            entries.iter().filter_map(mark).collect::<Vec<_>>()
        });
        let mut marks = marks.unwrap_or_default();
        let missing = order_index::missing(session, marks.iter().map(|(m, _)| *m))?;
        marks.retain(|(mark, _)| missing.contains(mark));
        Ok(marks.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The leaf indexes, among those of captured rows, that are the latest of their row and say that
    /// it is there: only these can be held against the row as it is now.
    fn latest(&self, session: &Session, log: &Log, entries: &[Entry]) -> HashSet<i64> {
        let mut keys: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for entry in entries {
            let shape = self.sources.get(&entry.source_id).and_then(Source::shape);
            if shape.is_some_and(|shape| shape.source.by_trigger()) {
                keys.entry(entry.source_id)
                    .or_default()
                    .push(entry.key.clone());
            }
        }
        keys.into_iter()
            .flat_map(|(source, keys)| {
                entries::live(session, Snapshot::Statement, log, source, keys).into_values()
            })
            .collect()
    }

    /// What could not be checked: one finding a source version.
    pub fn summary(&self) -> Vec<Finding> {
        let unreadable = self.sources.values().filter_map(|source| match source {
            Source::Unreadable {
                name, kind, reason, ..
            } => Some(Finding {
                source_table: Some(name.clone()),
                ..Finding::of_log(*kind, None, reason.clone())
            }),
            _ => None,
        });
        let unchecked = self.unchecked.iter().map(|((source_id, version), (count, first, why))| {
            let detail = format!("{count} entries of version {version} of the columns cannot be recomputed: {why}");
            Finding {
                source_table: self.name_of(*source_id),
                ..Finding::of_log(Finds::SchemaChanged, Some(*first), detail)
            }
        });
        let departed = self.departed.iter().map(|(source_id, departed)| {
            let Departed { entries, first, differing, first_differing } = departed;
            let removed = "the table was removed from the log, and did not go on as the same source";
            let detail = match self.sources.get(source_id) {
                Some(Source::Removed { shape: Err(why), .. }) => format!(
                    "{removed}; its {entries} entries cannot be held against any row: {why}"
                ),
                _ if *differing > 0 => format!(
                    "{removed}; {differing} of its {entries} entries are not what it holds now, which may have come before or after that"
                ),
                _ => format!("{removed}; what it holds now contradicts none of its {entries} entries"),
            };
            Finding {
                source_table: self.name_of(*source_id),
                ..Finding::of_log(Finds::SourceRemoved, Some(first_differing.unwrap_or(*first)), detail)
            }
        });
        let released = self.released.iter().filter_map(|source_id| {
            let retired = self.retired.get(source_id)?;
            let detail = format!(
                "{} of its rows were retired, which is on record: the log keeps what those were that are gone, and table_at has them",
                retired.entries()
            );
            Some(Finding {
                source_table: self.name_of(*source_id),
                ..Finding::of_log(Finds::Retired, retired.first(), detail)
            })
        });
        let renamed = self.shapes().into_iter().flat_map(renamed);
        unreadable
            .chain(unchecked)
            .chain(departed)
            .chain(released)
            .chain(renamed)
            .chain(self.reordered.iter().cloned())
            .collect()
    }
}

/// A source, with its table where that can be read.
fn opened(
    session: &Session,
    log: &Log,
    source: &sources::Source,
    versions: Vec<Version>,
) -> Source {
    let salted = source.salted;
    let shape = state::open_versions(session, log, source, versions);
    match shape {
        shape if source.removed => Source::Removed {
            salted,
            shape: shape.map(Box::new).map_err(|problem| problem.detail),
        },
        Ok(shape) => Source::Here(Box::new(shape)),
        Err(problem) => Source::Unreadable {
            name: source.name.clone(),
            salted,
            kind: match problem.state {
                State::TableGone => Finds::Deleted,
                State::Damaged => Finds::Unreadable,
                _ => Finds::SchemaChanged,
            },
            reason: match problem.state {
                State::TableGone => gone(&problem),
                _ => format!("{}. {}", problem.detail, problem.mend),
            },
        },
    }
}

/// One finding for each version under which names stood for something else.
fn renamed(shape: &Shape) -> Vec<Finding> {
    let of_version = |version: &Version| {
        let names = shape.reused(version);
        let detail = format!(
            "what is called so now was called otherwise in version {} of the columns, from entry {} on: {}",
            version.number,
            version.from_leaf_index,
            names.join(", ")
        );
        (!names.is_empty()).then(|| Finding {
            source_table: Some(shape.source.name.clone()),
            ..Finding::of_log(Finds::Renamed, Some(version.from_leaf_index), detail)
        })
    };
    let next = |place: usize| shape.versions.get(place + 1).map(|v| v.from_leaf_index);
    let used = |(place, version): &(usize, &Version)| next(*place) != Some(version.from_leaf_index);
    let versions = shape.versions.iter().enumerate().filter(used);
    versions
        .filter_map(|(_, version)| of_version(version))
        .collect()
}

fn reordered(session: &Session, log: &Log, shape: &Shape) -> Option<Finding> {
    let problem = state::order_changed(session, log, shape)?;
    Some(Finding {
        source_table: Some(shape.source.name.clone()),
        ..Finding::of_log(
            Finds::OrderChanged,
            None,
            format!("{}. {}", problem.detail, problem.mend),
        )
    })
}

/// What to do about a table that is gone, without passing another one off as it.
fn gone(problem: &Problem) -> String {
    format!(
        "{}, and its entries cannot be held against any row. If it was dropped on purpose, {} puts that on record; verify_log then says source_removed for its entries. Another table of the same name is another source, and vouches for none of them",
        problem.detail, problem.mend
    )
}

/// Reads rows of one source as they were under a version, for `entries`.
/// True if another row has the key of an entry since, which was logged like any other: the row that a later entry is of.
fn is_replaced(session: &Session, log: &Log, shape: &Shape, entry: &Entry) -> Result<bool, Error> {
    let keys = vec![entry.key.clone()];
    let latest = entries::live(session, Snapshot::Statement, log, entry.source_id, keys);
    let latest = latest.into_values().find(|index| *index > entry.leaf_index);
    let Some(index) = latest else {
        return Ok(false);
    };
    let Some(latest) = entries::between(session, log, index, index + 1)?.pop() else {
        return Ok(false);
    };
    let annexes = leaves::annexes(session, log, index, index + 1);
    let annex = annexes.get(&index).cloned().unwrap_or_default();
    let members = [(&latest, &annex)];
    let mut scan = scan_of(log, shape, shape.version_of(index).number, &members)?;
    let (found, _) = recompute(shape, &mut scan, &members, &[None]);
    Ok(
        matches!(found.first(), Some(Row::Is(hash)) if hash.as_bytes().as_slice() == latest.leaf_hash),
    )
}

fn scan_of(
    log: &Log,
    shape: &Shape,
    version: i32,
    entries: &[(&Entry, &Annex)],
) -> Result<Scan, Error> {
    let of_number = shape.versions.iter().find(|v| v.number == version);
    let mut scan = Scan::new(log, shape, of_number.unwrap_or(shape.current()))?;
    let says_something = |annex: &Annex| annex.statement.is_some() || annex.salt.is_some();
    let annexes = entries
        .iter()
        .filter(|(_, annex)| says_something(annex))
        .map(|(entry, annex)| (entry.key.clone(), (*annex).clone()));
    scan.annexes = KeyEquality::of(shape).map(annexes);
    Ok(scan)
}

/// The rows of `entries`, all of one source and version: those in `known`, by place, and the others by
/// their keys.
fn recompute(
    shape: &Shape,
    scan: &mut Scan,
    entries: &[(&Entry, &Annex)],
    known: &[Option<Hash>],
) -> (Vec<Row>, Vec<(usize, Facts)>) {
    let equality = KeyEquality::of(shape);
    let mut read = |keys: &[Vec<String>]| {
        subtransaction::run(|| {
            let statement = statement::rows_by_key(shape, scan.attributes(), keys);
            match scan.all(Snapshot::Statement, &statement) {
                Ok(leaves) => equality.map(leaves.into_iter().map(|l| {
                    let facts = Facts::of(&l);
                    (l.key, (l.hash, facts))
                })),
                Err(error) => error.raise(),
            }
        })
    };
    // A stored key that cannot be taken apart is left for the look-up to refuse.
    let parts = |entry: &Entry| {
        row_key::parts(shape, &entry.key)
            .unwrap_or_else(|_| vec![entry.key.clone(); shape.key.len()])
    };
    let known = |place: usize| known.get(place).copied().flatten();
    let mut rows: Vec<Row> = (0..entries.len())
        .map(|place| known(place).map_or(Row::Gone, Row::Is))
        .collect();
    let others: Vec<usize> = (0..entries.len())
        .filter(|place| known(*place).is_none())
        .collect();
    let mut facts = Vec::new();
    if others.is_empty() {
        return (rows, facts);
    }
    let keys: Vec<Vec<String>> = others.iter().map(|p| parts(entries[*p].0)).collect();
    let mut by_key =
        |found: &ByKey<(Hash, Facts)>, place: usize| match found.get(&entries[place].0.key) {
            Some((hash, of_row)) => {
                facts.push((place, of_row.clone()));
                Row::Is(*hash)
            }
            None => Row::Gone,
        };
    let length = |key: &Vec<String>| key.iter().map(String::len).sum();
    for range in row_key::handfuls(keys.iter().map(length)) {
        let (others, keys) = (&others[range.clone()], &keys[range]);
        match read(keys) {
            Ok(found) => {
                for place in others {
                    rows[*place] = by_key(&found, *place);
                }
            }
            // One of the keys is no key at all: ask one by one.
            Err(_) => {
                for (place, key) in others.iter().zip(keys) {
                    rows[*place] = match read(std::slice::from_ref(key)) {
                        Ok(found) => by_key(&found, *place),
                        Err(failure) => Row::Impossible(failure.message),
                    };
                }
            }
        }
    }
    (rows, facts)
}

/// A row that went with a partition which left the table was not deleted.
fn excuse_detached(
    shape: &Shape,
    partitions: &Partitions,
    entries: &[(&Entry, &Annex)],
    found: &mut [Row],
) {
    let gone: Vec<(usize, (i64, Vec<String>))> = found
        .iter()
        .enumerate()
        .filter(|(_, row)| **row == Row::Gone)
        .filter_map(|(place, _)| {
            let entry = entries[place].0;
            let parts = row_key::parts(shape, &entry.key).ok()?;
            Some((place, (entry.leaf_index, parts)))
        })
        .collect();
    if gone.is_empty() {
        return;
    }
    let (places, keys): (Vec<usize>, Vec<_>) = gone.into_iter().unzip();
    for (place, partition) in partitions.left_with(shape, &keys) {
        found[places[place]] = Row::Detached(partition);
    }
}

/// True if the row is not what the entry says, or is not there.
fn differs(row: &Row, entry: &Entry) -> bool {
    match row {
        Row::Is(hash) => hash.as_bytes().as_slice() != entry.leaf_hash,
        row => *row == Row::Gone,
    }
}

/// A row that differs from its latest entry is no finding while the queue has changes of it.
fn excuse_queued(
    session: &Session,
    shape: &Shape,
    entries: &[(&Entry, &Annex)],
    found: &mut [Row],
) {
    let suspects = found
        .iter()
        .zip(entries)
        .filter(|(row, (entry, _))| differs(row, entry));
    let keys: Vec<String> = suspects.map(|(_, (entry, _))| entry.key.clone()).collect();
    if keys.is_empty() {
        return;
    }
    let waiting = gather::waiting(session, Snapshot::Statement, shape, keys);
    for (row, (entry, _)) in found.iter_mut().zip(entries) {
        if waiting.contains(&entry.key) {
            *row = Row::Unknown;
        }
    }
}

fn obstacle(scan: &Scan) -> Option<String> {
    let gone = scan.missing.iter().map(|words| format!("column {words}"));
    let retyped = scan.retyped.iter().map(|words| format!("column {words}"));
    let relabelled = scan
        .relabelled
        .iter()
        .map(|words| format!("column {words}"));
    let words: Vec<String> = gone.chain(retyped).chain(relabelled).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
