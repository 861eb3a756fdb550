//! The partitions of a source, on record: which rows went when one of them leaves the table.
//!
//! DETACH and DROP of a partition take rows away by DDL, which no trigger sees. A partition is recorded while
//! it is attached, with the condition that its rows fulfil. Every unique key of a partitioned table contains
//! the columns that it is partitioned by, so the key of an entry tells whether its row was in the partition.
//! That a partition left is an act of administration, so it cannot be denied; a row is `detached` only if
//! it was logged before its partition left, and no partition that is attached would hold it.

use super::ready;
use super::shape::Shape;
use super::table::Attribute;
use super::table_query::TableQuery;
use crate::administration::state::Row as OnRecord;
use crate::administration::{self, Act};
use crate::catalog::logs::Log;
use crate::catalog::sources::{Source, relation_name};
use crate::error::{identifier, literal};
use crate::pg::spi::{self, Row, Snapshot};
use crate::pg::{datum, relcache, subtransaction};
use crate::session::Session;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Keys that are held against a condition at once.
const KEYS: usize = 500;

/// A partition, a leaf of the tree of partitions.
#[derive(Clone, Debug)]
pub struct Partition {
    pub relation: pg_sys::Oid,
    pub name: String,
    /// As `FOR VALUES` has it.
    bound: String,
    /// What its rows fulfil, as SQL over the columns of the key.
    condition: String,
    /// The names of the key's columns when the condition was recorded.
    columns: Vec<String>,
    /// Entries from this one on cannot be of its rows; `None` while it is attached.
    to_leaf_index: Option<i64>,
    from_leaf_index: i64,
}

fn recorded(session: &Session, snapshot: Snapshot, source_id: i32) -> Vec<Partition> {
    session.query(
        snapshot,
        "SELECT p.relation::pg_catalog.oid, p.partition_name, p.bound, p.condition, p.key_columns,
                p.to_leaf_index, p.from_leaf_index
           FROM @extschema@.verification_source_partitions p WHERE p.source_id = $1 ORDER BY p.from_leaf_index",
        &[source_id.into()],
        |row: &Row| Partition {
            relation: row.required(0),
            name: row.required(1),
            bound: row.required(2),
            condition: row.required(3),
            columns: row.required(4),
            to_leaf_index: row.get(5),
            from_leaf_index: row.required(6),
        },
    )
}

/// The partitions that the table has now.
fn attached(session: &Session, snapshot: Snapshot, shape: &Shape) -> Vec<Partition> {
    if !shape.table.partitioned {
        return Vec::new();
    }
    let columns: Vec<String> = shape.key.iter().map(|a| a.name.clone()).collect();
    let mut partitions = session.query(
        snapshot,
        "SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
                pg_catalog.pg_get_expr(c.relpartbound, c.oid), pg_catalog.pg_get_partition_constraintdef(c.oid)
           FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t
           JOIN pg_catalog.pg_class c ON c.oid = t.relid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE t.isleaf AND c.oid <> $1 ORDER BY c.oid",
        &[shape.source.relation.into()],
        |row| Partition {
            relation: row.required(0),
            name: row.required(1),
            bound: row.get(2).unwrap_or_default(),
            // The only partition of a table, if it is the default one, has none.
            condition: row.get(3).unwrap_or_else(|| "true".to_owned()),
            columns: columns.clone(),
            to_leaf_index: None,
            from_leaf_index: 0,
        },
    );
    let mut names = HashMap::new();
    for partition in &mut partitions {
        partition.condition = with_tables_by_name(&partition.condition, |oid| {
            let name = names.entry(oid);
            name.or_insert_with(|| relation_name(session, oid.into()))
                .clone()
        });
    }
    partitions
}

/// A condition in which the partitioned tables of hash partitions go by their names: their numbers mean nothing
/// after a restore. If there is none of that name any more, all of its partitions have left with it, or those that are
/// attached tell what is theirs.
fn with_tables_by_name(condition: &str, mut name: impl FnMut(u32) -> String) -> String {
    const CALL: &str = "satisfies_hash_partition('";
    let mut rest = condition;
    let mut whole = String::new();
    while let Some(at) = rest.find(CALL) {
        let (before, call) = rest.split_at(at);
        let parts = call[CALL.len()..].split_once("'::oid, ");
        let oid = parts.and_then(|(oid, _)| oid.parse().ok());
        let (Some((_, arguments)), Some(oid)) = (parts, oid) else {
            let (before, after) = rest.split_at(at + CALL.len());
            whole += before;
            rest = after;
            continue;
        };
        // The arguments are numbers and names of columns.
        let mut quoted = false;
        let end = arguments.find(|c| {
            quoted ^= c == '"';
            c == ')' && !quoted
        });
        let (arguments, after) = arguments.split_at(end.unwrap_or(arguments.len()));
        let table = format!(
            "(SELECT h.partrelid FROM pg_catalog.pg_partitioned_table h
               WHERE h.partrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid
                 AND h.partstrat OPERATOR(pg_catalog.=) 'h')",
            literal(&name(oid))
        );
        whole += before;
        whole += &format!(
            "({table} IS NULL OR pg_catalog.satisfies_hash_partition({table}, {arguments}))"
        );
        rest = after.strip_prefix(')').unwrap_or(after);
    }
    whole + rest
}

