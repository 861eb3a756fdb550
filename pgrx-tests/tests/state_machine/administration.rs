//! Calls of the extension's functions, with what each does to the model.

use super::expect;
use super::machine::{Machine, Refusal, ours};
use super::model::{Capture, Log, Source};
use rand::Rng;
use rand::seq::IndexedRandom;

const NAMES: [&str; 4] = ["audit", "o''dd", "Third Log", "fourth"];

impl Machine {
    pub fn some_log(&mut self) -> Option<usize> {
        let logs: Vec<usize> = (0..self.state.logs.len()).collect();
        logs.choose(&mut self.rng).copied()
    }

    /// One call on a log or a source.
    pub fn administer(&mut self) {
        match self.rng.random_range(0..16) {
            0 | 1 => self.create_log(),
            2 | 3 => self.alter_log(),
            4 if self.chance(0.15) => self.drop_log(),
            5..=9 => self.add_source(),
            10..=12 => self.alter_source(),
            13 if self.chance(0.5) => self.remove_source(),
            13 | 14 => self.repair(),
            _ => self.redact_row(),
        }
    }

    pub fn create_log(&mut self) {
        let name = self.pick(&NAMES);
        let taken = self.state.logs.iter().any(|l| l.name == name);
        let refusal = if taken { ours("42710") } else { None };
        if let Some(rows) = self.run(&format!("SELECT create_log('{name}')"), refusal) {
            self.state
                .logs
                .push(Log::new(rows[0][0].parse().unwrap(), name));
            self.act("log created");
        }
    }

    fn alter_log(&mut self) {
        let Some(log) = self.some_log() else {
            return;
        };
        let name = self.state.logs[log].name.clone();
        match self.rng.random_range(0..6) {
            0 => {
                let new = self.pick(&NAMES);
                let others = self.state.logs.iter().filter(|l| l.name != name);
                let refusal = match others.into_iter().any(|l| l.name == new) {
                    true => ours("42710"),
                    false => None,
                };
                let sql = format!("SELECT alter_log('{name}', new_name => '{new}')");
                if self.run(&sql, refusal).is_some() {
                    self.state.logs[log].name = new.to_owned();
                    self.act("log altered");
                }
            }
            1 | 2 => {
                let size = self.pick(&[0, 1, 2, 7, 1000]);
                let refusal = if size == 0 { ours("22023") } else { None };
                let sql = format!("SELECT alter_log('{name}', batch_size => {size})");
                if self.run(&sql, refusal).is_some() {
                    self.act("log altered");
                }
            }
            3 => {
                let enabled = !self.state.logs[log].enabled;
                let (function, act) = match enabled {
                    true => ("enable_log", "log enabled"),
                    false => ("disable_log", "log disabled"),
                };
                self.run(&format!("SELECT {function}('{name}')"), None);
                self.state.logs[log].enabled = enabled;
                self.act(act);
            }
            _ => {
                let (function, act) =
                    self.pick(&[("pause_log", "log paused"), ("resume_log", "log resumed")]);
                self.run(&format!("SELECT {function}('{name}')"), None);
                self.act(act);
            }
        }
    }

    fn drop_log(&mut self) {
        let Some(log) = self.some_log() else {
            return;
        };
        let (name, id, size) = {
            let log = &self.state.logs[log];
            (log.name.clone(), log.id, log.size())
        };
        let confirm = self.chance(0.7);
        let refusal = if confirm || size == 0 {
            None
        } else {
            ours("55000")
        };
        let sql = format!("SELECT drop_log('{name}', confirm => {confirm})");
        if self.run(&sql, refusal).is_some() {
            self.state.logs.remove(log);
            self.state.own.retain(|(of, _)| *of != id);
            self.act("log dropped");
        }
    }

    /// Why a table cannot become a source of a log.
    fn unfit(&self, log: &Log, table: usize, capture: Capture) -> Option<Refusal> {
        let state = &self.state.tables[table];
        match capture {
            _ if !state.logged => ours("42809"),
            _ if state.forced && state.plain_owner => ours("55000"),
            _ if state.schema == "closed" && state.plain_owner => ours("42501"),
            _ if log.source_of(table).is_some() => ours("42710"),
            _ if !state.has_key => ours("55000"),
            Capture::Trigger if state.heir => ours("42809"),
            _ if log.domain.is_some_and(|d| d != capture) => ours("55000"),
            _ => None,
        }
    }

