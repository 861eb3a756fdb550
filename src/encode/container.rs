//! Types made of other types: arrays, ranges, multiranges, composites; and enums, and the rest.

use super::Decoder;
use crate::pg::alloc;
use crate::pg::raw::multirange_deserialize;
use crate::pg::spi::{Snapshot, query};
use leaf_format::{Dimension, Value};
use pgrx::{PgTryBuilder, pg_sys};

/// Elements that are decoded before interrupts and memory are looked at.
const CHECKED_AT_ONCE: usize = 1000;

/// The decoder of a type that is not built from one of the simple families.
pub fn decoder(type_oid: pg_sys::Oid) -> Decoder {
    // SAFETY: type cache look-ups, valid for the life of the backend.
    let entry = unsafe {
        &*pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_RANGE_INFO | pg_sys::TYPECACHE_MULTIRANGE_INFO) as i32,
        )
    };
    match entry.typtype as u8 {
        b'e' => Decoder::Enum,
        b'r' => Decoder::Range(Box::new(RangeType::new(type_oid))),
        b'm' => {
            // SAFETY: a multirange type's entry points at its range type's.
            let range = unsafe { (*entry.rngtype).type_id };
            Decoder::Multirange(Box::new(RangeType::new(range)))
        }
        b'c' => Decoder::Composite(Box::new(CompositeType::new(entry.typrelid))),
        _ if element_type(type_oid).is_some() => Decoder::Array(Box::new(ArrayType::new(
            element_type(type_oid).unwrap_or(type_oid),
        ))),
        _ => {
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            // SAFETY: a catalog look-up.
            unsafe { pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena) };
            Decoder::Output(output)
        }
    }
}

/// The element type, if the type is a true array.
fn element_type(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up.
    let element = unsafe { pg_sys::get_base_element_type(type_oid) };
    (element != pg_sys::InvalidOid).then_some(element)
}

#[derive(Clone, Debug)]
pub struct ArrayType {
    element: Decoder,
    element_type: pg_sys::Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

impl ArrayType {
    fn new(element_type: pg_sys::Oid) -> ArrayType {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: a catalog look-up into three locals.
        unsafe {
            pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut by_value, &mut align)
        };
        ArrayType {
            element: Decoder::of_type(element_type),
            element_type,
            length,
            by_value,
            align,
        }
    }

    pub fn element(&self) -> &Decoder {
        &self.element
    }

    /// # Safety
    /// `datum` must be a live array of this type.
    pub unsafe fn decode<'a>(&self, datum: pg_sys::Datum) -> Value<'a> {
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: deconstructs a detoasted array into two arrays of `count`; sizes and lower bounds
        // follow the header, `ndim` of each.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                self.element_type,
                self.length.into(),
                self.by_value,
                self.align,
                &mut elements,
                &mut nulls,
                &mut count,
            );
            let mut values = Vec::new();
            alloc::reserve(&mut values, count as usize);
            for i in 0..count as usize {
                let element = (!*nulls.add(i)).then(|| *elements.add(i));
                values.push(self.element.decode(element));
                if i % CHECKED_AT_ONCE == 0 {
                    alloc::check();
                    pgrx::check_for_interrupts!();
                }
            }
            let dims = array
                .cast::<u8>()
                .add(size_of::<pg_sys::ArrayType>())
                .cast::<i32>();
            let ndim = (*array).ndim as usize;
            let dimensions = (0..ndim)
                .map(|d| Dimension {
                    size: *dims.add(d) as usize,
                    lower_bound: *dims.add(ndim + d),
                })
                .collect();
            Value::array(dimensions, values).expect("the server keeps sizes and elements in step")
        }
    }
}

#[derive(Clone, Debug)]
pub struct RangeType {
    range_type: pg_sys::Oid,
    bound: Decoder,
}

impl RangeType {
    fn new(range_type: pg_sys::Oid) -> RangeType {
        // SAFETY: a catalog look-up.
        let subtype = unsafe { pg_sys::get_range_subtype(range_type) };
        RangeType {
            range_type,
            bound: Decoder::of_type(subtype),
        }
    }

    pub fn bound(&self) -> &Decoder {
        &self.bound
    }

    fn cache_entry(&self) -> *mut pg_sys::TypeCacheEntry {
        // SAFETY: entries live as long as the backend.
        unsafe { pg_sys::lookup_type_cache(self.range_type, pg_sys::TYPECACHE_RANGE_INFO as i32) }
    }

