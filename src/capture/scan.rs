//! Rows of a source as leaves: the one encoder, for the batch that logs a row and for every check
//! of it afterwards.

use super::key_equality::{ByKey, KeyEquality};
use super::order::{OrderValue, SortKey};
use super::row_key;
use super::shape::Shape;
use super::statement::Statement;
use super::table::Attribute;
use super::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::catalog::versions::{Column, Version};
use crate::encode::Decoder;
use crate::error::Error;
use crate::pg::spi::{Cursor, Row, Snapshot};
use crate::pg::{alloc, datum, random, subtransaction};
use crate::store::leaves::{self, Annex};
use crate::store::moves::SALT;
use leaf_format::{Context, Encoder, Kind, Value};
use merkle_tree::{EMPTY_ROOT, Hash, leaf_hashes};
use std::collections::HashMap;

/// Bytes of leaf data that are read at once, apart from the last row's.
pub const MUCH: usize = 8 << 20;

/// A row of a source, ready to be appended or compared.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub order: OrderValue,
    /// The order value as text; `None` where the key is the order value, or there is none.
    pub order_text: Option<String>,
    /// The text form of the key.
    pub key: String,
    /// The key as an order value, where it is one.
    pub place: Option<SortKey>,
    pub hash: Hash,
    /// What the hash was salted with.
    pub salt: Option<Vec<u8>>,
    /// What was hashed, where the source keeps it.
    pub leaf_data: Option<Vec<u8>>,
    /// It has an entry already.
    pub logged: bool,
    /// Why the row cannot be logged; then hash, salt and leaf data mean nothing.
    pub problem: Option<String>,
}

/// Reads rows of a source under one version of its columns.
pub struct Scan {
    log: String,
    table: String,
    query: TableQuery,
    attributes: Vec<Attribute>,
    decoders: Vec<Decoder>,
    order: usize,
    /// The key is the order column.
    key_orders: bool,
    key: Vec<usize>,
    logged: Vec<usize>,
    /// For new rows, and for changed ones.
    encoders: [Encoder; 2],
    /// What entries say beside their rows, by key; rows without one are plain inserts.
    pub annexes: ByKey<Annex>,
    /// New leaves get a salt, and keep their data.
    salted: bool,
    keep: bool,
    /// A row that cannot be read or encoded is a leaf with a problem, not an error. Each row is then read in
    /// a subtransaction.
    pub careful: bool,
    /// Columns of the version that the table does not have any more, in words.
    pub missing: Vec<String>,
    /// Columns whose type is not the version's, in words.
    pub retyped: Vec<String>,
    /// Columns of the key whose type, or the labels of it, were others, in words: entries may have keys that no row has
    /// now.
    pub relabelled: Vec<String>,
    chunk: Chunk,
}

/// Rows that have been encoded, and are hashed together.
#[derive(Default)]
struct Chunk {
    leaves: Vec<Leaf>,
    /// The leaf data of all of them, and where each ends.
    data: Vec<u8>,
    ends: Vec<usize>,
    /// The last one's.
    leaf_data: Vec<u8>,
    problem: Option<Error>,
    /// Bytes that are kept of the leaves.
    kept: usize,
}

impl Chunk {
    /// The leaves, with their hashes.
    fn take(&mut self) -> Result<Vec<Leaf>, Error> {
        let mut leaves = std::mem::take(&mut self.leaves);
        let mut start = 0;
        let data = self.ends.iter().map(|end| {
            let leaf_data = &self.data[start..*end];
            start = *end;
            leaf_data
        });
        for (leaf, hash) in leaves.iter_mut().zip(leaf_hashes(data)) {
            leaf.hash = hash;
        }
        self.data.clear();
        self.ends.clear();
        self.kept = 0;
        self.problem.take().map_or(Ok(leaves), Err)
    }
}