    pub fn add_source(&mut self) {
        let (Some(log), Some(table)) = (self.some_log(), self.some_table()) else {
            return;
        };
        let fitting = self.chance(0.9);
        let capture = match self.state.logs[log].domain {
            Some(domain) if fitting => domain,
            _ => self.pick(&[Capture::Trigger, Capture::Trigger, Capture::Watermark]),
        };
        let by_trigger = capture == Capture::Trigger;
        // Keys of partitioned tables are chosen, and a sequence may come to one that was used and deleted.
        if !by_trigger && self.state.tables[table].parts.is_some() {
            return;
        }
        let (append_only, keep, salted) = (self.chance(0.1), self.chance(0.6), self.chance(0.3));
        let allow_truncate = by_trigger && self.chance(0.6);
        let backfill = !by_trigger || self.chance(0.8);
        let refusal = self
            .unfit(&self.state.logs[log], table, capture)
            .or_else(|| forgets_redactions(&self.state.logs[log], table, salted));
        let state = &self.state.tables[table];
        let mode = match by_trigger {
            true => format!(
                "capture => 'trigger', allow_truncate => {allow_truncate}, backfill => {backfill}"
            ),
            false => format!(
                "order_column => '{}', capture => 'watermark'",
                state.key_name()
            ),
        };
        let sql = format!(
            "SELECT add_source('{}', '{}', {mode}, append_only => {append_only}, store_leaf_data => {keep}, salted => {salted})",
            self.state.logs[log].name,
            state.sql()
        );
        let Some(rows) = self.run(&sql, refusal) else {
            return;
        };
        self.act("source added");
        let source = Source {
            id: rows[0][0].parse().unwrap(),
            table,
            name: self.state.logs[log].registered_name(table, &self.state.tables[table].sql()),
            capture,
            removed: false,
            append_only,
            allow_truncate,
            keep,
            salted,
            backfill: by_trigger && backfill,
            complete: backfill,
            chosen: None,
            watermark: None,
            redacted: Default::default(),
            unknown: Default::default(),
            recorded: Default::default(),
            lost: false,
            guarded: self.state.tables[table].attached(),
        };
        let source = Source {
            recorded: source.version(&self.state.tables[table]),
            ..source
        };
        let log = &mut self.state.logs[log];
        log.domain = Some(capture);
        // A table that was removed goes on as the source that it was.
        let goes_on = |b: &&mut Source| {
            b.table == table && b.salted == salted && !(b.lost && b.id != source.id)
        };
        match log.sources.iter_mut().rfind(goes_on) {
            Some(before) => {
                if before.id != source.id {
                    self.fail("the table was a source before, and goes on as another");
                }
                *before = Source {
                    name: before.name.clone(),
                    complete: before.complete && source.complete,
                    watermark: before.watermark,
                    redacted: std::mem::take(&mut before.redacted),
                    unknown: std::mem::take(&mut before.unknown),
                    lost: before.lost,
                    ..source
                };
            }
            None => log.sources.push(source),
        }
    }

    /// A log and the place of one of its active sources.
    fn some_source(&mut self) -> Option<(usize, usize)> {
        let mut all = Vec::new();
        for (n, log) in self.state.logs.iter().enumerate() {
            let active = log.sources.iter().enumerate().filter(|(_, s)| !s.removed);
            all.extend(active.map(|(place, _)| (n, place)));
        }
        all.choose(&mut self.rng).copied()
    }

    /// What a source's table can be called with in SQL: its number, where it has no name any more.
    fn relation(&self, source: &Source) -> String {
        let table = &self.state.tables[source.table];
        match table.gone {
            false => format!("'{}'", table.sql()),
            true => format!(
                "(SELECT relation FROM verification_sources WHERE source_id = {})",
                source.id
            ),
        }
    }

