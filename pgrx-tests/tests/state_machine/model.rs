//! What must be so: tables, logs and their entries as plain data, and what each act does to them.
//!
//! The model knows nothing of queues on disk, transactions ids, tiles or triggers. A transaction that is rolled
//! back is a copy of the model that is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub type Key = i64;
/// A column's number; it stays the same whatever the column is called. The key is number 0.
pub type ColumnId = u32;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Int(i64),
    Text(String),
}

impl Value {
    pub fn sql(&self) -> String {
        match self {
            Value::Int(n) => n.to_string(),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Value::Int(n) => n.to_string(),
            Value::Text(text) => text.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    BigInt,
    Text,
    Varchar,
}

impl Type {
    pub fn sql(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::BigInt => "bigint",
            Type::Text => "text",
            Type::Varchar => "varchar(200)",
        }
    }

    pub fn is_text(self) -> bool {
        matches!(self, Type::Text | Type::Varchar)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub of: Type,
    pub default: Option<Value>,
}

/// Values by column, without the key; NULL is left out.
pub type Row = BTreeMap<ColumnId, Value>;
pub type Rows = BTreeMap<Key, Row>;
/// Which columns make up a leaf, and what they were called.
pub type Version = Rc<Vec<(ColumnId, String, Type)>>;
pub type Content = BTreeMap<String, Value>;

pub fn content(key: Key, row: &Row, version: &Version) -> Content {
    let value = |(id, name, _): &(ColumnId, String, Type)| match id {
        0 => Some((name.clone(), Value::Int(key))),
        id => Some((name.clone(), row.get(id)?.clone())),
    };
    version.iter().filter_map(value).collect()
}

#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    pub from: Key,
    pub to: Key,
    /// While it is detached: its rows, and the columns that it had then.
    pub detached: Option<(Rows, Vec<Column>)>,
    /// Batches of all logs have seen it, so that it is on record.
    pub seen: bool,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub schema: &'static str,
    pub name: String,
    pub columns: Vec<Column>,
    pub rows: Rows,
    pub parts: Option<Vec<Part>>,
    /// Keys of rows that went with a partition and whose range no partition has since.
    pub left: BTreeSet<Key>,
    pub gone: bool,
    pub has_key: bool,
    pub logged: bool,
    pub plain_owner: bool,
    pub forced: bool,
    pub heir: bool,
    /// Names of columns were swapped: they stand for others than they did.
    pub swapped: bool,
}

impl Table {
    pub fn sql(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub fn key_name(&self) -> &str {
        &self.columns[0].name
    }

    /// True if a row of this key has a place.
    pub fn holds(&self, key: Key) -> bool {
        let attached = |p: &&Part| p.detached.is_none();
        self.parts.as_ref().is_none_or(|parts| {
            let mut parts = parts.iter().filter(attached);
            parts.any(|p| (p.from..p.to).contains(&key))
        })
    }

    /// The names of its partitions.
    pub fn attached(&self) -> BTreeSet<String> {
        let attached = self.parts.iter().flatten().filter(|p| p.detached.is_none());
        attached.map(|p| p.name.clone()).collect()
    }

    pub fn keys(&self, from: Key, to: Key) -> Vec<Key> {
        self.rows.range(from..=to).map(|(key, _)| *key).collect()
    }

    /// Takes the rows of a range away.
    pub fn take(&mut self, from: Key, to: Key) -> Rows {
        let keys = self.keys(from, to - 1);
        let mut taken = Rows::new();
        for key in keys {
            taken.insert(key, self.rows.remove(&key).unwrap());
        }
        taken
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    Trigger,
    Watermark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Insert => "insert",
            Kind::Update => "update",
            Kind::Delete => "delete",
            Kind::Truncate => "truncate",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Source {
    /// As the extension numbers it.
    pub id: i32,
    pub table: usize,
    /// The table's name when it was registered.
    pub name: String,
    pub capture: Capture,
    pub removed: bool,
    pub append_only: bool,
    pub allow_truncate: bool,
    pub keep: bool,
    pub salted: bool,
    /// Rows that are there without an entry are to be logged by the next batch.
    pub backfill: bool,
    /// Every row is to have an entry.
    pub complete: bool,
    pub chosen: Option<BTreeSet<ColumnId>>,
    pub watermark: Option<Key>,
    pub redacted: BTreeSet<Key>,
    /// Columns that a dump did not tell about: they were not among those that are logged.
    pub unknown: BTreeSet<ColumnId>,
    /// The columns that are on record.
    pub recorded: Version,
    /// It was removed when the database was restored from a dump, so its columns were not found again.
    pub lost: bool,
    /// The partitions that were there when its triggers were last put on.
    pub guarded: BTreeSet<String>,
}

impl Source {
    pub fn captures(&self) -> bool {
        self.capture == Capture::Trigger
    }

    /// True if a partition has come since that has no trigger for TRUNCATE: the server copies those of rows only.
    pub fn lacks_triggers(&self, table: &Table) -> bool {
        self.captures() && !table.attached().is_subset(&self.guarded)
    }

    pub fn version(&self, table: &Table) -> Version {
        let chosen = |c: &&Column| {
            let chosen = self.chosen.as_ref();
            chosen.is_none_or(|chosen| chosen.contains(&c.id))
        };
        let columns = table.columns.iter().filter(chosen);
        Rc::new(columns.map(|c| (c.id, c.name.clone(), c.of)).collect())
    }

    /// The database was restored from a dump.
    pub fn restore(&mut self, table: &Table) {
        self.lost |= self.removed;
        if let Some(chosen) = &self.chosen {
            let others = table.columns.iter().filter(|c| !chosen.contains(&c.id));
            self.unknown.extend(others.map(|c| c.id));
        }
    }

    /// What keeps batches from reading it, as the extension names that.
    pub fn problem(&self, table: &Table) -> Option<&'static str> {
        match self.capture {
            _ if table.gone => Some("table_gone"),
            _ if !table.logged => Some("not_permanent"),
            _ if table.forced && table.plain_owner => Some("forced_row_security"),
            _ if table.schema == "closed" && table.plain_owner => Some("owner_may_not_read"),
            Capture::Watermark if !table.has_key => Some("order_index_missing"),
            Capture::Trigger if !table.has_key => Some("key_not_unique"),
            Capture::Trigger if table.heir => Some("inherited"),
            _ => None,
        }
    }
}

/// An entry of a row, or of the truncation of a source.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The source's place in its log.
    pub source: usize,
    pub kind: Kind,
    pub key: Key,
    pub content: Content,
    pub version: Version,
    /// The log keeps its leaf data.
    pub kept: bool,
    /// An UPDATE changed the row's key: the number of that, which its two entries have.
    pub moves: Option<u64>,
}

/// Entries of one transaction: they may stand in any order, as long as those of one row stand in this one.
pub type Group = Vec<Rc<Entry>>;

#[derive(Clone, Debug)]
pub struct Log {
    /// As the extension numbers it.
    pub id: i32,
    pub name: String,
    pub enabled: bool,
    pub domain: Option<Capture>,
    pub sources: Vec<Source>,
    pub entries: Vec<Rc<Entry>>,
    /// How many entries each group has.
    pub groups: Vec<usize>,
    /// By source and key: the entry that says that the row is there.
    pub live: BTreeMap<(usize, Key), usize>,
    /// Entries that were erased.
    pub redacted: BTreeSet<usize>,
    /// Entries that say that an entry was redacted, or that a row was.
    pub redactions: (usize, usize),
    /// By the order in which they wrote: transactions that were captured and not logged.
    pub queue: BTreeMap<u64, Vec<Group>>,
}

impl Log {
    pub fn new(id: i32, name: &str) -> Log {
        Log {
            id,
            name: name.to_owned(),
            enabled: true,
            domain: None,
            sources: Vec::new(),
            entries: Vec::new(),
            groups: Vec::new(),
            live: BTreeMap::new(),
            redacted: BTreeSet::new(),
            redactions: (0, 0),
            queue: BTreeMap::new(),
        }
    }

