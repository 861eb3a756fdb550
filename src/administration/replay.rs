//! The configuration as the acts on record left it.

use super::listing::Listed;
use super::state::{Configuration, Row};
use super::{ACKNOWLEDGED, DROPPED, LATE, PRUNED, is_empty};
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{Capture, Source};
use crate::catalog::versions::{Column, Version};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::late::Group;
use crate::store::{entries, heads, leaves};
use leaf_format::Leaf;
use merkle_tree::{Frontier, Hash, TreeSize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};

/// Entries that are read at once.
const CHUNK: i64 = 1024;

/// What is on record.
#[derive(Default)]
pub struct Replay {
    pub configuration: Configuration,
    /// By source: from which leaf index of its log on which settings counted, first to last.
    kept: HashMap<i64, Vec<Kept>>,
    /// By log: the entries that came late.
    late: HashMap<i64, Vec<Group>>,
    /// By log: the digest of the keys that pruned entries said to be redacted.
    redacted: HashMap<i64, String>,
    /// By log: how many entries it had when it was first put on record.
    first: HashMap<i64, i64>,
    /// By number of the finding.
    acknowledged: HashMap<i64, Acknowledgement>,
}

/// A finding of continuous verification that somebody has looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    pub log_id: i64,
    /// What makes it the same finding, in hexadecimal.
    pub identity: String,
    pub by: String,
    pub reason: String,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
}

/// What a source's entries keep beside their hashes.
#[derive(Clone, Copy, PartialEq)]
struct Kept {
    from: i64,
    leaf_data: bool,
}

/// Why there is no configuration to compare with.
pub enum Problem {
    /// Nothing was ever put on record.
    Empty,
    /// What is on record cannot be trusted, in words.
    Damaged(String),
}

/// Replays the administration log, as the calling statement sees it.
pub fn replay(session: &Session) -> Result<Replay, Problem> {
    let damaged = |e: Error| Problem::Damaged(e.to_string());
    let log = logs::administration(session).map_err(damaged)?;
    if is_empty(session, &log, Snapshot::Statement).map_err(damaged)? {
        return Err(Problem::Empty);
    }
    let head = heads::latest(session, Snapshot::Statement, &log).map_err(damaged)?;
    let empty = TreeSize::new(0).expect("nothing is smaller");
    let mut frontier = Frontier::load(
        &mut crate::store::tree::TreeReader::new(session, &log, Snapshot::Statement),
        empty,
    )
    .map_err(|e| Problem::Damaged(e.to_string()))?;
    let mut replay = Replay::default();
    let mut next = 0;
    while next < head.tree_size {
        pgrx::check_for_interrupts!();
        let end = head.tree_size.min(next + CHUNK);
        let read = entries::between(session, &log, next, end).map_err(damaged)?;
        let annexes = leaves::annexes(session, &log, next, end);
        for (place, entry) in read.iter().enumerate() {
            let at = next + place as i64;
            let altered = || Problem::Damaged(format!("its entry {at} was altered or is missing"));
            let kept = annexes.get(&at).and_then(|a| a.leaf_data.as_ref());
            let hash = Hash::try_from(entry.leaf_hash.as_slice()).map_err(|_| altered())?;
            let kept = kept.filter(|k| entry.leaf_index == at && k.hash == hash);
            let kept = kept.ok_or_else(altered)?;
            let act = match kept.is_long {
                true => leaves::in_full(session, Snapshot::Statement, &log, at),
                false => Leaf::decode(&kept.leaf_data).ok(),
            };
            let act = act.as_ref().and_then(Listed::new).ok_or_else(altered)?;
            frontier.push(hash).map_err(|_| altered())?;
            replay.apply(act);
        }
        if read.len() as i64 != end - next {
            let problem = format!("entries between {next} and {} are missing", end - 1);
            return Err(Problem::Damaged(problem));
        }
        next = end;
    }
    match frontier.root() == head.root {
        true => Ok(replay),
        false => Err(Problem::Damaged(
            "its last tree head is not that of its entries".to_owned(),
        )),
    }
}

