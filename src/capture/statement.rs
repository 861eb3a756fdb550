//! The statements that read source tables: the only SQL that is put together at run time.
//!
//! Names come quoted from the server's catalogs, operators are those of `pg_catalog`, and values are
//! always parameters, typed like the column they are compared with.

use super::shape::Shape;
use super::table::{Attribute, Table};
use crate::catalog::sources::Source;
use crate::pg::datum::{self, Value};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

/// SQL and its parameters.
pub struct Statement {
    pub sql: String,
    values: Vec<Value>,
}

impl Statement {
    /// No row of the table: what planning it takes is all that there is to it.
    pub fn none(table: &Table) -> Statement {
        Statement {
            sql: format!("SELECT {} LIMIT 0", from(table)),
            values: Vec::new(),
        }
    }

    pub fn args(&self) -> Vec<DatumWithOid<'_>> {
        self.values.iter().map(Value::parameter).collect()
    }
}

/// Which rows of a source to read, all in the order of its sort columns.
pub enum Rows<'a> {
    /// After the watermark, up to an order value.
    Ahead { upto: &'a str },
    /// At or behind the watermark, and those that no watermark passes: above the ceiling, or of an order
    /// value that is no point on the line (infinity, NaN).
    /// Of what was pruned nothing is known: those rows are left out.
    Behind {
        watermark: Option<&'a [String]>,
        pruned: Option<&'a str>,
        upto: Option<&'a [String]>,
        ceiling: Option<&'a str>,
    },
    /// Up to a position, that one's row included.
    UpTo(&'a [String]),
    /// Every row.
    All,
}

impl<'a> Rows<'a> {
    pub fn behind(source: &'a Source, ceiling: Option<&'a str>) -> Rows<'a> {
        Rows::Behind {
            watermark: source.watermark.as_deref(),
            pruned: source.pruned_order.as_deref(),
            upto: None,
            ceiling,
        }
    }
}

/// `attributes` of the rows after `after` (text forms of the sort columns), at most `limit`.
pub fn rows(
    shape: &Shape,
    attributes: &[Attribute],
    after: Option<&[String]>,
    which: Rows,
    limit: i64,
) -> Statement {
    let mut args = Vec::new();
    let mut conditions = Vec::new();
    if let Some(after) = after {
        conditions.push(compare(shape, ">", after, &mut args));
    }
    match which {
        Rows::Ahead { upto } => {
            conditions.push(order_is(shape, "<=", upto, &mut args));
            conditions.extend(finite(shape.order()));
        }
        Rows::Behind {
            watermark,
            pruned,
            upto,
            ceiling,
        } => {
            conditions.extend(upto.map(|upto| compare(shape, "<=", upto, &mut args)));
            let behind = watermark.map(|w| compare(shape, "<=", w, &mut args));
            let off_line = match pruned {
                None => finite(shape.order()).map(|f| format!("NOT ({f})")),
                Some(order) => {
                    conditions.push(order_is(shape, ">", order, &mut args));
                    conditions.extend(finite(shape.order()));
                    None
                }
            };
            let above = ceiling.map(|c| order_is(shape, ">", c, &mut args));
            let either: Vec<String> = behind.into_iter().chain(off_line).chain(above).collect();
            conditions.push(match either.is_empty() {
                true => "false".to_owned(),
                false => format!("({})", either.join(" OR ")),
            });
        }
        Rows::UpTo(position) => conditions.push(compare(shape, "<=", position, &mut args)),
        Rows::All => conditions.push("true".to_owned()),
    }
    args.push(Value::int8(limit));
    Statement {
        sql: format!(
            "SELECT {} {} WHERE {} ORDER BY {} LIMIT ${}",
            select_list(attributes),
            from(&shape.table),
            conditions.join(" AND "),
            sort_expressions(shape).join(", "),
            args.len()
        ),
        values: args,
    }
}

