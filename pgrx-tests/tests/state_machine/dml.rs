//! Statements that change rows, with what each does to the model.

use super::machine::{Change, Held, Machine, Refusal, ours, theirs};
use super::model::{Column, Key, Kind, Row, Type, Value};
use rand::Rng;
use std::collections::BTreeSet;

/// Keys that no sequence reaches.
const FAR: Key = 1_000_000;

/// A statement, and what it does.
struct Statement {
    sql: String,
    changes: Vec<Change>,
    refusal: Option<Refusal>,
}

impl Machine {
    pub fn value(&mut self, of: Type) -> Option<Value> {
        if self.chance(0.15) {
            return None;
        }
        let number = self.rng.random_range(0..50);
        Some(match of.is_text() {
            false => Value::Int(number),
            true if self.chance(0.1) => Value::Text(format!("it's {}", "long ".repeat(30))),
            true => Value::Text(format!("v{number}")),
        })
    }

    /// Values for some of a table's columns.
    fn values(&mut self, table: usize) -> Vec<(Column, Option<Value>)> {
        let columns = self.state.tables[table].columns[1..].to_vec();
        let mut values = Vec::new();
        for column in columns {
            if self.chance(0.6) {
                let value = self.value(column.of);
                values.push((column, value));
            }
        }
        values
    }

    fn new_row(&self, table: usize, values: &[(Column, Option<Value>)]) -> Row {
        let mut row = Row::new();
        for column in &self.state.tables[table].columns[1..] {
            let given = values.iter().find(|(c, _)| c.id == column.id);
            let value = match given {
                Some((_, value)) => value.clone(),
                None => column.default.clone(),
            };
            row.extend(value.map(|value| (column.id, value)));
        }
        row
    }

    fn updated(row: &Row, values: &[(Column, Option<Value>)]) -> Row {
        let mut row = row.clone();
        for (column, value) in values {
            match value {
                Some(value) => drop(row.insert(column.id, value.clone())),
                None => drop(row.remove(&column.id)),
            }
        }
        row
    }

    /// A key that some row has, if there is one that nobody holds.
    fn some_key(&mut self, table: usize) -> Option<Key> {
        let locked = self.locked(table);
        let keys = self.state.tables[table].rows.keys();
        let keys: Vec<Key> = keys.filter(|k| !locked.contains(k)).copied().collect();
        (!keys.is_empty()).then(|| self.pick(&keys))
    }

    /// A key that no row has, mostly one that has a place. None that a sequence is still to give out: a row behind
    /// whose entry another row comes with the same key is a matter of its own.
    fn free_key(&mut self, table: usize) -> Key {
        let locked = self.locked(table);
        let last = self.last_values().get(&table).copied().unwrap_or(0);
        let to = match self.state.tables[table].parts {
            Some(_) => 90,
            None => last + 1,
        };
        for _ in 0..200 {
            let key = match to < 2 || self.chance(0.15) {
                true => FAR + self.rng.random_range(0..1000),
                false => self.rng.random_range(1..to),
            };
            let state = &self.state.tables[table];
            let taken = state.rows.contains_key(&key) || locked.contains(&key);
            if !taken && (state.holds(key) || self.rng.random_bool(0.1)) {
                return key;
            }
        }
        FAR + 1000 + self.named as Key
    }

    fn guarded(&self, table: usize) -> Option<Refusal> {
        let logs = self.state.logs.iter().flat_map(|l| &l.sources);
        let mut guards = logs.filter(|s| s.table == table && !s.removed && s.append_only);
        guards.next().and_then(|_| ours("23001"))
    }

