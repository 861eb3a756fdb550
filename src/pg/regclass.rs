//! A `regclass` argument: a relation's number, whether or not the relation still exists.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, pg_sys};

#[derive(Clone, Copy, Debug)]
pub struct RegClass(pub pg_sys::Oid);

impl FromDatum for RegClass {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        type_oid: pg_sys::Oid,
    ) -> Option<RegClass> {
        // SAFETY: a regclass is stored as an oid.
        unsafe { pg_sys::Oid::from_polymorphic_datum(datum, is_null, type_oid).map(RegClass) }
    }
}

// SAFETY: passed by value, in the representation that `FromDatum` reads.
unsafe impl<'fcx> ArgAbi<'fcx> for RegClass {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: only called for an argument that is not null.
        unsafe {
            arg.unbox_arg_using_from_datum()
                .unwrap_or(RegClass(pg_sys::InvalidOid))
        }
    }
}

// SAFETY: `regclass` is the SQL type whose values `FromDatum` reads.
unsafe impl SqlTranslatable for RegClass {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RegClass);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("regclass"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("regclass")));
}