impl Partition {
    /// As an act has it. The number of the table, which is not on record, is that of `stored`.
    fn on_record(row: &OnRecord, stored: &[Partition]) -> Option<Partition> {
        let text = |name: &str| Some(row.columns.get(name)?.as_str()?.to_owned());
        let name = text("partition_name")?;
        let from_leaf_index = row.number("from_leaf_index")?;
        let same = |p: &&Partition| p.name == name && p.from_leaf_index == from_leaf_index;
        let columns = row.columns.get("key_columns")?.as_array()?.iter();
        Some(Partition {
            relation: stored
                .iter()
                .find(same)
                .map_or(pg_sys::InvalidOid, |p| p.relation),
            bound: text("bound")?,
            condition: text("condition")?,
            columns: columns
                .map(|name| name.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            to_leaf_index: row.number("to_leaf_index"),
            from_leaf_index,
            name,
        })
    }

    fn is(&self, other: &Partition) -> bool {
        (self.relation, &self.bound) == (other.relation, &other.bound)
    }
}

/// Puts on record which partitions of a log's sources came and which left. What is logged from now on, from leaf
/// index `size` on, is of those that are attached.
pub fn record_all(session: &Session, log: &Log, shapes: &[Shape], size: i64) {
    let had: HashSet<i32> = session
        .fresh(
            "SELECT DISTINCT p.source_id FROM @extschema@.verification_source_partitions p
               JOIN @extschema@.verification_sources s ON s.source_id = p.source_id
              WHERE s.log_id = $1 AND p.to_leaf_index IS NULL",
            &[log.id.into()],
            |row| row.required::<i32>(0),
        )
        .into_iter()
        .collect();
    for shape in shapes {
        if shape.table.partitioned || had.contains(&shape.source.id) {
            record(session, shape, size);
        }
    }
}

/// As `record_all`, of one source.
pub fn record(session: &Session, shape: &Shape, size: i64) {
    let source = &shape.source;
    if ready::is_partitions_recorded(source) {
        return;
    }
    let since = ready::now();
    let mut before = recorded(session, Snapshot::Fresh, source.id);
    before.retain(|p| p.to_leaf_index.is_none());
    if before.is_empty() && !shape.table.partitioned {
        return;
    }
    let now = attached(session, Snapshot::Fresh, shape);
    let described = |p: &Partition| {
        let of_now = now.iter().find(|q| q.is(p));
        of_now.is_some_and(|q| (&q.condition, &q.columns) == (&p.condition, &p.columns))
    };
    if before.len() == now.len() && before.iter().all(described) {
        // Nothing is written, so a rollback takes nothing of it back.
        ready::keep_partitions_recorded(since, source);
        return;
    }
    for gone in before.iter().filter(|p| !now.iter().any(|q| q.is(p))) {
        session.execute(
            "UPDATE @extschema@.verification_source_partitions
                SET to_leaf_index = $4, detached_at = pg_catalog.clock_timestamp()
              WHERE source_id = $1 AND partition_name = $2 AND from_leaf_index = $3 AND to_leaf_index IS NULL",
            &[
                source.id.into(),
                gone.name.as_str().into(),
                gone.from_leaf_index.into(),
                size.into(),
            ],
        );
        administration::record(
            session,
            Act::PartitionDetached {
                source_id: source.id,
                partition: gone.name.clone(),
            },
        );
    }
    for partition in &now {
        match before.iter().find(|p| p.is(partition)) {
            None => insert(session, source.id, partition, size),
            Some(known) if !described(known) => describe(session, source.id, known, partition),
            Some(_) => {}
        }
    }
}

/// Columns were renamed, or a restore gave the table another number, by which a condition on hashes names it.
fn describe(session: &Session, source_id: i32, known: &Partition, now: &Partition) {
    session.execute(
        "UPDATE @extschema@.verification_source_partitions SET condition = $4, key_columns = $5
          WHERE source_id = $1 AND partition_name = $2 AND from_leaf_index = $3",
        &[
            source_id.into(),
            known.name.as_str().into(),
            known.from_leaf_index.into(),
            now.condition.as_str().into(),
            now.columns.clone().into(),
        ],
    );
    let partition = known.name.clone();
    administration::record(
        session,
        Act::PartitionAltered {
            source_id,
            partition,
        },
    );
}

fn insert(session: &Session, source_id: i32, new: &Partition, size: i64) {
    session.execute(
        "INSERT INTO @extschema@.verification_source_partitions
            (source_id, partition_name, relation, bound, condition, key_columns, from_leaf_index)
         VALUES ($1, $2, $3::pg_catalog.regclass, $4, $5, $6, $7)
         ON CONFLICT (source_id, partition_name, from_leaf_index) DO UPDATE
            SET relation = EXCLUDED.relation, bound = EXCLUDED.bound, condition = EXCLUDED.condition,
                key_columns = EXCLUDED.key_columns, to_leaf_index = NULL, detached_at = NULL",
        &[
            source_id.into(),
            new.name.as_str().into(),
            new.relation.into(),
            new.bound.as_str().into(),
            new.condition.as_str().into(),
            new.columns.clone().into(),
            size.into(),
        ],
    );
    let partition = new.name.clone();
    administration::record(
        session,
        Act::PartitionAttached {
            source_id,
            partition,
        },
    );
}

/// A partition as a change of its rows found it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    relation: u32,
    name: String,
    bound: String,
    condition: String,
    columns: Vec<String>,
}

