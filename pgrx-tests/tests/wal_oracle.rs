//! What trigger capture logs, held against what the server wrote into its WAL: random programs of statements
//! inside statements, decoded from the WAL, and the log, must tell the same of every row.
//!
//!     cargo test -p server-tests wal_oracle::              # some hundred programs
//!     LONG=1 cargo test -p server-tests wal_oracle::       # ten thousand; PROGRAMS=n for another number

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::mpsc;
use std::time::Duration;

/// Programs that share tables and a log.
const EPOCH: usize = 50;
/// Programs between two comparisons.
const STEP: usize = 10;

/// Each trigger and each function in a statement may run one of the program's actions, in half of the cases
/// within a subtransaction that swallows its error.
const CHAOS: &str = r"
    CREATE TABLE actions (n serial, sql text);
    CREATE FUNCTION chaos() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
        depth int := COALESCE(NULLIF(current_setting('oracle.depth', true), ''), '0');
        action text;
    BEGIN
        IF depth >= 3 OR random() > COALESCE(NULLIF(current_setting('oracle.chaos', true), ''), '0')::float THEN
            RETURN depth;
        END IF;
        SELECT sql INTO action FROM actions ORDER BY n OFFSET floor(random() * (SELECT count(*) FROM actions)) LIMIT 1;
        IF action IS NULL THEN
            RETURN depth;
        END IF;
        PERFORM set_config('oracle.depth', (depth + 1)::text, false);
        IF random() < 0.8 THEN
            BEGIN
                EXECUTE action;
                IF random() < 0.1 THEN
                    RAISE EXCEPTION 'taken back';
                END IF;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        ELSE
            EXECUTE action;
        END IF;
        PERFORM set_config('oracle.depth', depth::text, false);
        RETURN depth;
    END $$;
    CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM chaos();
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        IF random() < 0.1 THEN RETURN NULL; END IF;
        RETURN NEW;
    END $$;
    CREATE FUNCTION after_any() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM chaos(); RETURN NULL; END $$;
    -- A trigger that writes to the very row it fires for.
    CREATE FUNCTION same_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF pg_trigger_depth() > 2 THEN RETURN NULL; END IF;
        CASE floor(random() * 4)
            WHEN 0 THEN EXECUTE format('UPDATE %I SET note = note || ''+'' WHERE id = $1', TG_ARGV[0]) USING NEW.id;
            WHEN 1 THEN EXECUTE format('DELETE FROM %I WHERE id = $1', TG_ARGV[0]) USING NEW.id;
            ELSE NULL;
        END CASE;
        RETURN NULL;
    END $$;
    CREATE FUNCTION touch(name text, int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('UPDATE %I SET note = note || ''!'' WHERE id = $1', name) USING $2;
        IF random() < 0.3 THEN EXECUTE format('DELETE FROM %I WHERE id = $1', name) USING $2; END IF;
        RETURN $2;
    EXCEPTION WHEN OTHERS THEN RETURN 0;
    END $$;
    CREATE FUNCTION again(name text, int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('INSERT INTO %I (id, v) VALUES ($1, ''back'')', name) USING $2;
        RETURN $2;
    EXCEPTION WHEN OTHERS THEN RETURN 0;
    END $$;
    -- A trigger that takes away the row whose key another is about to have.
    CREATE FUNCTION make_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        CASE floor(random() * 4)
            WHEN 0 THEN EXECUTE format('DELETE FROM %I WHERE id = $1', TG_ARGV[0]) USING NEW.id;
            WHEN 1 THEN EXECUTE format('UPDATE %I SET id = id + 30 WHERE id = $1', TG_ARGV[0]) USING NEW.id;
            WHEN 2 THEN EXECUTE format('INSERT INTO %I (id, v) VALUES ($1, ''early'') ON CONFLICT DO NOTHING', TG_ARGV[0]) USING NEW.id;
                        EXECUTE format('DELETE FROM %I WHERE id = $1', TG_ARGV[0]) USING NEW.id;
            ELSE NULL;
        END CASE;
        RETURN NEW;
    EXCEPTION WHEN OTHERS THEN RETURN NEW;
    END $$;
    -- A trigger that fills a table which is being truncated, or was just now.
    CREATE FUNCTION refill() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.5 THEN
            BEGIN
                RAISE EXCEPTION 'taken back';
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END IF;
        PERFORM chaos();
        IF TG_ARGV[0] = 'p' THEN
            INSERT INTO p (id, r, v, n) SELECT g, 1 + g % 3, 'refilled', 0 FROM generate_series(1, 4) g ON CONFLICT DO NOTHING;
        ELSE
            EXECUTE format('INSERT INTO %I (id, v, n) SELECT g, ''refilled'', 0 FROM generate_series(1, 4) g ON CONFLICT DO NOTHING', TG_ARGV[0]);
        END IF;
        RETURN NULL;
    END $$;
";

const TABLES: &str = r"
    CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT chaos(), note text DEFAULT '');
    CREATE TABLE u (id int PRIMARY KEY, v text, t_cascade int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE,
                    t_null int REFERENCES t ON DELETE SET NULL ON UPDATE SET NULL, n int, note text DEFAULT '');
    CREATE TABLE s (id int PRIMARY KEY, v text, parent int REFERENCES s ON DELETE CASCADE ON UPDATE CASCADE, n int, note text DEFAULT '');
    CREATE TABLE d (id int PRIMARY KEY, v text, n int, note text DEFAULT '');
    CREATE TABLE p (id int, r int, v text, n int, note text DEFAULT '', PRIMARY KEY (id, r)) PARTITION BY LIST (r);
    CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
    CREATE TABLE p2 (note text DEFAULT '', gone int, r int NOT NULL, n int, v text, id int NOT NULL, PRIMARY KEY (id, r));
    ALTER TABLE p2 DROP COLUMN gone;
    ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
    CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3) PARTITION BY RANGE (id);
    CREATE TABLE p3_low PARTITION OF p3 FOR VALUES FROM (MINVALUE) TO (5);
    CREATE TABLE p3_high PARTITION OF p3 FOR VALUES FROM (5) TO (MAXVALUE);
    CREATE TABLE r (id int PRIMARY KEY, v text, n int, note text DEFAULT '');
