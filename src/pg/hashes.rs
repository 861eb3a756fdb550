//! `bytea[]` of hashes, made in one piece.

use merkle_tree::{HASH_SIZE, Hash};
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{IntoDatum, pg_sys};

/// A path of a proof, as SQL returns it.
pub struct Path(pub Vec<Hash>);

/// The header of an array of one dimension, in 32-bit words: length, dimensions, where the data begin if
/// there are NULLs, element type, size, lower bound.
const HEADER: usize = 6 * size_of::<u32>();
/// An element: its length word, and the hash. A multiple of four, so there is no padding.
const ELEMENT: usize = size_of::<u32>() + HASH_SIZE;

impl IntoDatum for Path {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let hashes = self.0;
        if hashes.is_empty() {
            // SAFETY: an array without dimensions, in the current memory context.
            let empty = unsafe { pg_sys::construct_empty_array(pg_sys::BYTEAOID) };
            return Some(pg_sys::Datum::from(empty));
        }
        let size = HEADER + hashes.len() * ELEMENT;
        // SAFETY: `palloc` gives `size` bytes, aligned for words, and all of them are written: the header
        // by `array.h`, and behind it elements of fixed length.
        unsafe {
            let array = pg_sys::palloc(size);
            let header = array.cast::<i32>();
            pgrx::set_varsize_4b(array.cast(), size as i32);
            header.add(1).write(1);
            header.add(2).write(0);
            header.add(3).write(pg_sys::BYTEAOID.to_u32() as i32);
            header.add(4).write(hashes.len() as i32);
            header.add(5).write(1);
            for (place, hash) in hashes.iter().enumerate() {
                let element = array.cast::<u8>().add(HEADER + place * ELEMENT);
                pgrx::set_varsize_4b(element.cast(), ELEMENT as i32);
                let content = element.add(size_of::<u32>());
                content.copy_from_nonoverlapping(hash.as_bytes().as_ptr(), HASH_SIZE);
            }
            Some(pg_sys::Datum::from(array))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::BYTEAARRAYOID
    }
}

// SAFETY: the datum is what the function returns.
unsafe impl BoxRet for Path {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: a value of the type that the mapping below says.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: `into_datum` makes what the mapping says.
unsafe impl SqlTranslatable for Path {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Path);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("bytea[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("bytea[]")));
}