impl Replay {
    fn apply(&mut self, act: Listed) {
        if act.act == DROPPED {
            self.drop_log(act.log_id);
            return;
        }
        if let Some(size) = act.tree_size {
            self.first.entry(act.log_id).or_insert(size);
        }
        if act.act == LATE {
            let group = act.detail.as_ref().and_then(group);
            self.late.entry(act.log_id).or_default().extend(group);
        }
        if act.act == ACKNOWLEDGED {
            self.acknowledged.extend(acknowledgement(&act));
        }
        if act.act == PRUNED
            && let Some(digest) = act
                .detail
                .as_ref()
                .and_then(|d| d.get("redacted_keys")?.as_str())
        {
            self.redacted.insert(act.log_id, digest.to_owned());
        }
        for row in act.rows {
            if let (Some(id), Some(from)) = (row.number("source_id"), act.tree_size)
                && let Some(leaf_data) = row.columns.get("store_leaf_data").and_then(Json::as_bool)
            {
                self.kept
                    .entry(id)
                    .or_default()
                    .push(Kept { from, leaf_data });
            }
            if let Some(id) = row.id() {
                self.configuration.insert(id, row);
            }
        }
    }

    /// How many entries a log had when it was first put on record: none, or those that a version without an
    /// administration log made.
    pub fn first(&self, log_id: i32) -> Option<i64> {
        self.first.get(&log_id.into()).copied()
    }

    /// The rows of the partitions of a source, in order.
    pub fn partitions(&self, source_id: i32) -> Vec<&Row> {
        let of_source = |row: &&Row| {
            row.table == "verification_source_partitions"
                && row.number("source_id") == Some(source_id.into())
        };
        let mut rows: Vec<&Row> = self.configuration.values().filter(of_source).collect();
        rows.sort_by_key(|row| row.number("from_leaf_index"));
        rows
    }

    /// The ranges of entries of a source whose rows were retired, in order.
    pub fn retirements(&self, source_id: i32) -> Vec<&Row> {
        let of_source = |row: &&Row| {
            row.table == "verification_source_retirements"
                && row.number("source_id") == Some(source_id.into())
        };
        let mut rows: Vec<&Row> = self.configuration.values().filter(of_source).collect();
        rows.sort_by_key(|row| row.number("from_leaf_index"));
        rows
    }

    /// The entries of a log that came late.
    pub fn late(&self, log_id: i32) -> &[Group] {
        self.late.get(&log_id.into()).map_or(&[], Vec::as_slice)
    }

    /// The digest of the keys that pruned entries of a log said to be redacted (`redacted::digest`).
    pub fn redacted(&self, log_id: i32) -> Option<&str> {
        self.redacted.get(&log_id.into()).map(String::as_str)
    }

    /// How a finding was acknowledged.
    pub fn acknowledged(&self, finding: i64) -> Option<&Acknowledgement> {
        self.acknowledged.get(&finding)
    }

    fn drop_log(&mut self, log_id: i64) {
        self.acknowledged.retain(|_, a| a.log_id != log_id);
        self.redacted.remove(&log_id);
        self.late.remove(&log_id);
        let sources: Vec<i64> = self
            .source_rows(log_id)
            .filter_map(|r| r.number("source_id"))
            .collect();
        self.configuration
            .retain(|_, row| match row.number("log_id") {
                Some(id) => id != log_id,
                None => !row
                    .number("source_id")
                    .is_some_and(|id| sources.contains(&id)),
            });
    }

    fn source_rows(&self, log_id: i64) -> impl Iterator<Item = &Row> {
        let of_log = move |row: &&Row| {
            row.table == "verification_sources" && row.number("log_id") == Some(log_id)
        };
        self.configuration.values().filter(of_log)
    }

