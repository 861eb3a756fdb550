//! The texts of values in leaf data, as their types' output functions write them.

use crate::encode::{Decoder, time};
use crate::pg::{alloc, text_form};
use leaf_format::Cbor;

/// True if JSON shows values of this type as texts, other than the leaf data have them.
pub fn is_text(of: &Decoder) -> bool {
    matches!(
        of,
        Decoder::Oid
            | Decoder::Money
            | Decoder::Date
            | Decoder::Timestamp
            | Decoder::TimestampTz
            | Decoder::Time
            | Decoder::TimeTz
            | Decoder::Interval
            | Decoder::Range(_)
            | Decoder::Multirange(_)
    )
}

/// The text of a value of such a type, in JSON: there, `T` stands between date and time, and an offset has minutes. Values
/// are shown in UTC.
pub fn as_in_json(value: &Cbor, of: &Decoder) -> String {
    let text = of_type(value, of);
    match of {
        Decoder::Timestamp => text.replacen(' ', "T", 1),
        Decoder::TimestampTz => text.replacen(' ', "T", 1).replace("+00", "+00:00"),
        _ => text,
    }
}

/// The text of a value.
pub fn of_type(value: &Cbor, of: &Decoder) -> String {
    let number = |value: &Cbor| match value {
        Cbor::Integer(n) => i64::try_from(*n).ok(),
        _ => None,
    };
    let numbers = |value: &Cbor| match value {
        Cbor::Array(parts) => parts.iter().map(number).collect::<Option<Vec<i64>>>(),
        _ => None,
    };
    let small = |n: i64| i32::try_from(n).ok();
    let wide = |value: &Cbor| match value {
        Cbor::Integer(n) => Some(*n),
        _ => None,
    };
    let micros = |value| wide(value).and_then(time::server_time);
    let text = match of {
        Decoder::Date | Decoder::Timestamp | Decoder::TimestampTz | Decoder::Interval
            if is_infinite(value) =>
        {
            Some(infinity(value))
        }
        Decoder::Money => number(value).map(text_form::money),
        Decoder::Date => wide(value).and_then(time::server_date).map(text_form::date),
        Decoder::Timestamp => micros(value).map(text_form::timestamp),
        Decoder::TimestampTz => micros(value).map(text_form::timestamp_with_time_zone),
        Decoder::Time => number(value).map(text_form::time),
        Decoder::TimeTz => numbers(value).and_then(|parts| match parts.as_slice() {
            [micros, east] => Some(text_form::time_with_time_zone(*micros, small(-east)?)),
            _ => None,
        }),
        Decoder::Interval => numbers(value).and_then(|parts| match parts.as_slice() {
            [months, days, micros] => {
                Some(text_form::interval(small(*months)?, small(*days)?, *micros))
            }
            _ => None,
        }),
        Decoder::Range(range) => range_text(value, range.bound()),
        Decoder::Multirange(range) => match value {
            Cbor::Array(ranges) => {
                let ranges = ranges.iter().map(|r| range_text(r, range.bound()));
                let ranges: Option<Vec<String>> = ranges.collect();
                ranges.map(|ranges| format!("{{{}}}", ranges.join(",")))
            }
            _ => None,
        },
        _ => None,
    };
    text.unwrap_or_else(|| plain(value))
}

fn is_infinite(value: &Cbor) -> bool {
    matches!(value, Cbor::Float(f) if f.is_infinite())
}

fn infinity(value: &Cbor) -> String {
    match value {
        Cbor::Float(f) if *f < 0.0 => "-infinity".to_owned(),
        _ => "infinity".to_owned(),
    }
}

/// As `range_out` has it.
fn range_text(value: &Cbor, bound: &Decoder) -> Option<String> {
    let Cbor::Array(parts) = value else {
        return None;
    };
    let text = |value: &Cbor| match value {
        Cbor::Null => String::new(),
        value => quoted_bound(&of_type(value, bound)),
    };
    match parts.as_slice() {
        [] => Some("empty".to_owned()),
        [lower, upper, Cbor::Text(bounds)] => {
            let (open, close) = bounds.split_at_checked(1)?;
            Some(format!("{open}{},{}{close}", text(lower), text(upper)))
        }
        _ => None,
    }
}

fn quoted_bound(text: &str) -> String {
    let special = |c: char| {
        matches!(
            c,
            '"' | '\\' | '(' | ')' | '[' | ']' | ',' | ' ' | '\t'..='\r'
        )
    };
    match text.is_empty() || text.contains(special) {
        false => text.to_owned(),
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")),
    }
}

/// The text of a value whose kind tells it.
pub fn plain(value: &Cbor) -> String {
    match value {
        Cbor::Text(text) => text.clone(),
        Cbor::Bool(true) => "t".to_owned(),
        Cbor::Bool(false) => "f".to_owned(),
        Cbor::Integer(n) => n.to_string(),
        Cbor::Float(f) if f.is_finite() => f.to_string(),
        Cbor::Float(f) if f.is_nan() => "NaN".to_owned(),
        Cbor::Float(f) if *f < 0.0 => "-Infinity".to_owned(),
        Cbor::Float(_) => "Infinity".to_owned(),
        Cbor::Bytes(bytes) => format!("\\x{}", hex(bytes)),
        Cbor::Tag(37, bytes) => uuid(bytes),
        Cbor::Tag(4, parts) => decimal(parts).unwrap_or_default(),
        Cbor::Tag(_, inner) => plain(inner),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    alloc::reserve(&mut text, 2 * bytes.len());
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    text.extend(bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]));
    String::from_utf8(text).expect("digits are UTF-8")
}

fn uuid(bytes: &Cbor) -> String {
    match bytes {
        Cbor::Bytes(bytes) if bytes.len() == 16 => {
            let h = hex(bytes);
            let parts = [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]];
            parts.join("-")
        }
        other => plain(other),
    }
}

/// `mantissa · 10^exponent`, with all its digits, which a number of the server's has no more than 147,456 of.
fn decimal(parts: &Cbor) -> Option<String> {
    let Cbor::Array(parts) = parts else {
        return None;
    };
    let [Cbor::Integer(exponent), mantissa] = parts.as_slice() else {
        return None;
    };
    let digits = match mantissa {
        Cbor::Integer(n) => n.to_string(),
        Cbor::Tag(tag @ (2 | 3), magnitude) => {
            let Cbor::Bytes(bytes) = magnitude.as_ref() else {
                return None;
            };
            let n = num_bigint::BigUint::from_bytes_be(bytes);
            match tag {
                2 => n.to_string(),
                _ => format!("-{}", n + 1u8),
            }
        }
        _ => return None,
    };
    const MOST_DIGITS: i128 = 1 << 18;
    if !(-MOST_DIGITS..=MOST_DIGITS).contains(exponent) {
        return Some(format!("{digits}e{exponent}"));
    }
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits.to_owned()),
        None => ("", digits),
    };
    let places = usize::try_from(exponent.unsigned_abs()).ok()?;
    Some(match *exponent {
        0.. => format!("{sign}{digits}{}", "0".repeat(places)),
        _ => {
            let digits = format!("{digits:0>width$}", width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            format!("{sign}{whole}.{fraction}")
        }
    })
}