impl Scan {
    pub fn new(log: &Log, shape: &Shape, version: &Version) -> Result<Scan, Error> {
        let mut attributes: Vec<Attribute> = Vec::new();
        let mut place = |attribute: &Attribute| {
            let known = attributes.iter().position(|a| a.attnum == attribute.attnum);
            known.unwrap_or_else(|| {
                attributes.push(attribute.clone());
                attributes.len() - 1
            })
        };
        let order = place(shape.order());
        let key: Vec<usize> = shape.key.iter().map(&mut place).collect();
        let (mut names, mut logged) = (Vec::new(), Vec::new());
        let (mut missing, mut retyped) = (Vec::new(), Vec::new());
        // Values are written with the names of the version.
        let mut definitions = HashMap::new();
        for column in version.columns.iter().filter(|c| c.logged) {
            match column.attnum.and_then(|n| shape.table.attribute(n)) {
                None if column.attnum.is_none() => missing.push(format!(
                    "{} cannot be told: the table was restored from a dump made after it was renamed, moved or dropped, and before that was on record",
                    column.name
                )),
                None => missing.push(format!("{} is gone", column.name)),
                Some(attribute) => {
                    if !is_of_type(attribute, column) {
                        retyped.push(format!(
                            "{} was {} and is {}",
                            column.name, column.type_name, attribute.type_name
                        ));
                    }
                    let definition = column.definition.as_ref();
                    let lost = definition.map(|d| d.lost(attribute.definition.as_ref()));
                    retyped.extend(
                        lost.into_iter()
                            .flatten()
                            .map(|what| format!("{}: {what}", column.name)),
                    );
                    names.push(column.name.as_str());
                    logged.push(place(attribute));
                    definitions.insert(attribute.attnum, definition);
                }
            }
        }
        let of_key = |a: &Attribute| version.columns.iter().find(|c| c.attnum == Some(a.attnum));
        let relabelled = |a: &Attribute| {
            let then = of_key(a)?.definition.as_ref()?;
            let words = || format!("{}, a part of the key, has other labels now", a.name);
            (!then.keeps_labels(a.definition.as_ref())).then(words)
        };
        let retyped_key = |a: &&Attribute| shape.retyped(a).is_some();
        let other_type = |a: &Attribute| format!("{}, a part of the key, had another type", a.name);
        let other_types = shape.key.iter().filter(retyped_key).map(other_type);
        let relabelled = shape.key.iter().filter_map(relabelled);
        let relabelled = relabelled.chain(other_types).collect();
        let kind = match version.hash_column {
            Some(_) => Kind::Hash,
            None => Kind::Insert,
        };
        let encoder = |kind| {
            Encoder::new(&shape.source.name, kind, &names).map_err(|e| Error::Damaged {
                log: log.name.clone(),
                problem: e.to_string(),
            })
        };
        let encoders = [encoder(kind)?, encoder(Kind::Update)?];
        Ok(Scan {
            log: log.name.clone(),
            table: shape.source.name.clone(),
            query: TableQuery::on(shape),
            decoders: attributes
                .iter()
                .map(|a| match definitions.get(&a.attnum) {
                    Some(definition) => Decoder::of_type(a.base_type, *definition),
                    None => Decoder::of_column(a),
                })
                .collect(),
            attributes,
            order,
            key_orders: key == [order],
            key,
            logged,
            encoders,
            annexes: KeyEquality::of(shape).map([]),
            salted: false,
            keep: false,
            careful: false,
            missing,
            retyped,
            relabelled,
            chunk: Chunk::default(),
        })
    }

    /// Reads rows in order to log them: under the version in force, with new salts.
    pub fn to_log(log: &Log, shape: &Shape) -> Result<Scan, Error> {
        Scan::of_version(log, shape, shape.current())
    }

    /// As `to_log`, under a version that is not on record yet.
    pub fn of_version(log: &Log, shape: &Shape, version: &Version) -> Result<Scan, Error> {
        Ok(Scan {
            salted: shape.source.salted,
            keep: shape.source.store_leaf_data,
            ..Scan::new(log, shape, version)?
        })
    }