";

/// So that the first programs find something to change.
const ROWS: &str = r"
    INSERT INTO t (id, v, n) SELECT g, 'first', 0 FROM generate_series(1, 8) g ON CONFLICT DO NOTHING;
    INSERT INTO d (id, v, n) SELECT g, 'first', 0 FROM generate_series(1, 8) g ON CONFLICT DO NOTHING;
    INSERT INTO s (id, v, n) SELECT g, 'first', 0 FROM generate_series(1, 4) g ON CONFLICT DO NOTHING;
    INSERT INTO u (id, v, n) SELECT g, 'first', 0 FROM generate_series(1, 4) g ON CONFLICT DO NOTHING;
    INSERT INTO p (id, r, v, n) SELECT g, 1 + g % 3, 'first', 0 FROM generate_series(1, 8) g ON CONFLICT DO NOTHING;
";

const SOURCES: [&str; 6] = ["t", "u", "s", "d", "p", "r"];
const LEAVES: [&str; 9] = ["t", "u", "s", "d", "p1", "p2", "p3_low", "p3_high", "r"];

/// Writes random statements.
struct Author {
    rng: StdRng,
    /// The server's major, which decides what statements there are.
    major: i32,
}

impl Author {
    fn key(&mut self) -> u32 {
        self.rng.random_range(1..=8)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).unwrap()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    fn number(&mut self) -> String {
        match self.chance(0.3) {
            true => "chaos()".to_owned(),
            false => self.key().to_string(),
        }
    }