    fn inserted(&mut self, table: usize) -> Option<Statement> {
        let last = self.last_values().get(&table).copied().unwrap_or(0);
        let count = self.rng.random_range(1..=3);
        let given = self.chance(0.4);
        let values = self.values(table);
        let keys: Vec<Key> = match given {
            true => vec![self.free_key(table)],
            false => (last + 1..=last + count).collect(),
        };
        let state = &self.state.tables[table];
        let locked = self.locked(table);
        // Nothing else keeps a key from coming twice.
        let twice = |key: &Key| state.rows.contains_key(key) || locked.contains(key);
        if !state.has_key && keys.iter().any(twice) {
            return None;
        }
        let refusal = keys.iter().find_map(|key| match () {
            _ if !state.holds(*key) => theirs("23514"),
            _ if !state.has_key => None,
            // Whether it is taken is not known until the one who holds it has ended.
            _ if locked.contains(key) => theirs("55P03"),
            _ if state.rows.contains_key(key) => theirs("23505"),
            _ => None,
        });
        let mut names: Vec<String> = values.iter().map(|(c, _)| c.name.clone()).collect();
        names.insert(0, state.key_name().to_owned());
        let list = |key: String| {
            let values = values
                .iter()
                .map(|(_, v)| v.as_ref().map_or("NULL".to_owned(), Value::sql));
            let list: Vec<String> = std::iter::once(key).chain(values).collect();
            format!("({})", list.join(", "))
        };
        let rows: Vec<String> = keys
            .iter()
            .map(|key| {
                list(if given {
                    key.to_string()
                } else {
                    "DEFAULT".to_owned()
                })
            })
            .collect();
        let sql = format!(
            "INSERT INTO {} ({}) VALUES {}",
            state.sql(),
            names.join(", "),
            rows.join(", ")
        );
        let row = self.new_row(table, &values);
        let changes = keys.into_iter().map(|key| Change {
            kind: Kind::Insert,
            key,
            row: row.clone(),
        });
        Some(Statement {
            sql,
            changes: changes.collect(),
            refusal,
        })
    }

    fn changed(&mut self, table: usize) -> Option<Statement> {
        let values = self.values(table);
        let key = self.some_key(table)?;
        let state = &self.state.tables[table];
        let (name, column) = (state.sql(), state.key_name().to_owned());
        let set: Vec<String> = values
            .iter()
            .map(|(c, v)| {
                format!(
                    "{} = {}",
                    c.name,
                    v.as_ref().map_or("NULL".to_owned(), Value::sql)
                )
            })
            .collect();
        let (to, free) = (key + self.rng.random_range(0..10), self.free_key(table));
        let kinds = if self.held.is_some() { 2 } else { 7 };
        let kind = self.rng.random_range(0..kinds);
        let state = &self.state.tables[table];
        let update = |key: Key| Change {
            kind: Kind::Update,
            key,
            row: Machine::updated(&state.rows[&key], &values),
        };
        let delete = |key: Key| Change {
            kind: Kind::Delete,
            key,
            row: state.rows[&key].clone(),
        };
        let mut refusal = self.guarded(table);
        let (sql, changes) = match kind {
            0 if !set.is_empty() => (
                format!(
                    "UPDATE {name} SET {} WHERE {column} = {key}",
                    set.join(", ")
                ),
                vec![update(key)],
            ),
            0 | 1 => (
                format!("DELETE FROM {name} WHERE {column} = {key}"),
                vec![delete(key)],
            ),
            2 if !set.is_empty() => (
                format!(
                    "UPDATE {name} SET {} WHERE {column} BETWEEN {key} AND {to}",
                    set.join(", ")
                ),
                state.keys(key, to).into_iter().map(update).collect(),
            ),
            3 => (
                format!("DELETE FROM {name} WHERE {column} BETWEEN {key} AND {to}"),
                state.keys(key, to).into_iter().map(delete).collect(),
            ),
            4 => {
                if refusal.is_none() && !state.holds(free) {
                    refusal = theirs("23514");
                }
                let row = state.rows[&key].clone();
                let insert = Change {
                    kind: Kind::Insert,
                    key: free,
                    row,
                };
                (
                    format!("UPDATE {name} SET {column} = {free} WHERE {column} = {key}"),
                    vec![delete(key), insert],
                )
            }
            5 if state.has_key && !set.is_empty() => (
                format!(
                    "INSERT INTO {name} ({column}) VALUES ({key}) ON CONFLICT ({column}) DO UPDATE SET {}",
                    set.join(", ")
                ),
                vec![update(key)],
            ),
            6 if !set.is_empty() => {
                let held = state.holds(free);
                if refusal.is_none() && !held {
                    refusal = theirs("23514");
                }
                let row = self.new_row(table, &[]);
                let insert = Change {
                    kind: Kind::Insert,
                    key: free,
                    row,
                };
                (
                    format!(
                        "MERGE INTO {name} t USING (VALUES ({key}), ({free})) m (k) ON t.{column} = m.k
                         WHEN MATCHED THEN UPDATE SET {} WHEN NOT MATCHED THEN INSERT ({column}) VALUES (m.k)",
                        set.join(", ")
                    ),
                    vec![update(key), insert],
                )
            }
            _ => return None,
        };
        Some(Statement {
            sql,
            changes,
            refusal,
        })
    }

