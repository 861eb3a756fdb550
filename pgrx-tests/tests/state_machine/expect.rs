//! What `verify_log` must find, and what it may: nothing, where history is honest and everything can be read.

use super::model::{Capture, Entry, Group, Kind, Log, Source, Table, Version, content};
use std::collections::{BTreeMap, BTreeSet};

/// Findings as "kind table key", by what is found: how many there must be. Where one of several kinds is right,
/// they are separated by a bar.
#[derive(Default)]
pub struct Findings {
    pub must: BTreeMap<String, usize>,
    pub may: BTreeSet<String>,
}

impl Findings {
    fn must(&mut self, kinds: &str, table: &str, key: Option<i64>) {
        let key = key.map_or(String::new(), |key| format!(" {key}"));
        *self
            .must
            .entry(format!("{kinds} {table}{key}"))
            .or_default() += 1;
    }

    /// What of `found` should not be there, and what is missing.
    pub fn compare(&self, found: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in found {
            *counts.entry(line.as_str()).or_default() += 1;
        }
        for (line, expected) in &self.must {
            let (kinds, rest) = line.split_once(' ').unwrap();
            let names = kinds.split('|').map(|kind| format!("{kind} {rest}"));
            let count: usize = names.filter_map(|name| counts.remove(name.as_str())).sum();
            // One for each version of the columns.
            let enough = count == *expected || kinds == "schema_changed" && count >= 1;
            if !enough {
                wrong.push(format!("{count} instead of {expected}: {line}"));
            }
        }
        let others = counts.keys().filter(|line| !self.may.contains(**line));
        wrong.extend(others.map(|line| format!("unexpected: {line}")));
        wrong
    }
}

/// Of one source: which keys have changes that no batch has logged, and whether a truncation is among them.
#[derive(Default)]
struct Waiting {
    keys: BTreeSet<i64>,
    truncated: bool,
}

fn waiting(log: &Log, source: usize, own: &[(i32, Group)]) -> Waiting {
    let mut waiting = Waiting::default();
    let of_log = own.iter().filter(|(id, _)| *id == log.id);
    let groups = of_log.map(|(_, group)| group);
    for entry in groups.chain(log.queue.values().flatten()).flatten() {
        match entry.kind {
            _ if entry.source != source => {}
            Kind::Truncate => waiting.truncated = true,
            _ => drop(waiting.keys.insert(entry.key)),
        }
    }
    waiting
}

/// What must be found in a log now. `own`: what the transaction that asks has captured itself.
pub fn findings(log: &Log, tables: &[Table], own: &[(i32, Group)]) -> Findings {
    let mut findings = Findings::default();
    for (place, source) in log.sources.iter().enumerate() {
        let name = &source.name;
        let entries = || {
            let all = log.entries.iter().enumerate();
            all.filter(move |(_, e)| e.source == place && e.kind != Kind::Truncate)
        };
        for (_, entry) in entries().filter(|(at, _)| log.redacted.contains(at)) {
            findings.must("redacted", name, Some(entry.key));
        }
        let table = &tables[source.table];
        if table.swapped {
            findings.may.insert(format!("renamed {name}"));
        }
        let problem = source.problem(table);
        let mut judged = entries().filter(|(at, e)| {
            let latest = !source.captures() || log.live.get(&(place, e.key)) == Some(at);
            latest && !log.redacted.contains(at)
        });
        match problem {
            _ if source.removed => {
                let departed =
                    |(_, e): (usize, &std::rc::Rc<Entry>)| differs(e, source, table).is_some();
                match !source.captures()
                    && !source.lost
                    && problem.is_none()
                    && judged.any(departed)
                {
                    true => findings.must("source_removed", name, None),
                    false => drop(findings.may.insert(format!("source_removed {name}"))),
                }
            }
            Some("table_gone") => findings.must("deleted", name, None),
            Some(_) => findings.must("schema_changed", name, None),
            None => {
                let waiting = waiting(log, place, own);
                let mut changed = false;
                for (_, entry) in judged {
                    if waiting.truncated || waiting.keys.contains(&entry.key) {
                        continue;
                    }
                    match differs(entry, source, table) {
                        Some("schema_changed") => changed = true,
                        Some(kinds) => findings.must(kinds, name, Some(entry.key)),
                        None => {}
                    }
                }
                if changed {
                    findings.must("schema_changed", name, None);
                }
                for key in unlogged(log, place, table, &waiting) {
                    findings.must("unlogged", name, Some(key));
                }
            }
        }
    }
    findings
}

/// Rows that should have an entry and have none.
fn unlogged(log: &Log, place: usize, table: &Table, waiting: &Waiting) -> Vec<i64> {
    let source = &log.sources[place];
    let behind = |key: &i64| match source.capture {
        Capture::Watermark => source.watermark.is_some_and(|w| *key <= w),
        Capture::Trigger => source.complete && !source.backfill && !waiting.keys.contains(key),
    };
    let keys = table.rows.keys().copied();
    keys.filter(|key| behind(key) && !log.live.contains_key(&(place, *key)))
        .collect()
}

/// How many rows `merkle_log_coverage` counts that were never logged; those ahead of the sequence are among them.
pub fn escaped(log: &Log, place: usize, table: &Table, ceiling: i64) -> usize {
    let source = &log.sources[place];
    let escaped = |key: &&i64| match source.capture {
        Capture::Watermark => source.watermark.is_some_and(|w| **key <= w) || **key > ceiling,
        Capture::Trigger => true,
    };
    let keys = table.rows.keys().filter(escaped);
    keys.filter(|key| !log.live.contains_key(&(place, **key)))
        .count()
}

/// How a row differs from an entry that should be about it.
fn differs(entry: &Entry, source: &Source, table: &Table) -> Option<&'static str> {
    let Some(row) = table.rows.get(&entry.key) else {
        let held = table.holds(entry.key);
        return Some(match table.parts {
            Some(_) if !held && table.left.contains(&entry.key) => "detached",
            // Who deleted it before its partition left?
            Some(_) if !held => "deleted|detached",
            _ => "deleted",
        });
    };
    let now: Version = std::rc::Rc::new(
        entry
            .version
            .iter()
            .filter(|(id, ..)| {
                !source.unknown.contains(id) && table.columns.iter().any(|c| c.id == *id)
            })
            .cloned()
            .collect(),
    );
    if content(entry.key, row, &now) == entry.content {
        return None;
    }
    let same = |(id, _, of): &(u32, String, _)| {
        let there = table.columns.iter().any(|c| c.id == *id && c.of == *of);
        there && !source.unknown.contains(id)
    };
    match entry.version.iter().all(same) {
        true => Some("modified"),
        false => Some("schema_changed"),
    }
}

/// True if batches of the log notice by themselves that the source is not ready.
pub fn is_noticed(source: &Source, problem: &str) -> bool {
    !source.captures() || problem != "key_not_unique" && problem != "owner_may_not_read"
}