/// How many rows there are after the watermark, up to the ceiling, `limit` at most, and their least order value.
pub fn ahead(shape: &Shape, ceiling: Option<&str>, limit: i64) -> Statement {
    let (conditions, mut args) = takeable(shape, ceiling);
    args.push(Value::int8(limit));
    Statement {
        sql: format!(
            "SELECT pg_catalog.count(*), {} FROM (SELECT s.{} AS least {} WHERE {} ORDER BY s.{1} LIMIT ${}) first",
            match shape.order().base_type {
                // There is no least uuid.
                pg_sys::UUIDOID => "NULL::pg_catalog.uuid",
                _ => "pg_catalog.min(first.least)",
            },
            shape.order().quoted,
            from(&shape.table),
            conditions.join(" AND "),
            args.len()
        ),
        values: args,
    }
}

/// The highest order value after the watermark, up to the ceiling.
pub fn highest(shape: &Shape, ceiling: Option<&str>) -> Statement {
    let (conditions, args) = takeable(shape, ceiling);
    Statement {
        sql: format!(
            "SELECT s.{0} {1} WHERE {2} ORDER BY s.{0} DESC LIMIT 1",
            shape.order().quoted,
            from(&shape.table),
            conditions.join(" AND ")
        ),
        values: args,
    }
}

/// `attributes` of the last rows up to an order value, at most `limit`.
pub fn last_up_to(shape: &Shape, attributes: &[Attribute], upto: &str, limit: i64) -> Statement {
    let mut args = Vec::new();
    let condition = order_is(shape, "<=", upto, &mut args);
    args.push(Value::int8(limit));
    Statement {
        sql: format!(
            "SELECT {} {} WHERE {condition} ORDER BY s.{} DESC LIMIT ${}",
            select_list(attributes),
            from(&shape.table),
            shape.order().quoted,
            args.len()
        ),
        values: args,
    }
}

/// Any row with an order value up to this one.
pub fn any_up_to(shape: &Shape, upto: &str) -> Statement {
    let mut args = Vec::new();
    let condition = order_is(shape, "<=", upto, &mut args);
    let order = &shape.order().quoted;
    Statement {
        sql: format!(
            "SELECT s.{order} {} WHERE {condition} ORDER BY s.{order} LIMIT 1",
            from(&shape.table)
        ),
        values: args,
    }
}

/// That a row lies after the watermark, and up to the ceiling.
fn takeable(shape: &Shape, ceiling: Option<&str>) -> (Vec<String>, Vec<Value>) {
    let mut args = Vec::new();
    let mut conditions = vec!["true".to_owned()];
    if let Some(watermark) = &shape.source.watermark {
        conditions.push(compare(shape, ">", watermark, &mut args));
    }
    conditions.extend(finite(shape.order()));
    conditions.extend(ceiling.map(|c| order_is(shape, "<=", c, &mut args)));
    (conditions, args)
}

/// The position that `rows` rows lie after, of those up to `watermark`; none if there are not as many.
pub fn back_from(shape: &Shape, watermark: &[String], rows: i64) -> Statement {
    let mut args = Vec::new();
    let upto = compare(shape, "<=", watermark, &mut args);
    let columns = sort_expressions(shape);
    let descending: Vec<String> = columns.iter().map(|c| format!("{c} DESC")).collect();
    args.push(Value::int8(rows));
    Statement {
        sql: format!(
            "SELECT {} {} WHERE {upto} ORDER BY {} OFFSET ${} LIMIT 1",
            select_list(&shape.sort),
            from(&shape.table),
            descending.join(", "),
            args.len()
        ),
        values: args,
    }
}

