//! Entries against the source rows as they are now.

use super::{Finding, Kind};
use crate::capture::scan::{self, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement;
use crate::catalog::logs::Log;
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::Entry;
use merkle_tree::Hash;
use std::collections::{BTreeMap, HashMap};

/// What the source says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The row's leaf hash now.
    Is(Hash),
    Gone,
    /// Not to be had: the source was removed or dropped, or its columns changed too much.
    Unknown,
    /// No row can have this key, or there is no such source.
    Impossible(String),
}

enum Source {
    Here(Box<Shape>),
    /// Removed from the log: its table may change as it likes.
    Removed(String),
    /// The table cannot be read any more.
    Unreadable {
        name: String,
        kind: Kind,
        reason: String,
    },
}

/// All sources that ever fed the log, and what could not be checked about them.
pub struct Rows {
    sources: HashMap<i32, Source>,
    /// Per source and version: how many entries could not be recomputed, the first, and why.
    unchecked: BTreeMap<(i32, i32), (u64, i64, String)>,
}

impl Rows {
    pub fn load(session: &Session, log: &Log) -> Result<Rows, Error> {
        let mut loaded = HashMap::new();
        for source in sources::all(session, log) {
            let name = source.name.clone();
            let state = if source.removed {
                Source::Removed(name)
            } else {
                match Shape::load(session, log, &source) {
                    Ok(shape) => Source::Here(Box::new(shape)),
                    Err(error @ Error::SourceGone { .. }) => Source::Unreadable {
                        name,
                        kind: Kind::Deleted,
                        reason: error.to_string(),
                    },
                    Err(error @ Error::KeyDropped { .. }) => Source::Unreadable {
                        name,
                        kind: Kind::SchemaChanged,
                        reason: error.to_string(),
                    },
                    Err(error) => return Err(error),
                }
            };
            loaded.insert(source.id, state);
        }
        Ok(Rows {
            sources: loaded,
            unchecked: BTreeMap::new(),
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

    pub fn name_of(&self, source_id: i32) -> Option<String> {
        self.sources.get(&source_id).map(|source| match source {
            Source::Here(shape) => shape.source.name.clone(),
            Source::Removed(name) | Source::Unreadable { name, .. } => name.clone(),
        })
    }

    /// What the sources say about each of `entries`, in their order.
    pub fn look_up(&mut self, log: &Log, entries: &[Entry]) -> Result<Vec<Row>, Error> {
        let mut rows = vec![Row::Unknown; entries.len()];
        let mut groups: BTreeMap<(i32, i32), Vec<usize>> = BTreeMap::new();
        for (place, entry) in entries.iter().enumerate() {
            match self.sources.get(&entry.source_id) {
                None => {
                    rows[place] = Row::Impossible(format!("there is no source {}", entry.source_id))
                }
                Some(Source::Here(shape)) => {
                    let version = shape.version_of(entry.leaf_index).number;
                    groups
                        .entry((entry.source_id, version))
                        .or_default()
                        .push(place);
                }
                Some(_) => {}
            }
        }
        for ((source_id, version), places) in groups {
            let Some(Source::Here(shape)) = self.sources.get(&source_id) else {
                continue;
            };
            let members: Vec<&Entry> = places.iter().map(|p| &entries[*p]).collect();
            let (found, obstacle) = recompute(log, shape, version, &members)?;
            for (place, row) in places.into_iter().zip(found) {
                let entry = &entries[place];
                let differs =
                    matches!(&row, Row::Is(hash) if hash.as_bytes().as_slice() != entry.leaf_hash);
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
        Ok(rows)
    }

    /// What could not be checked: one finding a source version.
    pub fn summary(&self) -> Vec<Finding> {
        let unreadable = self.sources.values().filter_map(|source| match source {
            Source::Unreadable { name, kind, reason } => Some(Finding {
                source_table: Some(name.clone()),
                ..Finding::of_log(*kind, None, reason.clone())
            }),
            _ => None,
        });
        let unchecked = self.unchecked.iter().map(|((source_id, version), (count, first, why))| {
            let detail = format!("{count} entries of version {version} of the columns cannot be recomputed: {why}");
            Finding {
                source_table: self.name_of(*source_id),
                ..Finding::of_log(Kind::SchemaChanged, Some(*first), detail)
            }
        });
        unreadable.chain(unchecked).collect()
    }
}

/// The rows of `entries`, all of one source and version, and what keeps the version from being
/// recomputed in full.
fn recompute(
    log: &Log,
    shape: &Shape,
    version: i32,
    entries: &[&Entry],
) -> Result<(Vec<Row>, Option<String>), Error> {
    let version = shape
        .versions
        .iter()
        .find(|v| v.number == version)
        .unwrap_or(shape.current());
    let mut scan = Scan::new(log, shape, version)?;
    let obstacle = obstacle(&scan);
    let mut read = |keys: &[Vec<String>]| {
        subtransaction::run(|| {
            let statement = statement::rows_by_key(shape, scan.attributes(), keys);
            match scan.all(Snapshot::Statement, &statement) {
                Ok(leaves) => leaves
                    .into_iter()
                    .map(|l| (l.key, l.hash))
                    .collect::<HashMap<_, _>>(),
                Err(error) => error.raise(),
            }
        })
    };
    // A stored key that cannot be taken apart is left for the look-up to refuse.
    let parts = |e: &&Entry| {
        scan::key_parts(shape, &e.key).unwrap_or_else(|_| vec![e.key.clone(); shape.key.len()])
    };
    let keys: Vec<Vec<String>> = entries.iter().map(parts).collect();
    let by_hash = |found: &HashMap<String, Hash>, entry: &Entry| match found.get(&entry.key) {
        Some(hash) => Row::Is(*hash),
        None => Row::Gone,
    };
    if let Ok(found) = read(&keys) {
        return Ok((
            entries.iter().map(|e| by_hash(&found, e)).collect(),
            obstacle,
        ));
    }
    // One of the keys is no key at all: ask one by one.
    let one = |(entry, key): (&&Entry, &Vec<String>)| match read(std::slice::from_ref(key)) {
        Ok(found) => by_hash(&found, entry),
        Err(failure) => Row::Impossible(failure.message),
    };
    Ok((entries.iter().zip(&keys).map(one).collect(), obstacle))
}

fn obstacle(scan: &Scan) -> Option<String> {
    let gone = scan
        .missing
        .iter()
        .map(|name| format!("column {name} is gone"));
    let retyped = scan.retyped.iter().map(|words| format!("column {words}"));
    let words: Vec<String> = gone.chain(retyped).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
