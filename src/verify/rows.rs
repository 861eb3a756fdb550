//! Entries against the source rows as they are now.

mod look_up;

use super::configuration::{Record, bound_here};
use super::finding::{Finding, Kind as Finds};
use super::walk::{Covered, Facts, Range, Stray};
use crate::capture::partitions::Partitions;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::capture::state::{self, State};
use crate::catalog::logs::Log;
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::Entry;
use crate::store::leaves::Annex;
use crate::store::order_index::{self, Mark};
use crate::store::redacted;
use merkle_tree::Hash;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

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

/// What one part of a verification leaves for the whole.
#[derive(Serialize, Deserialize)]
pub struct Notes {
    unchecked: Vec<(Versioned, Unchecked)>,
    departed: Vec<(i32, (u64, i64))>,
    covered: HashMap<i32, Covered>,
}

enum Source {
    Here(Box<Shape>),
    /// Removed from the log: its table may change as it likes, and whether it did is still told.
    Removed {
        name: String,
        salted: bool,
        /// The table, where it can still be read and was not to be changed.
        shape: Option<Box<Shape>>,
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
    fn name(&self) -> &str {
        match self {
            Source::Here(shape) => &shape.source.name,
            Source::Removed { name, .. } | Source::Unreadable { name, .. } => name,
        }
    }

    /// The table, where it can be read.
    fn shape(&self) -> Option<&Shape> {
        match self {
            Source::Here(shape) => Some(shape),
            Source::Removed { shape, .. } => shape.as_deref(),
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
    /// By removed source: how many of its entries are not what its table holds now, and the first.
    departed: BTreeMap<i32, (u64, i64)>,
    /// By source: its partitions, where it has or had some on record.
    partitions: HashMap<i32, Partitions>,
    /// By source: which rows were read along with the entries.
    covered: HashMap<i32, Covered>,
    /// Rows without an entry that were come across.
    unlogged: Vec<Stray>,
    /// The first entries to come are those of the whole log.
    from_start: bool,
    redacted: HashSet<(i32, String)>,
}

impl Rows {
    /// The sources as they were put on record, so that a setting that was altered is one finding, not one a row.
    /// `which`: the sources to look at.
    pub fn load(
        session: &Session,
        log: &Log,
        record: &Record,
        from_start: bool,
        which: impl Fn(&sources::Source) -> bool,
    ) -> Result<Rows, Error> {
        let mut loaded = HashMap::new();
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
        let settings = all.iter().map(|s| (s.id, s.clone())).collect();
        for source in all.into_iter().filter(which) {
            let (name, salted) = (source.name.clone(), source.salted);
            let state = if source.removed {
                let shape = match source.by_trigger() {
                    true => None,
                    false => state::open(session, log, &source).ok().map(Box::new),
                };
                Source::Removed {
                    name,
                    salted,
                    shape,
                }
            } else {
                let recorded = replay.map(|r| r.versions(source.id)).unwrap_or_default();
                match state::open_versions(session, log, &source, recorded) {
                    Ok(shape) => Source::Here(Box::new(shape)),
                    Err(problem) => Source::Unreadable {
                        name,
                        salted,
                        kind: match problem.state {
                            State::TableGone => Finds::Deleted,
                            State::Damaged => Finds::Unreadable,
                            _ => Finds::SchemaChanged,
                        },
                        reason: format!("{}. {}", problem.detail, problem.mend),
                    },
                }
            };
            loaded.insert(source.id, state);
        }
        let partitions = loaded
            .iter()
            .filter_map(|(id, source)| match source {
                Source::Here(shape) => Some((*id, Partitions::load(session, shape))),
                _ => None,
            })
            .collect();
        Ok(Rows {
            sources: loaded,
            settings,
            facts: HashMap::new(),
            annexes: HashMap::new(),
            unchecked: BTreeMap::new(),
            departed: BTreeMap::new(),
            partitions,
            covered: HashMap::new(),
            unlogged: Vec::new(),
            from_start,
            redacted: redacted::keys(session, Snapshot::Statement, log),
        })
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
            covered: self.covered,
        }
    }

    /// Takes over what was found out about the entries behind these.
    pub fn absorb(&mut self, notes: Notes) {
        for (at, (count, first, why)) in notes.unchecked {
            self.unchecked.entry(at).or_insert((0, first, why)).0 += count;
        }
        for (source_id, (count, first)) in notes.departed {
            self.departed.entry(source_id).or_insert((0, first)).0 += count;
        }
        for (source_id, covered) in notes.covered {
            self.covered.entry(source_id).or_default().append(covered);
        }
    }

    pub fn name_of(&self, source_id: i32) -> Option<String> {
        self.sources
            .get(&source_id)
            .map(|source| source.name().to_owned())
    }

    /// Those of `entries` that the order index does not lead to. Keys that are no values of their type are
    /// not judged here.
    pub fn unmarked<'e>(
        &self,
        session: &Session,
        entries: Vec<&'e Entry>,
    ) -> Result<Vec<&'e Entry>, Error> {
        let key = |entry: &Entry| match self.sources.get(&entry.source_id) {
            Some(Source::Here(shape)) => row_key::sort_key(shape, &entry.key),
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
        let departed = self.departed.iter().map(|(source_id, (count, first))| {
            let detail = format!("the table was removed from the log; {count} of its entries are not what it holds now, which may have come before or after that");
            Finding {
                source_table: self.name_of(*source_id),
                ..Finding::of_log(Finds::SourceRemoved, Some(*first), detail)
            }
        });
        unreadable.chain(unchecked).chain(departed).collect()
    }
}
