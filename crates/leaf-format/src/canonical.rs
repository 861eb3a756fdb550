//! The one form of each entry: what a decoder refuses although it is well-formed CBOR.
//!
//! An entry that could be written in two ways would have two leaf hashes, and two parties could hold
//! different bytes for the same row. The rules are those of RFC 8949 §4.2.1 (checked by encoding again and
//! comparing the bytes) and of docs/leaf-format.md (checked value by value).

use crate::Error;
use crate::value::{
    TAG_ARRAY, TAG_DECIMAL_FRACTION, TAG_NEGATIVE_BIGNUM, TAG_POSITIVE_BIGNUM, TAG_UUID,
};
use num_bigint::BigUint;
use serde_cbor::Value as Cbor;

/// That `encoded`, which was decoded as `decoded`, is the only encoding of it.
///
/// # Errors
/// [`Error::NotCanonical`], with the rule that is broken.
pub(crate) fn check(encoded: &[u8], decoded: &Cbor) -> Result<(), Error> {
    let again = serde_cbor::to_vec(decoded).map_err(|e| Error::NotLeafData(e.to_string()))?;
    if again != encoded {
        return Err(Error::NotCanonical(
            "lengths, integers and floats take their shortest form, and map keys are sorted and unique",
        ));
    }
    check_value(decoded)
}

fn check_value(value: &Cbor) -> Result<(), Error> {
    match value {
        Cbor::Array(elements) => elements.iter().try_for_each(check_value),
        Cbor::Map(map) => map
            .iter()
            .try_for_each(|(name, value)| match (name, value) {
                (_, Cbor::Null) => Err(Error::NotCanonical("NULLs are left out of maps")),
                (Cbor::Text(_), value) => check_value(value),
                _ => Err(Error::NotCanonical("names are texts")),
            }),
        Cbor::Tag(TAG_UUID, content) => match content.as_ref() {
            Cbor::Bytes(bytes) if bytes.len() == 16 => Ok(()),
            _ => Err(Error::NotCanonical("a UUID has 16 bytes")),
        },
        Cbor::Tag(TAG_DECIMAL_FRACTION, parts) => check_decimal(parts),
        Cbor::Tag(TAG_ARRAY, parts) => check_array(parts),
        Cbor::Tag(..) => Err(Error::NotCanonical("the format has no such tag")),
        _ => Ok(()),
    }
}

/// `[exponent, mantissa]`, where ten does not divide the mantissa, and zero is `[0, 0]`.
fn check_decimal(parts: &Cbor) -> Result<(), Error> {
    let not_normal = Err(Error::NotCanonical("a decimal number is normalised"));
    let Cbor::Array(parts) = parts else {
        return not_normal;
    };
    let [Cbor::Integer(exponent), mantissa] = parts.as_slice() else {
        return not_normal;
    };
    match mantissa {
        Cbor::Integer(0) if *exponent == 0 => Ok(()),
        Cbor::Integer(n) if n % 10 != 0 => Ok(()),
        Cbor::Tag(tag @ (TAG_POSITIVE_BIGNUM | TAG_NEGATIVE_BIGNUM), bytes) => {
            match bytes.as_ref() {
                Cbor::Bytes(bytes) if bytes.len() > 8 && bytes[0] != 0 => {
                    // A negative bignum stands for -1 - n.
                    let magnitude =
                        BigUint::from_bytes_be(bytes) + u8::from(*tag == TAG_NEGATIVE_BIGNUM);
                    match magnitude % 10u8 == BigUint::ZERO {
                        true => not_normal,
                        false => Ok(()),
                    }
                }
                _ => not_normal,
            }
        }
        _ => not_normal,
    }
}

/// `[sizes, elements]`, with lower bounds as a third part if any of them is not 1; an array with one
/// dimension that begins at 1 has no tag.
fn check_array(parts: &Cbor) -> Result<(), Error> {
    let not = |rule| Err(Error::NotCanonical(rule));
    let Cbor::Array(parts) = parts else {
        return not("an array with dimensions has two or three parts");
    };
    let (sizes, elements, bounds) = match parts.as_slice() {
        [Cbor::Array(sizes), Cbor::Array(elements)] => (sizes, elements, None),
        [
            Cbor::Array(sizes),
            Cbor::Array(elements),
            Cbor::Array(bounds),
        ] => (sizes, elements, Some(bounds)),
        _ => return not("an array with dimensions has two or three parts"),
    };
    let product = sizes.iter().try_fold(1usize, |product, size| match size {
        Cbor::Integer(size) => product.checked_mul(usize::try_from(*size).ok()?),
        _ => None,
    });
    if sizes.is_empty() || product != Some(elements.len()) {
        return not("the sizes of an array multiply to the number of its elements");
    }
    match bounds {
        None if sizes.len() == 1 => not("an array of one dimension from 1 has no tag"),
        Some(bounds)
            if bounds.len() != sizes.len()
                || bounds.iter().all(|b| *b == Cbor::Integer(1))
                || !bounds.iter().all(is_bound) =>
        {
            not("lower bounds are there where one of them is not 1, one a dimension")
        }
        _ => elements.iter().try_for_each(check_value),
    }
}

fn is_bound(bound: &Cbor) -> bool {
    matches!(bound, Cbor::Integer(n) if i32::try_from(*n).is_ok())
}
