//! Entries against the tree above them, a tile at a time.

mod above;

use super::finding::{Finding, Kind, Of};
use super::rows::Row;
use super::{CHUNK, PENDING, Verification};
use crate::error::Error;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::tree::hashes;
use merkle_tree::{EMPTY_ROOT, Frontier, Hash, TILE_WIDTH, TileId, tile_hash};

const WIDTH: i64 = TILE_WIDTH as i64;
/// Every subset of so many suspicious entries is tried, to tell altered entries from altered rows.
const SUSPECTS: usize = 10;

/// An entry, or its absence, with what its source row says.
struct Slot {
    index: i64,
    entry: Option<Entry>,
    hash: Option<Hash>,
    row: Row,
}

impl Slot {
    /// What the entry stands for in the tree, if there is one: something that is no hash stands for
    /// nothing that could be right.
    fn claim(&self) -> Option<Hash> {
        self.entry.as_ref().map(|_| self.hash.unwrap_or(EMPTY_ROOT))
    }

    /// The hash that the source row says the entry should have, where that is another.
    fn other(&self) -> Option<Hash> {
        match self.row {
            Row::Is(hash) | Row::Kept(hash) if self.hash != Some(hash) => Some(hash),
            _ => None,
        }
    }
}

impl Verification {
    /// Checks the next chunk of entries.
    pub(super) fn entries(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        // Chunks end at multiples of their size, so that one tile of level 1 covers each.
        let upto = (self.next - self.next % CHUNK + CHUNK).min(self.next + self.span);
        let (start, end) = (self.next, self.end.min(upto));
        self.next = end;
        let entries = entries::between(session, &self.log, start, end)?;
        let rows = self
            .rows
            .look_up(session, &self.log, &self.record, &entries)?;
        self.checked.entries += entries.len() as u64;
        self.checked.rows += rows.iter().filter(|r| matches!(r, Row::Is(_))).count() as u64;
        self.sum_up(session, start, end, &entries);
        let unmarked = self.orders(session, &entries, &rows)?;
        let mut findings = Vec::new();
        let mut slots = slots(start, end, entries, rows);
        let stored = self.stored_hashes(session, start, end)?;
        // Only who checks the whole log says that a row is nowhere in it; and in slices, the sources are read
        // once more, under the snapshots of those.
        let tells = self.whole && self.pass.is_none();
        for stray in self.rows.take_unlogged() {
            match tells {
                true if self.strays.len() < PENDING => self.strays.push(stray),
                true => findings.extend(self.unlogged_row(stray, false)),
                false => {}
            }
        }
        let mut place = 0;
        while !slots.is_empty() {
            let rest = slots.split_off(slots.len().min(WIDTH as usize));
            let tile = std::mem::replace(&mut slots, rest);
            findings.extend(self.tile(session, tile, stored.get(place).copied())?);
            place += 1;
        }
        // Of an entry that something else is wrong with, that says it better. What was done on purpose is no fault.
        let known = |f: &Finding| {
            let pending = self.pending.values().flatten();
            let mut faults = findings.iter().chain(pending);
            faults.any(|g| g.leaf_index == f.leaf_index && g.kind.of() != Of::Nobody)
        };
        let unmarked: Vec<Finding> = unmarked.into_iter().filter(|f| !known(f)).collect();
        findings.extend(unmarked);
        findings.extend(self.upper_tiles(session)?);
        Ok(findings)
    }

