//! The server against the model: entries and their order, content, findings, states, roots, acts on record.

use super::expect::{self, is_noticed};
use super::machine::Machine;
use super::model::{Entry, Key, Log};
use server_tests::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Of a log, the entries of rows and of truncations: source, key, kind.
const ENTRIES: &str = "SELECT m.leaf_index, m.source_id, m.source_key,
        COALESCE((SELECT t.kind FROM merkle_statement t
                   WHERE t.log_id = m.log_id AND t.from_leaf_index <= m.leaf_index
                     AND m.leaf_index < t.from_leaf_index + t.entries), 'insert')
   FROM merkle_log m WHERE m.log_id = $1 ORDER BY m.leaf_index";

/// Versions of rows that the log keeps, as lines "column=value".
const HISTORY: &str = "SELECT h.leaf_index, h.operation,
        COALESCE((SELECT string_agg(r.key || '=' || r.value, E'\\n' ORDER BY r.key COLLATE \"C\") FROM jsonb_each_text(h.row_data) r), '')
   FROM unnest($1::text[]) k, LATERAL history($2, $3::text::regclass, k) h";

/// An entry as the server has it.
type Found = (i64, i32, String, String);

impl Machine {
    /// That everything is as the model says, with nothing left to log.
    pub fn check(&mut self) {
        self.release();
        self.drain_all();
        self.counts.checks += 1;
        self.script.push("-- check".to_owned());
        for log in 0..self.state.logs.len() {
            let leaves = self.check_entries(log);
            self.check_content(log, &leaves);
            self.check_roots(log);
            self.check_findings(log);
            self.check_states(log);
        }
        self.check_administration();
        self.check_indexes();
        for place in 0..self.state.tables.len() {
            let sources = self.state.logs.iter().flat_map(|l| &l.sources);
            let mut active = sources.filter(|s| s.table == place && !s.removed);
            let ready = active.all(|s| s.problem(&self.state.tables[place]).is_none());
            let parts = self.state.tables[place].parts.iter_mut().flatten();
            parts
                .filter(|p| p.detached.is_none() && ready)
                .for_each(|p| p.seen = true);
        }
    }

    /// Every index of the extension leads to every row of its table, and is in order.
    fn check_indexes(&mut self) {
        if let Err(error) = server_tests::try_check_indexes(&mut self.a) {
            self.fail(&format!("{error:?}"));
        }
    }

    /// The leaf index of each entry of the model.
    fn check_entries(&mut self, log: usize) -> Vec<i64> {
        let id = self.state.logs[log].id;
        let rows = self.a.query(ENTRIES, &[&id]).unwrap();
        let all = rows
            .iter()
            .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3)));
        let all: Vec<Found> = all.collect();
        for (at, found) in all.iter().enumerate() {
            if found.0 != at as i64 {
                self.fail(&format!(
                    "entry {at} of log {id} has leaf index {}",
                    found.0
                ));
            }
        }
        let redaction = |f: &&Found| f.1 == 0 && f.2.starts_with("redact ");
        let of_row = |f: &&Found| f.2.starts_with("redact row");
        let redactions: Vec<&Found> = all.iter().filter(redaction).collect();
        let of_rows = redactions.iter().filter(|f| of_row(f)).count();
        let log = &self.state.logs[log];
        if (redactions.len() - of_rows, of_rows) != log.redactions {
            self.fail(&format!(
                "{redactions:?} instead of {:?} redactions",
                log.redactions
            ));
        }
        let rows: Vec<&Found> = all.iter().filter(|f| !redaction(f)).collect();
        if rows.len() != log.entries.len() {
            let expected: Vec<String> = log.entries.iter().map(|e| line(log, e)).collect();
            self.fail(&format!(
                "log {}: {rows:#?} instead of {expected:#?}",
                log.name
            ));
        }
        match groups(log, &rows) {
            Ok(leaves) => leaves,
            Err(difference) => self.fail(&difference),
        }
    }

    /// What the log keeps of each row.
    fn check_content(&mut self, log: usize, leaves: &[i64]) {
        let log = self.state.logs[log].clone();
        for (place, source) in log.sources.iter().enumerate() {
            let table = &self.state.tables[source.table];
            let readable = !table.gone && log.source_of(source.table) == Some(place);
            if !readable || source.problem(table).is_some() {
                continue;
            }
            let of_source = || {
                log.entries
                    .iter()
                    .enumerate()
                    .filter(|(_, e)| e.source == place)
            };
            // Of a row of which nothing is kept there is no history.
            let says = of_source().filter(|(at, e)| e.kept || log.redacted.contains(at));
            let keys: BTreeSet<Key> = says.map(|(_, e)| e.key).collect();
            let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
            let name = log.name.replace("''", "'");
            let rows = self.a.query(HISTORY, &[&keys, &name, &table.sql()]);
            let rows = rows.unwrap_or_else(|e| self.fail(&format!("history: {e:?}")));
            let kept: HashMap<i64, (String, String)> = rows
                .iter()
                .map(|r| (r.get(0), (r.get(1), r.get(2))))
                .collect();
            for (at, entry) in of_source() {
                let found = kept.get(&leaves[at]);
                let lines: Vec<String> = entry
                    .content
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.text()))
                    .collect();
                let mut expected = (entry.kind.name().to_owned(), lines.join("\n"));
                if log.redacted.contains(&at) {
                    expected = ("redacted".to_owned(), String::new());
                } else if !entry.kept {
                    continue;
                }
                if entry.kind.name() != "truncate" && found != Some(&expected) {
                    self.fail(&format!(
                        "entry {} of log {}, {}: {found:?} instead of {expected:?}",
                        leaves[at],
                        log.name,
                        line(&log, entry)
                    ));
                }
            }
        }
    }

    /// The root is that of the leaves, and every root that was seen before is that of the first of them.
    fn check_roots(&mut self, log: usize) {
        let (id, name) = (self.state.logs[log].id, self.state.logs[log].name.clone());
        let plain = name.replace("''", "'");
        let leaves = oracle::leaves(&mut self.a, &plain);
        let sql = format!("SELECT merkle_size('{name}'), merkle_root('{name}')");
        let row = self.a.query_one(&sql, &[]).unwrap();
        let (size, root): (i64, Vec<u8>) = (row.get(0), row.get(1));
        if size != leaves.len() as i64 || root != oracle::root(&leaves) {
            self.fail(&format!(
                "log {name}: the root is not that of its {} leaves",
                leaves.len()
            ));
        }
        let seen: Vec<(i64, Vec<u8>)> = self
            .heads
            .iter()
            .filter(|(of, ..)| *of == id)
            .map(|(_, size, root)| (*size, root.clone()))
            .collect();
        for (old, old_root) in seen {
            let first = leaves.get(..old as usize).map(oracle::root);
            let holds = first.as_ref() == Some(&old_root);
            let now = (size, root.clone());
            if !holds || !oracle::consistent(&mut self.a, &plain, (old, old_root), now) {
                self.fail(&format!(
                    "log {name}: the root at {size} is not consistent with that at {old}"
                ));
            }
        }
        self.heads.push((id, size, root));
    }

    fn check_findings(&mut self, log: usize) {
        let expected = expect::findings(&self.state.logs[log], &self.state.tables, &[]);
        let name = self.state.logs[log].name.replace("''", "'");
        let found: Vec<String> = self
            .a
            .query(
                "SELECT concat_ws(' ', kind, source_table, source_key) FROM verify_log($1)",
                &[&name],
            )
            .unwrap_or_else(|e| panic!("{e:?}"))
            .iter()
            .map(|row| row.get(0))
            .collect();
        let wrong = expected.compare(&found);
        if !wrong.is_empty() {
            let sql =
                "SELECT concat_ws(' ', kind, source_table, source_key, detail) FROM verify_log($1)";
            let rows = self.a.query(sql, &[&name]).unwrap();
            let said: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            self.fail(&format!("findings of log {name}: {wrong:#?} in {said:#?}"));
        }
    }

    fn check_states(&mut self, log: usize) {
        let last = self.last_values();
        let log = self.state.logs[log].clone();
        let sql = "SELECT s.source_id, v.state, (SELECT COALESCE(sum(h.rows), 0)::bigint FROM coverage_holes(s.source_id) h)
                     FROM verification_sources s JOIN merkle_log_sources v USING (relation, source_table, added_at)
                     JOIN verification_logs l ON l.log_id = s.log_id AND l.log_name = v.log_name WHERE s.log_id = $1";
        let rows = self.a.query(sql, &[&log.id]).unwrap();
        let found: HashMap<i32, (String, i64)> = rows
            .iter()
            .map(|r| (r.get(0), (r.get(1), r.get(2))))
            .collect();
        for (place, source) in log.sources.iter().enumerate() {
            let table = &self.state.tables[source.table];
            let problem = source.problem(table);
            let expected = match problem {
                _ if source.removed => "removed",
                Some(problem) if is_noticed(source, problem) => problem,
                Some(_) => continue,
                None => "ready",
            };
            let (state, escaped) = &found[&source.id];
            // Batches notice this when they look at the source, and rows are captured all the same.
            let noticed = source.lacks_triggers(table) && state == "trigger_missing";
            if state != expected && !(noticed && expected == "ready") {
                self.fail(&format!(
                    "source {} of log {} is {state}, not {expected}",
                    source.id, log.name
                ));
            }
            if problem.is_none() && !source.removed {
                let past = |last: &&i64| source.watermark.is_none_or(|w| w <= **last);
                let ceiling = last
                    .get(&source.table)
                    .filter(past)
                    .copied()
                    .unwrap_or(i64::MAX);
                let expected = expect::escaped(&log, place, table, ceiling);
                if *escaped != expected as i64 {
                    self.fail(&format!(
                        "{escaped} rows of source {} of log {} escaped, not {expected}",
                        source.id, log.name
                    ));
                }
            }
        }
    }

    /// Every act that was committed is on record, and the record holds.
    fn check_administration(&mut self) {
        let found = findings(&mut self.a, "merkle_log_administration");
        if !found.is_empty() {
            self.fail(&format!("findings of the administration log: {found:?}"));
        }
        let rows = self
            .a
            .query(
                "SELECT act, count(*) FROM administration() GROUP BY act",
                &[],
            )
            .unwrap();
        let acts: BTreeMap<String, i64> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        for (act, expected) in &self.state.acts {
            let count = acts.get(*act).copied().unwrap_or(0);
            if count != *expected as i64 {
                self.fail(&format!(
                    "{count} times '{act}' on record instead of {expected}"
                ));
            }
        }
    }
}