    /// Of old and new rows since version 18.
    fn returning(&mut self) -> &'static str {
        match self.pick(&["", "", " RETURNING chaos()"]) {
            " RETURNING chaos()" if self.major >= 18 && self.chance(0.5) => {
                " RETURNING old.id, chaos(), new.id"
            }
            returning => returning,
        }
    }

    /// What MERGE can do besides since version 17: change rows that no row of the source meets, and return rows.
    fn end_of_merge(&mut self, table: &str) -> String {
        if self.major < 17 {
            return String::new();
        }
        let key = self.key();
        let by_source = self.pick(&["", "THEN DELETE", "THEN UPDATE SET v = 'alone'"]);
        let by_source = match by_source {
            "" => String::new(),
            action => {
                format!(" WHEN NOT MATCHED BY SOURCE AND {table}.id % 8 = {key} {action}")
            }
        };
        by_source + self.pick(&["", " RETURNING merge_action(), chaos()"])
    }

    fn text(&mut self) -> String {
        let words = [
            "'a'",
            "'it''s'",
            "NULL",
            "repeat('long ', 20)",
            "'x' || random()",
        ];
        self.pick(&words).to_owned()
    }

    fn plain(&mut self) -> &'static str {
        self.pick(&["t", "t", "t", "u", "s", "d"])
    }

    /// One statement that changes rows.
    fn statement(&mut self) -> String {
        let (k, k2, r) = (self.key(), self.key(), self.rng.random_range(1..=3));
        let (table, text, n) = (self.plain(), self.text(), self.number());
        let returning = self.returning();
        match self.rng.random_range(0..29) {
            0..=3 => {
                let conflict = match self.rng.random_range(0..4) {
                    0 => String::new(),
                    1 => " ON CONFLICT DO NOTHING".to_owned(),
                    _ => format!(" ON CONFLICT (id) DO UPDATE SET v = {text}, n = {n}"),
                };
                let many = match self.chance(0.4) {
                    true => format!("SELECT g, {text}, {n} FROM generate_series({k}, {}) g", k + k2 / 2),
                    false => format!("VALUES ({k}, {text}, {n})"),
                };
                format!("INSERT INTO {table} (id, v, n) {many}{conflict}{returning}")
            }
            4 | 5 => format!("UPDATE {table} SET v = {text}, n = {n} WHERE id = {k}{returning}"),
            6 => format!("UPDATE {table} SET v = {text} WHERE id <= {k}{returning}"),
            7 | 8 => format!("UPDATE {table} SET id = {k2} WHERE id = {k}{returning}"),
            9 => format!("UPDATE {table} SET id = id + 10 WHERE id < {k}{returning}"),
            10 => format!("UPDATE {table} SET id = id - 10 WHERE id > 10{returning}"),
            11 | 12 => format!("DELETE FROM {table} WHERE id = {k}{returning}"),
            13 => format!(
                "WITH gone AS (DELETE FROM {table} WHERE id IN ({k}, {k2}) RETURNING *)
                 INSERT INTO {table} (id, v, n) SELECT id, {text}, {n} FROM gone{returning}"
            ),
            14 => format!(
                "WITH a AS (UPDATE t SET v = {text} WHERE id = {k} RETURNING id),
                      b AS (INSERT INTO d (id, v, n) SELECT id, 'b', {n} FROM a ON CONFLICT DO NOTHING RETURNING id),
                      c AS (DELETE FROM p WHERE id IN (SELECT id FROM b) RETURNING id)
                 UPDATE s SET n = {n} WHERE id IN (SELECT id FROM a){returning}"
            ),
            // MERGE came with version 15.
            15 | 16 | 22 if self.major < 15 => format!("UPDATE p SET r = {r}, id = {k2} WHERE id = {k}{returning}"),
            15 | 16 => format!(
                "MERGE INTO {table} USING (SELECT i, chaos() c FROM (VALUES ({k}), ({})) x (i)) m ON {table}.id = m.i
                 WHEN MATCHED AND m.i % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'merged', n = m.c
                 WHEN NOT MATCHED THEN INSERT (id, v, n) VALUES (m.i, {text}, m.c){}",
                k + 1,
                self.end_of_merge(table)
            ),
            17 => format!(
                "INSERT INTO u (id, t_cascade, t_null, n) VALUES ({k}, {k2}, {k}, {n})
                 ON CONFLICT (id) DO UPDATE SET t_cascade = {k2}{returning}"
            ),
            18 => format!("INSERT INTO s (id, parent, n) VALUES ({k}, NULLIF({k2}, {k}), {n}) ON CONFLICT (id) DO UPDATE SET parent = {k2}"),
            19 | 20 => format!(
                "INSERT INTO p (id, r, v, n) VALUES ({k}, {r}, {text}, {n}), ({k2} + 8, {r}, 'p', 1) ON CONFLICT (id, r) DO UPDATE SET v = {text}{returning}"
            ),
            21 => format!("UPDATE p SET r = {r}, v = {text} WHERE id = {k}{returning}"),
            22 => format!(
                "MERGE INTO p USING (SELECT {k} i, chaos() c) m ON p.id = m.i WHEN MATCHED AND p.n = 5 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET r = {r}, v = 'merged' WHEN NOT MATCHED THEN INSERT (id, r, v, n) VALUES (m.i, {r}, {text}, m.c){}",
                self.end_of_merge("p")
            ),
            23 => format!("UPDATE p SET id = id + {k} - {k2} WHERE r = {r} AND id BETWEEN 1 AND 8{returning}"),
            24 => format!("DELETE FROM p WHERE id = {k}{returning}"),
            27 => format!("DELETE FROM {table} WHERE id >= 40 RETURNING again('{table}', id)"),
            25 | 26 => format!(
                "INSERT INTO {table} (id, v, n) SELECT g, {text}, 0 FROM generate_series({k} + 40, {k2} + 48) g
                 ON CONFLICT (id) DO UPDATE SET v = 'again' RETURNING touch('{table}', id)"
            ),
            _ => {
                let (a, b) = (self.small(), self.small());
                format!("DO $do$ BEGIN {a}; BEGIN {b}; {a}; EXCEPTION WHEN OTHERS THEN NULL; END; END $do$")
            }
        }
    }

    fn small(&mut self) -> String {
        let (table, k, text) = (self.plain(), self.key(), self.text());
        match self.rng.random_range(0..3) {
            0 => format!(
                "INSERT INTO {table} (id, v, n) VALUES ({k}, {text}, 1) ON CONFLICT (id) DO UPDATE SET v = {text}"
            ),
            1 => format!("UPDATE {table} SET v = {text} WHERE id = {k}"),
            _ => format!("DELETE FROM {table} WHERE id = {k}"),
        }
    }

    /// Something else that happens to tables, mostly at the top of a transaction.
    fn other(&mut self) -> String {
        let table = self.pick(&["t", "s", "d", "p"]);
        let name = format!("extra{}", self.rng.random_range(1..=3));
        let name2 = format!("extra{}", self.rng.random_range(1..=3));
        match self.rng.random_range(0..17) {
            0 | 1 => format!(
                "ALTER TABLE {table} ADD COLUMN {name} int DEFAULT {}",
                self.key()
            ),
            2 => format!("ALTER TABLE {table} DROP COLUMN {name}"),
            3 | 4 => format!("ALTER TABLE {table} RENAME COLUMN {name} TO {name2}"),
            5 => format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE bigint"),
            6 => "ALTER TABLE t ALTER COLUMN note TYPE varchar(500)".to_owned(),
            7 => format!("ALTER TABLE {table} ALTER COLUMN n TYPE bigint, ALTER COLUMN n TYPE int"),
            8 => "TRUNCATE u".to_owned(),
            9 => "TRUNCATE t CASCADE".to_owned(),
            10 => "TRUNCATE p".to_owned(),
            11 => "TRUNCATE s".to_owned(),
            12 => format!("CLUSTER {table} USING {table}_pkey"),
            13 => "TRUNCATE p1, p, d".to_owned(),
            14 => "TRUNCATE s, t, u RESTART IDENTITY".to_owned(),
            15 => "TRUNCATE d; TRUNCATE d".to_owned(),
            _ => format!(
                "SET CONSTRAINTS ALL {}",
                self.pick(&["IMMEDIATE", "DEFERRED"])
            ),
        }
    }

    /// What runs inside other statements. It renames no column: a statement whose row was written before a rename and
    /// whose row trigger fires after it has the old name in the WAL and the new one in the log, and both are right
    /// (`schema_changes.rs` holds the log to its promise then).
    fn action(&mut self) -> String {
        if !self.chance(0.05) {
            return self.statement();
        }
        loop {
            let other = self.other();
            if !other.contains("RENAME") {
                return other;
            }
        }
    }

    /// Statements of a transaction, without its end.
    fn transaction(&mut self) -> Vec<String> {
        let mut steps = Vec::new();
        let mut savepoints = 0;
        for _ in 0..self.rng.random_range(2..=8) {
            match self.rng.random_range(0..12) {
                0 => {
                    steps.push(format!("SAVEPOINT s{savepoints}"));
                    savepoints += 1;
                }
                1 if savepoints > 0 => {
                    let to = self.rng.random_range(0..savepoints);
                    match self.chance(0.5) {
                        true => {
                            steps.push(format!("ROLLBACK TO s{to}"));
                            savepoints = to + 1;
                        }
                        false => {
                            steps.push(format!("RELEASE s{to}"));
                            savepoints = to;
                        }
                    }
                }
                2 => steps.push(self.other()),
                _ => steps.push(self.statement()),
            }
        }
        steps
    }

    fn triggers(&mut self) -> String {
        let mut sql = String::new();
        for table in ["t", "u", "s", "d", "p", "r"] {
            let always = if table == "r" || self.chance(0.3) {
                "ALWAYS"
            } else {
                ""
            };
            if self.chance(0.5) {
                let name = self.pick(&["a_refill", "zz_refill"]);
                let when = self.pick(&["BEFORE", "AFTER", "AFTER", "AFTER"]);
                let filled = self.pick(&[table, table, "u", "d"]);
                writeln!(
                    sql,
                    "CREATE TRIGGER {name} {when} TRUNCATE ON {table} EXECUTE FUNCTION refill('{filled}');"
                )
                .unwrap();
            }
            for number in 0..self.rng.random_range(0..=3) {
                let name = format!("{}_{number}", self.pick(&["a_first", "zz_last"]));
                let events = self.pick(&[
                    "INSERT",
                    "UPDATE",
                    "DELETE",
                    "INSERT OR UPDATE",
                    "INSERT OR UPDATE OR DELETE",
                ]);
                let what = match self.rng.random_range(0..7) {
                    0 => format!(
                        "BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION before_row()"
                    ),
                    1 => format!("BEFORE {events} ON {table} EXECUTE FUNCTION after_any()"),
                    2 => format!("AFTER {events} ON {table} EXECUTE FUNCTION after_any()"),
                    3 => format!(
                        "AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION same_row('{table}')"
                    ),
                    4 | 5 => format!(
                        "BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION make_room('{table}')"
                    ),
                    _ => format!(
                        "AFTER {events} ON {table} FOR EACH ROW EXECUTE FUNCTION after_any()"
                    ),
                };
                writeln!(sql, "CREATE TRIGGER {name} {what};").unwrap();
                if !always.is_empty() {
                    writeln!(sql, "ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name};").unwrap();
                }
            }
        }
        // The server loses what a BEFORE TRUNCATE trigger inserts from under a deferred one.
        if self.chance(0.5) && !sql.contains("BEFORE TRUNCATE") {
            sql += "CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON d DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION after_any();";
        }
        sql
    }
}

