//! Rows that may be gone from their source: which entries they have (`verification_source_retirements`).
//!
//! Somebody has retired them, which is an act of the administration log: the log's leaf data are their authority from then
//! on. An entry is of a retired row if it is one of the source's in a range.

use crate::administration::state::Row as OnRecord;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use serde_json::Value as Json;
use std::ops::Range;

/// Ranges of leaf indexes, in order, that do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Retired {
    ranges: Vec<Range<i64>>,
    /// How many entries the source has in them.
    entries: i64,
}

impl Retired {
    pub fn load(session: &Session, snapshot: Snapshot, source_id: i32) -> Retired {
        Retired::of(session.query(
            snapshot,
            "SELECT r.from_leaf_index, r.to_leaf_index, r.entries FROM @extschema@.verification_source_retirements r
              WHERE r.source_id = $1 ORDER BY r.from_leaf_index",
            &[source_id.into()],
            |row| (row.required(0)..row.required(1), row.required(2)),
        ))
    }

    /// As acts have put it on record.
    pub fn on_record(rows: &[&OnRecord]) -> Retired {
        let range = |row: &&OnRecord| {
            let end = row.columns.get("to_leaf_index").and_then(Json::as_i64)?;
            Some((row.number("from_leaf_index")?..end, row.number("entries")?))
        };
        Retired::of(rows.iter().filter_map(range).collect())
    }

    fn of(ranges: Vec<(Range<i64>, i64)>) -> Retired {
        Retired {
            entries: ranges.iter().map(|(_, entries)| entries).sum(),
            ranges: ranges.into_iter().map(|(range, _)| range).collect(),
        }
    }

    pub fn entries(&self) -> i64 {
        self.entries
    }

    /// The first entry of a row that was retired.
    pub fn first(&self) -> Option<i64> {
        self.ranges.first().map(|range| range.start)
    }

    pub fn contains(&self, leaf_index: i64) -> bool {
        let after = self.ranges.partition_point(|range| range.end <= leaf_index);
        self.ranges
            .get(after)
            .is_some_and(|range| range.contains(&leaf_index))
    }

    /// Where the first range ends that reaches back to `start`; `start` where none does.
    pub fn first_not(&self, start: i64) -> i64 {
        let first = self.ranges.iter().find(|range| range.contains(&start));
        first.map_or(start, |range| range.end)
    }
}

/// Stores that the rows are retired whose entries a source has in a range.
pub fn insert(session: &Session, source_id: i32, range: &Range<i64>, entries: i64, before: &str) {
    session.execute(
        "INSERT INTO @extschema@.verification_source_retirements
             (source_id, from_leaf_index, to_leaf_index, entries, retired_before)
         VALUES ($1, $2, $3, $4, $5)",
        &[
            source_id.into(),
            range.start.into(),
            range.end.into(),
            entries.into(),
            before.into(),
        ],
    );
}
