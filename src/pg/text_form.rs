//! The texts of times, intervals and amounts of money, as the server's output functions write them under the settings in
//! force.

use super::datum;
use pgrx::pg_sys;

/// Days since 2000-01-01.
pub fn date(days: i32) -> String {
    // SAFETY: a date is passed by value.
    unsafe { datum::output(pg_sys::DATEOID, pg_sys::Datum::from(days)) }
}

/// Microseconds from 2000-01-01 00:00 to the reading of the clock.
pub fn timestamp(micros: i64) -> String {
    // SAFETY: a timestamp is passed by value.
    unsafe { datum::output(pg_sys::TIMESTAMPOID, pg_sys::Datum::from(micros)) }
}

/// Microseconds since 2000-01-01 00:00 UTC.
pub fn timestamp_with_time_zone(micros: i64) -> String {
    // SAFETY: a timestamp is passed by value.
    unsafe { datum::output(pg_sys::TIMESTAMPTZOID, pg_sys::Datum::from(micros)) }
}

/// Microseconds since midnight.
pub fn time(micros: i64) -> String {
    // SAFETY: a time is passed by value.
    unsafe { datum::output(pg_sys::TIMEOID, pg_sys::Datum::from(micros)) }
}

/// `west`: seconds west of UTC.
pub fn time_with_time_zone(micros: i64, west: i32) -> String {
    let time = pg_sys::TimeTzADT {
        time: micros,
        zone: west,
    };
    // SAFETY: the value lives through the call.
    unsafe { datum::output(pg_sys::TIMETZOID, pg_sys::Datum::from(&raw const time)) }
}

pub fn interval(months: i32, days: i32, micros: i64) -> String {
    let interval = pg_sys::Interval {
        time: micros,
        day: days,
        month: months,
    };
    // SAFETY: the value lives through the call.
    unsafe {
        datum::output(
            pg_sys::INTERVALOID,
            pg_sys::Datum::from(&raw const interval),
        )
    }
}

/// In the smallest unit of the currency.
pub fn money(amount: i64) -> String {
    // SAFETY: an amount is passed by value.
    unsafe { datum::output(pg_sys::MONEYOID, pg_sys::Datum::from(amount)) }
}
