//! From the server's datums to leaf values (`docs/leaf-format.md`), one family of types a file.
//!
//! How a column is read is decided once, from its type; no cast and no function that belongs to a
//! table's owner takes part.

mod container;
pub mod definition;
mod numeric;
mod text;
pub mod time;

use crate::capture::table::Attribute;
use container::{ArrayType, CompositeType, EnumType, RangeType};
use definition::Definition;
use leaf_format::Value;
use pgrx::pg_sys;

/// How values of one type are read.
#[derive(Clone, Debug)]
pub enum Decoder {
    Bool,
    Int2,
    Int4,
    Int8,
    Money,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Json,
    Jsonb,
    Name,
    Bytea,
    Uuid,
    Date,
    Timestamp,
    TimestampTz,
    Time,
    TimeTz,
    Interval,
    Enum(EnumType),
    Array(Box<ArrayType>),
    Range(Box<RangeType>),
    Multirange(Box<RangeType>),
    Composite(Box<CompositeType>),
    /// Any other type, by its output function, which goes by these settings.
    Output(pg_sys::Oid, Settings),
}

/// By which settings a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settings {
    None,
    /// Those of `settings::pinned_for_values`.
    Values,
    All,
}

/// By which settings the text form of a type's values goes, as far as that is known.
pub fn text_settings(base_type: pg_sys::Oid) -> Settings {
    match base_type {
        pg_sys::BOOLOID
        | pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::OIDOID
        | pg_sys::NUMERICOID
        | pg_sys::TEXTOID
        | pg_sys::VARCHAROID
        | pg_sys::BPCHAROID
        | pg_sys::NAMEOID
        | pg_sys::UUIDOID => Settings::None,
        pg_sys::MONEYOID => Settings::All,
        oid if definition::NAMES.contains(&oid) => Settings::All,
        oid if oid.to_u32() < pg_sys::FirstNormalObjectId => Settings::Values,
        _ => Settings::All,
    }
}

/// True unless a value's text form is the same under all settings.
pub fn text_depends_on_settings(base_type: pg_sys::Oid) -> bool {
    text_settings(base_type) != Settings::None
}

impl Decoder {
    pub fn of_column(attribute: &Attribute) -> Decoder {
        Decoder::of_type(attribute.base_type, attribute.definition.as_ref())
    }

    /// The decoder of a type, with the names that `definition` has; a domain is read as what it is over.
    pub fn of_type(type_oid: pg_sys::Oid, definition: Option<&Definition>) -> Decoder {
        // SAFETY: raises an error where the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        let type_oid = crate::pg::datum::base_type(type_oid);
        Decoder::of_plain_type(type_oid).unwrap_or_else(|| container::decoder(type_oid, definition))
    }

    /// The decoder of a type that depends on no other and on no names.
    pub fn of_plain_type(type_oid: pg_sys::Oid) -> Option<Decoder> {
        Some(match type_oid {
            pg_sys::BOOLOID => Decoder::Bool,
            pg_sys::INT2OID => Decoder::Int2,
            pg_sys::INT4OID => Decoder::Int4,
            pg_sys::INT8OID => Decoder::Int8,
            pg_sys::MONEYOID => Decoder::Money,
            pg_sys::OIDOID => Decoder::Oid,
            pg_sys::FLOAT4OID => Decoder::Float4,
            pg_sys::FLOAT8OID => Decoder::Float8,
            pg_sys::NUMERICOID => Decoder::Numeric,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::XMLOID => {
                Decoder::Text
            }
            pg_sys::JSONOID => Decoder::Json,
            pg_sys::NAMEOID => Decoder::Name,
            pg_sys::JSONBOID => Decoder::Jsonb,
            pg_sys::BYTEAOID => Decoder::Bytea,
            pg_sys::UUIDOID => Decoder::Uuid,
            pg_sys::DATEOID => Decoder::Date,
            pg_sys::TIMESTAMPOID => Decoder::Timestamp,
            pg_sys::TIMESTAMPTZOID => Decoder::TimestampTz,
            pg_sys::TIMEOID => Decoder::Time,
            pg_sys::TIMETZOID => Decoder::TimeTz,
            pg_sys::INTERVALOID => Decoder::Interval,
            _ => return None,
        })
    }

    /// By which settings a value's encoding goes.
    pub fn settings(&self) -> Settings {
        match self {
            Decoder::Output(_, settings) => *settings,
            Decoder::Array(array) => array.element().settings(),
            Decoder::Range(range) | Decoder::Multirange(range) => range.bound().settings(),
            Decoder::Composite(composite) => {
                let fields = composite.fields().map(|(_, field)| field.settings());
                fields.max().unwrap_or(Settings::None)
            }
            _ => Settings::None,
        }
    }

    /// The value of a column.
    ///
    /// # Safety
    /// `datum` must be a live value of the type the decoder was made for; the value borrows from it
    /// and from the current memory context.
    pub unsafe fn decode<'a>(&self, datum: Option<pg_sys::Datum>) -> Value<'a> {
        match datum {
            None => Value::Null,
            // SAFETY: passed on to the caller.
            Some(datum) => unsafe { self.decode_not_null(datum) },
        }
    }

    unsafe fn decode_not_null<'a>(&self, datum: pg_sys::Datum) -> Value<'a> {
        // SAFETY: each arm reads the datum as the representation of the decoder's type.
        unsafe {
            match self {
                Decoder::Bool => Value::Bool(datum.value() as u8 != 0),
                Decoder::Int2 => Value::Int((datum.value() as i16).into()),
                Decoder::Int4 => Value::Int((datum.value() as i32).into()),
                Decoder::Int8 | Decoder::Money => Value::Int((datum.value() as i64).into()),
                Decoder::Oid => Value::Int((datum.value() as u32).into()),
                Decoder::Float4 => Value::Float(f32::from_bits(datum.value() as u32).into()),
                Decoder::Float8 => Value::Float(f64::from_bits(datum.value() as u64)),
                Decoder::Numeric => numeric::decode(datum),
                Decoder::Text | Decoder::Json => text::decode(datum),
                Decoder::Jsonb => text::decode_jsonb(datum),
                Decoder::Name => text::decode_c_string(datum.cast_mut_ptr()),
                Decoder::Bytea => Value::Bytes(text::bytes(datum).into()),
                Decoder::Uuid => Value::Uuid(*(datum.cast_mut_ptr::<[u8; 16]>())),
                Decoder::Date => time::date(datum.value() as i32),
                Decoder::Timestamp | Decoder::TimestampTz => time::timestamp(datum.value() as i64),
                Decoder::Time => Value::Int((datum.value() as i64).into()),
                Decoder::TimeTz => time::timetz(&*datum.cast_mut_ptr()),
                Decoder::Interval => time::interval(&*datum.cast_mut_ptr()),
                Decoder::Enum(labels) => labels.decode(datum),
                Decoder::Array(array) => array.decode(datum),
                Decoder::Range(range) => range.decode(datum),
                Decoder::Multirange(range) => range.decode_multirange(datum),
                Decoder::Composite(composite) => composite.decode(datum),
                Decoder::Output(function, _) => {
                    text::decode_c_string(pg_sys::OidOutputFunctionCall(*function, datum))
                }
            }
        }
    }
}
