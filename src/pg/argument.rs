//! Arguments of whatever type the caller gives: those of functions with `VARIADIC "any"`.

use super::{alloc, datum};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;

/// One of them.
#[derive(Clone, Copy)]
pub struct Argument<'fcx> {
    /// Under any domains.
    pub type_oid: pg_sys::Oid,
    datum: pg_sys::Datum,
    /// The caller's, in which times without one are meant.
    time_zone: *mut pg_sys::pg_tz,
    call: PhantomData<&'fcx ()>,
}

/// The variadic arguments of a call: `None` for NULL.
pub struct Variadic<'fcx>(pub Vec<Option<Argument<'fcx>>>);

impl Argument<'_> {
    /// The value as text, by its type's output function under the settings in force. Only for types whose functions
    /// are the server's own.
    pub fn text(&self) -> String {
        // SAFETY: the server passed this value of this type, and it lives as long as the call.
        unsafe { datum::output(self.type_oid, self.datum) }
    }

    /// True of a text: what a literal or a parameter without a type is, too.
    pub fn is_text(&self) -> bool {
        matches!(
            self.type_oid,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::NAMEOID
        )
    }

    /// The elements of an array in the order in which `unnest` gives them; `None` if the value is no array. They last as
    /// long as the memory context that is current.
    pub fn elements(&self) -> Option<Vec<Option<Self>>> {
        // SAFETY: a catalog look-up, which gives no type for what is no array.
        let element = unsafe { pg_sys::get_element_type(self.type_oid) };
        if element == pg_sys::InvalidOid {
            return None;
        }
        let (mut length, mut by_value, mut alignment) = (0, false, 0);
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the server passed this value of this type, and the catalog says how its elements are laid out.
        unsafe {
            pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut alignment);
            let array = pg_sys::pg_detoast_datum(self.datum.cast_mut_ptr());
            pg_sys::deconstruct_array(
                array.cast(),
                element,
                length.into(),
                by_value,
                alignment,
                &mut values,
                &mut nulls,
                &mut count,
            );
        }
        let type_oid = datum::base_type(element);
        let mut elements = Vec::new();
        alloc::reserve(&mut elements, count as usize);
        elements.extend((0..count as usize).map(|i| {
            // SAFETY: both arrays are as long as was said.
            let (datum, is_null) = unsafe { (*values.add(i), *nulls.add(i)) };
            (!is_null).then_some(Argument {
                type_oid,
                datum,
                ..*self
            })
        }));
        Some(elements)
    }

    /// The name of the type, for people.
    pub fn type_name(&self) -> String {
        type_name(self.type_oid)
    }

    /// A date or timestamp as another of these types, in the caller's time zone, and as text: where the value there is
    /// equal to it.
    pub fn time_as(&self, type_oid: pg_sys::Oid) -> Option<String> {
        let there = self.time_cast(type_oid)?;
        let _zone = Zone::enter(self.time_zone);
        let back = cast_time(type_oid, self.type_oid, there)?;
        // Types that are passed by value are equal where they look so.
        let is_equal = back.value() == self.datum.value();
        is_equal.then(|| pinned_text(type_oid, there))
    }

    /// As `time_as`, but of a value that no other equals the one that the server casts it to: a date is the day of the time.
    pub fn time_cast_to(&self, type_oid: pg_sys::Oid) -> Option<String> {
        let there = self.time_cast(type_oid)?;
        Some(pinned_text(type_oid, there))
    }

    fn time_cast(&self, type_oid: pg_sys::Oid) -> Option<pg_sys::Datum> {
        let _zone = Zone::enter(self.time_zone);
        cast_time(self.type_oid, type_oid, self.datum)
    }
}

fn pinned_text(type_oid: pg_sys::Oid, value: pg_sys::Datum) -> String {
    super::settings::pinned_for_values(|| {
        // SAFETY: a cast's result is a value of the type.
        unsafe { datum::output(type_oid, value) }
    })
}

pub fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up, which returns a fresh C string.
    unsafe {
        CStr::from_ptr(pg_sys::format_type_be(type_oid))
            .to_string_lossy()
            .into_owned()
    }
}

/// The server's own casts between dates and timestamps, which have had these numbers for ever.
fn cast_time(from: pg_sys::Oid, to: pg_sys::Oid, value: pg_sys::Datum) -> Option<pg_sys::Datum> {
    let function = match (from, to) {
        (pg_sys::DATEOID, pg_sys::TIMESTAMPOID) => 2024,
        (pg_sys::DATEOID, pg_sys::TIMESTAMPTZOID) => 1174,
        (pg_sys::TIMESTAMPOID, pg_sys::DATEOID) => 2029,
        (pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID) => 2028,
        (pg_sys::TIMESTAMPTZOID, pg_sys::DATEOID) => 1178,
        (pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID) => 2027,
        _ => return None,
    };
    // SAFETY: each takes one value of `from`, which this is, and returns one of `to`.
    Some(unsafe { pg_sys::OidFunctionCall1Coll(function.into(), pg_sys::InvalidOid, value) })
}

/// A time zone in force for a scope.
struct Zone(*mut pg_sys::pg_tz);

impl Zone {
    fn enter(zone: *mut pg_sys::pg_tz) -> Zone {
        // SAFETY: a variable of this process, which has one thread that reads it; time zones are never freed.
        unsafe {
            let before = pg_sys::session_timezone;
            pg_sys::session_timezone = zone;
            Zone(before)
        }
    }
}

impl Drop for Zone {
    /// Also while an error unwinds.
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe { pg_sys::session_timezone = self.0 }
    }
}

// SAFETY: reads the arguments from its own place on, which is what the server does for VARIADIC "any".
unsafe impl<'fcx> ArgAbi<'fcx> for Variadic<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let first = arg.index() as c_int;
        // SAFETY: pgrx calls this with the call's own information.
        unsafe { Variadic::of(pg_sys::FunctionCallInfo::unbox_arg_unchecked(arg), first) }
    }
}

impl Variadic<'_> {
    /// # Safety
    /// `fcinfo` must be of a call that lasts as long as the value.
    unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, first: c_int) -> Self {
        let (mut values, mut types, mut nulls) = (
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        // SAFETY: the function makes the three arrays, as long as it says; literals become texts.
        let arguments = unsafe {
            let count = pg_sys::extract_variadic_args(
                fcinfo,
                first,
                true,
                &mut values,
                &mut types,
                &mut nulls,
            );
            let argument = |i: usize| {
                (!*nulls.add(i)).then(|| Argument {
                    type_oid: datum::base_type(*types.add(i)),
                    datum: *values.add(i),
                    time_zone: pg_sys::session_timezone,
                    call: PhantomData,
                })
            };
            match count {
                // VARIADIC NULL
                ..0 => vec![None],
                count => (0..count as usize).map(argument).collect(),
            }
        };
        Variadic(arguments)
    }
}

// SAFETY: the functions that take it say so in SQL of their own.
unsafe impl SqlTranslatable for Variadic<'_> {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Variadic);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("VARIADIC \"any\""));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("\"any\"")));
}