/// What happened to a row, or to a whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// `None` for all rows of the table.
    key: Option<String>,
    operation: &'static str,
    content: String,
}

type Fields = BTreeMap<String, String>;

/// Columns as test_decoding prints them: `name[type]:value name[type]:value`.
fn fields(mut text: &str) -> Fields {
    let mut found = Fields::new();
    while let Some((name, rest)) = text.trim_start().split_once('[') {
        let (_, rest) = rest.split_once("]:").unwrap();
        let (value, rest) = match rest.strip_prefix('\'') {
            None => rest.split_once(' ').unwrap_or((rest, "")),
            Some(quoted) => {
                let mut end = 0;
                while let Some(at) = quoted[end..].find('\'') {
                    end += at;
                    if !quoted[end + 1..].starts_with('\'') {
                        break;
                    }
                    end += 2;
                }
                (&quoted[..end], &quoted[end + 1..])
            }
        };
        if value != "null" || rest.is_empty() && !text.ends_with("null") {
            found.insert(name.trim_matches('"').to_owned(), value.replace("''", "'"));
        }
        text = rest;
    }
    found
}

fn content(fields: &Fields) -> String {
    let pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(" ")
}

fn key(table: &str, fields: &Fields) -> String {
    match table {
        "p" => format!("{{{},{}}}", fields["id"], fields["r"]),
        _ => fields["id"].clone(),
    }
}

