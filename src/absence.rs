//! Absence proofs (docs/proof-format.md): which entries a key has in sealed ranges of a log, and that it has no others.

use crate::bundle;
use crate::capture::given_key::GivenKey;
use crate::capture::key_equality::KeyEquality;
use crate::capture::row_key::{Finder, RowKey};
use crate::catalog::logs::Log;
use crate::error::{CheckpointError, Error, SealedError};
use crate::pg::spi::Snapshot;
use crate::prove;
use crate::session::Session;
use crate::store::checkpoints;
use crate::store::sealed::{self, Index, Sealed};
use crate::store::{key_index, leaves};
use merkle_tree::{Hash, KeyHash, LeafIndex, ProveError, key_proof, verify_key_proof};
use pgrx::pg_sys;
use std::ops::Range;
use tlog::{AbsenceProof, KeyEntry, MAX_ENTRIES, MAX_RANGES, Seal, SealedRange, SignedNote};

/// The proof of which entries the row with this key has between two leaf indexes, or in all that is sealed.
pub fn of_row(
    session: &Session,
    log: &Log,
    relation: pg_sys::Oid,
    key: GivenKey,
    (from, to): (Option<i64>, Option<i64>),
) -> Result<AbsenceProof, Error> {
    let finder = Finder::of(session, log, relation)?;
    // Before anything else: whether a key is there is for those who may read keys.
    finder.check_caller_reads(session, log)?;
    let key = finder.key(session, key)?;
    check_one_text(session, log, &finder, &key)?;
    let parts = finder.parts(&key)?;
    let signed = checkpoints::latest(session, Snapshot::Statement, log);
    let size = signed.as_ref().map_or(0, |signed| signed.tree_size);
    let ranges = chosen(session, log, (from, to), size)?;
    let (signed, ranges) = match (signed, ranges) {
        (Some(signed), Chosen::Signed(ranges)) => (signed, ranges),
        (_, Chosen::Unsigned(index)) => return Err(not_yet_signed(log, index)),
        (None, Chosen::Signed(ranges)) => {
            return Err(not_yet_signed(
                log,
                ranges.first().map_or(0, |r| r.leaf_index),
            ));
        }
    };
    let checkpoint: SignedNote = signed
        .note
        .parse()
        .map_err(|e: tlog::Error| damaged(log, format!("the checkpoint of size {size}: {e}")))?;
    let mut shown = Vec::with_capacity(ranges.len());
    let mut entries: Vec<i64> = Vec::new();
    for sealed in &ranges {
        pgrx::check_for_interrupts!();
        let (range, of_key) = in_range(session, log, sealed, &finder.name, &parts)?;
        shown.push(range);
        entries.extend(of_key);
        check_number(log, entries.len(), "entries", MAX_ENTRIES)?;
    }
    let seals = ranges.iter().map(|sealed| sealed.leaf_index);
    let all = seals.chain(entries.iter().copied()).collect();
    let proven = prove::together(session, log, all, Some(size))?;
    let leaves = proven.indexes.iter().copied().zip(proven.proof.leaves);
    let leaves: Vec<(i64, Hash)> = leaves
        .filter(|(index, _)| entries.binary_search(index).is_ok())
        .collect();
    let entries = bundle::without_paths(session, log, &leaves, size)?;
    let entry = |entry: tlog::BundleEntry| KeyEntry {
        index: entry.index,
        leaf: entry.leaf,
    };
    Ok(AbsenceProof {
        checkpoint,
        source: finder.name.clone(),
        key: parts,
        ranges: shown,
        entries: entries.into_iter().map(entry).collect(),
        nodes: proven.proof.nodes,
    })
}

/// That a key has one text, which is all that an index knows of it.
fn check_one_text(
    session: &Session,
    log: &Log,
    finder: &Finder,
    key: &RowKey,
) -> Result<(), Error> {
    for source in &finder.sources {
        let table = finder.name.clone();
        if *key_index::equality(session, log, *source) != KeyEquality::default() {
            return Err(Error::Sealed(SealedError::Spellings { table }));
        }
        if key.texts(*source).len() > 1 {
            let key = key.text.clone();
            return Err(Error::Sealed(SealedError::Renamed { table, key }));
        }
    }
    Ok(())
}

/// The ranges that a proof is about.
enum Chosen {
    /// A checkpoint has the entries that seal them.
    Signed(Vec<Sealed>),
    /// None has this entry, which seals one of them.
    Unsigned(i64),
}

