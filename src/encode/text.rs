//! Texts and bytes.

use leaf_format::Value;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// The content of a varlena, detoasted into the current memory context where it must be.
///
/// # Safety
/// `datum` must be a live varlena; the bytes live as long as it, or as the memory context.
pub unsafe fn bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: a varlena that is neither compressed nor stored elsewhere is read as it is;
    // `pg_detoast_datum_packed` makes one of any other.
    unsafe {
        let mut varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        if pgrx::varlena::varatt_is_4b_c(varlena) || pgrx::varlena::varatt_is_1b_e(varlena) {
            varlena = pg_sys::pg_detoast_datum_packed(varlena);
        }
        std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(varlena).cast(),
            pgrx::varlena::varsize_any_exhdr(varlena),
        )
    }
}

/// # Safety
/// As `bytes`, of a type that holds text in the server's encoding.
pub unsafe fn decode<'a>(datum: pg_sys::Datum) -> Value<'a> {
    // SAFETY: passed on to the caller.
    unsafe { to_value(bytes(datum)) }
}

/// # Safety
/// `text` must be a live C string in the server's encoding.
pub unsafe fn decode_c_string<'a>(text: *const c_char) -> Value<'a> {
    // SAFETY: passed on to the caller.
    unsafe { to_value(CStr::from_ptr(text).to_bytes()) }
}

/// # Safety
/// `datum` must be a live jsonb.
pub unsafe fn decode_jsonb<'a>(datum: pg_sys::Datum) -> Value<'a> {
    // SAFETY: a detoasted jsonb, whose content begins behind the length word; the text is written into
    // the current memory context.
    unsafe {
        let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::Jsonb>();
        let length = pgrx::varlena::varsize_any(jsonb.cast()) as i32;
        decode_c_string(pg_sys::JsonbToCString(
            std::ptr::null_mut(),
            &raw mut (*jsonb).root,
            length,
        ))
    }
}

/// The label of an enum value, as the catalog has it now.
pub fn enum_label<'a>(value: pg_sys::Oid) -> Value<'a> {
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: `enum_out` looks the value up by its oid alone, and raises an error for an unknown one.
    unsafe {
        pg_sys::getTypeOutputInfo(pg_sys::ANYENUMOID, &mut output, &mut is_varlena);
        decode_c_string(pg_sys::OidOutputFunctionCall(
            output,
            pg_sys::Datum::from(value),
        ))
    }
}

/// The database is in UTF-8, but a function written in C can still have stored other bytes.
fn to_value(bytes: &[u8]) -> Value<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.into()),
        Err(_) => Value::Bytes(bytes.into()),
    }
}