impl Seen {
    /// Its bytes, about.
    pub fn size(&self) -> usize {
        let columns = self.columns.iter().map(|c| c.len() + size_of::<String>());
        let texts = self.name.len() + self.bound.len() + self.condition.len();
        size_of::<Seen>() + texts + columns.sum::<usize>()
    }
}

/// The partition `relation` of a source, if it is not on record yet.
pub fn unrecorded(session: &Session, shape: &Shape, relation: pg_sys::Oid) -> Option<Seen> {
    let mut now = attached(session, Snapshot::Fresh, shape).into_iter();
    let partition = now.find(|p| p.relation == relation)?;
    if is_open(session, shape.source.id, &partition) {
        return None;
    }
    Some(Seen {
        relation: relation.to_u32(),
        name: partition.name,
        bound: partition.bound,
        condition: partition.condition,
        columns: partition.columns,
    })
}

/// Puts a partition on record that changes were captured in, though it may have left since: from leaf index `size`
/// on, entries may be of its rows. The batch that has logged all of them compares the record with the table.
pub fn record_seen(session: &Session, source: &Source, seen: &Seen, size: i64) {
    let partition = Partition {
        relation: pg_sys::Oid::from(seen.relation),
        name: seen.name.clone(),
        bound: seen.bound.clone(),
        condition: seen.condition.clone(),
        columns: seen.columns.clone(),
        to_leaf_index: None,
        from_leaf_index: size,
    };
    if !is_open(session, source.id, &partition) {
        // Sessions stop writing it into the queue, and what is known to be on record is looked at again.
        relcache::invalidate(source.relation);
        insert(session, source.id, &partition, size);
    }
}

/// True if the partition is on record as attached.
fn is_open(session: &Session, source_id: i32, partition: &Partition) -> bool {
    recorded(session, Snapshot::Fresh, source_id)
        .iter()
        .any(|p| p.to_leaf_index.is_none() && p.is(partition))
}

/// The sources among `sources` that are partitioned, or were.
pub fn partitioned(session: &Session, log_id: i32, sources: &[Source]) -> Vec<Source> {
    let ids: HashSet<i32> = session
        .fresh(
            "SELECT s.source_id FROM @extschema@.verification_sources s
               JOIN pg_catalog.pg_class c ON c.oid = s.relation AND c.relkind = 'p'
              WHERE s.log_id = $1 AND s.removed_at IS NULL",
            &[log_id.into()],
            |row| row.required::<i32>(0),
        )
        .into_iter()
        .collect();
    let of_them = sources.iter().filter(|s| ids.contains(&s.id));
    of_them.cloned().collect()
}

/// The partitions that left a source, noticed by a batch or not yet, and those that are attached.
pub struct Partitions {
    left: Vec<Partition>,
    attached: Vec<Partition>,
}

impl Partitions {
    /// `on_record`: the rows as acts have them, which are believed where they are given.
    pub fn load(session: &Session, shape: &Shape, on_record: Option<Vec<&OnRecord>>) -> Partitions {
        let stored = recorded(session, Snapshot::Statement, shape.source.id);
        let recorded: Vec<Partition> = match on_record {
            None => stored,
            Some(rows) => {
                let rows = rows.into_iter();
                rows.filter_map(|row| Partition::on_record(row, &stored))
                    .collect()
            }
        };
        if recorded.is_empty() {
            return Partitions {
                left: Vec::new(),
                attached: Vec::new(),
            };
        }
        let attached = attached(session, Snapshot::Statement, shape);
        let left = recorded
            .into_iter()
            .filter(|p| p.to_leaf_index.is_some() || !attached.iter().any(|q| q.is(p)))
            .collect();
        Partitions { left, attached }
    }

