//! Rows of a source as leaves: the one encoder, for the batch that logs a row and for every check
//! of it afterwards.

use super::order::OrderValue;
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
use merkle_tree::{Hash, leaf_hash};
use pgrx::pg_sys;
use std::collections::HashMap;

/// Bytes of a salt: as many as make guessing hopeless.
pub const SALT: usize = 16;

/// A row of a source, ready to be appended or compared.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub order: OrderValue,
    /// Text forms of the sort columns: the order value first.
    pub position: Vec<String>,
    /// The text form of the key.
    pub key: String,
    pub hash: Hash,
    /// What the hash was salted with.
    pub salt: Option<Vec<u8>>,
    /// What was hashed, where the source keeps it.
    pub leaf_data: Option<Vec<u8>>,
}

/// Reads rows of a source under one version of its columns.
pub struct Scan {
    log: String,
    table: String,
    owner: pg_sys::Oid,
    attributes: Vec<Attribute>,
    decoders: Vec<Decoder>,
    sort: Vec<usize>,
    key: Vec<usize>,
    logged: Vec<usize>,
    /// For new rows, and for changed ones.
    encoders: [Encoder; 2],
    /// What entries say beside their rows, by key; rows without one are plain inserts.
    pub annexes: HashMap<String, Annex>,
    /// New leaves get a salt, and keep their data.
    salted: bool,
    keep: bool,
    /// Columns of the version that the table does not have any more.
    pub missing: Vec<String>,
    /// Columns whose type is not the version's, in words.
    pub retyped: Vec<String>,
    scratch: Scratch,
    leaf_data: Vec<u8>,
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
        let sort = shape.sort.iter().map(&mut place).collect();
        let key = shape.key.iter().map(&mut place).collect();
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
            sort,
            key,
            logged,
            encoders,
            annexes: HashMap::new(),
            salted: false,
            keep: false,
            missing,
            retyped,
            scratch: Scratch::new(),
            leaf_data: Vec::new(),
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
            spi::query(snapshot, &statement.sql, &statement.args, |row| {
                self.leaf(row)
            })
        })
        .into_iter()
        .collect()
    }

    /// The leaf data of the only row of a statement.
    pub fn leaf_data(&mut self, statement: &Statement) -> Result<Option<Vec<u8>>, Error> {
        let leaf = self.all(Snapshot::Statement, statement)?.pop();
        Ok(leaf.map(|_| self.leaf_data.clone()))
    }

    /// A cursor over a statement, opened as the table's owner with a fresh snapshot.
    pub fn open(&self, statement: &Statement) -> Cursor {
        role::as_table_owner(self.owner, || Cursor::open(&statement.sql, &statement.args))
    }

    /// The next rows of a cursor, at most `count`, read as the table's owner.
    pub fn fetch(&mut self, cursor: &mut Cursor, count: i64) -> Result<Vec<Leaf>, Error> {
        role::as_table_owner(self.owner, || cursor.fetch(count, |row| self.leaf(row)))
            .into_iter()
            .collect()
    }

    fn leaf(&mut self, row: &Row) -> Result<Leaf, Error> {
        let Scan {
            scratch,
            leaf_data,
            attributes,
            decoders,
            sort,
            key,
            logged,
            encoders,
            annexes,
            salted,
            keep,
            ..
        } = self;
        let text = |place: &usize| {
            // SAFETY: the row was selected by `attributes`, so the types match; keys are not null.
            row.datum(*place)
                .map(|d| unsafe { datum::output(attributes[*place].base_type, d) })
                .unwrap_or_default()
        };
        let leaf = scratch.scope(|| {
            let decode = |place: &usize| -> Value {
                // SAFETY: as above; the values are used up before the row's memory is freed.
                unsafe { decoders[*place].decode(row.datum(*place)) }
            };
            let values: Vec<Value> = logged.iter().map(decode).collect();
            let key = key_text(key.iter().map(text).collect());
            let annex = annexes.get(&key);
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
            encoders[usize::from(update)]
                .encode(&values, &context, leaf_data)
                .map(|()| Leaf {
                    order: OrderValue::new(attributes[sort[0]].base_type, &decode(&sort[0])),
                    position: sort.iter().map(text).collect(),
                    key,
                    hash: leaf_hash(leaf_data),
                    leaf_data: keep.then(|| leaf_data.clone()),
                    salt,
                })
        });
        leaf.map_err(|problem| Error::Encode {
            log: self.log.clone(),
            table: self.table.clone(),
            key: key_text(self.key.iter().map(text).collect()),
            problem: problem.to_string(),
        })
    }
}

/// A new random salt.
pub fn new_salt() -> Vec<u8> {
    let salt = random::bytes::<SALT>();
    salt.expect("the server has a source of random bytes")
        .to_vec()
}

/// A key as one text: the column's own, or for a composite key the text form of a `text[]`.
pub fn key_text(mut parts: Vec<String>) -> String {
    match parts.len() {
        1 => parts.remove(0),
        _ => datum::array_literal(parts),
    }
}

/// A key's columns as texts, from the text form of the key. The texts are what was given, not
/// necessarily as the types write them.
pub fn key_parts(shape: &Shape, key: &str) -> Result<Vec<String>, Error> {
    if shape.key.len() == 1 {
        return Ok(vec![key.to_owned()]);
    }
    match datum::array_elements(key) {
        Some(parts) if parts.len() == shape.key.len() => Ok(parts),
        _ => Err(Error::Key {
            table: shape.source.name.clone(),
            key: key.to_owned(),
            problem: format!("its key has {} columns", shape.key.len()),
        }),
    }
}

/// The text form of a key as entries have it, from any text that the key's types accept.
pub fn normalize_key(shape: &Shape, key: &str) -> Result<String, Error> {
    let normal = |(column, part): (&Attribute, &String)| {
        let arg = datum::input(column.base_type, part);
        // SAFETY: a value of the type that the parameter was just made for.
        arg.datum()
            .map(|d| unsafe { datum::output(column.base_type, d.sans_lifetime()) })
            .unwrap_or_default()
    };
    Ok(key_text(
        shape
            .key
            .iter()
            .zip(&key_parts(shape, key)?)
            .map(normal)
            .collect(),
    ))
}