    /// The size of its tree.
    pub fn size(&self) -> usize {
        self.entries.len() + self.redactions.0 + self.redactions.1
    }

    /// The place of the source that a table is.
    pub fn source_of(&self, table: usize) -> Option<usize> {
        self.sources
            .iter()
            .position(|s| s.table == table && !s.removed)
    }

    /// The name under which a table becomes a source: numbered where it is that of another one.
    pub fn registered_name(&self, table: usize, name: &str) -> String {
        let taken = |name: &String| {
            let mut sources = self.sources.iter();
            sources.any(|s| s.table != table && s.name == *name)
        };
        let numbered = (2..).map(|n| format!("{name} ({n})"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !taken(name)).unwrap()
    }

    fn append(&mut self, group: Group) {
        if group.is_empty() {
            return;
        }
        self.groups.push(group.len());
        for entry in group {
            let (at, place) = (self.entries.len(), (entry.source, entry.key));
            match entry.kind {
                Kind::Insert | Kind::Update => drop(self.live.insert(place, at)),
                Kind::Delete => drop(self.live.remove(&place)),
                Kind::Truncate => self.live.retain(|(source, _), _| *source != entry.source),
            }
            let source = &mut self.sources[entry.source];
            source.recorded = entry.version.clone();
            if source.redacted.contains(&entry.key) && entry.kind != Kind::Truncate {
                self.redacted.insert(at);
                self.redactions.0 += 1;
            }
            self.entries.push(entry);
            self.follow(at);
        }
    }

    /// A row that gets another key in place of one that is redacted is redacted under that one.
    fn follow(&mut self, at: usize) {
        let entry = self.entries[at].clone();
        let from = self.other_half(at).filter(|_| entry.kind == Kind::Insert);
        if from.is_some_and(|n| {
            let deleted = &self.entries[n];
            self.sources[deleted.source].redacted.contains(&deleted.key)
        }) && !self.sources[entry.source].redacted.contains(&entry.key)
        {
            self.redact_key(entry.source, entry.key);
        }
    }

    /// The other entry of the UPDATE that made an entry by changing a key.
    fn other_half(&self, at: usize) -> Option<usize> {
        let of = self.entries[at].moves?;
        let other = |(n, e): (usize, &Rc<Entry>)| (n != at && e.moves == Some(of)).then_some(n);
        self.entries.iter().enumerate().find_map(other)
    }

    /// The entries of a row, by place, and truncations of its source.
    fn life(&self, source: usize, key: Key) -> Vec<usize> {
        let of_row = |e: &Entry| e.source == source && (e.key == key || e.kind == Kind::Truncate);
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, e)| of_row(e)).map(|(n, _)| n).collect()
    }