    /// As the log had them when it had `size` entries; `None` if none had left by then. What left when the log had just so
    /// many had left by a `time`, or not.
    pub fn that_left_by(
        session: &Session,
        shape: &Shape,
        size: i64,
        time: Option<TimestampWithTimeZone>,
    ) -> Option<Partitions> {
        let mut recorded = recorded(session, Snapshot::Statement, shape.source.id);
        recorded.retain(|p| p.from_leaf_index <= size);
        let left_then: HashSet<(String, i64)> = session
            .query(
                Snapshot::Statement,
                "SELECT p.partition_name, p.from_leaf_index FROM @extschema@.verification_source_partitions p
                  WHERE p.source_id = $1 AND (p.to_leaf_index < $2 OR p.to_leaf_index = $2 AND p.detached_at <= $3)",
                &[shape.source.id.into(), size.into(), time.into()],
                |row| (row.required(0), row.required(1)),
            )
            .into_iter()
            .collect();
        let had_left = |p: &Partition| left_then.contains(&(p.name.clone(), p.from_leaf_index));
        let (left, attached): (Vec<_>, Vec<_>) = recorded.into_iter().partition(had_left);
        (!left.is_empty()).then_some(Partitions { left, attached })
    }

    /// Of rows that are not there, given as the leaf indexes of their entries and the texts of their keys'
    /// columns: the partition with which each went, by its place.
    pub fn left_with(&self, shape: &Shape, gone: &[(i64, Vec<String>)]) -> HashMap<usize, String> {
        let mut found = HashMap::new();
        for partition in &self.left {
            let before = |index: i64| partition.to_leaf_index.is_none_or(|to| index < to);
            let places: Vec<usize> = (0..gone.len())
                .filter(|n| !found.contains_key(n) && before(gone[*n].0))
                .collect();
            for place in fulfil(
                shape,
                &partition.columns,
                &partition.condition,
                &places,
                gone,
            ) {
                found.insert(place, partition.name.clone());
            }
        }
        // What an attached partition would hold is missing there. A default partition would hold anything.
        let others = self.attached.iter().filter(|p| p.bound != "DEFAULT");
        let conditions: Vec<String> = others.map(|p| format!("({})", p.condition)).collect();
        if !found.is_empty() && !conditions.is_empty() {
            let names: Vec<String> = shape.key.iter().map(|a| a.name.clone()).collect();
            let places: Vec<usize> = found.keys().copied().collect();
            for place in fulfil(shape, &names, &conditions.join(" OR "), &places, gone) {
                found.remove(&place);
            }
        }
        found
    }
}

/// Those of `places` whose keys fulfil a condition over the key's columns, which went by `names`. A condition
/// that cannot be evaluated any more is fulfilled by none.
fn fulfil(
    shape: &Shape,
    names: &[String],
    condition: &str,
    places: &[usize],
    keys: &[(i64, Vec<String>)],
) -> Vec<usize> {
    if names.len() != shape.key.len() {
        return Vec::new();
    }
    let named: Vec<String> = names.iter().map(|name| identifier(name)).collect();
    // A name that is none of theirs.
    let mut place = "place".to_owned();
    while names.contains(&place) {
        place.push('_');
    }
    let mut found = Vec::new();
    for places in places.chunks(KEYS) {
        let mut args = Vec::new();
        let mut rows = Vec::new();
        for place in places {
            let parts = shape.key.iter().zip(&keys[*place].1);
            let values: Vec<String> = parts
                .map(|(column, text): (&Attribute, &String)| {
                    args.push(shape.input(column, text));
                    format!("${}", args.len())
                })
                .collect();
            rows.push(format!("({place}, {})", values.join(", ")));
        }
        let sql = format!(
            "SELECT merkle_log_key.{place} FROM (VALUES {}) merkle_log_key ({place}, {}) WHERE {condition}",
            rows.join(", "),
            named.join(", "),
        );
        let args: Vec<_> = args.iter().map(datum::Value::parameter).collect();
        let fulfilled = subtransaction::run(|| {
            TableQuery::on(shape).bounded(|| {
                spi::query(Snapshot::Statement, &sql, &args, |row| {
                    row.required::<i32>(0) as usize
                })
            })
        });
        found.extend(fulfilled.unwrap_or_default());
    }
    found
}