    fn alter_source(&mut self) {
        let Some((log, place)) = self.some_source() else {
            return;
        };
        let option = self.rng.random_range(0..4);
        let on = self.chance(0.5);
        let name = self.state.logs[log].name.clone();
        let source = &self.state.logs[log].sources[place];
        let table = &self.state.tables[source.table];
        let by_trigger = source.captures();
        let columns: Vec<(u32, String)> = table
            .columns
            .iter()
            .map(|c| (c.id, c.name.clone()))
            .collect();
        let chosen: Vec<&(u32, String)> = match on {
            true => columns
                .iter()
                .enumerate()
                .filter(|(n, _)| n % 3 < 2)
                .map(|(_, c)| c)
                .collect(),
            false => Vec::new(),
        };
        let names: Vec<String> = chosen.iter().map(|(_, name)| format!("'{name}'")).collect();
        let given = match option {
            0 => format!("append_only => {on}"),
            1 if by_trigger => format!("allow_truncate => {on}"),
            2 => format!("columns => ARRAY[{}]::text[]", names.join(", ")),
            _ => format!("store_leaf_data => {on}"),
        };
        let refusal = if table.gone { ours("42704") } else { None };
        let sql = format!(
            "SELECT alter_source('{name}', {}, {given})",
            self.relation(source)
        );
        if self.run(&sql, refusal).is_none() {
            return;
        }
        let chosen = on.then(|| chosen.iter().map(|(id, _)| *id).collect());
        let log = &mut self.state.logs[log];
        if option == 2 {
            // What was captured before is logged under the columns of then.
            log.drain();
        }
        let source = &mut log.sources[place];
        source.guarded = self.state.tables[source.table].attached();
        match option {
            0 => source.append_only = on,
            1 if by_trigger => source.allow_truncate = on,
            2 => {
                source.chosen = chosen;
                source.recorded = source.version(&self.state.tables[source.table]);
            }
            _ => source.keep = on,
        }
    }

    fn remove_source(&mut self) {
        let Some((log, place)) = self.some_source() else {
            return;
        };
        let source = &self.state.logs[log].sources[place];
        let name = &self.state.logs[log].name;
        let sql = format!("SELECT remove_source('{name}', {})", self.relation(source));
        self.run(&sql, None);
        self.state.logs[log].sources[place].removed = true;
        self.act("source removed");
    }

    fn repair(&mut self) {
        let Some((log, place)) = self.some_source() else {
            return;
        };
        let function = self.pick(&["backfill", "repair_capture"]);
        let source = &self.state.logs[log].sources[place];
        let gone = self.state.tables[source.table].gone;
        let refusal = match function {
            _ if gone => ours("42704"),
            "backfill" if !source.captures() => ours("22023"),
            _ => None,
        };
        let name = &self.state.logs[log].name;
        let sql = format!("SELECT {function}('{name}', {})", self.relation(source));
        if self.run(&sql, refusal).is_none() {
            return;
        }
        let source = &mut self.state.logs[log].sources[place];
        if function == "repair_capture" {
            source.guarded = self.state.tables[source.table].attached();
        }
        let starts =
            function == "backfill" || source.captures() && source.complete && !source.backfill;
        if starts {
            (source.backfill, source.complete) = (true, true);
            self.act("backfill started");
        }
    }

    fn redact_row(&mut self) {
        let Some((log, place)) = self.some_source() else {
            return;
        };
        let state = &self.state.logs[log];
        let source = &state.sources[place];
        let table = source.table;
        if self.state.tables[table].gone {
            return;
        }
        let logged: Vec<i64> = state
            .entries
            .iter()
            .filter(|e| e.source == place)
            .map(|e| e.key)
            .collect();
        let key = logged.choose(&mut self.rng).copied().unwrap_or(1);
        let of_table = |s: &&Source| s.table == table;
        let unsalted = state.sources.iter().filter(of_table).any(|s| !s.salted);
        let refusal = if unsalted { ours("55000") } else { None };
        let (name, relation) = (&state.name, self.relation(source));
        let sql = format!("SELECT redact_row('{name}', {relation}, '{key}', 'asked for')");
        let Some(rows) = self.run(&sql, refusal) else {
            return;
        };
        let log = &mut self.state.logs[log];
        log.drain();
        let places = 0..log.sources.len();
        let places: Vec<usize> = places.filter(|n| log.sources[*n].table == table).collect();
        let erased: usize = places.into_iter().map(|place| log.redact(place, key)).sum();
        if rows[0][0] != erased.to_string() {
            self.fail(&format!(
                "{} entries redacted instead of {erased}",
                rows[0][0]
            ));
        }
    }

