//! Entries held against the rows that they are of: what the tables, and what is kept of the entries, say.

use super::super::configuration::Record;
use super::super::walk::{Facts, Stray, Walked, walk};
use super::{Row, Rows, Source};
use crate::administration;
use crate::capture::key_equality::{ByKey, KeyEquality};
use crate::capture::partitions::Partitions;
use crate::capture::queue;
use crate::capture::row_key;
use crate::capture::scan::{Leaf as SourceRow, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement;
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::redaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::leaves::{self, Annex};
use crate::store::redacted;
use leaf_format::{Kind, Leaf};
use merkle_tree::{Hash, leaf_hash};
use std::collections::{BTreeMap, HashSet};

impl Rows {
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
            let annex = annex(entry);
            match self.without_the_row(session, log, record, entry, annex) {
                Some(row) => rows[place] = row,
                None => match self.version_to_read(entry, &latest) {
                    Some(version) => {
                        let group = groups.entry((entry.source_id, version)).or_default();
                        group.push(place);
                    }
                    None => {
                        let kept = annex.leaf_data.as_deref().map(leaf_hash);
                        rows[place] = kept.map_or(Row::Unknown, Row::Kept);
                    }
                },
            }
        }
        for ((source_id, version), places) in groups {
            let members: Vec<(&Entry, &Annex)> = places
                .iter()
                .map(|p| (&entries[*p], annex(&entries[*p])))
                .collect();
            let found = self.read_rows(session, log, (source_id, version), &members)?;
            for (place, row) in places.into_iter().zip(found) {
                rows[place] = row;
            }
        }
        self.annexes = annexes;
        Ok(rows)
    }

    /// What is to be said about an entry whatever its row is; `None` if the row tells.
    fn without_the_row(
        &self,
        session: &Session,
        log: &Log,
        record: &Record,
        entry: &Entry,
        annex: &Annex,
    ) -> Option<Row> {
        let kept = annex.leaf_data.as_deref().map(leaf_hash);
        let redacted = || {
            let key = (entry.source_id, entry.key.clone());
            self.redacted.contains(&key)
        };
        let kept_by_source = || {
            let captured = annex.statement.is_some();
            let replay = record.replay.as_ref();
            replay.is_some_and(|r| r.keeps(entry.source_id, entry.leaf_index, captured))
        };
        match (kept, self.sources.get(&entry.source_id)) {
            (Some(hash), _) if hash.as_bytes().as_slice() != entry.leaf_hash => {
                Some(Row::Kept(hash))
            }
            (Some(_), _) if self.contradicts(entry, annex) => Some(Row::Impossible(
                "what is on record about it is not what was hashed".to_owned(),
            )),
            (Some(hash), _) if entry.source_id == OF_LOG => Some(Row::Kept(hash)),
            (None, _) if entry.source_id == OF_LOG => Some(Row::Erased(
                "what the log recorded about itself is gone".to_owned(),
            )),
            (_, None) => Some(Row::Impossible(format!(
                "there is no source {}",
                entry.source_id
            ))),
            (_, Some(source)) if source.salted() && annex.salt.is_some() && redacted() => {
                Some(Row::Unredacted)
            }
            (_, Some(source)) if source.salted() && annex.salt.is_none() => {
                Some(match redaction::on_record(session, log, entry) {
                    Some(reason) => Row::Redacted(reason),
                    None => {
                        Row::Erased("its salt is gone, and no redaction is on record".to_owned())
                    }
                })
            }
            (None, _) if kept_by_source() => Some(Row::Erased(
                "its leaf data are gone, which its source keeps".to_owned(),
            )),
            _ => None,
        }
    }

    /// The version under which the row of an entry is to be read; `None` if the row is not held against it.
    fn version_to_read(&self, entry: &Entry, latest: &HashSet<i64>) -> Option<i32> {
        let shape = self.sources.get(&entry.source_id)?.shape()?;
        let is_latest = !shape.source.by_trigger() || latest.contains(&entry.leaf_index);
        is_latest.then(|| shape.version_of(entry.leaf_index).number)
    }

    /// What the rows of entries say, all of one source and version.
    fn read_rows(
        &mut self,
        session: &Session,
        log: &Log,
        (source_id, version): (i32, i32),
        members: &[(&Entry, &Annex)],
    ) -> Result<Vec<Row>, Error> {
        let nothing = vec![Row::Unknown; members.len()];
        let Some(source) = self.sources.get(&source_id) else {
            return Ok(nothing);
        };
        let Some(shape) = source.shape() else {
            return Ok(nothing);
        };
        let removed = matches!(source, Source::Removed { .. });
        let mut scan = scan_of(log, shape, version, members)?;
        let obstacle = obstacle(&scan);
        let mut walked = Walked::default();
        if !shape.source.by_trigger() && !removed {
            let entries: Vec<&Entry> = members.iter().map(|(entry, _)| *entry).collect();
            let covered = self.covered.entry(source_id).or_default();
            let start = self.from_start;
            walked =
                walk(session, log, shape, &mut scan, &entries, covered, start).unwrap_or_default();
            let stray = |row: SourceRow| Stray {
                source_table: shape.source.name.clone(),
                hash: row.hash.as_bytes().to_vec(),
                key: row.key,
            };
            self.unlogged.extend(walked.unlogged.drain(..).map(stray));
        }
        let (mut found, facts) = recompute(shape, &mut scan, members, &walked.hashes);
        for (place, facts) in walked.facts.drain(..).chain(facts) {
            self.facts.insert(members[place].0.leaf_index, facts);
        }
        if shape.source.by_trigger() {
            excuse_queued(session, shape, members, &mut found);
        }
        if let Some(partitions) = self.partitions.get(&source_id) {
            excuse_detached(shape, partitions, members, &mut found);
        }
        let relabelled = !scan.relabelled.is_empty();
        for (row, (entry, _)) in found.iter_mut().zip(members) {
            if removed && differs(row, entry) {
                let note = self.departed.entry(source_id);
                note.or_insert((0, entry.leaf_index)).0 += 1;
                *row = Row::Unknown;
                continue;
            }
            let differs = match row {
                Row::Is(hash) => hash.as_bytes().as_slice() != entry.leaf_hash,
                Row::Gone | Row::Impossible(_) => relabelled,
                _ => false,
            };
            if let Some(why) = obstacle.as_ref().filter(|_| differs) {
                let note = self.unchecked.entry((source_id, version));
                note.or_insert((0, entry.leaf_index, why.clone())).0 += 1;
                *row = Row::Unknown;
            }
        }
        Ok(found)
    }

    /// True if an entry's kept leaf data say something else than its key, where it is the log's own, or
    /// than the statement on record: which of a row's entries is to be held against it, and whether it
    /// should be there at all, is told by these.
    fn contradicts(&self, entry: &Entry, annex: &Annex) -> bool {
        let Some(Ok(leaf)) = annex.leaf_data.as_deref().map(Leaf::decode) else {
            return true;
        };
        if leaf.kind == Kind::Redact {
            let row = redacted::row_of(&leaf);
            return !redacted::is_of(&leaf, &entry.key)
                || row.is_some_and(|row| !self.redacted.contains(&row));
        }
        if leaf.kind == Kind::Administration {
            return administration::listing::Listed::new(&leaf)
                .is_none_or(|l| l.key() != entry.key);
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
}

/// Reads rows of one source as they were under a version, for `entries`.
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
    scan.annexes = KeyEquality::of(&shape.key).map(annexes);
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
    let equality = KeyEquality::of(&shape.key);
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
    match read(&keys) {
        Ok(found) => {
            for place in others {
                rows[place] = by_key(&found, place);
            }
        }
        // One of the keys is no key at all: ask one by one.
        Err(_) => {
            for (place, key) in others.into_iter().zip(&keys) {
                rows[place] = match read(std::slice::from_ref(key)) {
                    Ok(found) => by_key(&found, place),
                    Err(failure) => Row::Impossible(failure.message),
                };
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
    let waiting = queue::waiting(session, Snapshot::Statement, &shape.source, keys);
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
