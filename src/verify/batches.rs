//! What batches record beside leaf hashes, against the digests in their tree heads.

use super::Verification;
use super::finding::{Finding, Kind};
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries::Entry;
use crate::store::heads::{self, Recorded};
use crate::store::leaves::{self, Kept};
use crate::store::metadata::{self, Metadata, Sum};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Places of faults that are remembered, to tell whether a batch's has been found already.
const PLACES: usize = 10_000;

/// A batch that was looked at in part.
#[derive(Default, Serialize, Deserialize)]
struct Part {
    first: i64,
    entries: i64,
    sum: Sum,
    created_at: i64,
    stored: Option<Vec<u8>>,
}

/// A batch whose entries give another digest than the recorded one.
#[derive(Serialize, Deserialize)]
struct Bad {
    first: i64,
    end: i64,
    digest: Vec<u8>,
}

/// The batches that the entries checked so far are of.
#[derive(Default, Serialize, Deserialize)]
pub struct Batches {
    /// By the size of the tree that they end at: those that are not complete yet.
    parts: BTreeMap<i64, Part>,
    /// Those whose digest is another.
    bad: Vec<Bad>,
    /// Entries that are known to be altered or missing.
    places: Vec<i64>,
    /// Something of ours is known to be wrong, so a row without an entry may have had one.
    entries_damaged: bool,
    /// Some entry does not exist.
    entries_missing: bool,
    /// Table and key of entries that are not found by their keys.
    unfound: HashSet<(Option<String>, Option<String>)>,
    /// Entries of whose columns only the digest is kept.
    digests: Vec<i64>,
    /// A head with a digest has been seen: later ones have one.
    seen: bool,
    /// So have those of larger trees than this.
    since: Option<i64>,
}

impl Batches {
    /// Batches of a log whose heads have digests beyond a tree size, where that is known.
    pub fn since(since: Option<i64>) -> Batches {
        Batches {
            since,
            ..Batches::default()
        }
    }

    /// Takes over what was found out about the entries behind these.
    pub fn absorb(&mut self, other: Batches) {
        self.bad.extend(other.bad);
        self.places.extend(other.places);
        self.digests.extend(other.digests);
        self.unfound.extend(other.unfound);
        self.entries_damaged |= other.entries_damaged;
        self.entries_missing |= other.entries_missing;
        self.seen |= other.seen;
        for (size, theirs) in other.parts {
            let ours = self.parts.entry(size).or_default();
            let entries = ours.entries + theirs.entries;
            let mut sum = theirs.sum;
            metadata::add(&mut sum, &ours.sum);
            *ours = Part {
                entries,
                sum,
                ..theirs
            };
            self.judge(size);
        }
    }

    /// Forgets batches that were looked at in part: what is left of them has another digest.
    pub fn forget_parts(&mut self) {
        self.parts.clear();
    }

    /// Forgets which entries are known to be altered, where all is said of their batches. `next`: the first entry
    /// that was not looked at.
    pub fn forget_settled(&mut self, next: i64) {
        let bad = self.bad.iter().map(|bad| (bad.first, bad.end));
        let mut open: Vec<(i64, i64)> = bad.collect();
        open.extend(self.parts.iter().map(|(size, part)| (part.first, *size)));
        // The head before a batch is a part of it.
        let unsettled = |at: &i64| {
            *at + 1 >= next
                || open
                    .iter()
                    .any(|(first, end)| (first - 1..*end).contains(at))
        };
        self.places.retain(unsettled);
        self.digests.retain(unsettled);
    }

    /// Compares a batch whose entries have all been seen.
    fn judge(&mut self, size: i64) {
        let complete = |part: &Part| part.entries == size - part.first;
        if !self.parts.get(&size).is_some_and(complete) {
            return;
        }
        let Some(part) = self.parts.remove(&size) else {
            return;
        };
        let mut head = Metadata::default();
        head.head(size, part.created_at);
        let mut sum = head.sum();
        metadata::add(&mut sum, &part.sum);
        let right = match &part.stored {
            Some(stored) => *stored == metadata::bytes(&sum),
            None => !self.seen && self.since.is_none_or(|since| size <= since),
        };
        self.seen |= part.stored.is_some();
        if !right && self.bad.len() < PLACES {
            self.bad.push(Bad {
                first: part.first,
                end: size,
                digest: metadata::bytes(&sum),
            });
        }
    }

    pub fn note(&mut self, findings: &[Finding]) {
        for finding in findings {
            let (damaged, of_batch) = match finding.kind {
                Kind::EntryAltered | Kind::EntryMissing => (true, true),
                Kind::IndexMismatch => (true, false),
                Kind::HeadMismatch | Kind::LeafDataAltered => (false, true),
                _ => continue,
            };
            self.entries_damaged |= damaged;
            self.entries_missing |= finding.kind == Kind::EntryMissing;
            if finding.kind == Kind::IndexMismatch && self.unfound.len() < PLACES {
                self.unfound.insert(Self::row(finding));
            }
            if of_batch && self.places.len() < PLACES {
                self.places.extend(finding.leaf_index);
            }
        }
    }