/// Changes decoded from the WAL, by table, and how many each transaction made.
#[derive(Default)]
struct Decoded {
    events: HashMap<&'static str, Vec<Event>>,
    transactions: BTreeMap<u64, usize>,
    changes: usize,
    detached: bool,
}

impl Decoded {
    fn read(&mut self, client: &mut Client) {
        let lines: Vec<String> = column(
            client,
            "SELECT data FROM pg_logical_slot_get_changes('oracle', NULL, NULL, 'skip-empty-xacts', 'on')",
        );
        let mut xid = 0;
        for line in &lines {
            if let Some(number) = line.strip_prefix("BEGIN ") {
                xid = number.parse().unwrap();
            } else if let Some(message) = line.strip_prefix("message: ") {
                self.detached = match message.contains("content:detached") {
                    true => true,
                    false => self.detached && !message.contains("content:attached"),
                };
            } else if let Some(change) = line.strip_prefix("table ") {
                self.change(xid, change);
            }
        }
    }

    fn change(&mut self, xid: u64, change: &str) {
        let (tables, rest) = change.split_once(": ").unwrap();
        let (operation, rest) = rest.split_once(':').unwrap();
        let names: Vec<&str> = tables
            .split(", ")
            .map(|t| t.trim_start_matches("public."))
            .collect();
        if operation == "TRUNCATE" {
            for table in SOURCES.iter().filter(|s| names.contains(s)) {
                self.add(xid, table, None, "truncate", &Fields::new());
            }
            return;
        }
        let table = match names[0] {
            "p2" if self.detached => return,
            "p1" | "p2" | "p3_low" | "p3_high" => "p",
            name => match SOURCES.iter().find(|s| **s == name) {
                Some(source) => source,
                None => return,
            },
        };
        match operation {
            "INSERT" => self.row(xid, table, "insert", &fields(rest)),
            "DELETE" => self.row(xid, table, "delete", &fields(rest)),
            "UPDATE" => {
                let (old, new) = rest.split_once(" new-tuple:").unwrap();
                let old = fields(old.trim_start().strip_prefix("old-key:").unwrap());
                let new = fields(new);
                if key(table, &old) == key(table, &new) {
                    self.row(xid, table, "update", &new);
                } else {
                    self.row(xid, table, "delete", &old);
                    self.row(xid, table, "insert", &new);
                }
            }
            other => panic!("{other}"),
        }
    }

    fn row(&mut self, xid: u64, table: &'static str, operation: &'static str, fields: &Fields) {
        self.add(xid, table, Some(key(table, fields)), operation, fields);
    }

    fn add(
        &mut self,
        xid: u64,
        table: &'static str,
        key: Option<String>,
        operation: &'static str,
        fields: &Fields,
    ) {
        self.changes += 1;
        *self.transactions.entry(xid).or_default() += 1;
        self.events.entry(table).or_default().push(Event {
            key,
            operation,
            content: content(fields),
        });
    }