    /// The columns that a statement must select for this scan, in this order.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// All rows of a statement, read as the table's owner.
    pub fn all(&mut self, snapshot: Snapshot, statement: &Statement) -> Result<Vec<Leaf>, Error> {
        self.first(snapshot, statement, usize::MAX)
            .map(|(rows, _)| rows)
    }

    /// As `all`, the first of the rows, as many as about `bytes` of them are kept; and whether these are all.
    pub fn first(
        &mut self,
        snapshot: Snapshot,
        statement: &Statement,
        bytes: usize,
    ) -> Result<(Vec<Leaf>, bool), Error> {
        let mut all = true;
        let query = self.query.clone();
        let mut cursor = query.open(snapshot, statement);
        query.fetch(&mut cursor, i64::MAX, |row| match self.chunk.kept < bytes {
            true => self.add(row),
            false => all = false,
        });
        self.chunk.take().map(|rows| (rows, all))
    }

    /// The leaf data of the only row of a statement.
    pub fn leaf_data(&mut self, statement: &Statement) -> Result<Option<Vec<u8>>, Error> {
        let leaf = self.all(Snapshot::Statement, statement)?.pop();
        Ok(leaf.map(|_| self.chunk.leaf_data.clone()))
    }

    /// A cursor over a statement, opened as the table's owner.
    pub fn open(&self, snapshot: Snapshot, statement: &Statement) -> Cursor {
        self.query.open(snapshot, statement)
    }

    /// The next rows of a cursor, at most `count`, and fewer where much of them is kept; read as the table's
    /// owner. None at the end.
    pub fn fetch(&mut self, cursor: &mut Cursor, count: i64) -> Result<Vec<Leaf>, Error> {
        let query = self.query.clone();
        let at_once = if self.keep { 1 } else { count };
        let mut left = count;
        while left > 0 && self.chunk.kept < MUCH {
            if query.fetch(cursor, at_once, |row| self.add(row)) == 0 {
                break;
            }
            left -= at_once;
        }
        self.chunk.take()
    }

    /// As `all`; where a row cannot be read, once more and carefully.
    pub fn all_with_problems(
        &mut self,
        snapshot: Snapshot,
        statement: &Statement,
    ) -> Result<Vec<Leaf>, Error> {
        self.first_with_problems(snapshot, statement, usize::MAX)
            .map(|(rows, _)| rows)
    }

    /// As `first`; where a row cannot be read, once more and carefully.
    pub fn first_with_problems(
        &mut self,
        snapshot: Snapshot,
        statement: &Statement,
        bytes: usize,
    ) -> Result<(Vec<Leaf>, bool), Error> {
        let read = subtransaction::run(|| {
            let read = self.first(snapshot, statement, bytes);
            read.unwrap_or_else(|error| error.raise())
        });
        read.or_else(|_| {
            self.chunk = Chunk::default();
            self.careful = true;
            self.first(snapshot, statement, bytes)
        })
    }

    /// Encodes a row, in memory that the caller frees.
    fn add(&mut self, row: &Row) {
        if !self.careful {
            return self.encode(row);
        }
        let problem = match subtransaction::run(|| self.encode(row)) {
            Ok(()) => self.chunk.problem.take().map(|error| error.to_string()),
            Err(failure) => Some(failure.message),
        };
        if let Some(problem) = problem {
            let leaf = self.unencodable(row, problem);
            self.chunk.leaves.push(leaf);
            self.chunk.ends.push(self.chunk.data.len());
        }
    }

    fn unencodable(&self, row: &Row, problem: String) -> Leaf {
        let text = |place: usize| {
            // SAFETY: as in `encode`.
            row.datum(place)
                .map(|d| unsafe { datum::output(self.attributes[place].base_type, d) })
                .unwrap_or_default()
        };
        // SAFETY: as in `encode`.
        let order = unsafe { self.decoders[self.order].decode(row.datum(self.order)) };
        Leaf {
            order: OrderValue::new(self.attributes[self.order].base_type, &order),
            order_text: (!self.key_orders).then(|| text(self.order)),
            key: row_key::text(self.key.iter().map(|place| text(*place)).collect()),
            place: None,
            hash: EMPTY_ROOT,
            salt: None,
            leaf_data: None,
            logged: false,
            problem: Some(problem),
        }
    }