    /// # Safety
    /// `datum` must be a live range of this type.
    pub unsafe fn decode<'a>(&self, datum: pg_sys::Datum) -> Value<'a> {
        // SAFETY: a detoasted range, its own type's cache entry, and locals to fill.
        unsafe {
            let range = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            self.decode_range(range)
        }
    }

    unsafe fn decode_range<'a>(&self, range: *const pg_sys::RangeType) -> Value<'a> {
        let (mut lower, mut upper) = (pg_sys::RangeBound::default(), pg_sys::RangeBound::default());
        let mut empty = false;
        // SAFETY: as in `decode`.
        unsafe {
            pg_sys::range_deserialize(
                self.cache_entry(),
                range,
                &mut lower,
                &mut upper,
                &mut empty,
            );
            if empty {
                return Value::empty_range();
            }
            let bound =
                |b: &pg_sys::RangeBound| (!b.infinite).then(|| self.bound.decode_not_null(b.val));
            Value::range(
                bound(&lower),
                lower.inclusive,
                bound(&upper),
                upper.inclusive,
            )
        }
    }

    /// # Safety
    /// `datum` must be a live multirange over this range type.
    pub unsafe fn decode_multirange<'a>(&self, datum: pg_sys::Datum) -> Value<'a> {
        let (mut count, mut ranges) = (0, std::ptr::null_mut());
        // SAFETY: a detoasted multirange is taken apart into `count` ranges.
        unsafe {
            let multirange = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let range_type = self.cache_entry();
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                multirange_deserialize(range_type, multirange, &mut count, &mut ranges)
            });
            let mut values = Vec::new();
            alloc::reserve(&mut values, count as usize);
            for i in 0..count as usize {
                values.push(self.decode_range(*ranges.add(i)));
                if i % CHECKED_AT_ONCE == 0 {
                    alloc::check();
                    pgrx::check_for_interrupts!();
                }
            }
            Value::List(values)
        }
    }
}

#[derive(Clone, Debug)]
pub struct CompositeType {
    /// By attribute number, from 1; `None` for a dropped attribute.
    fields: Vec<Option<(String, Decoder)>>,
}

impl CompositeType {
    fn new(relation: pg_sys::Oid) -> CompositeType {
        let fields = query(
            Snapshot::Fresh,
            "SELECT CASE WHEN NOT a.attisdropped THEN a.attname::pg_catalog.text END, a.atttypid
               FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 ORDER BY a.attnum",
            &[relation.into()],
            |row| Some((row.get::<String>(0)?, row.required::<pg_sys::Oid>(1))),
        );
        let decoder = |field: Option<(String, pg_sys::Oid)>| {
            field.map(|(name, type_oid)| (name, Decoder::of_type(type_oid)))
        };
        CompositeType {
            fields: fields.into_iter().map(decoder).collect(),
        }
    }

    pub fn fields(&self) -> impl Iterator<Item = &(String, Decoder)> {
        self.fields.iter().flatten()
    }

    /// # Safety
    /// `datum` must be a live row of this type.
    pub unsafe fn decode<'a>(&self, datum: pg_sys::Datum) -> Value<'a> {
        // SAFETY: a detoasted row is deformed by the descriptor that its own header names, into one
        // slot an attribute; the descriptor is released on every way out.
        unsafe {
            let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr())
                .cast::<pg_sys::HeapTupleHeaderData>();
            let fields = (*header).t_choice.t_datum;
            let tupdesc = pg_sys::lookup_rowtype_tupdesc(fields.datum_typeid, fields.datum_typmod);
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
                t_self: Default::default(),
                t_tableOid: pg_sys::InvalidOid,
                t_data: header,
            };
            let width = (*tupdesc).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![true; width]);
            PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
                pg_sys::heap_deform_tuple(
                    &mut tuple,
                    tupdesc,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                );
                let present = self.fields.iter().zip(&values).zip(&nulls);
                Value::Composite(
                    present
                        .filter(|(_, null)| !**null)
                        .filter_map(|((field, value), _)| {
                            let (name, decoder) = field.as_ref()?;
                            Some((name.clone().into(), decoder.decode_not_null(*value)))
                        })
                        .collect(),
                )
            }))
            .finally(|| {
                if (*tupdesc).tdrefcount >= 0 {
                    pg_sys::DecrTupleDescRefCount(tupdesc)
                }
            })
            .execute()
        }
    }
}