    /// Checks one tile of entries against its stored hash and the heads within it.
    fn tile(
        &mut self,
        session: &Session,
        slots: Vec<Slot>,
        stored: Option<Hash>,
    ) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let first = slots[0].index;
        let complete = slots.len() as i64 == WIDTH;
        let present: Option<Vec<Hash>> = slots.iter().map(Slot::claim).collect();
        let vouched =
            |hashes: &[Hash], frontier: &Option<Frontier>| match (complete, stored, frontier) {
                (true, Some(stored), _) => tile_hash(hashes) == stored,
                (false, _, Some(frontier)) => {
                    grown(frontier, hashes).is_some_and(|f| f.root() == self.head.root)
                }
                _ => false,
            };
        let (mut altered, mut refuted) = (Vec::new(), false);
        let trusted = match present {
            None => None,
            Some(hashes) if vouched(&hashes, &self.frontier) => Some(hashes),
            Some(hashes) => match explain(&slots, &hashes, |h| vouched(h, &self.frontier)) {
                Some((places, mended)) => {
                    altered = places;
                    Some(mended)
                }
                None if complete
                    && stored.is_some()
                    && self.vouched_above(session, first / WIDTH)? =>
                {
                    findings.push(
                        Finding::of_log(Kind::EntryAltered, Some(first), format!(
                            "leaf hashes among entries {first} to {} were altered; the tile above them and the tree agree with each other",
                            first + WIDTH - 1
                        ))
                        .hashes(stored.as_ref(), Some(&tile_hash(&hashes))),
                    );
                    None
                }
                None => {
                    refuted = true;
                    if complete {
                        findings.push(tile_mismatch(
                            1,
                            first / WIDTH,
                            &tile_hash(&hashes),
                            stored.as_ref(),
                        ));
                    }
                    Some(hashes)
                }
            },
        };
        self.checked.tiles += u64::from(complete && stored.is_some());
        for (place, slot) in slots.iter().enumerate() {
            self.slot(slot, altered.contains(&place), &mut findings);
        }
        findings.extend(self.heads(session, first, slots.len() as i64, trusted.as_deref()));
        self.frontier = match (self.frontier.take(), trusted, stored) {
            (Some(frontier), Some(hashes), _) if !complete => grown(&frontier, &hashes),
            (Some(mut frontier), hashes, stored) => {
                // What is vouched for is not hashed a second time.
                let root = match hashes {
                    Some(hashes) if refuted => Some(tile_hash(&hashes)),
                    _ => stored,
                };
                root.and_then(|root| frontier.push_tile(root).ok())
                    .map(|()| frontier)
            }
            _ => None,
        };
        Ok(findings)
    }

    /// What is to be said about one entry.
    fn slot(&mut self, slot: &Slot, altered: bool, findings: &mut Vec<Finding>) {
        if !self.asked_for(slot.index) {
            return;
        }
        let Some(entry) = &slot.entry else {
            let detail = format!("entry {} does not exist", slot.index);
            findings.push(Finding::of_log(
                Kind::EntryMissing,
                Some(slot.index),
                detail,
            ));
            return;
        };
        let finding = |kind, detail: String, expected: Option<&Hash>, actual: Option<&Hash>| {
            Finding {
                source_table: self.rows.name_of(entry.source_id),
                source_key: Some(entry.key.clone()),
                ..Finding::of_log(kind, Some(slot.index), detail)
            }
            .hashes(expected, actual)
        };
        let logged = slot.hash.as_ref();
        let found = match &slot.row {
            Row::Impossible(why) => finding(
                Kind::EntryAltered,
                format!("the entry cannot belong to a row: {why}"),
                None,
                logged,
            ),
            Row::Is(now) | Row::Kept(now) if altered => finding(
                Kind::EntryAltered,
                "the entry's leaf hash was altered; its row and the tree agree".into(),
                Some(now),
                logged,
            ),
            Row::Erased(why) => finding(Kind::LeafDataAltered, why.clone(), logged, None),
            Row::Kept(kept) if logged != Some(kept) => finding(
                Kind::LeafDataAltered,
                "the entry's stored leaf data were altered: they are not what was hashed".into(),
                logged,
                Some(kept),
            ),
            Row::Redacted(reason) => finding(
                Kind::Redacted,
                format!("the entry was redacted: {reason}"),
                logged,
                None,
            ),
            Row::Detached(partition) => finding(
                Kind::Detached,
                format!("the row went with partition {partition}, which left the table"),
                logged,
                None,
            ),
            Row::Unredacted => finding(
                Kind::Unredacted,
                "the row's key was redacted, and the entry still has what it was made from".into(),
                logged,
                None,
            ),
            Row::Is(now) if logged != Some(now) => finding(
                Kind::Modified,
                Finding::of_row(Kind::Modified).into(),
                logged,
                Some(now),
            ),
            Row::Gone => finding(
                Kind::Deleted,
                Finding::of_row(Kind::Deleted).into(),
                logged,
                None,
            ),
            // Told of all together.
            Row::Retired => return,
            Row::Is(_) | Row::Kept(_) | Row::Unknown => return,
        };
        match (found.kind, logged) {
            (Kind::Modified | Kind::Deleted, Some(hash)) if self.pending_count < PENDING => {
                self.pending_count += 1;
                let found = Finding {
                    found_as: Some(found.kind),
                    ..found
                };
                self.pending.entry(*hash).or_default().push(found);
            }
            _ => findings.push(found),
        }
    }
}