    fn encode(&mut self, row: &Row) {
        let Scan {
            attributes,
            decoders,
            order,
            key_orders,
            key,
            logged,
            encoders,
            annexes,
            salted,
            keep,
            chunk,
            ..
        } = self;
        let text = |place: usize| {
            // SAFETY: the row was selected by `attributes`, so the types match; keys are not null.
            row.datum(place)
                .map(|d| unsafe { datum::output(attributes[place].base_type, d) })
                .unwrap_or_default()
        };
        let decode = |place: usize| -> Value {
            // SAFETY: as above; the values are used up before the row's memory is freed.
            unsafe { decoders[place].decode(row.datum(place)) }
        };
        let values: Vec<Value> = logged.iter().map(|place| decode(*place)).collect();
        let text_of_key = || row_key::text(key.iter().map(|place| text(*place)).collect());
        let row_key = text_of_key();
        let annex = match annexes.is_empty() {
            true => None,
            false => annexes.get(&row_key),
        };
        let salt = match annex {
            Some(annex) => annex.salt.clone(),
            None if *salted => Some(new_salt()),
            None => None,
        };
        let context = Context {
            origin: annex.and_then(Annex::origin),
            salt: salt.as_deref(),
        };
        let update = annex.is_some_and(|a| a.kind() == Some(Kind::Update));
        let order_value = OrderValue::new(attributes[*order].base_type, &decode(*order));
        let about = || (self.log.clone(), self.table.clone(), text_of_key());
        let encoder = &encoders[usize::from(update)];
        let leaf_data = &mut chunk.leaf_data;
        let encoded =
            leaves::encode(encoder, &values, &context, *keep, about, leaf_data).map(|()| Leaf {
                place: key_orders.then(|| order_value.sort_key()).flatten(),
                order: order_value,
                order_text: (!*key_orders).then(|| text(*order)),
                key: row_key,
                hash: EMPTY_ROOT,
                leaf_data: keep.then(|| alloc::copy_bytes(leaf_data)),
                logged: false,
                problem: None,
                salt,
            });
        match encoded {
            Ok(leaf) => {
                chunk.kept += leaf.leaf_data.as_ref().map_or(0, Vec::len);
                chunk.leaves.push(leaf);
                // What is hashed has a bounded length.
                let leaf_data = leaf_format::capped(&chunk.leaf_data);
                chunk.data.extend_from_slice(&leaf_data.unwrap_or_default());
                chunk.ends.push(chunk.data.len());
                chunk.leaf_data.shrink_to(MUCH);
            }
            Err(problem) => {
                chunk.problem.get_or_insert(problem);
            }
        }
    }
}

/// True if the column still has the type that it had, whatever that is called.
fn is_of_type(attribute: &Attribute, column: &Column) -> bool {
    let same = column.type_oid == Some(attribute.type_oid.to_u32())
        && column.type_modifier == Some(attribute.type_modifier);
    same || attribute.type_name == column.type_name
}

/// A new random salt.
pub fn new_salt() -> Vec<u8> {
    let salt = random::bytes::<SALT>();
    salt.expect("the server has a source of random bytes")
        .to_vec()
}

/// The texts of the sort columns of a row with this key and order value: what a statement can go on
/// after.
pub fn position(shape: &Shape, key: &str, order: Option<&str>) -> Result<Vec<String>, Error> {
    let key = row_key::parts(shape, key)?;
    let part = |column: &Attribute| {
        let place = shape.key.iter().position(|k| k.attnum == column.attnum);
        match place {
            Some(place) => key[place].clone(),
            None => order.unwrap_or_default().to_owned(),
        }
    };
    Ok(shape.sort.iter().map(part).collect())
}

impl Leaf {
    pub fn position(&self, shape: &Shape) -> Result<Vec<String>, Error> {
        position(shape, &self.key, self.order_text.as_deref())
    }
}