    /// A statement on one of the tables.
    pub fn change_rows(&mut self) {
        let Some(table) = self.some_table() else {
            return;
        };
        if self.held.is_none() && self.chance(0.06) {
            return self.truncate(table);
        }
        if self.chance(0.08) {
            return self.copy(table);
        }
        let statement = match self.chance(0.5) {
            true => self.inserted(table),
            false => self.changed(table),
        };
        let Some(statement) = statement else {
            return;
        };
        if self.run(&statement.sql, statement.refusal).is_some() {
            self.change(table, statement.changes);
        }
    }

    fn truncate(&mut self, table: usize) {
        let logs = self.state.logs.iter().flat_map(|l| &l.sources);
        let mut of_table = logs.filter(|s| s.table == table && !s.removed);
        let refuses = of_table.any(|s| s.append_only || s.captures() && !s.allow_truncate);
        let refusal = if refuses { ours("23001") } else { None };
        let sql = format!("TRUNCATE {}", self.state.tables[table].sql());
        if self.run(&sql, refusal).is_some() {
            let truncation = Change {
                kind: Kind::Truncate,
                key: 0,
                row: Row::new(),
            };
            self.capture(table, &[truncation]);
            self.state.tables[table].rows.clear();
            self.statement_done();
        }
    }

    fn copy(&mut self, table: usize) {
        let keys: BTreeSet<Key> = (0..3).map(|_| self.free_key(table)).collect();
        let state = &self.state.tables[table];
        if keys.iter().any(|key| !state.holds(*key)) {
            return;
        }
        let lines: Vec<String> = keys.iter().map(Key::to_string).collect();
        let sql = format!(
            "COPY {} ({}) FROM PROGRAM 'for i in {}; do echo $i; done'",
            state.sql(),
            state.key_name(),
            lines.join(" ")
        );
        let row = self.new_row(table, &[]);
        if self.run(&sql, None).is_some() {
            let changes = keys.into_iter().map(|key| Change {
                kind: Kind::Insert,
                key,
                row: row.clone(),
            });
            self.change(table, changes.collect());
        }
    }

    /// A transaction that stays open beside the others, or is prepared.
    pub fn hold(&mut self) {
        let Some(table) = self.some_table() else {
            return;
        };
        let mut statements: Vec<Statement> = self.inserted(table).into_iter().collect();
        if let Some(key) = self.some_key(table) {
            let state = &self.state.tables[table];
            let sql = format!(
                "DELETE FROM {} WHERE {} = {key}",
                state.sql(),
                state.key_name()
            );
            let row = state.rows[&key].clone();
            let changes = vec![Change {
                kind: Kind::Delete,
                key,
                row,
            }];
            statements.push(Statement {
                sql,
                changes,
                refusal: self.guarded(table),
            });
        }
        if statements.iter().any(|s| s.refusal.is_some()) {
            return;
        }
        let prepared = self.chance(0.5);
        let before = self.state.own.len();
        let mut changes = Vec::new();
        let mut sql = vec!["BEGIN".to_owned()];
        for statement in statements {
            self.capture(table, &statement.changes);
            sql.push(statement.sql);
            changes.extend(statement.changes.into_iter().map(|c| match c.kind {
                Kind::Delete => (c.key, None),
                _ => (c.key, Some(c.row)),
            }));
        }
        if prepared {
            sql.push("PREPARE TRANSACTION 'held'".to_owned());
        }
        for sql in sql {
            match prepared {
                true => drop(self.send(&sql, None)),
                false => {
                    self.script.push(format!("-- beside: {sql}"));
                    if let Err(error) = self.b.batch_execute(&sql) {
                        self.fail(&format!("{error:?}"));
                    }
                }
            }
        }
        self.turn += 1;
        self.held = Some(Held {
            prepared,
            table,
            changes,
            turn: self.turn,
            own: self.state.own.split_off(before),
        });
    }
}
