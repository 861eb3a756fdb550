//! Where an extension is installed.

use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

const COLUMNS: usize = pg_sys::Natts_pg_extension as usize;

/// A row of `pg_extension`.
pub struct Extension {
    pub oid: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    pub schema: pg_sys::Oid,
    pub version: String,
}

impl Extension {
    /// The extension of that name in this database.
    pub fn find(name: &CStr) -> Option<Extension> {
        // SAFETY: a scan of a catalog by its unique index, as the server itself does it; the row's
        // columns are read by their numbers while the scan holds it.
        unsafe {
            let catalog =
                pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(
                &mut key,
                pg_sys::Anum_pg_extension_extname as i16,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_NAMEEQ.into(),
                pg_sys::Datum::from(name.as_ptr()),
            );
            let scan = pg_sys::systable_beginscan(
                catalog,
                pg_sys::ExtensionNameIndexId.into(),
                true,
                std::ptr::null_mut(),
                1,
                &mut key,
            );
            let row = pg_sys::systable_getnext(scan);
            let found = (!row.is_null()).then(|| {
                let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [true; COLUMNS]);
                pg_sys::heap_deform_tuple(
                    row,
                    (*catalog).rd_att,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                let column = |number: u32| values[number as usize - 1];
                let oid = |number| pg_sys::Oid::from(column(number).value() as u32);
                let version = column(pg_sys::Anum_pg_extension_extversion);
                Extension {
                    oid: oid(pg_sys::Anum_pg_extension_oid),
                    owner: oid(pg_sys::Anum_pg_extension_extowner),
                    schema: oid(pg_sys::Anum_pg_extension_extnamespace),
                    version: String::from_datum(version, false).unwrap_or_default(),
                }
            });
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
            found
        }
    }
}

/// A schema's name, quoted where it must be.
pub fn quoted_schema(schema: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalog look-up; both calls return C strings, of which a copy is made.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        (!name.is_null()).then(|| {
            CStr::from_ptr(pg_sys::quote_identifier(name))
                .to_string_lossy()
                .into_owned()
        })
    }
}
