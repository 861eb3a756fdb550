//! What is left of pruned entries: tiles that must fit together, and the tree heads they lead to.

use super::Verification;
use super::finding::{Finding, Kind};
use super::stages::Stage;
use super::tiles::{stored_tile, tile_mismatch};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::tree::{TreeReader, hashes, tree_size};
use crate::store::{heads, redacted};
use merkle_tree::{TILE_WIDTH, TileId, root, tile_hash};

const WIDTH: i64 = TILE_WIDTH as i64;
/// Heads, and tiles, that are checked in one step.
const STEP: i64 = 64;

impl Verification {
    /// The keys whose redaction pruned entries said, against what went on record in the place of these.
    pub(super) fn pruned_redactions(&self, session: &Session) -> Option<Finding> {
        let replay = self.record.replay.as_ref()?;
        let recorded = replay.redacted(self.log.id)?;
        let upto = self.log.pruned_to;
        if redacted::digest(session, Snapshot::Statement, &self.log, upto) == recorded {
            return None;
        }
        let detail = format!(
            "merkle_redacted_key does not have the keys, with reason and time, that it had of the entries before {upto} when these were pruned"
        );
        Some(Finding::of_log(Kind::EntryAltered, None, detail))
    }

    /// Checks the next heads and tiles; also says how to go on.
    pub(super) fn pruned(
        &mut self,
        session: &Session,
        heads_after: i64,
        tiles_after: (i16, i64),
    ) -> Result<(Vec<Finding>, Stage), Error> {
        let mut findings = Vec::new();
        let upto = self.log.pruned_to;
        let heads = heads::between(session, &self.log, heads_after + 1, upto, STEP);
        for (size, stored, _) in &heads {
            self.checked.heads += 1;
            let computed = root(
                &mut TreeReader::new(session, &self.log, Snapshot::Statement),
                tree_size(&self.log, *size)?,
            );
            let computed = computed.ok().map(|h| h.as_bytes().to_vec());
            if computed.as_ref() != Some(stored) {
                findings.push(Finding {
                    expected: computed,
                    actual: Some(stored.clone()),
                    ..Finding::of_log(
                        Kind::HeadMismatch,
                        Some(size - 1),
                        format!("the root recorded at tree size {size} is not that of what is left of the tree"),
                    )
                });
            }
        }
        let tiles: Vec<(i16, i64, Vec<u8>)> = session.read(
            "SELECT t.level, t.tile_index, t.hashes FROM @extschema@.merkle_tile t
              WHERE t.log_id = $1 AND (t.level, t.tile_index) > ($2, $3) AND t.level < 7
                AND (t.tile_index + 1) * pg_catalog.power(256::pg_catalog.numeric, t.level + 1) <= $4
              ORDER BY t.level, t.tile_index LIMIT $5",
            &[
                self.log.id.into(),
                tiles_after.0.into(),
                tiles_after.1.into(),
                upto.into(),
                STEP.into(),
            ],
            |row| (row.required(0), row.required(1), row.required(2)),
        );
        for (level, index, bytes) in &tiles {
            self.checked.tiles += 1;
            let computed = tile_hash(&hashes(
                &self.log,
                &bytes[..bytes.len() - bytes.len() % 32],
            )?);
            let above = TileId {
                level: *level as u8 + 1,
                index: (index / WIDTH) as u64,
            };
            let stored = stored_tile(session, &self.log, above)?;
            let stored = stored.get((index % WIDTH) as usize);
            if stored != Some(&computed) {
                findings.push(tile_mismatch(
                    i64::from(*level) + 1,
                    *index,
                    &computed,
                    stored,
                ));
            }
        }
        let done = (heads.len() as i64) < STEP && (tiles.len() as i64) < STEP;
        let next = match done {
            true => Stage::Entries,
            false => Stage::Pruned {
                heads_after: heads.last().map_or(upto, |(size, ..)| *size),
                tiles_after: tiles
                    .last()
                    .map_or((7, 0), |(level, index, _)| (*level, *index)),
            },
        };
        Ok((findings, next))
    }
}
