//! What stands above the tiles of leaf hashes: heads, the tiles of higher levels, and rows that belong to neither.

use super::super::Verification;
use super::super::finding::{Finding, Kind};
use super::{WIDTH, stored_tile, tile_mismatch};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::heads;
use crate::store::tree::TreeReader;
use merkle_tree::{Hash, TILE_WIDTH, TileId, root, tile_hash};

impl Verification {
    /// Checks the heads that were committed within a tile.
    pub(super) fn heads(
        &mut self,
        session: &Session,
        first: i64,
        count: i64,
        trusted: Option<&[Hash]>,
    ) -> Vec<Finding> {
        let heads = heads::between(session, &self.log, first + 1, first + count, WIDTH);
        let (Some(frontier), Some(hashes)) = (&self.frontier, trusted) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        let mut probe = frontier.clone();
        let mut pushed = 0;
        for (size, stored, _) in heads {
            let upto = (size - first) as usize;
            if hashes[pushed..upto].iter().any(|h| probe.push(*h).is_err()) {
                break;
            }
            pushed = upto;
            self.checked.heads += 1;
            let root = probe.root();
            if root.as_bytes().as_slice() != stored && self.asked_for(size - 1) {
                findings.push(Finding {
                    expected: Some(root.as_bytes().to_vec()),
                    actual: Some(stored),
                    ..Finding::of_log(
                        Kind::HeadMismatch,
                        Some(size - 1),
                        format!("the root recorded at tree size {size} is not that of the entries"),
                    )
                });
            }
        }
        findings
    }

    /// Compares the tiles of level 2 and above that the chunk touched.
    pub(super) fn upper_tiles(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        let Some(frontier) = &mut self.frontier else {
            return Ok(Vec::new());
        };
        let mut findings = Vec::new();
        for (tile, computed) in frontier
            .take_tiles()
            .into_iter()
            .filter(|(t, _)| t.level > 1)
        {
            let stored = stored_tile(session, &self.log, tile)?;
            for (place, hash) in computed.iter().enumerate() {
                self.checked.tiles += 1;
                if stored.get(place) != Some(hash) {
                    let index = tile.index as i64 * WIDTH + place as i64;
                    findings.push(tile_mismatch(
                        tile.level.into(),
                        index,
                        hash,
                        stored.get(place),
                    ));
                }
            }
        }
        Ok(findings)
    }

    /// After the last entry: nothing may be stored beyond the last head.
    pub(in crate::verify) fn edges(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        let size = self.head.tree_size;
        let beyond: i64 = session
            .read_one(
                "SELECT pg_catalog.count(*) FROM @extschema@.merkle_log m WHERE m.log_id = $1 AND m.leaf_index >= $2",
                &[self.log.id.into(), size.into()],
                |row| row.required(0),
            )
            .unwrap_or(0);
        let mut findings = Vec::new();
        if beyond > 0 {
            let detail =
                format!("{beyond} entries are not covered by the last tree head, of size {size}");
            findings.push(Finding::of_log(Kind::HeadMismatch, Some(size), detail));
        }
        let before = session.read(
            "SELECT m.leaf_index FROM @extschema@.merkle_log m WHERE m.log_id = $1 AND m.leaf_index < $2",
            &[self.log.id.into(), self.log.pruned_to.into()],
            |row| row.required::<i64>(0),
        );
        findings.extend(before.into_iter().map(|index| {
            let detail = "an entry stands where there is none any more".to_owned();
            Finding::of_log(Kind::EntryAltered, Some(index), detail)
        }));
        findings.extend(self.surplus_rows(session));
        let surplus = session.read(
            "SELECT t.level, t.tile_index FROM @extschema@.merkle_tile t
              WHERE t.log_id = $1
                AND (t.tile_index < 0 OR t.level NOT BETWEEN 0 AND 7
                     OR t.level = 0 AND (t.tile_index + 1) * 256 > $3
                     OR t.tile_index * 256 + pg_catalog.octet_length(t.hashes) / 32.0
                        > $2 / pg_catalog.power(256::pg_catalog.numeric, t.level::pg_catalog.numeric))",
            &[self.log.id.into(), size.into(), self.log.pruned_to.into()],
            |row| (row.required::<i16>(0), row.required::<i64>(1)),
        );
        findings.extend(surplus.into_iter().map(|(level, index)| {
            let detail =
                format!("tile {index} of level {level} holds hashes of leaves that do not exist");
            Finding::of_log(Kind::TileMismatch, None, detail)
        }));
        Ok(findings)
    }

