//! A `jsonb` result, from its text form: the server reads it, so numbers keep every digit.
//!
//! Not all JSON can be `jsonb`. Where someone else has written it, `can_hold` is asked before: an error for one value would
//! keep all others from being shown.

use super::datum;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{IntoDatum, pg_sys};

pub struct Jsonb(pub String);

/// Levels of JSON that are read. How many more the server could read depends on how much of its stack is in use.
const DEPTH: usize = 1000;
/// Digits that a `numeric` can have before the point, and behind it.
const WHOLE: i64 = 131_072;
const FRACTION: i64 = 16_383;

/// True if `json`, which is JSON, can be `jsonb` as well: no text has a NUL or half a surrogate pair, no number has more
/// digits than `numeric`, and it is not too deep.
pub fn can_hold(json: &str) -> bool {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => match end_of_text(bytes, at + 1) {
                Some(end) => at = end,
                None => return false,
            },
            b'-' | b'0'..=b'9' => {
                let is_of_number =
                    |b: &&u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let length = bytes[at..].iter().take_while(is_of_number).count();
                if !is_numeric(&json[at..at + length]) {
                    return false;
                }
                at += length;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH {
                    return false;
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    true
}

/// Where a text ends that begins at `at`; `None` if `jsonb` cannot hold it.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut is_half = false;
    loop {
        let (unit, length) = match *bytes.get(at)? {
            b'"' => return (!is_half).then_some(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => {
                let digits = std::str::from_utf8(bytes.get(at + 2..at + 6)?).ok()?;
                (u32::from_str_radix(digits, 16).ok()?, 6)
            }
            b'\\' => (u32::from(b'\\'), 2),
            byte => (u32::from(byte).max(1), 1),
        };
        is_half = match unit {
            0 => return None,
            0xd800..=0xdbff if !is_half => true,
            0xdc00..=0xdfff if is_half => false,
            0xd800..=0xdfff => return None,
            _ if is_half => return None,
            _ => false,
        };
        at += length;
    }
}

/// True of a number in JSON that has no more digits than `numeric`.
fn is_numeric(number: &str) -> bool {
    let (digits, exponent) = match number.split_once(['e', 'E']) {
        None => (number, Ok(0)),
        Some((digits, exponent)) => (digits, exponent.parse::<i32>()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    exponent.is_ok_and(|exponent| {
        whole.len() as i64 + i64::from(exponent) <= WHOLE
            && fraction.len() as i64 - i64::from(exponent) <= FRACTION
    })
}

impl IntoDatum for Jsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(datum::input_datum(pg_sys::JSONBOID, &self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: returns what `IntoDatum` makes, or NULL.
unsafe impl BoxRet for Jsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: a datum of the type that was declared.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: `jsonb` is the SQL type whose values `IntoDatum` makes.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Jsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
