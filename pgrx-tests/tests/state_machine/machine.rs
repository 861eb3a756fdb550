//! Runs statements on a server and on the model beside it.

use super::model::{Entry, Group, Key, Kind, Log, Row, Table, content};
use postgres::SimpleQueryMessage;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// All that a transaction may change.
#[derive(Clone, Default)]
pub struct State {
    pub tables: Vec<Table>,
    pub logs: Vec<Log>,
    /// What the transaction has captured so far, by log.
    pub own: Vec<(i32, Group)>,
    /// Acts that must be on record, as `administration()` calls them, and how many.
    pub acts: BTreeMap<&'static str, usize>,
}

/// A change of a row: the row as it is then, or as it was if it is deleted.
pub struct Change {
    pub kind: Kind,
    pub key: Key,
    pub row: Row,
}

/// A transaction that is open or prepared while others go on.
pub struct Held {
    pub prepared: bool,
    pub table: usize,
    pub changes: Vec<(Key, Option<Row>)>,
    /// When it wrote, among all transactions.
    pub turn: u64,
    pub own: Vec<(i32, Group)>,
}

/// Why a statement must be refused.
#[derive(Clone, Copy)]
pub struct Refusal {
    pub state: &'static str,
    /// By the extension, which then says what to do.
    pub ours: bool,
}

pub fn ours(state: &'static str) -> Option<Refusal> {
    Some(Refusal { state, ours: true })
}

pub fn theirs(state: &'static str) -> Option<Refusal> {
    Some(Refusal { state, ours: false })
}

#[derive(Default, Debug)]
pub struct Counts {
    pub programs: usize,
    pub statements: usize,
    pub refused: BTreeMap<String, usize>,
    pub entries: usize,
    pub checks: usize,
    pub restarts: usize,
    pub restores: usize,
}

pub struct Machine {
    pub rng: StdRng,
    pub cluster: Cluster,
    pub a: Client,
    pub b: Client,
    pub database: String,
    pub state: State,
    /// Savepoints with the state at each; the first is the transaction's beginning.
    pub stack: Vec<(String, State)>,
    pub held: Option<Held>,
    pub turn: u64,
    pub script: Vec<String>,
    /// Tree heads that were seen: log, size, root.
    pub heads: Vec<(i32, i64, Vec<u8>)>,
    pub counts: Counts,
    pub named: usize,
    /// UPDATEs of keys so far.
    pub moves: u64,
}

const SETTINGS: &str = "SET lock_timeout = '500ms'; SET merkle_log.fence_timeout = '30ms'; SET statement_timeout = '60s'";

impl Machine {
    pub fn new(seed: u64, cluster: Cluster) -> Machine {
        let (a, b) = (cluster.client("postgres"), cluster.client("postgres"));
        Machine {
            rng: StdRng::seed_from_u64(seed),
            cluster,
            a,
            b,
            database: "postgres".to_owned(),
            state: State::default(),
            stack: Vec::new(),
            held: None,
            turn: 0,
            script: Vec::new(),
            heads: Vec::new(),
            counts: Counts::default(),
            named: 0,
            moves: 0,
        }
    }

