//! `numeric`, by way of its binary wire format, which is documented and stable where the stored
//! format is neither.

use leaf_format::{Decimal, Value};
use pgrx::pg_sys;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const POSITIVE_INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// # Safety
/// `datum` must be a live numeric.
pub unsafe fn decode<'a>(datum: pg_sys::Datum) -> Value<'a> {
    let (mut send, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: the send function of numeric returns a fresh bytea.
    let wire = unsafe {
        pg_sys::getTypeBinaryOutputInfo(pg_sys::NUMERICOID, &mut send, &mut is_varlena);
        super::text::bytes(pg_sys::Datum::from(pg_sys::OidSendFunctionCall(
            send, datum,
        )))
    };
    // ndigits, weight, sign, dscale, then the digits: 16 bits each, big-endian.
    let words: Vec<u16> = wire
        .chunks_exact(2)
        .map(|w| u16::from_be_bytes([w[0], w[1]]))
        .collect();
    match words[2] {
        NAN => Value::Float(f64::NAN),
        POSITIVE_INFINITY => Value::Infinity,
        NEGATIVE_INFINITY => Value::NegInfinity,
        sign => Decimal::from_base_10000(sign == NEGATIVE, (words[1] as i16).into(), &words[4..])
            .map(Value::Decimal)
            .expect("the server sends digits below 10000"),
    }
}
