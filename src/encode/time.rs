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

/// The inverse of `unix_micros`. What the server has no time for, as it may stand in damaged leaf data, is its earliest.
pub fn server_micros(unix: i64) -> pg_sys::TimestampTz {
    unix.saturating_sub(EPOCH_DAYS * MICROS_PER_DAY)
}

/// The server's time that leaf data count so, if it is one: the latest are more than 64 bits since 1970.
pub fn server_time(unix: i128) -> Option<pg_sys::Timestamp> {
    i64::try_from(unix.checked_sub(i128::from(EPOCH_DAYS * MICROS_PER_DAY))?).ok()
}

/// Days since 2000-01-01 of days since 1970-01-01, if it is one of the server's dates.
pub fn server_date(unix: i128) -> Option<i32> {
    i32::try_from(unix.checked_sub(i128::from(EPOCH_DAYS))?).ok()
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
    // Since version 17 these stand for the infinities; before, they are intervals like all others.
    #[cfg(since_pg17)]
    match (interval.month, interval.day, interval.time) {
        (i32::MIN, i32::MIN, i64::MIN) => return Value::NegInfinity,
        (i32::MAX, i32::MAX, i64::MAX) => return Value::Infinity,
        _ => {}
    }
    Value::List(vec![
        Value::Int(interval.month.into()),
        Value::Int(interval.day.into()),
        Value::Int(interval.time.into()),
    ])
}
