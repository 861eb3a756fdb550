//! Sealed ranges: what the tables have of each is held against the entry that seals it, and the index against the entries.

use super::Verification;
use super::finding::{Finding, Kind};
use super::stages::{MARKS, Stage};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries::Entry;
use crate::store::sealed::{self, Sealed};
use crate::store::{entries, leaves};
use leaf_format::{Kind as LeafKind, Leaf};
use merkle_tree::Hash;
use tlog::Seal;

/// True if an entry seals a range that is not in the tables as it says, or stands under the key of another.
pub fn contradicts(session: &Session, log: &Log, entry: &Entry, leaf: &Leaf) -> bool {
    let Ok(seal) = Seal::of(leaf) else {
        return true;
    };
    let Ok(from) = i64::try_from(seal.entries.start) else {
        return true;
    };
    let stored = sealed::beginning_at(session, log, from);
    let is_stored = stored.is_some_and(|stored| {
        stored.leaf_index == entry.leaf_index && stored.seal(log).is_ok_and(|s| s == seal)
    });
    !is_stored || entry.key != sealed::entry_key(from)
}

impl Verification {
    /// Checks the next sealed range; also says how to go on.
    pub(super) fn sealed(
        &mut self,
        session: &Session,
        from: i64,
    ) -> Result<(Vec<Finding>, Stage), Error> {
        let Some(sealed) = sealed::next(session, &self.log, from) else {
            let orphan = sealed::orphan(session, &self.log);
            let detail = "merkle_sealed_key has the index of a range that is not sealed";
            let finding = |at| Finding::of_log(Kind::SealAltered, Some(at), detail.to_owned());
            return Ok((orphan.map(finding).into_iter().collect(), MARKS));
        };
        let length = sealed.range.end.saturating_sub(sealed.range.start);
        self.checked.marks += u64::try_from(length).unwrap_or(0);
        let finding = problem(session, &self.log, &sealed)?.map(|(detail, expected, actual)| {
            let detail = format!(
                "of the sealed range of the entries {} to {}, {detail}",
                sealed.range.start, sealed.range.end
            );
            let at = Some(sealed.range.start);
            let finding = Finding::of_log(Kind::SealAltered, at, detail);
            finding.hashes(expected.as_ref(), actual.as_ref())
        });
        Ok((finding.into_iter().collect(), Stage::behind(&sealed)))
    }
}

type Problem = (&'static str, Option<Hash>, Option<Hash>);

/// What is wrong with a sealed range, and the hashes that tell.
fn problem(session: &Session, log: &Log, sealed: &Sealed) -> Result<Option<Problem>, Error> {
    let without = |detail| Ok(Some((detail, None, None)));
    let length = sealed.range.end.saturating_sub(sealed.range.start);
    // Before anything is read: what no call seals is not read either, however much it would be.
    if sealed.range.start < 0 || !(1..=sealed::MOST).contains(&length) {
        return without("the leaf indexes are those of no range");
    }
    if sealed.leaf_index < log.pruned_to {
        return without("the entry that sealed it was pruned, and with it the range");
    }
    let Ok(seal) = sealed.seal(log) else {
        return without("merkle_sealed_range was altered");
    };
    let leaf = leaves::in_full(session, Snapshot::Statement, log, sealed.leaf_index);
    let said = leaf
        .filter(|leaf| leaf.kind == LeafKind::Seal)
        .map(|leaf| Seal::of(&leaf));
    if said != Some(Ok(seal.clone())) {
        return without("the entry that seals it says something else");
    }
    let entry = entries::between(session, log, sealed.leaf_index, sealed.leaf_index + 1)?;
    if !entry.first().is_some_and(sealed::is_seal) {
        return without("the entry that seals it is another");
    }
    if sealed::overlaps(session, log, sealed) {
        return without("entries are in the range before it too");
    }
    let Ok(secret) = sealed.secret(log) else {
        return without("what blinds its index was altered");
    };
    // Of a range that was pruned in part, what is left says nothing about the keys.
    let keys = match sealed.range.start < log.pruned_to {
        true => None,
        false => {
            let root = sealed::root_at(session, Snapshot::Statement, log, sealed.range.end)?;
            if root != seal.root {
                return Ok(Some((
                    "the root of the log is another",
                    Some(root),
                    Some(seal.root),
                )));
            }
            let (keys, _) = sealed::keys_of(session, log, &sealed.range, &root)?;
            Some(keys)
        }
    };
    if let Some(why) = sealed::mismatch(session, log, sealed, keys.as_deref())? {
        let computed = keys.map(|keys| sealed::index_root(&keys, &secret));
        return Ok(Some((why, computed, Some(seal.index_root))));
    }
    Ok(None)
}