    /// What the log must say of a row.
    fn of_row(&self, table: &str, key: &str) -> Vec<String> {
        let events = self.events.get(table).into_iter().flatten();
        events
            .filter(|e| e.key.as_deref().is_none_or(|k| k == key))
            .map(|e| {
                format!("{} {}", e.operation, e.content)
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    /// That the log tells the same.
    fn compare(&self, client: &mut Client) -> Result<(), String> {
        for table in SOURCES {
            let events = self.events.get(table).into_iter().flatten();
            let keys: BTreeSet<&str> = events.filter_map(|e| e.key.as_deref()).collect();
            let keys: Vec<&str> = keys.into_iter().collect();
            let sql = format!(
                "SELECT k, btrim(h.operation || ' ' || COALESCE((SELECT string_agg(key || '=' || value, ' ' ORDER BY key COLLATE \"C\")
                                                           FROM jsonb_each_text(h.row_data)), ''))
                   FROM unnest($1::text[]) k, LATERAL history('audit', '{table}', k) h
                  WHERE h.transaction_id IS NOT NULL ORDER BY k, h.leaf_index"
            );
            let mut logged: HashMap<String, Vec<String>> = HashMap::new();
            for row in client
                .query(&sql, &[&keys])
                .map_err(|e| format!("{table}: {e:?}"))?
            {
                logged.entry(row.get(0)).or_default().push(row.get(1));
            }
            for key in keys {
                let (expected, found) = (
                    self.of_row(table, key),
                    logged.remove(key).unwrap_or_default(),
                );
                if expected != found {
                    return Err(format!("{table} {key}:\nWAL {expected:#?}\nlog {found:#?}"));
                }
            }
        }
        let runs = client
            .query("SELECT transaction_id::text, entries FROM merkle_statement ORDER BY from_leaf_index", &[])
            .unwrap();
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let mut last = 0;
        for run in runs {
            let xid: u64 = run.get::<_, String>(0).parse().unwrap();
            if xid != last && seen.contains_key(&xid) {
                return Err(format!("transaction {xid} is not whole"));
            }
            last = xid;
            *seen.entry(xid).or_default() += run.get::<_, i32>(1) as usize;
        }
        match seen == self.transactions {
            true => Ok(()),
            false => Err(format!(
                "transactions:\nWAL {:?}\nlog {seen:?}",
                self.transactions
            )),
        }
    }
}

struct Oracle {
    author: Author,
    cluster: Cluster,
    source: Client,
    programs: usize,
    changes: usize,
    /// Statements that did not end: INSERT … ON CONFLICT tries again and again where a trigger of the program
    /// takes each conflicting row away and puts it back. That is the server's doing, without capture too.
    endless: usize,
    /// What was run since the tables were made.
    script: Vec<String>,
}

impl Oracle {
    fn epoch(&mut self, programs: usize) {
        let mut a = self.cluster.client("postgres");
        let mut b = self.cluster.client("postgres");
        self.script.clear();
        run(
            &mut a,
            "DROP TABLE IF EXISTS actions, t, u, s, d, p, p2, r CASCADE; DROP FUNCTION IF EXISTS chaos, before_row, after_any, same_row, make_room, touch, again, refill;",
        );
        run(
            &mut a,
            "DO $$ BEGIN IF EXISTS (SELECT FROM verification_logs WHERE log_id > 0) THEN PERFORM drop_log('audit', confirm => true); END IF; END $$",
        );
        let triggers = self.author.triggers();
        run(&mut a, &format!("{CHAOS}{TABLES}{triggers}"));
        for table in LEAVES {
            run(
                &mut a,
                &format!("ALTER TABLE {table} REPLICA IDENTITY FULL"),
            );
        }
        let size = self.author.pick(&["NULL", "NULL", "25"]);
        run(
            &mut a,
            &format!("SELECT create_log('audit', batch_size => {size})"),
        );
        for table in SOURCES {
            run(
                &mut a,
                &format!(
                    "SELECT add_source('audit', '{table}', capture => 'trigger', allow_truncate => true, store_leaf_data => true)"
                ),
            );
        }
        run(&mut a, "ALTER SUBSCRIPTION sub ENABLE");
        run(
            &mut a,
            "SELECT count(*) FROM pg_logical_slot_get_changes('oracle', NULL, NULL)",
        );
        self.script.push(triggers);
        for insert in ROWS.trim().lines() {
            self.step(&mut a, insert);
        }
        let mut decoded = Decoded::default();
        for client in [&mut a, &mut b] {
            let seed: f64 = self.author.rng.random_range(-1.0..1.0);
            run(client, &format!("SELECT setseed({seed})"));
        }
        let mut detaches = false;
        for number in 0..programs {
            detaches |= self.program(&mut a, &mut b);
            if number % STEP == STEP - 1 || number == programs - 1 {
                drain(&mut a, "audit");
                decoded.read(&mut a);
                if let Err(difference) = decoded.compare(&mut a) {
                    panic!("{difference}\nafter\n{}", self.script.join(";\n"));
                }
            }
        }
        self.changes += decoded.changes;
        if std::env::var("SHOW").is_ok() {
            println!("{}", self.script.join(";\n"));
        }
        if !detaches {
            let found: Vec<String> = findings(&mut a, "audit")
                .into_iter()
                .filter(|f| !f.starts_with("schema_changed") && !f.starts_with("renamed"))
                .collect();
            assert!(
                found.is_empty(),
                "{found:#?}\nafter\n{}",
                self.script.join(";\n")
            );
        }
        // The subscriber rests while its table is made anew.
        run(&mut a, "ALTER SUBSCRIPTION sub DISABLE");
    }