    /// Where the row that has a key, or had it last, was under other keys; and its key now, if that is another.
    fn lineage(&self, source: usize, key: Key) -> (Vec<usize>, Option<Key>) {
        let (mut found, kind) = (Vec::new(), |n: usize| self.entries[n].kind);
        let life = self.life(source, key);
        let mut begin = life.iter().copied().rfind(|n| kind(*n) == Kind::Insert);
        while let Some(deleted) = begin.and_then(|n| self.other_half(n)) {
            let life = self.life(source, self.entries[deleted].key);
            begin = life
                .iter()
                .copied()
                .rfind(|n| *n < deleted && kind(*n) != Kind::Update);
            let from = begin.map_or(0, |n| n + usize::from(kind(n) != Kind::Insert));
            begin = begin.filter(|n| kind(*n) == Kind::Insert);
            found.extend(life.into_iter().filter(|n| (from..=deleted).contains(n)));
        }
        let mut end = life.last().copied().filter(|n| kind(*n) == Kind::Delete);
        while let Some(inserted) = end.and_then(|n| self.other_half(n)) {
            let life = self.life(source, self.entries[inserted].key);
            let mut later = life.iter().copied().filter(|n| *n > inserted);
            let Some(over) = later.find(|n| kind(*n) != Kind::Update) else {
                return (found, Some(self.entries[inserted].key));
            };
            let upto = over + usize::from(kind(over) == Kind::Delete);
            found.extend(life.into_iter().filter(|n| (inserted..upto).contains(n)));
            end = Some(over).filter(|n| kind(*n) == Kind::Delete);
        }
        (found, None)
    }

    /// Logs what is queued.
    pub fn drain(&mut self) {
        for groups in std::mem::take(&mut self.queue).into_values() {
            self.append(groups.concat());
        }
    }

    /// Sources that are ready, by place.
    fn ready(&self, tables: &[Table]) -> Vec<usize> {
        let ready = |s: &Source| !s.removed && s.problem(&tables[s.table]).is_none();
        (0..self.sources.len())
            .filter(|n| ready(&self.sources[*n]))
            .collect()
    }

    fn entry(&self, source: usize, table: &Table, key: Key) -> Rc<Entry> {
        let (place, source) = (source, &self.sources[source]);
        let version = source.version(table);
        Rc::new(Entry {
            source: place,
            kind: Kind::Insert,
            key,
            content: content(key, &table.rows[&key], &version),
            version,
            kept: source.keep,
            moves: None,
        })
    }

    /// The rows of a captured source that have no entry and will not get one from the queue, or from what is
    /// in `own`.
    fn missing(&self, source: usize, table: &Table, own: &[(i32, Group)]) -> Vec<Key> {
        let own: BTreeSet<(usize, Key)> = own
            .iter()
            .filter(|(log, _)| *log == self.id)
            .flat_map(|(_, group)| group.iter().map(|e| (e.source, e.key)))
            .collect();
        let without = |key: &&Key| {
            let place = (source, **key);
            !self.live.contains_key(&place) && !own.contains(&place)
        };
        table.rows.keys().filter(without).copied().collect()
    }

    /// All batches until nothing is left. `last`: by table, the last value of the sequence that fills its key;
    /// `own`: what the transaction has captured itself.
    pub fn batches(&mut self, tables: &[Table], last: &BTreeMap<usize, Key>, own: &[(i32, Group)]) {
        let ready = self.ready(tables);
        match self.domain {
            Some(Capture::Trigger) => {
                self.drain();
                for source in ready {
                    if self.sources[source].backfill {
                        self.sweep(source, tables, own);
                        self.sources[source].backfill = false;
                    }
                }
            }
            Some(Capture::Watermark) => self.ahead(&ready, tables, last),
            None => {}
        }
    }