    /// Batches of one log until nothing is left, or one of all logs.
    pub fn batch(&mut self) {
        let Some(log) = self.some_log() else {
            return;
        };
        if self.chance(0.3) {
            return self.batch_of_all();
        }
        let last = self.last_values();
        let name = self.state.logs[log].name.clone();
        let sql =
            format!("SELECT entries, tree_size, waiting_for FROM process_next_batch('{name}')");
        loop {
            let rows = self.run(&sql, None).unwrap();
            let (entries, waits) = (&rows[0][0], &rows[0][2]);
            if entries != "0" {
                continue;
            }
            if !waits.is_empty() {
                return self.check_waits(log, &last, waits);
            }
            let super::machine::State {
                tables, logs, own, ..
            } = &mut self.state;
            logs[log].batches(tables, &last, own);
            let size = logs[log].size();
            if rows[0][1] != size.to_string() {
                self.fail(&format!("{} entries instead of {size}", rows[0][1]));
            }
            return;
        }
    }

    /// Batches of all logs, which each may have a rest that is left for later: then one by one.
    fn batch_of_all(&mut self) {
        let sql = "SELECT count(*) FROM process_next_batch() WHERE waiting_for IS NULL";
        let enabled = self.state.logs.iter().filter(|l| l.enabled).count();
        let done = self.ask(sql);
        if self.held.is_none() && done != enabled.to_string() {
            self.fail(&format!("{done} batches instead of {enabled}"));
        }
        self.drain_all();
    }

    /// Every log, disabled ones too, until nothing is left of any that does not wait.
    pub fn drain_all(&mut self) {
        for log in 0..self.state.logs.len() {
            let last = self.last_values();
            let name = self.state.logs[log].name.clone();
            let sql = format!("SELECT entries, waiting_for FROM process_next_batch('{name}')");
            let waits = loop {
                let rows = self.run(&sql, None).unwrap();
                if rows[0][0] == "0" {
                    break rows[0][1].clone();
                }
            };
            match waits.is_empty() {
                true => {
                    let super::machine::State {
                        tables, logs, own, ..
                    } = &mut self.state;
                    logs[log].batches(tables, &last, own);
                }
                false => self.check_waits(log, &last, &waits),
            }
        }
    }

    /// A batch waits only for one who is writing to a table of which it has rows to log.
    fn check_waits(&self, log: usize, last: &std::collections::BTreeMap<usize, i64>, waits: &str) {
        let held = self.held.as_ref().map(|h| h.table);
        let log = &self.state.logs[log];
        if !held.is_some_and(|table| log.has_ahead(table, &self.state.tables, last)) {
            self.fail(&format!("log {} waits for {waits}", log.name));
        }
    }

    pub fn reconcile(&mut self) {
        let Some(log) = self.some_log() else {
            return;
        };
        let last = self.last_values();
        let name = self.state.logs[log].name.clone();
        let found = self.ask(&format!("SELECT count(*) FROM reconcile('{name}')"));
        let super::machine::State {
            tables, logs, own, ..
        } = &mut self.state;
        let late = logs[log].reconcile(tables, &last, own);
        if found != late.to_string() {
            self.fail(&format!("reconcile found {found} rows instead of {late}"));
        }
    }

    /// Verifies a log as it is, with what waits to be logged.
    pub fn verify(&mut self) {
        let Some(log) = self.some_log() else {
            return;
        };
        let expected = expect::findings(&self.state.logs[log], &self.state.tables, &self.state.own);
        let name = self.state.logs[log].name.clone();
        let found = self.send(
            &format!(
                "SELECT concat_ws(' ', kind, source_table, source_key) FROM verify_log('{name}')"
            ),
            None,
        );
        let found: Vec<String> = found
            .unwrap()
            .into_iter()
            .map(|mut row| row.remove(0))
            .collect();
        let wrong = expected.compare(&found);
        if !wrong.is_empty() {
            self.fail(&format!("verify_log('{name}'): {wrong:#?}"));
        }
    }
}

/// A table whose rows were redacted is not logged again without salt, unless it goes on as a source that it was.
fn forgets_redactions(log: &Log, table: usize, salted: bool) -> Option<Refusal> {
    let before = || log.sources.iter().filter(|s| s.table == table && !s.lost);
    let goes_on = before().any(|s| s.salted == salted);
    let redacted = before().any(|s| s.salted && !s.redacted.is_empty());
    match !salted && !goes_on && redacted {
        true => ours("55000"),
        false => None,
    }
}
