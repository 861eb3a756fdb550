//! Column values, and their encoding one by one.

use crate::{Decimal, Error};
use num_bigint::BigUint;
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_cbor::tags::Tagged;
use std::borrow::Cow;

pub(crate) const TAG_POSITIVE_BIGNUM: u64 = 2;
pub(crate) const TAG_NEGATIVE_BIGNUM: u64 = 3;
pub(crate) const TAG_DECIMAL_FRACTION: u64 = 4;
pub(crate) const TAG_UUID: u64 = 37;
pub(crate) const TAG_ARRAY: u64 = 40;

/// A column's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Left out as a column or a field, `null` as an element.
    Null,
    Bool(bool),
    /// -2^64 to 2^64 - 1.
    Int(i128),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Uuid([u8; 16]),
    Decimal(Decimal),
    /// Later than every time, greater than every number.
    Infinity,
    NegInfinity,
    List(Vec<Value<'a>>),
    /// An array that is not a plain list: sizes, elements in row-major order, lower bounds.
    Array(Vec<Dimension>, Vec<Value<'a>>),
    /// Field names and values, in any order.
    Composite(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// One dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    pub size: usize,
    pub lower_bound: i32,
}

impl<'a> Value<'a> {
    /// An array of `elements` in row-major order; no dimensions for an empty one.
    ///
    /// # Errors
    /// If the sizes do not multiply to the number of elements.
    pub fn array(dimensions: Vec<Dimension>, elements: Vec<Value<'a>>) -> Result<Value<'a>, Error> {
        let product = dimensions
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(d.size));
        let expected = if dimensions.is_empty() {
            Some(0)
        } else {
            product
        };
        if expected != Some(elements.len()) {
            return Err(Error::Dimensions {
                elements: elements.len(),
            });
        }
        Ok(match dimensions.as_slice() {
            [] | [Dimension { lower_bound: 1, .. }] => Value::List(elements),
            _ => Value::Array(dimensions, elements),
        })
    }

    /// A range that is not empty; `None` is an infinite bound.
    pub fn range(
        lower: Option<Value<'a>>,
        lower_inclusive: bool,
        upper: Option<Value<'a>>,
        upper_inclusive: bool,
    ) -> Value<'a> {
        let bounds = match (
            lower_inclusive && lower.is_some(),
            upper_inclusive && upper.is_some(),
        ) {
            (true, true) => "[]",
            (true, false) => "[)",
            (false, true) => "(]",
            (false, false) => "()",
        };
        let bound = |value: Option<Value<'a>>| value.unwrap_or(Value::Null);
        Value::List(vec![bound(lower), bound(upper), Value::Text(bounds.into())])
    }

    /// The empty range.
    pub fn empty_range() -> Value<'a> {
        Value::List(Vec::new())
    }
}

/// The order of deterministic map keys (RFC 8949 §4.2.1): bytewise by encoded key, which for texts is
/// by length first.
pub(crate) fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len()
        .cmp(&b.len())
        .then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

struct Bytes<'b>(&'b [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Mantissa<'b>(bool, &'b BigUint);

impl Serialize for Mantissa<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Mantissa(negative, magnitude) = *self;
        // An integer of CBOR's own holds 0 to 2^64-1 and -1 to -2^64.
        let rest = if negative {
            magnitude - 1u8
        } else {
            magnitude.clone()
        };
        match u64::try_from(&rest) {
            Ok(n) if negative => serializer.serialize_i128(-1 - i128::from(n)),
            Ok(n) => serializer.serialize_u64(n),
            Err(_) => {
                let tag = if negative {
                    TAG_NEGATIVE_BIGNUM
                } else {
                    TAG_POSITIVE_BIGNUM
                };
                Tagged::new(Some(tag), Bytes(&rest.to_bytes_be())).serialize(serializer)
            }
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(n) => serializer.serialize_i128(*n),
            Value::Float(f) => serializer.serialize_f64(*f),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::Uuid(bytes) => Tagged::new(Some(TAG_UUID), Bytes(bytes)).serialize(serializer),
            Value::Infinity => serializer.serialize_f64(f64::INFINITY),
            Value::NegInfinity => serializer.serialize_f64(f64::NEG_INFINITY),
            Value::Decimal(decimal) => {
                let (exponent, mantissa) = decimal.parts();
                let parts = (exponent, Mantissa(decimal.is_negative(), &mantissa));
                Tagged::new(Some(TAG_DECIMAL_FRACTION), parts).serialize(serializer)
            }
            Value::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                elements
                    .iter()
                    .try_for_each(|e| list.serialize_element(e))?;
                list.end()
            }
            Value::Array(dimensions, elements) => {
                let sizes: Vec<usize> = dimensions.iter().map(|d| d.size).collect();
                let bounds: Vec<i32> = dimensions.iter().map(|d| d.lower_bound).collect();
                if bounds.iter().all(|b| *b == 1) {
                    Tagged::new(Some(TAG_ARRAY), (sizes, elements)).serialize(serializer)
                } else {
                    Tagged::new(Some(TAG_ARRAY), (sizes, elements, bounds)).serialize(serializer)
                }
            }
            Value::Composite(fields) => {
                let mut present: Vec<_> =
                    fields.iter().filter(|(_, v)| *v != Value::Null).collect();
                present.sort_by(|(a, _), (b, _)| key_order(a, b));
                if let Some(pair) = present.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    return Err(S::Error::custom(format!(
                        "field \"{}\" is there twice",
                        pair[0].0
                    )));
                }
                let mut map = serializer.serialize_map(Some(present.len()))?;
                present
                    .iter()
                    .try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}