    pub fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.rng).expect("something to choose from")
    }

    /// A name that was never given.
    pub fn fresh_name(&mut self, prefix: &str) -> String {
        self.named += 1;
        format!("{prefix}{}", self.named)
    }

    pub fn in_transaction(&self) -> bool {
        !self.stack.is_empty()
    }

    pub fn fail(&self, why: &str) -> ! {
        panic!("{why}\nafter\n{};", self.script.join(";\n"))
    }

    pub fn connect(&mut self) {
        self.a = self.cluster.client(&self.database);
        self.b = self.cluster.client(&self.database);
        run(&mut self.a, SETTINGS);
        run(&mut self.b, SETTINGS);
    }

    /// A database of its own, with the extension and without anything else.
    pub fn begin_again(&mut self) {
        self.database = self.fresh_name("world");
        let name = &self.database;
        let mut admin = self.cluster.client("postgres");
        run(
            &mut admin,
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        );
        self.script.clear();
        self.state = State::default();
        self.heads.clear();
        self.connect();
        run(
            &mut self.a,
            "CREATE EXTENSION merkle_log; CREATE SCHEMA other; CREATE SCHEMA closed;
             GRANT USAGE ON SCHEMA other TO plain; GRANT CREATE ON SCHEMA public, other, closed TO plain",
        );
    }

    /// Runs a statement that must succeed, or be refused for a reason; its rows if it succeeded.
    pub fn run(&mut self, sql: &str, refusal: Option<Refusal>) -> Option<Vec<Vec<String>>> {
        let guarded = self.in_transaction() && (refusal.is_some() || self.chance(0.3));
        if guarded {
            self.send("SAVEPOINT step", None);
        }
        let rows = self.send(sql, refusal);
        if guarded {
            let end = match rows {
                Some(_) => "RELEASE step",
                None => "ROLLBACK TO step",
            };
            self.send(end, None);
        }
        rows
    }

    pub fn send(&mut self, sql: &str, refusal: Option<Refusal>) -> Option<Vec<Vec<String>>> {
        self.counts.statements += 1;
        self.script.push(sql.to_owned());
        let error = match (self.a.simple_query(sql), refusal) {
            (Ok(messages), None) => return Some(rows_of(messages)),
            (Ok(_), Some(refusal)) => self.fail(&format!("not refused with {}", refusal.state)),
            (Err(error), refusal) => {
                let Some(db) = error.as_db_error() else {
                    self.fail(&format!("{error:?}\n{}", self.cluster.log()))
                };
                let (state, hint) = (db.code().code(), db.hint().unwrap_or_default());
                let said = format!("{state} {} {hint}", db.message());
                match refusal {
                    Some(refusal)
                        if refusal.state == state && (!refusal.ours || !hint.is_empty()) =>
                    {
                        said
                    }
                    Some(refusal) => {
                        self.fail(&format!("refused with {said}, not {}", refusal.state))
                    }
                    None => self.fail(&format!("refused with {said}")),
                }
            }
        };
        *self
            .counts
            .refused
            .entry(error[..5].to_owned())
            .or_default() += 1;
        self.script
            .last_mut()
            .unwrap()
            .push_str(&format!(" /* {error} */"));
        None
    }

    /// One value of a query that changes nothing.
    pub fn ask(&mut self, sql: &str) -> String {
        let rows = self.send(sql, None).unwrap();
        rows[0][0].clone()
    }

    pub fn act(&mut self, act: &'static str) {
        *self.state.acts.entry(act).or_default() += 1;
    }

    /// What a statement does to a table's rows, and what triggers capture of it.
    pub fn change(&mut self, table: usize, changes: Vec<Change>) {
        self.capture(table, &changes);
        let rows = &mut self.state.tables[table].rows;
        for change in changes {
            match change.kind {
                Kind::Delete => drop(rows.remove(&change.key)),
                _ => drop(rows.insert(change.key, change.row)),
            }
        }
        self.statement_done();
    }

    pub fn capture(&mut self, table: usize, changes: &[Change]) {
        // Of one statement, only an UPDATE of a key deletes a row and then inserts one.
        let mut moves = vec![None; changes.len()];
        for (at, pair) in changes.windows(2).enumerate() {
            if (pair[0].kind, pair[1].kind) == (Kind::Delete, Kind::Insert) {
                self.moves += 1;
                moves[at..at + 2].fill(Some(self.moves));
            }
        }
        let State {
            tables, logs, own, ..
        } = &mut self.state;
        for log in logs {
            for (place, source) in log.sources.iter().enumerate() {
                if source.table != table || source.removed || !source.captures() {
                    continue;
                }
                let version = source.version(&tables[table]);
                let entry = |(change, moves): (&Change, &Option<u64>)| {
                    Rc::new(Entry {
                        source: place,
                        kind: change.kind,
                        key: change.key,
                        content: match change.kind {
                            Kind::Truncate => Default::default(),
                            _ => content(change.key, &change.row, &version),
                        },
                        version: version.clone(),
                        kept: source.keep,
                        moves: moves.filter(|_| source.salted),
                    })
                };
                own.push((log.id, changes.iter().zip(&moves).map(entry).collect()));
            }
        }
    }

    /// Outside of a transaction a statement is one.
    pub fn statement_done(&mut self) {
        if !self.in_transaction() {
            self.turn += 1;
            let own = std::mem::take(&mut self.state.own);
            self.queue(self.turn, own);
        }
    }

    pub fn queue(&mut self, turn: u64, own: Vec<(i32, Group)>) {
        for (id, group) in own {
            if let Some(log) = self.state.logs.iter_mut().find(|l| l.id == id) {
                log.queue.entry(turn).or_default().push(group);
            }
        }
    }

    pub fn begin(&mut self) {
        self.send("BEGIN", None);
        self.stack.push((String::new(), self.state.clone()));
    }

    pub fn savepoint(&mut self) {
        let name = format!("s{}", self.stack.len());
        self.send(&format!("SAVEPOINT {name}"), None);
        self.stack.push((name, self.state.clone()));
    }

    /// Ends one of the savepoints.
    pub fn end_savepoint(&mut self) {
        if self.stack.len() < 2 {
            return;
        }
        let to = self.rng.random_range(1..self.stack.len());
        let name = self.stack[to].0.clone();
        match self.chance(0.5) {
            true => {
                self.send(&format!("ROLLBACK TO {name}"), None);
                self.state = self.stack[to].1.clone();
                self.stack.truncate(to + 1);
            }
            false => {
                self.send(&format!("RELEASE {name}"), None);
                self.stack.truncate(to);
            }
        }
    }

    pub fn end(&mut self, commit: bool) {
        let before = self.stack.swap_remove(0).1;
        self.stack.clear();
        match commit {
            true => drop(self.send("COMMIT", None)),
            false => {
                self.send("ROLLBACK", None);
                self.state = before;
            }
        }
        self.statement_done();
    }

    /// By table, the last value of the sequence that fills its key.
    pub fn last_values(&mut self) -> BTreeMap<usize, Key> {
        let tables = self.state.tables.iter().enumerate();
        let ask: Vec<String> = tables
            .filter(|(_, t)| !t.gone)
            .map(|(n, t)| {
                format!(
                    "SELECT {n}, pg_sequence_last_value(pg_get_serial_sequence('{}', '{}')::regclass)",
                    t.sql(),
                    t.key_name()
                )
            })
            .collect();
        if ask.is_empty() {
            return BTreeMap::new();
        }
        let rows = self
            .a
            .simple_query(&ask.join(" UNION ALL "))
            .unwrap_or_else(|e| panic!("{e:?}"));
        let pairs = rows_of(rows).into_iter();
        pairs
            .filter(|row| !row[1].is_empty())
            .map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap()))
            .collect()
    }

    /// The keys of a table that a held transaction has changed.
    pub fn locked(&self, table: usize) -> BTreeSet<Key> {
        let held = self.held.iter().filter(|h| h.table == table);
        let changes = held.flat_map(|h| &h.changes);
        changes.map(|(key, _)| *key).collect()
    }

    /// Ends what is held, one way or the other.
    pub fn release(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let commit = self.chance(0.75);
        let word = if commit { "COMMIT" } else { "ROLLBACK" };
        match held.prepared {
            true => drop(self.send(&format!("{word} PREPARED 'held'"), None)),
            false => {
                self.script.push(format!("-- beside: {word}"));
                run(&mut self.b, word);
            }
        }
        if commit {
            let rows = &mut self.state.tables[held.table].rows;
            for (key, row) in held.changes {
                match row {
                    Some(row) => drop(rows.insert(key, row)),
                    None => drop(rows.remove(&key)),
                }
            }
            // One that is prepared has written already; one that is open writes when it commits.
            let turn = match held.prepared {
                true => held.turn,
                false => {
                    self.turn += 1;
                    self.turn
                }
            };
            self.queue(turn, held.own);
        }
    }
}

pub fn rows_of(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<String>> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            let value = |n| row.get(n).unwrap_or_default().to_owned();
            Some((0..row.len()).map(value).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}