    fn sweep(&mut self, source: usize, tables: &[Table], own: &[(i32, Group)]) {
        let table = &tables[self.sources[source].table];
        let missing = self.missing(source, table, own);
        let group = missing
            .into_iter()
            .map(|key| self.entry(source, table, key));
        let group = group.collect();
        self.append(group);
    }

    /// The highest key that a batch may take.
    fn ceiling(&self, source: usize, last: &BTreeMap<usize, Key>) -> Key {
        let source = &self.sources[source];
        let last = last.get(&source.table).copied();
        let past = |last: &Key| source.watermark.is_none_or(|w| w <= *last);
        last.filter(past).unwrap_or(Key::MAX)
    }

    /// True if a batch finds rows of this table to log.
    pub fn has_ahead(&self, table: usize, tables: &[Table], last: &BTreeMap<usize, Key>) -> bool {
        let has = |n: &usize| {
            let source = &self.sources[*n];
            let after = source.watermark.map_or(Key::MIN, |w| w + 1);
            let upto = self.ceiling(*n, last);
            source.table == table
                && after <= upto
                && tables[table].rows.range(after..=upto).next().is_some()
        };
        self.domain == Some(Capture::Watermark) && self.ready(tables).iter().any(has)
    }

    fn ahead(&mut self, ready: &[usize], tables: &[Table], last: &BTreeMap<usize, Key>) {
        let mut found = Vec::new();
        for &n in ready {
            let source = &self.sources[n];
            let after = source.watermark.map_or(Key::MIN, |w| w + 1);
            let upto = self.ceiling(n, last);
            if after > upto {
                continue;
            }
            for key in tables[source.table].keys(after, upto) {
                self.sources[n].watermark = Some(key);
                if !self.live.contains_key(&(n, key)) {
                    found.push((key, n));
                }
            }
        }
        self.append_in_order(found, tables);
    }

    fn append_in_order(&mut self, mut found: Vec<(Key, usize)>, tables: &[Table]) {
        found.sort_by_key(|(key, n)| (*key, self.sources[*n].id));
        for (key, n) in found {
            let entry = self.entry(n, &tables[self.sources[n].table], key);
            self.append(vec![entry]);
        }
    }

    /// What `reconcile` logs.
    pub fn reconcile(
        &mut self,
        tables: &[Table],
        last: &BTreeMap<usize, Key>,
        own: &[(i32, Group)],
    ) -> usize {
        let ready = self.ready(tables);
        let before = self.entries.len();
        match self.domain {
            Some(Capture::Trigger) => {
                self.drain();
                let queued = self.entries.len();
                for source in ready {
                    if self.sources[source].complete {
                        self.sweep(source, tables, own);
                        self.sources[source].backfill = false;
                    }
                }
                self.entries.len() - queued
            }
            _ => {
                let mut found = Vec::new();
                for n in ready {
                    let (ceiling, source) = (self.ceiling(n, last), &self.sources[n]);
                    let late = |key: &&Key| {
                        let behind = source.watermark.is_some_and(|w| **key <= w);
                        (behind || **key > ceiling) && !self.live.contains_key(&(n, **key))
                    };
                    let keys = tables[source.table].rows.keys().filter(late);
                    found.extend(keys.map(|key| (*key, n)));
                }
                self.append_in_order(found, tables);
                self.entries.len() - before
            }
        }
    }

    /// Redacts a row in a source, wherever it was; how many entries that erases.
    pub fn redact(&mut self, source: usize, key: Key) -> usize {
        let (earlier, now) = self.lineage(source, key);
        let mut erased = self.redact_key(source, key);
        let new = earlier
            .into_iter()
            .filter(|n| self.redacted.insert(*n))
            .count();
        self.redactions.0 += new;
        erased += new;
        now.map_or(erased, |key| erased + self.redact_key(source, key))
    }

    fn redact_key(&mut self, source: usize, key: Key) -> usize {
        if self.sources[source].redacted.insert(key) {
            self.redactions.1 += 1;
        }
        let of_row = |e: &Rc<Entry>| e.source == source && e.key == key && e.kind != Kind::Truncate;
        let entries = self.entries.iter().enumerate();
        let found: Vec<usize> = entries.filter(|(_, e)| of_row(e)).map(|(n, _)| n).collect();
        let new = found
            .into_iter()
            .filter(|n| self.redacted.insert(*n))
            .count();
        self.redactions.0 += new;
        new
    }
}