fn line(log: &Log, entry: &Entry) -> String {
    format!(
        "{} {} {}",
        log.sources[entry.source].id,
        entry.key,
        entry.kind.name()
    )
}

/// Source, key, and how often the source was truncated before, within a transaction.
type Place = (i32, String, usize);

/// Where each of the entries of a transaction stands, given as source and key in order.
fn places(entries: impl Iterator<Item = (i32, String)>) -> Vec<Place> {
    let mut truncated: HashMap<String, usize> = HashMap::new();
    let place = |(source, key): (i32, String)| {
        let of = match source {
            0 => key.clone(),
            _ => format!("truncate {source}"),
        };
        let before = truncated.entry(of).or_default();
        *before += usize::from(source == 0);
        (source, key, *before)
    };
    entries.map(place).collect()
}

/// Holds entries against groups in order; within a group, rows apart from each other.
fn groups(log: &Log, found: &[&Found]) -> Result<Vec<i64>, String> {
    let row = |entry: &std::rc::Rc<Entry>| match entry.kind.name() {
        "truncate" => (0, format!("truncate {}", log.sources[entry.source].id)),
        _ => (log.sources[entry.source].id, entry.key.to_string()),
    };
    let mut leaves = vec![0; log.entries.len()];
    let mut start = 0;
    for size in &log.groups {
        let mut by_row: HashMap<Place, Vec<(&str, i64)>> = HashMap::new();
        let group = &found[start..start + size];
        let there = places(group.iter().map(|f| (f.1, f.2.clone())));
        for (f, place) in group.iter().zip(there).rev() {
            by_row.entry(place).or_default().push((&f.3, f.0));
        }
        let expected = places(log.entries[start..start + size].iter().map(row));
        for (at, place) in (start..).zip(expected) {
            let entry = &log.entries[at];
            let next = by_row.get_mut(&place).and_then(Vec::pop);
            match next {
                Some((kind, leaf)) if kind == entry.kind.name() => leaves[at] = leaf,
                other => {
                    let expected: Vec<String> = log.entries[start..start + size]
                        .iter()
                        .map(|e| line(log, e))
                        .collect();
                    return Err(format!(
                        "log {}: {other:?} for {}; {:?} instead of {expected:?}",
                        log.name,
                        line(log, entry),
                        &found[start..start + size]
                    ));
                }
            }
        }
        start += size;
    }
    Ok(leaves)
}
