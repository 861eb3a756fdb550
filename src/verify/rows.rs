//! Entries against the source rows as they are now.

use super::{Finding, Kind as Finds};
use crate::capture::queue;
use crate::capture::scan::{self, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement;
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::redaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::leaves::{self, Annex};
use leaf_format::{Kind, Leaf};
use merkle_tree::{Hash, leaf_hash};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the source says about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The row's leaf hash now.
    Is(Hash),
    /// The hash of the leaf data that the log keeps.
    Kept(Hash),
    Gone,
    /// Its salt and leaf data were destroyed, which is on record: why.
    Redacted(String),
    /// Not to be had: the source was removed or dropped, or its columns changed too much.
    Unknown,
    /// No row can have this key, or there is no such source.
    Impossible(String),
}

enum Source {
    Here(Box<Shape>),
    /// Removed from the log: its table may change as it likes.
    Removed {
        name: String,
        salted: bool,
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
    /// Per source and version: how many entries could not be recomputed, the first, and why.
    unchecked: BTreeMap<(i32, i32), (u64, i64, String)>,
}

impl Rows {
    pub fn load(session: &Session, log: &Log) -> Result<Rows, Error> {
        let mut loaded = HashMap::new();
        for source in sources::all(session, log) {
            let (name, salted) = (source.name.clone(), source.salted);
            let state = if source.removed {
                Source::Removed { name, salted }
            } else {
                match Shape::locked(session, log, &source) {
                    Ok(shape) => Source::Here(Box::new(shape)),
                    Err(error @ Error::SourceGone { .. }) => Source::Unreadable {
                        name,
                        salted,
                        kind: Finds::Deleted,
                        reason: error.to_string(),
                    },
                    Err(error @ Error::KeyDropped { .. }) => Source::Unreadable {
                        name,
                        salted,
                        kind: Finds::SchemaChanged,
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
        self.sources
            .get(&source_id)
            .map(|source| source.name().to_owned())
    }

    /// What the sources, and what is kept of entries, say about each of `entries`, in their order.
    pub fn look_up(
        &mut self,
        session: &Session,
        log: &Log,
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
            let kept = annex(entry).leaf_data.as_deref().map(leaf_hash);
            let source = self.sources.get(&entry.source_id);
            rows[place] = match (kept, source) {
                (Some(hash), _) if hash.as_bytes().as_slice() != entry.leaf_hash => Row::Kept(hash),
                (Some(_), _) if self.contradicts(entry, annex(entry)) => {
                    Row::Impossible("what is on record about it is not what was hashed".to_owned())
                }
                (Some(hash), _) if entry.source_id == OF_LOG => Row::Kept(hash),
                (None, _) if entry.source_id == OF_LOG => {
                    Row::Impossible("what the log recorded about itself is gone".to_owned())
                }
                (_, None) => Row::Impossible(format!("there is no source {}", entry.source_id)),
                (_, Some(source)) if source.salted() && annex(entry).salt.is_none() => {
                    match redaction::on_record(session, log, entry) {
                        Some(reason) => Row::Redacted(reason),
                        None => Row::Impossible(
                            "its salt is gone, and no redaction is on record".to_owned(),
                        ),
                    }
                }
                (_, Some(Source::Here(shape)))
                    if !shape.source.by_trigger() || latest.contains(&entry.leaf_index) =>
                {
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
            let Some(Source::Here(shape)) = self.sources.get(&source_id) else {
                continue;
            };
            let members: Vec<(&Entry, &Annex)> = places
                .iter()
                .map(|p| (&entries[*p], annex(&entries[*p])))
                .collect();
            let (mut found, obstacle) = recompute(log, shape, version, &members)?;
            if shape.source.by_trigger() {
                excuse_queued(session, shape, &members, &mut found);
            }
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

    /// True if an entry's kept leaf data say something else than its key, where it is the log's own, or
    /// than the statement on record: which of a row's entries is to be held against it, and whether it
    /// should be there at all, is told by these.
    fn contradicts(&self, entry: &Entry, annex: &Annex) -> bool {
        let Some(Ok(leaf)) = annex.leaf_data.as_deref().map(Leaf::decode) else {
            return true;
        };
        if leaf.kind == Kind::Redact {
            return !redaction::is_of(&leaf, &entry.key);
        }
        if entry.source_id == OF_LOG {
            let truncated = |(id, source): (&i32, &Source)| {
                source.name() == leaf.source && truncation_key(*id) == entry.key
            };
            return leaf.kind != Kind::Truncate || !self.sources.iter().any(truncated);
        }
        let hashed = leaf
            .origin
            .map(|o| (o.transaction, o.user, o.application, o.at));
        let recorded = annex.origin();
        let recorded = recorded.map(|o| {
            (
                o.transaction,
                o.user.to_owned(),
                o.application.to_owned(),
                o.at,
            )
        });
        let kind = match leaf.kind {
            Kind::Hash => Kind::Insert,
            kind => kind,
        };
        annex.kind() != Some(kind) || hashed != recorded
    }

    /// The leaf indexes, among those of captured rows, that are the latest of their row and say that
    /// it is there: only these can be held against the row as it is now.
    fn latest(&self, session: &Session, log: &Log, entries: &[Entry]) -> HashSet<i64> {
        let mut keys: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for entry in entries {
            if let Some(Source::Here(shape)) = self.sources.get(&entry.source_id)
                && shape.source.by_trigger()
            {
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
        unreadable.chain(unchecked).collect()
    }
}

/// The rows of `entries`, all of one source and version, and what keeps the version from being
/// recomputed in full.
fn recompute(
    log: &Log,
    shape: &Shape,
    version: i32,
    entries: &[(&Entry, &Annex)],
) -> Result<(Vec<Row>, Option<String>), Error> {
    let version = shape
        .versions
        .iter()
        .find(|v| v.number == version)
        .unwrap_or(shape.current());
    let mut scan = Scan::new(log, shape, version)?;
    let annexes = entries
        .iter()
        .map(|(e, annex)| (e.key.clone(), (*annex).clone()));
    scan.annexes = annexes.collect();
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
    let parts = |(e, _): &(&Entry, &Annex)| {
        scan::key_parts(shape, &e.key).unwrap_or_else(|_| vec![e.key.clone(); shape.key.len()])
    };
    let keys: Vec<Vec<String>> = entries.iter().map(parts).collect();
    let by_hash = |found: &HashMap<String, Hash>, entry: &Entry| match found.get(&entry.key) {
        Some(hash) => Row::Is(*hash),
        None => Row::Gone,
    };
    if let Ok(found) = read(&keys) {
        return Ok((
            entries.iter().map(|(e, _)| by_hash(&found, e)).collect(),
            obstacle,
        ));
    }
    // One of the keys is no key at all: ask one by one.
    let one = |((entry, _), key): (&(&Entry, &Annex), &Vec<String>)| match read(
        std::slice::from_ref(key),
    ) {
        Ok(found) => by_hash(&found, entry),
        Err(failure) => Row::Impossible(failure.message),
    };
    Ok((entries.iter().zip(&keys).map(one).collect(), obstacle))
}

/// A row that differs from its latest entry is no finding while the queue has changes of it.
fn excuse_queued(
    session: &Session,
    shape: &Shape,
    entries: &[(&Entry, &Annex)],
    found: &mut [Row],
) {
    let differs = |(row, (entry, _)): &(&Row, &(&Entry, &Annex))| match row {
        Row::Is(hash) => hash.as_bytes().as_slice() != entry.leaf_hash,
        row => **row == Row::Gone,
    };
    let suspects = found.iter().zip(entries).filter(differs);
    let keys: Vec<String> = suspects.map(|(_, (entry, _))| entry.key.clone()).collect();
    if keys.is_empty() {
        return;
    }
    let waiting = queue::waiting(session, Snapshot::Statement, &shape.source, keys);
    for (row, (entry, _)) in found.iter_mut().zip(entries) {
        if waiting.contains(&entry.key) {
            *row = Row::Unknown;
        }
    }
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