    /// All rows on record that configure a log.
    pub fn of_log(&self, log_id: i64) -> Configuration {
        let sources: Vec<i64> = self
            .source_rows(log_id)
            .filter_map(|r| r.number("source_id"))
            .collect();
        let of_log = |row: &Row| match row.number("log_id") {
            Some(id) => id == log_id,
            None => row
                .number("source_id")
                .is_some_and(|id| sources.contains(&id)),
        };
        let rows = self.configuration.iter().filter(|(_, row)| of_log(row));
        rows.map(|(id, row)| (id.clone(), row.clone())).collect()
    }

    /// The log as it was put on record; `log` where it was not.
    pub fn log(&self, log: Log) -> Log {
        let id = ("verification_logs".to_owned(), vec![log.id.to_string()]);
        let Some(row) = self.configuration.get(&id) else {
            return log;
        };
        let text = |name: &str| row.columns.get(name).and_then(Json::as_str);
        Log {
            domain: text("order_domain").and_then(crate::capture::order::Domain::from_name),
            pruned_to: row.number("pruned_to").unwrap_or(log.pruned_to),
            ..log
        }
    }

    /// The sources of a log as they were put on record, by id. What is not recorded is taken from `stored`.
    pub fn sources(&self, log: &Log, stored: &[Source]) -> BTreeMap<i32, Source> {
        let recorded = self.source_rows(log.id.into()).filter_map(|row| {
            let id = i32::try_from(row.number("source_id")?).ok()?;
            let stored = stored.iter().find(|s| s.id == id);
            source(row, id, log, stored).map(|source| (id, source))
        });
        recorded.collect()
    }

    /// The versions of a source as they were put on record, first to last.
    pub fn versions(&self, source_id: i32) -> Vec<Version> {
        let of_source = |table: &'static str| {
            self.configuration.values().filter(move |row| {
                row.table == table && row.number("source_id") == Some(source_id.into())
            })
        };
        let text = |row: &Row, name: &str| Some(row.columns.get(name)?.as_str()?.to_owned());
        let mut columns: HashMap<i64, Vec<Column>> = HashMap::new();
        for row in of_source("verification_source_columns") {
            let column = || {
                Some(Column {
                    name: text(row, "column_name")?,
                    type_name: text(row, "column_type")?,
                    attnum: row.number("attnum").and_then(|n| i16::try_from(n).ok()),
                    logged: row.columns.get("logged")?.as_bool()?,
                    key: row
                        .number("key_position")
                        .and_then(|n| i16::try_from(n).ok()),
                    orders: row
                        .columns
                        .get("orders")
                        .is_some_and(|o| o == &Json::Bool(true)),
                    // An oid is a text in JSON.
                    type_oid: text(row, "type_oid").and_then(|n| n.parse().ok()),
                    type_modifier: row
                        .number("type_modifier")
                        .and_then(|n| i32::try_from(n).ok()),
                    definition: row
                        .columns
                        .get("type_definition")
                        .and_then(|d| serde_json::from_value(d.clone()).ok()),
                })
            };
            if let (Some(version), Some(column)) = (row.number("version"), column()) {
                columns.entry(version).or_default().push(column);
            }
        }
        let version = |row: &Row| {
            let number = row.number("version")?;
            let mut columns = columns.get(&number).cloned().unwrap_or_default();
            columns.sort_by(|a, b| {
                let order = |c: &Column| (c.attnum.is_none(), c.attnum, c.name.clone());
                order(a).cmp(&order(b))
            });
            Some(Version {
                number: i32::try_from(number).ok()?,
                from_leaf_index: row.number("from_leaf_index")?,
                hash_column: text(row, "hash_column"),
                columns,
            })
        };
        let mut versions: Vec<Version> = of_source("verification_source_versions")
            .filter_map(version)
            .collect();
        versions.sort_by_key(|v| v.number);
        versions
    }

    /// The watermark that a source had when it was put on record last.
    pub fn watermark(&self, source_id: i32) -> Option<Vec<String>> {
        let id = (
            "verification_sources".to_owned(),
            vec![source_id.to_string()],
        );
        texts(self.configuration.get(&id)?, "watermark")
    }

    /// True if the leaf data of an entry must be there. `captured`: a trigger made it, which may have read the
    /// settings long before the entry was appended.
    pub fn keeps(&self, source_id: i32, leaf_index: i64, captured: bool) -> bool {
        let Some(kept) = self.kept.get(&source_id.into()) else {
            return false;
        };
        match captured {
            true => kept.iter().all(|k| k.leaf_data) && kept[0].from <= leaf_index,
            false => {
                let counted = kept.iter().rev().find(|k| k.from <= leaf_index);
                counted.is_some_and(|k| k.leaf_data)
            }
        }
    }
}

