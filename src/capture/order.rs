//! The order of a log's entries: values of the order column, made comparable across sources.
//!
//! Values compare only within one domain, so a log has one, fixed by its first source.

use crate::encode::time;
use leaf_format::{Decimal, Value};
use pgrx::pg_sys;
use std::cmp::Ordering;

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
#[derive(Clone, Debug)]
pub enum OrderValue {
    /// Before every other: a time of -infinity, a number of -Infinity.
    First,
    /// Microseconds since 1970-01-01 00:00; dates and timestamps without a zone count as UTC.
    Time(i128),
    Integer(i64),
    Number(Decimal),
    Uuid([u8; 16]),
    /// After every other: infinity, NaN.
    Last,
}

/// An order value as bytes that sort as it does; within one domain only.
pub type SortKey = [u8; 16];

impl OrderValue {
    /// The order value that a column of `base_type` holds.
    pub fn new(base_type: pg_sys::Oid, value: &Value) -> OrderValue {
        match value {
            Value::Int(days) if base_type == pg_sys::DATEOID => {
                OrderValue::Time(*days * i128::from(time::MICROS_PER_DAY))
            }
            Value::Int(n) if Domain::of_type(base_type) == Some(Domain::Number) => {
                OrderValue::Integer(*n as i64)
            }
            Value::Int(micros) => OrderValue::Time(*micros),
            Value::Decimal(decimal) => OrderValue::Number(decimal.clone()),
            Value::Uuid(bytes) => OrderValue::Uuid(*bytes),
            Value::NegInfinity => OrderValue::First,
            _ => OrderValue::Last,
        }
    }

    /// `None` where the value has no such form: numbers that are no integer of 64 bits, infinities.
    pub fn sort_key(&self) -> Option<SortKey> {
        // The sign bit turned over: negative numbers come first.
        let of_integer = |n: i128| (n as u128 ^ 1 << 127).to_be_bytes();
        match self {
            OrderValue::Time(micros) => Some(of_integer(*micros)),
            OrderValue::Integer(n) => Some(of_integer((*n).into())),
            OrderValue::Number(decimal) => decimal.to_i64().map(|n| of_integer(n.into())),
            OrderValue::Uuid(bytes) => Some(*bytes),
            OrderValue::First | OrderValue::Last => None,
        }
    }

    /// How values of different kinds stand to each other.
    fn rank(&self) -> u8 {
        match self {
            OrderValue::First => 0,
            OrderValue::Last => 2,
            _ => 1,
        }
    }
}

impl Ord for OrderValue {
    fn cmp(&self, other: &OrderValue) -> Ordering {
        use OrderValue::{Integer, Number, Time, Uuid};
        match (self, other) {
            (Time(a), Time(b)) => a.cmp(b),
            (Integer(a), Integer(b)) => a.cmp(b),
            (Integer(a), Number(b)) => Decimal::from(*a).cmp(b),
            (Number(a), Integer(b)) => a.cmp(&Decimal::from(*b)),
            (Number(a), Number(b)) => a.cmp(b),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for OrderValue {
    fn partial_cmp(&self, other: &OrderValue) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderValue {
    fn eq(&self, other: &OrderValue) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OrderValue {}
