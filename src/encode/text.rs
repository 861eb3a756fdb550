//! Texts and bytes.

use leaf_format::Value;
use pgrx::pg_sys;
use std::borrow::Cow;
use std::ffi::{CStr, c_char};

/// The content of a varlena, detoasted into the current memory context where it must be.
///
/// # Safety
/// `datum` must be a live varlena; the bytes live as long as it, or as the memory context.
pub unsafe fn bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: `pg_detoast_datum_packed` gives a varlena with a readable header.
    unsafe {
        let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
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

/// The label of an enum value, as the catalog has it now.
pub fn enum_label<'a>(value: Option<pg_sys::Oid>) -> Value<'a> {
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    let Some(value) = value else {
        return Value::Null;
    };
    // SAFETY: `enum_out` looks the value up by its oid alone, and raises an error for an unknown one.
    unsafe {
        pg_sys::getTypeOutputInfo(pg_sys::ANYENUMOID, &mut output, &mut is_varlena);
        decode_c_string(pg_sys::OidOutputFunctionCall(
            output,
            pg_sys::Datum::from(value),
        ))
    }
}

/// Text in the server's encoding as UTF-8; bytes where it is no text (possible under SQL_ASCII).
///
/// # Safety
/// The converted text lives as long as the current memory context.
unsafe fn to_value(bytes: &[u8]) -> Value<'_> {
    let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
    // SAFETY: `pg_server_to_any` reads `bytes.len()` bytes and returns either its argument, meaning
    // that nothing was to convert, or a C string in the current memory context.
    let converted = unsafe {
        let start = bytes.as_ptr().cast::<c_char>();
        let converted = pg_sys::pg_server_to_any(start, bytes.len() as i32, utf8);
        if converted.cast_const() == start || converted.is_null() {
            bytes
        } else {
            CStr::from_ptr(converted).to_bytes()
        }
    };
    match std::str::from_utf8(converted) {
        Ok(text) => Value::Text(Cow::Borrowed(text)),
        Err(_) => Value::Bytes(Cow::Borrowed(converted)),
    }
}