    fn step(&mut self, client: &mut Client, sql: &str) -> bool {
        let result = bounded(client, sql);
        let failed = match &result {
            Ok(()) => String::new(),
            Err(error) => format!(
                "  -- {}",
                error.as_db_error().map_or("gone", |e| e.message())
            ),
        };
        self.script.push(format!("{sql}{failed}"));
        // A program may fail, also by waiting for the transaction beside it; the server may not.
        if let Err(error) = &result {
            let code = error
                .as_db_error()
                .map_or(String::new(), |e| e.code().code().to_owned());
            // No program truncates a partition without its table.
            let refused = failed.contains("cannot truncate a partition");
            self.endless += usize::from(code == "57014");
            let rare = self.endless <= 2 + self.programs / 200;
            assert!(
                !code.starts_with("XX") && !code.is_empty() && rare && !refused,
                "{error:?}\nafter\n{}",
                self.script.join(";\n")
            );
        }
        result.is_ok()
    }

    /// COPY, half of the time into a table that the transaction truncates before: then it may freeze the rows.
    fn copy(&mut self, client: &mut Client) -> bool {
        let table = self.author.plain();
        let freeze = self.author.chance(0.5);
        if freeze && !self.step(client, &format!("TRUNCATE {table} CASCADE")) {
            return false;
        }
        let keys: Vec<String> = (0..4)
            .map(|_| (self.author.key() + 20).to_string())
            .collect();
        let sql = format!(
            "COPY {table} (id, v, n) FROM PROGRAM 'for i in {}; do printf \"$i\\tcopied\\t1\\n\"; done'{}",
            keys.join(" "),
            if freeze { " WITH (FREEZE)" } else { "" }
        );
        let changes = self.author.small();
        self.step(client, &sql) && (self.author.chance(0.5) || self.step(client, &changes))
    }

    /// A few transactions. True if a partition was detached or attached.
    fn program(&mut self, a: &mut Client, b: &mut Client) -> bool {
        self.programs += 1;
        let actions: Vec<String> = (0..8).map(|_| self.author.action()).collect();
        let chaos = [0.0, 0.1, 0.3, 0.6]
            .choose(&mut self.author.rng)
            .copied()
            .unwrap();
        let memory = self.author.pick(&["1kB", "1kB", "4kB", "8MB"]);
        for (client, chaos) in [(&mut *a, chaos), (&mut *b, 0.0)] {
            run(
                client,
                &format!(
                    "SET oracle.chaos = {chaos}; SET oracle.depth = 0; SET merkle_log.capture_memory = '{memory}'; SET lock_timeout = '50ms'; SET statement_timeout = '10s'"
                ),
            );
        }
        a.execute("DELETE FROM actions", &[]).unwrap();
        a.execute(
            "INSERT INTO actions (sql) SELECT unnest($1::text[])",
            &[&actions],
        )
        .unwrap();
        self.script.push(format!(
            "-- chaos {chaos}, memory {memory}, actions {actions:#?}"
        ));
        let mut detached = false;
        for _ in 0..self.author.rng.random_range(2..=5) {
            // Another transaction is under way around it, with rows of its own.
            let mut beside = self.author.chance(0.2);
            if beside {
                let low = 100 + self.author.key();
                beside = self.step(
                    b,
                    &format!("BEGIN; INSERT INTO d (id, v, n) VALUES ({low}, 'b', 1) ON CONFLICT (id) DO UPDATE SET v = 'b2'; UPDATE d SET n = 2 WHERE id > 100"),
                );
                if !beside {
                    run(b, "ROLLBACK");
                }
            }
            let plain = beside || self.author.chance(0.3);
            run(a, "SET oracle.depth = 0");
            match plain {
                true => {
                    let sql = match beside {
                        true => self
                            .author
                            .small()
                            .replace(" d ", " s ")
                            .replace(" t ", " s ")
                            .replace(" u ", " s "),
                        false => self.author.statement(),
                    };
                    self.step(a, &sql);
                }
                false => detached |= self.transaction(a),
            }
            if beside {
                self.step(b, "COMMIT");
            }
        }
        if self.author.chance(0.1) {
            self.replicate(a);
        }
        detached
    }