/// `attributes` of the rows with any of `keys`, each the text forms of the key columns.
pub fn rows_by_key(shape: &Shape, attributes: &[Attribute], keys: &[Vec<String>]) -> Statement {
    let mut args = Vec::new();
    let mut conditions = Vec::new();
    for (place, column) in shape.key.iter().enumerate() {
        let array = datum::array_type(column.base_type).unwrap_or(pg_sys::TEXTARRAYOID);
        let texts = keys.iter().map(|key| key[place].as_str());
        let values = match shape.retyped(column) {
            None => datum::array_literal(texts),
            Some(retyped) => datum::array_literal(texts.map(|text| retyped.text(text))),
        };
        args.push(datum::input(array, &values));
        let collate = column
            .collation
            .as_ref()
            .map(|c| format!(" COLLATE {c}"))
            .unwrap_or_default();
        conditions.push(format!(
            "s.{} OPERATOR(pg_catalog.=) k.k{place}{collate}",
            column.quoted
        ));
    }
    let unnest: Vec<String> = (1..=args.len())
        .map(|n| format!("pg_catalog.unnest(${n})"))
        .collect();
    let names: Vec<String> = (0..args.len()).map(|n| format!("k{n}")).collect();
    Statement {
        sql: format!(
            "SELECT {} {}, ROWS FROM ({}) k ({}) WHERE {}",
            select_list(attributes),
            from(&shape.table),
            unnest.join(", "),
            names.join(", "),
            conditions.join(" AND ")
        ),
        values: args,
    }
}

/// The row with this key, if its order value is no point on the line; `None` where every value is.
pub fn row_off_the_line(shape: &Shape, key: Vec<String>) -> Option<Statement> {
    let finite = finite(shape.order())?;
    let mut statement = rows_by_key(shape, &shape.sort, &[key]);
    statement.sql.push_str(&format!(" AND NOT ({finite})"));
    Some(statement)
}

/// Rows of tables that inherit from a source are not its rows; those of its partitions are.
fn from(table: &Table) -> String {
    let only = if table.partitioned { "" } else { "ONLY " };
    format!("FROM {only}{} s", table.name)
}

fn select_list(attributes: &[Attribute]) -> String {
    let columns: Vec<String> = attributes
        .iter()
        .map(|a| format!("s.{}", a.quoted))
        .collect();
    columns.join(", ")
}

/// Texts are ordered by their bytes: no collation version can reorder a log. Where capture does not
/// read in order, any order serves, and the key's index gives its own.
fn sort_expressions(shape: &Shape) -> Vec<String> {
    let bytewise = |a: &Attribute| match a.collation {
        Some(_) if !shape.source.by_trigger() => format!("s.{} COLLATE pg_catalog.\"C\"", a.quoted),
        _ => format!("s.{}", a.quoted),
    };
    shape.sort.iter().map(bytewise).collect()
}

/// A condition on the order column; `value` in its text form.
fn order_is(shape: &Shape, operator: &str, value: &str, args: &mut Vec<Value>) -> String {
    args.push(shape.input(shape.order(), value));
    format!(
        "s.{} OPERATOR(pg_catalog.{operator}) ${}",
        shape.order().quoted,
        args.len()
    )
}

fn compare(shape: &Shape, operator: &str, position: &[String], args: &mut Vec<Value>) -> String {
    let parameters: Vec<String> = shape
        .sort
        .iter()
        .zip(position)
        .map(|(column, text)| {
            args.push(shape.input(column, text));
            format!("${}", args.len())
        })
        .collect();
    format!(
        "ROW({}) OPERATOR(pg_catalog.{operator}) ROW({})",
        sort_expressions(shape).join(", "),
        parameters.join(", ")
    )
}

/// The condition that an order value is a point on the line; `None` where every value is.
fn finite(order: &Attribute) -> Option<String> {
    match order.base_type {
        pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => {
            Some(format!("pg_catalog.isfinite(s.{})", order.quoted))
        }
        pg_sys::NUMERICOID => Some(format!(
            "s.{0} OPERATOR(pg_catalog.>) '-Infinity'::pg_catalog.numeric
                AND s.{0} OPERATOR(pg_catalog.<) 'Infinity'::pg_catalog.numeric",
            order.quoted
        )),
        _ => None,
    }
}
