//! The order of a log's entries: values of the order column, made comparable across sources.
//!
//! Values compare only within one domain, so a log has one, fixed by its first source.

use crate::encode::time;
use leaf_format::{Decimal, Value};
use pgrx::pg_sys;

/// What the order values of a log have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Time,
    Number,
    Uuid,
    /// The order in which changes were captured; no values are compared.
    Arrival,
}

impl Domain {
    pub fn name(self) -> &'static str {
        match self {
            Domain::Time => "time",
            Domain::Number => "number",
            Domain::Uuid => "uuid",
            Domain::Arrival => "arrival",
        }
    }

    pub fn from_name(name: &str) -> Option<Domain> {
        [Domain::Time, Domain::Number, Domain::Uuid, Domain::Arrival]
            .into_iter()
            .find(|d| d.name() == name)
    }

    /// The domain of an order column's type; `None` where the type cannot order a log.
    pub fn of_type(base_type: pg_sys::Oid) -> Option<Domain> {
        match base_type {
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Some(Domain::Time),
            pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::NUMERICOID => {
                Some(Domain::Number)
            }
            pg_sys::UUIDOID => Some(Domain::Uuid),
            _ => None,
        }
    }
}

/// An order value. Only values of one domain are ever compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderValue {
    /// Before every other: a time of -infinity, a number of -Infinity.
    First,
    /// Microseconds since 1970-01-01 00:00; dates and timestamps without a zone count as UTC.
    Time(i128),
    Number(Decimal),
    Uuid([u8; 16]),
    /// After every other: infinity, NaN.
    Last,
}

impl OrderValue {
    /// The order value that a column of `base_type` holds.
    pub fn new(base_type: pg_sys::Oid, value: &Value) -> OrderValue {
        match value {
            Value::Int(days) if base_type == pg_sys::DATEOID => {
                OrderValue::Time(*days * i128::from(time::MICROS_PER_DAY))
            }
            Value::Int(n) if Domain::of_type(base_type) == Some(Domain::Number) => {
                OrderValue::Number(Decimal::from(*n as i64))
            }
            Value::Int(micros) => OrderValue::Time(*micros),
            Value::Decimal(decimal) => OrderValue::Number(decimal.clone()),
            Value::Uuid(bytes) => OrderValue::Uuid(*bytes),
            Value::NegInfinity => OrderValue::First,
            _ => OrderValue::Last,
        }
    }
}
