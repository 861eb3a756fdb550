//! Values of any type as text and back, through the types' own functions.

use super::alloc;
use super::memory::Scratch;
use pgrx::datum::DatumWithOid;
use pgrx::{IntoDatum, pg_sys};
use std::ffi::{CStr, CString};

/// The text form of a value, by its type's output function, under whatever settings are in force.
///
/// # Safety
/// `datum` must be a live, non-null value of type `type_oid`.
pub unsafe fn output(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> String {
    // The types of most keys; their output functions say the same.
    match type_oid {
        pg_sys::INT8OID => return (datum.value() as i64).to_string(),
        pg_sys::INT4OID => return (datum.value() as i32).to_string(),
        _ => {}
    }
    let mut function = pg_sys::InvalidOid;
    let mut is_varlena = false;
    // SAFETY: the caller vouches for the pair; the result is a fresh C string.
    unsafe {
        pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena);
        let text = pg_sys::OidOutputFunctionCall(function, datum);
        let owned = match CStr::from_ptr(text).to_str() {
            Ok(valid) => alloc::copy(valid),
            Err(_) => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        pg_sys::pfree(text.cast());
        owned
    }
}

/// A value of some type, in memory of its own: it lasts whatever becomes of the server's memory contexts.
#[derive(Clone, Debug)]
pub struct Value {
    type_oid: pg_sys::Oid,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// Passed by value.
    Here(usize),
    /// Passed by reference: its bytes, aligned as the server's allocations are.
    Bytes(Box<[u64]>),
}

impl Value {
    pub fn int8(value: i64) -> Value {
        Value {
            type_oid: pg_sys::INT8OID,
            content: Content::Here(value as usize),
        }
    }

    /// Copies a datum.
    ///
    /// # Safety
    /// `datum` must be a live, non-null value of type `type_oid`, and not stored out of line.
    unsafe fn copy(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Value {
        let (mut length, mut by_value) = (0, false);
        // SAFETY: a catalog look-up.
        unsafe { pg_sys::get_typlenbyval(type_oid, &mut length, &mut by_value) };
        if by_value {
            let content = Content::Here(datum.value());
            return Value { type_oid, content };
        }
        let from: *const u8 = datum.cast_mut_ptr();
        // SAFETY: the type's length says how its values are laid out, and the caller that this is one.
        let size = unsafe {
            match length {
                -1 => pgrx::varlena::varsize_any(from.cast()),
                -2 => CStr::from_ptr(from.cast()).to_bytes_with_nul().len(),
                fixed => fixed as usize,
            }
        };
        let mut bytes = vec![0u64; size.div_ceil(size_of::<u64>())].into_boxed_slice();
        // SAFETY: both are at least as long, and apart.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr().cast(), size) };
        let content = Content::Bytes(bytes);
        Value { type_oid, content }
    }

    /// The value as a parameter, which borrows it.
    pub fn parameter(&self) -> DatumWithOid<'_> {
        // SAFETY: a value of the type, which lives as long as the parameter.
        unsafe { DatumWithOid::new(Raw(self.datum()), self.type_oid) }
    }

    /// The datum, which is valid as long as the value is.
    pub fn datum(&self) -> pg_sys::Datum {
        match &self.content {
            Content::Here(value) => pg_sys::Datum::from(*value),
            Content::Bytes(bytes) => pg_sys::Datum::from(bytes.as_ptr()),
        }
    }
}

/// A value of type `type_oid` read from its text form; raises the type's own error where the
/// text is not a value of the type.
pub fn input(type_oid: pg_sys::Oid, text: &str) -> Value {
    // SAFETY: an input function returns a value of its type.
    unsafe { Value::copy(type_oid, input_datum(type_oid, text)) }
}

/// As `input`, in the current memory context.
pub(super) fn input_datum(type_oid: pg_sys::Oid, text: &str) -> pg_sys::Datum {
    input_modified(type_oid, -1, text)
}

fn input_modified(type_oid: pg_sys::Oid, modifier: i32, text: &str) -> pg_sys::Datum {
    let text = CString::new(text).expect("a text of the server's holds no NUL");
    let (mut function, mut io_parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the input function gets what its type asks for.
    unsafe {
        pg_sys::getTypeInputInfo(type_oid, &mut function, &mut io_parameter);
        pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), io_parameter, modifier)
    }
}

/// The text form of a value, as `output` makes it.
pub fn text_of(value: &Value) -> String {
    // SAFETY: the datum is of the value's type, and as valid as the value.
    unsafe { output(value.type_oid, value.datum()) }
}

/// The text that a value of a type with this modifier has, from any text of it; raises as `input` does.
pub fn normal(type_oid: pg_sys::Oid, modifier: i32, text: &str) -> String {
    let mut scratch = Scratch::new();
    // SAFETY: the input function returns a value of its type.
    scratch.scope(|| unsafe { output(type_oid, input_modified(type_oid, modifier, text)) })
}