/// One slot a leaf index, whether or not there is an entry.
fn slots(start: i64, end: i64, entries: Vec<Entry>, rows: Vec<Row>) -> Vec<Slot> {
    let mut given = entries.into_iter().zip(rows).peekable();
    (start..end)
        .map(
            |index| match given.next_if(|(entry, _)| entry.leaf_index == index) {
                Some((entry, row)) => Slot {
                    index,
                    hash: Hash::try_from(entry.leaf_hash.as_slice()).ok(),
                    entry: Some(entry),
                    row,
                },
                None => Slot {
                    index,
                    entry: None,
                    hash: None,
                    row: Row::Unknown,
                },
            },
        )
        .collect()
}

/// The smallest set of entries that, given their rows' hashes, make the tile fit the tree: these
/// entries were altered. Returns their places, and the hashes with theirs put right.
fn explain(
    slots: &[Slot],
    hashes: &[Hash],
    fits: impl Fn(&[Hash]) -> bool,
) -> Option<(Vec<usize>, Vec<Hash>)> {
    let suspects: Vec<(usize, Hash)> = slots
        .iter()
        .enumerate()
        .filter_map(|(place, s)| Some((place, s.other()?)))
        .collect();
    let all = (1u64 << suspects.len().min(63)) - 1;
    let mut subsets: Vec<u64> = match suspects.len() {
        0 => return None,
        1..=SUSPECTS => (1..=all).collect(),
        _ => vec![all],
    };
    subsets.sort_by_key(|s| s.count_ones());
    subsets.into_iter().find_map(|subset| {
        let chosen = suspects
            .iter()
            .enumerate()
            .filter(|(i, _)| suspects.len() > 63 || subset >> i & 1 == 1);
        let mut mended = hashes.to_vec();
        let places = chosen
            .map(|(_, (place, hash))| {
                mended[*place] = *hash;
                *place
            })
            .collect();
        fits(&mended).then_some((places, mended))
    })
}

fn grown(frontier: &Frontier, hashes: &[Hash]) -> Option<Frontier> {
    let mut frontier = frontier.clone();
    hashes
        .iter()
        .try_for_each(|h| frontier.push(*h))
        .ok()
        .map(|()| frontier)
}

pub(super) fn stored_tile(
    session: &Session,
    log: &crate::catalog::logs::Log,
    tile: TileId,
) -> Result<Vec<Hash>, Error> {
    let bytes: Vec<u8> = session
        .read_one(
            "SELECT t.hashes FROM @extschema@.merkle_tile t
              WHERE t.log_id = $1 AND t.level = $2 AND t.tile_index = $3",
            &[
                log.id.into(),
                i16::from(tile.level).into(),
                (tile.index as i64).into(),
            ],
            |row| row.required(0),
        )
        .unwrap_or_default();
    // A torn hash at the end is as good as none.
    hashes(log, &bytes[..bytes.len() - bytes.len() % 32])
}

/// `index` counts the hashes of `level`.
pub(super) fn tile_mismatch(
    level: i64,
    index: i64,
    expected: &Hash,
    actual: Option<&Hash>,
) -> Finding {
    let leaves = WIDTH.saturating_pow(level as u32);
    let detail = format!(
        "hash {} of tile {} of level {level} is not that of the entries {} to {}",
        index % WIDTH,
        index / WIDTH,
        index.saturating_mul(leaves),
        (index + 1).saturating_mul(leaves) - 1
    );
    Finding::of_log(
        Kind::TileMismatch,
        Some(index.saturating_mul(leaves)),
        detail,
    )
    .hashes(Some(expected), actual)
}
