//! Leaf data as JSON, as `to_jsonb` would write the row, as far as the leaf format tells.

use crate::encode::time::{self, MICROS_PER_DAY};
use crate::pg::{alloc, datum};
use leaf_format::Cbor;
use pgrx::pg_sys;
use std::fmt::Write;

/// Bytes that a `jsonb` value can hold in a string, or in all elements of an array or an object.
pub const LONGEST: usize = (1 << 28) - 1;
/// Bytes at most that `jsonb` adds to what an element itself takes, its length and alignment included.
const OVERHEAD: usize = 16;

/// A field: name, value and type.
pub type Field<'a> = (&'a str, &'a Cbor, &'a str);

/// A row as JSON, of no more than `longest` bytes as `jsonb`: the longest values are null where it would be more, and
/// their columns are named.
pub fn row<'a>(fields: &[Field<'a>], longest: usize) -> (String, Vec<&'a str>) {
    let mut sizes: Vec<(usize, &str)> = fields
        .iter()
        .map(|(name, value, type_name)| (size(value, type_name), *name))
        .collect();
    sizes.sort_unstable();
    let names: usize = fields.iter().map(|(name, ..)| name.len() + OVERHEAD).sum();
    let mut left: usize = sizes.iter().map(|(size, _)| size).sum::<usize>() + names;
    let mut left_out = Vec::new();
    while left > longest
        && let Some((size, name)) = sizes.pop()
    {
        left -= size;
        left_out.push(name);
    }
    let shown = fields.iter().map(|(name, value, type_name)| {
        let value = match left_out.contains(name) {
            true => &Cbor::Null,
            false => *value,
        };
        (*name, value, *type_name)
    });
    (object(shown), left_out)
}

/// Bytes at most that a value takes as `jsonb`, or as JSON if that is more.
fn size(value: &Cbor, type_name: &str) -> usize {
    let count = |text: &str, is: fn(&u8) -> bool| match text.len() <= LONGEST {
        true => text.bytes().filter(is).count(),
        false => 0,
    };
    let content = match value {
        // Behind each of these there may be an element.
        Cbor::Text(text) if matches!(type_name, "json" | "jsonb") => {
            text.len() + OVERHEAD * count(text, |b| matches!(b, b',' | b'[' | b'{' | b':'))
        }
        // Control characters take up to six bytes, and these two take two.
        Cbor::Text(text) => {
            let escaped = count(text, |b| *b < b' ' || matches!(b, b'"' | b'\\'));
            text.len() + 5 * escaped
        }
        Cbor::Bytes(bytes) => 2 * bytes.len(),
        Cbor::Tag(_, inner) => size(inner, type_name),
        Cbor::Array(elements) => {
            let of = type_name.strip_suffix("[]").unwrap_or("");
            elements.iter().map(|element| size(element, of)).sum()
        }
        Cbor::Map(map) => map.iter().map(|(k, v)| size(k, "") + size(v, "")).sum(),
        // A number, or a time as text.
        _ => 3 * OVERHEAD,
    };
    content + OVERHEAD
}

/// The text of a value, as `->>` would give it of the row as JSON.
pub fn text(value: &Cbor, type_name: &str) -> String {
    match value {
        Cbor::Text(text) => text.clone(),
        Cbor::Bytes(bytes) => format!("\\x{}", hex(bytes)),
        value => {
            let mut json = String::new();
            write(&mut json, value, type_name);
            serde_json::from_str::<String>(&json).unwrap_or(json)
        }
    }
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a Cbor, &'a str)>) -> String {
    let mut json = String::from("{");
    for (place, (name, value, type_name)) in fields.enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push_str(&quoted(name));
        json.push(':');
        write(&mut json, value, type_name);
    }
    json.push('}');
    json
}

fn quoted(text: &str) -> String {
    // jsonb has no U+0000, and neither has any text of the server's.
    serde_json::Value::from(text).to_string()
}