/// The sealed ranges that the entries `from .. to` are in. Without `from`, all that lie one behind the other up to `to`;
/// without `to`, all whose seals are among the first `size` entries.
fn chosen(
    session: &Session,
    log: &Log,
    (from, to): (Option<i64>, Option<i64>),
    size: i64,
) -> Result<Chosen, Error> {
    let mut ranges = sealed::ranges(session, Snapshot::Statement, log);
    let Some(last) = ranges.last().map(|sealed| sealed.range.end) else {
        return Err(Error::Sealed(SealedError::Nothing {
            log: log.name.clone(),
        }));
    };
    let first_unsigned = ranges.partition_point(|sealed| sealed.leaf_index < size);
    match to {
        Some(to) => ranges.retain(|sealed| sealed.range.start < to),
        None if first_unsigned == 0 => return Ok(Chosen::Unsigned(ranges[0].leaf_index)),
        None => ranges.truncate(first_unsigned),
    }
    let to = to.unwrap_or_else(|| ranges.last().map_or(last, |sealed| sealed.range.end));
    let from = match from {
        Some(from) => from,
        None => beginning(&ranges).unwrap_or(0),
    };
    if from < 0 || from >= to {
        return Err(Error::Argument {
            name: "from_leaf_index",
            must: "0 or more, and less than to_leaf_index",
            value: from.to_string(),
        });
    }
    ranges.retain(|sealed| sealed.range.end > from);
    check_covered(log, &ranges, from..to)?;
    check_number(log, ranges.len(), "sealed ranges", MAX_RANGES)?;
    match ranges.iter().find(|sealed| sealed.leaf_index >= size) {
        Some(unsigned) => Ok(Chosen::Unsigned(unsigned.leaf_index)),
        None => Ok(Chosen::Signed(ranges)),
    }
}

/// Where those begin that lie one behind the other up to the last.
fn beginning(ranges: &[Sealed]) -> Option<i64> {
    let mut beginning = ranges.last()?.range.start;
    for sealed in ranges.iter().rev().skip(1) {
        if sealed.range.end != beginning {
            break;
        }
        beginning = sealed.range.start;
    }
    Some(beginning)
}

/// That each of the entries is in one of the ranges.
fn check_covered(log: &Log, ranges: &[Sealed], entries: Range<i64>) -> Result<(), Error> {
    let mut next = entries.start;
    for sealed in ranges {
        if sealed.range.start > next {
            break;
        }
        next = sealed.range.end;
    }
    match next >= entries.end {
        true => Ok(()),
        false => Err(Error::Sealed(SealedError::NotSealed {
            log: log.name.clone(),
            from: entries.start,
            to: entries.end,
            first: next,
        })),
    }
}

fn check_number(log: &Log, count: usize, what: &str, most: usize) -> Result<(), Error> {
    match count <= most {
        true => Ok(()),
        false => Err(Error::Sealed(SealedError::TooMany {
            log: log.name.clone(),
            what: format!("more than {most} {what}"),
            most,
        })),
    }
}

/// What the index of a range shows of a key, and the key's entries.
fn in_range(
    session: &Session,
    log: &Log,
    sealed: &Sealed,
    source: &str,
    key: &[String],
) -> Result<(SealedRange, Vec<i64>), Error> {
    let seal = sealed.seal(log)?;
    let key = KeyHash::new(&seal.root, source, key.iter().map(String::as_str));
    let mut index = Index::open(session, log, sealed)?;
    let (position, before, found) = index.around(&key)?;
    let secret = *index.secret();
    let around = (before.as_ref(), found.as_ref());
    let proof = key_proof(&mut index, seal.keys, &key, &secret, position, around);
    let proof = proof.map_err(|e| match e {
        ProveError::Alike => Error::Sealed(SealedError::Alike {
            log: log.name.clone(),
            from: sealed.range.start,
        }),
        ProveError::Tree(merkle_tree::Error::Read(error)) => error,
        other => sealed.damaged(log, &other.to_string()),
    })?;
    let entries = found
        .filter(|found| found.hash == key)
        .map(|found| found.entries);
    let entries = entries.unwrap_or_default();
    // What somebody has altered in the index does not get out as a proof.
    verify_key_proof(&proof, &key, &entries, seal.keys, &seal.index_root)
        .map_err(|e| sealed.damaged(log, &e.to_string()))?;
    let leaf_data = leaf_data(session, log, sealed, &seal)?;
    let leaf_index = u64::try_from(sealed.leaf_index).ok();
    let leaf_index = leaf_index.and_then(|index| LeafIndex::new(index).ok());
    let range = SealedRange {
        seal: leaf_index.ok_or_else(|| sealed.damaged(log, "its seal is no leaf index"))?,
        leaf_data,
        proof,
    };
    let entries = entries.into_iter().map(|index| index as i64).collect();
    Ok((range, entries))
}

/// The leaf data of the entry that seals a range.
fn leaf_data(session: &Session, log: &Log, sealed: &Sealed, seal: &Seal) -> Result<Vec<u8>, Error> {
    let at = sealed.leaf_index;
    let kept = leaves::kept(session, log, at, at + 1).remove(&at);
    let kept = kept.filter(|data| {
        let leaf = leaf_format::Leaf::decode(data);
        leaf.is_ok_and(|leaf| Seal::of(&leaf).as_ref() == Ok(seal))
    });
    kept.ok_or_else(|| sealed.damaged(log, "the entry that seals it says something else"))
}

fn not_yet_signed(log: &Log, index: i64) -> Error {
    Error::Checkpoint(CheckpointError::NotYetSigned {
        log: log.name.clone(),
        index,
    })
}

fn damaged(log: &Log, problem: String) -> Error {
    Error::Damaged {
        log: log.name.clone(),
        problem,
    }
}