fn acknowledgement(act: &Listed) -> Option<(i64, Acknowledgement)> {
    let detail = act.detail.as_ref()?;
    let text = |name: &str| Some(detail.get(name)?.as_str()?.to_owned());
    let acknowledgement = Acknowledgement {
        log_id: act.log_id,
        identity: text("identity")?,
        by: act.user.clone()?,
        reason: text("reason")?,
        at: act.at?,
    };
    Some((detail.get("finding")?.as_i64()?, acknowledgement))
}

fn group(detail: &Json) -> Option<Group> {
    let number = |name: &str| detail.get(name)?.as_i64();
    let text = |name: &str| Some(detail.get(name)?.as_str()?.to_owned());
    Some(Group {
        way: text("way")?,
        found_at: number("found_at")?,
        first: number("first")?,
        last: number("last")?,
        entries: number("entries")?,
        indexes: text("indexes")?,
    })
}

fn texts(row: &Row, name: &str) -> Option<Vec<String>> {
    let texts = row.columns.get(name)?.as_array()?;
    texts
        .iter()
        .map(|t| t.as_str().map(str::to_owned))
        .collect()
}

fn source(row: &Row, id: i32, log: &Log, stored: Option<&Source>) -> Option<Source> {
    let text = |name: &str| {
        row.columns
            .get(name)
            .and_then(Json::as_str)
            .map(str::to_owned)
    };
    let truth = |name: &str| row.columns.get(name).and_then(Json::as_bool);
    let bound_to = text("bound_to")?;
    // The last part of what it is bound to is the table's number, unless the database was restored since.
    let number = bound_to
        .rsplit('/')
        .next()
        .and_then(|n| n.parse::<u32>().ok());
    let relation = stored
        .map(|s| s.relation)
        .or(number.map(pgrx::pg_sys::Oid::from));
    Some(Source {
        id,
        log_id: log.id,
        name: text("source_table")?,
        relation: relation?,
        capture: Capture::from_name(&text("capture")?)?,
        order_column: text("order_column"),
        key_columns: texts(row, "key_columns")?,
        columns: texts(row, "columns"),
        hash_column: text("hash_column"),
        watermark: stored.map_or_else(|| texts(row, "watermark"), |s| s.watermark.clone()),
        removed: row.columns.contains_key("removed_at"),
        append_only: truth("append_only")?,
        allow_truncate: truth("allow_truncate")?,
        store_leaf_data: truth("store_leaf_data")?,
        salted: truth("salted")?,
        record_statement: truth("record_statement").unwrap_or(false),
        backfill: stored.map_or_else(|| texts(row, "backfill"), |s| s.backfill.clone()),
        pruned_order: text("pruned_order"),
        complete: truth("complete")?,
        backfilled: stored.is_some_and(|s| s.backfilled),
        // Not recorded by the first acts of a database that 0.3.0 made.
        late_accepted: truth("late_accepted").unwrap_or(true),
        bound_to,
    })
}