    fn transaction(&mut self, a: &mut Client) -> bool {
        let mut detached = false;
        let mut steps = self.author.transaction();
        self.step(a, "BEGIN");
        if self.author.chance(0.04) {
            let there: bool = one(
                a,
                "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = 'p2'::regclass)",
            );
            steps.push(match there {
                true => "ALTER TABLE p DETACH PARTITION p2; SELECT pg_logical_emit_message(true, 'oracle', 'detached')".to_owned(),
                false => "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2); SELECT pg_logical_emit_message(true, 'oracle', 'attached')".to_owned(),
            });
            detached = true;
        }
        let mut sound = true;
        for sql in steps {
            sound = self.step(a, &sql);
            if !sound {
                break;
            }
        }
        if sound && self.author.chance(0.2) {
            sound = self.copy(a);
        }
        let end = match self.author.rng.random_range(0..10) {
            0 => "ROLLBACK",
            1 | 2 if sound => "PREPARE TRANSACTION 'oracle'",
            _ => "COMMIT",
        };
        if self.step(a, end) && end.starts_with("PREPARE") {
            let prepared: bool = one(a, "SELECT EXISTS (SELECT FROM pg_prepared_xacts)");
            if prepared {
                let end = self.author.pick(&[
                    "COMMIT PREPARED 'oracle'",
                    "COMMIT PREPARED 'oracle'",
                    "ROLLBACK PREPARED 'oracle'",
                ]);
                self.step(a, end);
            }
        }
        detached
    }

    /// Changes that come from another database.
    fn replicate(&mut self, a: &mut Client) {
        for _ in 0..self.author.rng.random_range(1..=3) {
            let (k, k2, text) = (self.author.key(), self.author.key(), self.author.text());
            let sql = match self.author.rng.random_range(0..5) {
                0 | 1 => format!(
                    "INSERT INTO r (id, v, n) SELECT g, {text}, 1 FROM generate_series({k}, {k} + 2) g ON CONFLICT (id) DO UPDATE SET v = 'again'"
                ),
                2 => format!(
                    "UPDATE r SET v = {text}, id = CASE id WHEN {k2} THEN id + 100 ELSE id END WHERE id <= {k}"
                ),
                3 => format!("DELETE FROM r WHERE id <= {k}"),
                _ => "TRUNCATE r".to_owned(),
            };
            self.script.push(format!("-- published: {sql}"));
            // A key may be taken: then nothing is published.
            let _ = self.source.batch_execute(&sql);
        }
        // Changes arrive in order: when this one is there, all are.
        let mark: i32 = one(
            &mut self.source,
            "INSERT INTO mark DEFAULT VALUES RETURNING n",
        );
        until(
            a,
            &format!("SELECT EXISTS (SELECT FROM mark WHERE n = {mark})"),
        );
    }
}

/// Longer than the server's own timeout, which does not hold for the deferred triggers of a COMMIT.
const BOUND: Duration = Duration::from_secs(12);

fn bounded(client: &mut Client, sql: &str) -> Result<(), postgres::Error> {
    let token = client.cancel_token();
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = token.cancel_query(postgres::NoTls);
            }
        });
        let result = client.batch_execute(sql);
        drop(done);
        result
    })
}

#[test]
fn the_log_tells_of_each_row_what_the_wal_tells() {
    let long = std::env::var("LONG").is_ok();
    let programs: usize = std::env::var("PROGRAMS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(if long { 10_000 } else { 300 });
    let cluster = Cluster::with(
        "wal_level = logical\nfsync = off\nautovacuum = off\nwal_retrieve_retry_interval = 100ms\nmax_locks_per_transaction = 256",
    );
    let mut a = cluster.client("postgres");
    let author = Author {
        rng: StdRng::seed_from_u64(seed()),
        major: server_major(&mut a),
    };
    run(&mut a, "CREATE DATABASE source");
    let mut source = cluster.client("source");
    run(
        &mut source,
        "CREATE TABLE r (id int PRIMARY KEY, v text, n int, note text DEFAULT '');
         CREATE TABLE mark (n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         CREATE PUBLICATION pub FOR TABLE r, mark;",
    );
    run(
        &mut source,
        "SELECT pg_create_logical_replication_slot('sub', 'pgoutput')",
    );
    run(
        &mut a,
        "SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')",
    );
    let from = cluster.socket().display().to_string();
    run(
        &mut a,
        "CREATE TABLE r (id int PRIMARY KEY, v text, n int, note text DEFAULT ''); CREATE TABLE mark (n int PRIMARY KEY)",
    );
    run(
        &mut a,
        &format!(
            "CREATE SUBSCRIPTION sub CONNECTION 'host={from} user=postgres dbname=source' PUBLICATION pub
             WITH (create_slot = false, slot_name = 'sub', enabled = false, copy_data = false)"
        ),
    );
    drop(a);
    let mut oracle = Oracle {
        author,
        cluster,
        source,
        programs: 0,
        changes: 0,
        endless: 0,
        script: Vec::new(),
    };
    while oracle.programs < programs {
        run(&mut oracle.source, "DELETE FROM r");
        oracle.epoch(EPOCH.min(programs - oracle.programs));
    }
    println!(
        "{} programs, {} changes compared",
        oracle.programs, oracle.changes
    );
    assert!(
        oracle.changes > programs,
        "programs that change nothing try nothing"
    );
    let mut a = oracle.cluster.client("postgres");
    run(
        &mut a,
        "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
    );
}