/// The text that a value of type `from` has as one of type `to` with this modifier, by the server's own cast; raises the
/// type's or the cast's error, or that there is no such cast.
pub fn cast(from: pg_sys::Oid, to: pg_sys::Oid, modifier: i32, text: &str) -> String {
    let mut scratch = Scratch::new();
    let text = scratch.scope(|| {
        let value = input(from, text);
        let mut function = pg_sys::InvalidOid;
        // SAFETY: catalog look-ups; functions of casts take a value of the one type, a modifier and whether the cast is
        // explicit, and return one of the other. Those of the server's own that take fewer leave the rest alone.
        unsafe {
            let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
            match pg_sys::find_coercion_pathway(to, from, explicit, &mut function) {
                pg_sys::CoercionPathType::COERCION_PATH_FUNC
                    if function.to_u32() < pg_sys::FirstNormalObjectId =>
                {
                    let collation = pg_sys::DEFAULT_COLLATION_OID;
                    let (any, explicit) = (pg_sys::Datum::from(-1i32), pg_sys::Datum::from(true));
                    let value = value.datum();
                    let cast =
                        pg_sys::OidFunctionCall3Coll(function, collation, value, any, explicit);
                    output(to, cast)
                }
                pg_sys::CoercionPathType::COERCION_PATH_RELABELTYPE => output(to, value.datum()),
                pg_sys::CoercionPathType::COERCION_PATH_NONE => {
                    pgrx::error!("type {} has no cast to {}", from.to_u32(), to.to_u32())
                }
                _ => output(from, value.datum()),
            }
        }
    });
    normal(to, modifier, &text)
}

/// The type under any stack of domains, if there still is such a type.
pub fn base_type_if_known(type_oid: u32) -> Option<pg_sys::Oid> {
    let type_oid = pg_sys::Oid::from(type_oid);
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::get_typisdefined(type_oid) }.then(|| base_type(type_oid))
}

/// True if texts that differ can be equal under this collation.
pub fn is_nondeterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up, of a collation that a column has.
    collation != pg_sys::InvalidOid && unsafe { !pg_sys::get_collation_isdeterministic(collation) }
}

/// The type's own hash of a value given as text: equal values have equal ones. Raises the type's own error
/// where the text is not a value of it, or the type has no hash function.
pub fn hash(type_oid: pg_sys::Oid, collation: pg_sys::Oid, text: &str) -> i64 {
    let mut scratch = Scratch::new();
    scratch.scope(|| {
        let value = input(type_oid, text);
        let flags = pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO;
        // SAFETY: the entry lives as long as the process; its function takes a value of the type and a seed.
        unsafe {
            let entry = pg_sys::lookup_type_cache(type_oid, flags as i32);
            let function = &raw mut (*entry).hash_extended_proc_finfo;
            check_function(type_oid, (*function).fn_oid);
            pg_sys::FunctionCall2Coll(function, collation, value.datum(), 0.into()).value() as i64
        }
    })
}

/// True if two values given as texts are equal for the type; raises as `hash` does.
pub fn equal(type_oid: pg_sys::Oid, collation: pg_sys::Oid, a: &str, b: &str) -> bool {
    let mut scratch = Scratch::new();
    scratch.scope(|| {
        let (a, b) = (input(type_oid, a), input(type_oid, b));
        // SAFETY: as in `hash`; the function takes two values of the type.
        unsafe {
            let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR_FINFO as i32);
            let function = &raw mut (*entry).eq_opr_finfo;
            check_function(type_oid, (*function).fn_oid);
            pg_sys::FunctionCall2Coll(function, collation, a.datum(), b.datum()).value() != 0
        }
    })
}

fn check_function(type_oid: pg_sys::Oid, function: pg_sys::Oid) {
    if function == pg_sys::InvalidOid {
        pgrx::error!("values of type {} cannot be hashed", type_oid.to_u32());
    }
}

/// The type under any stack of domains.
pub fn base_type(type_oid: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::getBaseType(type_oid) }
}

/// The array type over `element`; `None` where there is none.
pub fn array_type(element: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up.
    let oid = unsafe { pg_sys::get_array_type(element) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The text form of a one-dimensional array of texts, as `array_out` writes it.
pub fn array_literal<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> String {
    let quote = |text: &str| {
        let plain = !text.is_empty()
            && !text.eq_ignore_ascii_case("null")
            && !text.contains(|c: char| {
                matches!(
                    c,
                    '"' | '\\' | '{' | '}' | ',' | ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'
                )
            });
        match plain {
            true => text.to_owned(),
            false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    };
    let quoted: Vec<String> = elements.into_iter().map(|e| quote(e.as_ref())).collect();
    format!("{{{}}}", quoted.join(","))
}

/// The elements of a one-dimensional array of texts, none of them NULL, from its text form: the
/// inverse of `array_literal`, a little more lenient about spaces.
pub fn array_elements(literal: &str) -> Option<Vec<String>> {
    let mut rest = literal
        .trim()
        .strip_prefix('{')?
        .strip_suffix('}')?
        .chars()
        .peekable();
    let mut elements = Vec::new();
    loop {
        while rest.next_if(char::is_ascii_whitespace).is_some() {}
        let mut element = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => element.push(rest.next()?),
                    c => element.push(c),
                }
            }
            while rest.next_if(char::is_ascii_whitespace).is_some() {}
        } else {
            while let Some(c) = rest.next_if(|c| *c != ',') {
                match c {
                    '"' | '{' | '}' => return None,
                    '\\' => element.push(rest.next()?),
                    c => element.push(c),
                }
            }
            element.truncate(element.trim_end().len());
            if element.is_empty() || element.eq_ignore_ascii_case("null") {
                return None;
            }
        }
        elements.push(element);
        match rest.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// A datum passed on as it is.
struct Raw(pg_sys::Datum);

impl IntoDatum for Raw {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::InvalidOid
    }
}