/// Writes a value as `to_jsonb` would write one of its type, as far as the leaf format tells.
fn write(json: &mut String, value: &Cbor, type_name: &str) {
    // Writing to a String does not fail.
    let _ = match value {
        Cbor::Null => write!(json, "null"),
        Cbor::Bool(b) => write!(json, "{b}"),
        Cbor::Integer(n) => match moment(*n, type_name) {
            Some(text) => write!(json, "{}", quoted(&text)),
            None => write!(json, "{n}"),
        },
        Cbor::Float(f) if f.is_finite() => write!(json, "{f}"),
        Cbor::Float(f) => write!(json, "{}", quoted(special(*f))),
        Cbor::Text(text) if matches!(type_name, "json" | "jsonb") => write!(json, "{text}"),
        Cbor::Text(text) => write!(json, "{}", quoted(text)),
        Cbor::Bytes(bytes) => write!(json, "\"\\\\x{}\"", hex(bytes)),
        Cbor::Tag(37, uuid) => match uuid.as_ref() {
            Cbor::Bytes(b) if b.len() == 16 => {
                let h = hex(b);
                write!(
                    json,
                    "\"{}-{}-{}-{}-{}\"",
                    &h[..8],
                    &h[8..12],
                    &h[12..16],
                    &h[16..20],
                    &h[20..]
                )
            }
            other => return write(json, other, ""),
        },
        Cbor::Tag(4, parts) => match parts.as_ref() {
            Cbor::Array(parts) if parts.len() == 2 => {
                write!(json, "{}", decimal(&parts[0], &parts[1]))
            }
            other => return write(json, other, ""),
        },
        Cbor::Tag(_, inner) => return write(json, inner, type_name),
        Cbor::Array(elements) => {
            let of = type_name.strip_suffix("[]").unwrap_or("");
            json.push('[');
            for (place, element) in elements.iter().enumerate() {
                if place > 0 {
                    json.push(',');
                }
                write(json, element, of);
            }
            write!(json, "]")
        }
        Cbor::Map(map) => {
            let fields = map.iter().filter_map(|(name, value)| match name {
                Cbor::Text(name) => Some((name.as_str(), value, "")),
                _ => None,
            });
            write!(json, "{}", object(fields))
        }
        _ => write!(json, "null"),
    };
}

fn special(f: f64) -> &'static str {
    match f {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    alloc::reserve(&mut text, 2 * bytes.len());
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    text.extend(bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]));
    String::from_utf8(text).expect("digits are UTF-8")
}

/// A count of microseconds or days as the time that it stands for, in the form that JSON has it.
fn moment(n: i128, type_name: &str) -> Option<String> {
    let n = i64::try_from(n).ok()?;
    let (type_oid, value) = match type_name {
        "date" => {
            let days =
                i32::try_from(time::server_micros(n.checked_mul(MICROS_PER_DAY)?) / MICROS_PER_DAY);
            (pg_sys::DATEOID, pg_sys::Datum::from(days.ok()?))
        }
        t if t.starts_with("timestamp") && t.ends_with("with time zone") => (
            pg_sys::TIMESTAMPTZOID,
            pg_sys::Datum::from(time::server_micros(n)),
        ),
        t if t.starts_with("timestamp") => (
            pg_sys::TIMESTAMPOID,
            pg_sys::Datum::from(time::server_micros(n)),
        ),
        t if t.starts_with("time") && t.ends_with("without time zone") => {
            (pg_sys::TIMEOID, pg_sys::Datum::from(n))
        }
        _ => return None,
    };
    // SAFETY: each value has the representation of its type; these types are passed by value.
    let text = unsafe { datum::output(type_oid, value) };
    Some(text.replacen(' ', "T", 1))
}

/// `mantissa · 10^exponent`, written out.
fn decimal(exponent: &Cbor, mantissa: &Cbor) -> String {
    let Cbor::Integer(exponent) = exponent else {
        return "null".to_owned();
    };
    let digits = match mantissa {
        Cbor::Integer(n) => n.to_string(),
        Cbor::Tag(tag @ (2 | 3), magnitude) => match magnitude.as_ref() {
            Cbor::Bytes(bytes) => {
                let n = num_bigint::BigUint::from_bytes_be(bytes);
                match tag {
                    2 => n.to_string(),
                    _ => format!("-{}", n + 1u8),
                }
            }
            _ => return "null".to_owned(),
        },
        _ => return "null".to_owned(),
    };
    format!("{digits}e{exponent}")
}