    /// Kept leaf data and statements of entries that are not there.
    pub(super) fn surplus_rows(&self, session: &Session) -> Vec<Finding> {
        let args = [
            self.log.id.into(),
            self.head.tree_size.into(),
            self.log.pruned_to.into(),
        ];
        let kept = session.read(
            "SELECT d.leaf_index FROM @extschema@.merkle_leaf_data d WHERE d.log_id = $1 AND d.leaf_index < $3
             UNION ALL
             SELECT d.leaf_index FROM @extschema@.merkle_leaf_data d WHERE d.log_id = $1 AND d.leaf_index >= $2",
            &args,
            |row| row.required::<i64>(0),
        );
        let statements = session.read(
            // A statement has an entry at least, so that one that ends before the first entry begins there.
            "SELECT t.from_leaf_index FROM @extschema@.merkle_statement t
              WHERE t.log_id = $1 AND t.from_leaf_index < $3
                AND (t.from_leaf_index < 0 OR t.from_leaf_index + t.entries::pg_catalog.int8 <= $3)
             UNION ALL
             SELECT t.from_leaf_index FROM @extschema@.merkle_statement t
              WHERE t.log_id = $1 AND t.from_leaf_index >= $2",
            &args,
            |row| row.required::<i64>(0),
        );
        let of = |kind, what: &'static str| {
            move |index| Finding::of_log(kind, Some(index), what.to_owned())
        };
        let kept = kept.into_iter().map(of(
            Kind::LeafDataAltered,
            "leaf data are stored of an entry that is not there",
        ));
        let statements = statements.into_iter().map(of(
            Kind::MetadataAltered,
            "a statement is stored of entries that are not there",
        ));
        kept.chain(statements).collect()
    }

    /// The stored hashes of the level-0 tiles from `start` to `end`, as many as there are.
    pub(super) fn stored_hashes(
        &self,
        session: &Session,
        start: i64,
        end: i64,
    ) -> Result<Vec<Hash>, Error> {
        let first = start / WIDTH;
        let tile = TileId {
            level: 1,
            index: (first / WIDTH) as u64,
        };
        let stored = stored_tile(session, &self.log, tile)?;
        let skip = (first % WIDTH) as usize;
        Ok(stored
            .into_iter()
            .skip(skip)
            .take(((end - start) / WIDTH) as usize)
            .collect())
    }

    /// True if the stored hash of level-0 tile `index` fits what is stored above it.
    pub(super) fn vouched_above(&self, session: &Session, index: i64) -> Result<bool, Error> {
        let parent = TileId {
            level: 1,
            index: (index / WIDTH) as u64,
        };
        let siblings = stored_tile(session, &self.log, parent)?;
        if siblings.len() as i64 == WIDTH {
            let above = TileId {
                level: 2,
                index: parent.index / TILE_WIDTH,
            };
            let stored = stored_tile(session, &self.log, above)?;
            let place = (parent.index % TILE_WIDTH) as usize;
            return Ok(stored.get(place) == Some(&tile_hash(&siblings)));
        }
        let size = crate::store::tree::tree_size(&self.log, self.head.tree_size)?;
        let root = root(
            &mut TreeReader::new(session, &self.log, Snapshot::Statement),
            size,
        );
        Ok(root.is_ok_and(|root| root == self.head.root))
    }
}