    pub fn note_place(&mut self, leaf_index: Option<i64>) {
        self.places.extend(leaf_index);
    }

    fn note_digest(&mut self, leaf_index: i64) {
        if self.digests.len() < PLACES {
            self.digests.push(leaf_index);
        }
    }

    /// True if the keys or statements of an entry may not be what its batch wrote.
    pub fn doubts(&self, leaf_index: i64) -> bool {
        let holds = |bad: &Bad| (bad.first..bad.end).contains(&leaf_index);
        self.bad.iter().any(holds)
    }

    /// True if an entry that seems to be the last of a captured row may not be it.
    pub fn entries_missing(&self) -> bool {
        self.entries_missing
    }

    /// True if a later entry of a finding's row may not have been found by its key.
    pub fn is_unfound(&self, finding: &Finding) -> bool {
        self.unfound.contains(&Self::row(finding))
    }

    fn row(finding: &Finding) -> (Option<String>, Option<String>) {
        (finding.source_table.clone(), finding.source_key.clone())
    }

    /// True if a row without an entry may have lost it.
    pub fn entries_damaged(&self) -> bool {
        self.entries_damaged || !self.bad.is_empty()
    }

    /// What is to be said of batches, where nothing more exact was.
    pub fn findings(&self) -> Vec<Finding> {
        // The head before the batch is a part of it: what begins there depends on it.
        let known = |bad: &Bad| {
            let within = bad.first - 1..bad.end;
            self.places.iter().any(|at| within.contains(at))
        };
        let finding = |Bad { first, end, digest }: &Bad| {
            let within = |at: &&i64| (*first..*end).contains(*at);
            if let Some(at) = self.digests.iter().find(within) {
                let detail =
                    "only the digest of its columns is kept, which the batch did not record so";
                return Finding::of_log(Kind::LeafDataAltered, Some(*at), detail.to_owned());
            }
            let detail = format!(
                "of the batch of entries {first} to {}, a key, an order value, a source, a salt, a statement, the time of the tree head or its digest was altered",
                end - 1
            );
            Finding {
                is_now: Some(digest.clone()),
                ..Finding::of_log(Kind::MetadataAltered, Some(*first), detail)
            }
        };
        let unknown = self.bad.iter().filter(|batch| !known(batch));
        unknown.map(finding).collect()
    }
}

impl Verification {
    /// Sums up what is recorded about the entries `start .. end`, all that there are of them.
    pub(super) fn sum_up(&mut self, session: &Session, start: i64, end: i64, entries: &[Entry]) {
        let annexes = self.rows.take_annexes();
        let (before, heads) =
            heads::of_entries(session, Snapshot::Statement, &self.log, start, end);
        // Of a batch that was pruned in part, the digest is that of the rest.
        let mut first = before.max(self.log.pruned_to);
        let from = match start == self.log.pruned_to {
            true => before,
            false => start,
        };
        let mut runs = leaves::runs(session, Snapshot::Statement, &self.log, from, end);
        runs.sort_by_key(|(first, ..)| *first);
        let (mut entries, mut runs) = (entries, runs.as_slice());
        for head in heads {
            let size = head.tree_size;
            let (of_batch, rest) =
                entries.split_at(entries.partition_point(|e| e.leaf_index < size));
            let (made, others) = runs.split_at(runs.partition_point(|(first, ..)| *first < size));
            (entries, runs) = (rest, others);
            let mut sums = Metadata::default();
            for entry in of_batch {
                sums.stored_entry(entry);
                let annex = annexes.get(&entry.leaf_index);
                if let Some(salt) = annex.and_then(|a| a.salt.as_deref()) {
                    sums.salt(entry.leaf_index, salt);
                }
                if annex
                    .and_then(|a| a.leaf_data.as_ref())
                    .is_some_and(Kept::is_digest)
                {
                    sums.digest(entry.leaf_index);
                    self.batches.note_digest(entry.leaf_index);
                }
                if let Some(erased) = annex.and_then(|a| a.erased_salt.as_deref()) {
                    sums.erased_salt(entry.leaf_index, erased);
                }
            }
            for (first, entries, statement) in made {
                sums.statement(*first, *entries as i32, statement);
            }
            self.add_part(first, head, of_batch.len() as i64, &sums.sum());
            first = size;
        }
    }

    fn add_part(&mut self, first: i64, head: Recorded, entries: i64, sum: &Sum) {
        let size = head.tree_size;
        let part = self.batches.parts.entry(size).or_insert(Part {
            first,
            created_at: head.created_at,
            stored: head.metadata,
            ..Part::default()
        });
        part.entries += entries;
        metadata::add(&mut part.sum, sum);
        self.batches.judge(size);
    }
}
