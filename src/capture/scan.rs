//! Rows of a source as leaves: the one encoder, for the batch that logs a row and for every check
//! of it afterwards.

use super::key_equality::{ByKey, KeyEquality};
use super::order::{OrderValue, SortKey};
use super::row_key;
use super::shape::Shape;
use super::statement::Statement;
use super::table::Attribute;
use crate::catalog::logs::Log;
use crate::catalog::versions::Version;
use crate::encode::Decoder;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::{self, Cursor, Row, Snapshot};
use crate::pg::{datum, random, role};
use crate::store::leaves::Annex;
use leaf_format::{Context, Encoder, Kind, Value};
use merkle_tree::{EMPTY_ROOT, Hash, leaf_hashes};
use pgrx::pg_sys;

/// Bytes of a salt: as many as make guessing hopeless.
pub const SALT: usize = 16;

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
}

/// Reads rows of a source under one version of its columns.
pub struct Scan {
    log: String,
    table: String,
    owner: pg_sys::Oid,
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
    /// Columns of the version that the table does not have any more.
    pub missing: Vec<String>,
    /// Columns whose type is not the version's, in words.
    pub retyped: Vec<String>,
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
        for column in version.columns.iter().filter(|c| c.logged) {
            match column.attnum.and_then(|n| shape.table.attribute(n)) {
                None => missing.push(column.name.clone()),
                Some(attribute) => {
                    if attribute.type_name != column.type_name {
                        retyped.push(format!(
                            "{} was {} and is {}",
                            column.name, column.type_name, attribute.type_name
                        ));
                    }
                    names.push(column.name.as_str());
                    logged.push(place(attribute));
                }
            }
        }
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
            owner: shape.table.owner,
            decoders: attributes.iter().map(Decoder::of_column).collect(),
            attributes,
            order,
            key_orders: key == [order],
            key,
            logged,
            encoders,
            annexes: KeyEquality::of(&shape.key).map([]),
            salted: false,
            keep: false,
            missing,
            retyped,
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
        role::as_table_owner(self.owner, || {
            let mut scratch = Scratch::new();
            spi::query(snapshot, &statement.sql, &statement.args, |row| {
                scratch.reuse(|| self.add(row))
            })
        });
        self.chunk.take()
    }

    /// The leaf data of the only row of a statement.
    pub fn leaf_data(&mut self, statement: &Statement) -> Result<Option<Vec<u8>>, Error> {
        let leaf = self.all(Snapshot::Statement, statement)?.pop();
        Ok(leaf.map(|_| self.chunk.leaf_data.clone()))
    }

    /// A cursor over a statement, opened as the table's owner.
    pub fn open(&self, snapshot: Snapshot, statement: &Statement) -> Cursor {
        role::as_table_owner(self.owner, || {
            Cursor::open(snapshot, &statement.sql, &statement.args)
        })
    }

    /// The next rows of a cursor, at most `count`, read as the table's owner.
    pub fn fetch(&mut self, cursor: &mut Cursor, count: i64) -> Result<Vec<Leaf>, Error> {
        role::as_table_owner(self.owner, || cursor.fetch(count, |row| self.add(row)));
        self.chunk.take()
    }

    /// Encodes a row, in memory that the caller frees.
    fn add(&mut self, row: &Row) {
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
        let encoded = encoders[usize::from(update)]
            .encode(&values, &context, &mut chunk.leaf_data)
            .map(|()| Leaf {
                place: key_orders.then(|| order_value.sort_key()).flatten(),
                order: order_value,
                order_text: (!*key_orders).then(|| text(*order)),
                key: row_key,
                hash: EMPTY_ROOT,
                leaf_data: keep.then(|| chunk.leaf_data.clone()),
                logged: false,
                salt,
            });
        match encoded {
            Ok(leaf) => {
                chunk.leaves.push(leaf);
                chunk.data.extend_from_slice(&chunk.leaf_data);
                chunk.ends.push(chunk.data.len());
            }
            Err(problem) => {
                let error = || Error::Encode {
                    log: self.log.clone(),
                    table: self.table.clone(),
                    key: text_of_key(),
                    problem: problem.to_string(),
                };
                chunk.problem.get_or_insert_with(error);
            }
        }
    }
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
