//! Dates, times and intervals: whole days and microseconds, counted from 1970 instead of 2000.

use leaf_format::Value;
use pgrx::pg_sys;

pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// Microseconds since 1970 of the server's microseconds since 2000.
pub fn unix_micros(server: pg_sys::TimestampTz) -> i64 {
    server + EPOCH_DAYS * MICROS_PER_DAY
}

/// The inverse of `unix_micros`.
pub fn server_micros(unix: i64) -> pg_sys::TimestampTz {
    unix - EPOCH_DAYS * MICROS_PER_DAY
}

pub fn date<'a>(days: i32) -> Value<'a> {
    match days {
        i32::MIN => Value::NegInfinity,
        i32::MAX => Value::Infinity,
        days => Value::Int(i128::from(days) + i128::from(EPOCH_DAYS)),
    }
}

pub fn timestamp<'a>(micros: i64) -> Value<'a> {
    match micros {
        i64::MIN => Value::NegInfinity,
        i64::MAX => Value::Infinity,
        micros => Value::Int(i128::from(micros) + i128::from(EPOCH_DAYS * MICROS_PER_DAY)),
    }
}

/// The server counts seconds west of UTC; the leaf format counts east.
pub fn timetz<'a>(time: &pg_sys::TimeTzADT) -> Value<'a> {
    Value::List(vec![
        Value::Int(time.time.into()),
        Value::Int(-i128::from(time.zone)),
    ])
}

pub fn interval<'a>(interval: &pg_sys::Interval) -> Value<'a> {
    Value::List(vec![
        Value::Int(interval.month.into()),
        Value::Int(interval.day.into()),
        Value::Int(interval.time.into()),
    ])
}
