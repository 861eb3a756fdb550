//! Settings that last as long as a scope.
//!
//! Whatever is turned into text while a log is written or checked (keys, order
//! values, types without an encoding of their own) must come out the same in
//! every session, so it is turned under these settings and no other.

use super::raw;
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_int};
use std::time::Duration;

const PINNED: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"row_security", c"off"),
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"quote_all_identifiers", c"off"),
    // Statements of ours are short, and some are planned so that their costs seem high enough to be compiled.
    (c"jit", c"off"),
];

/// Runs `f` under the pinned settings.
pub fn pinned<T>(f: impl FnOnce() -> T) -> T {
    let level = Level::open();
    for (name, value) in PINNED {
        level.set(name, value);
    }
    f()
}

/// Runs `f` with waits for locks bounded by `timeout`, or by the session's own `lock_timeout` where that
/// is shorter.
pub fn lock_timeout<T>(timeout: Duration, f: impl FnOnce() -> T) -> T {
    // SAFETY: reads a global of the backend.
    let own = unsafe { pg_sys::LockTimeout };
    let wanted = i32::try_from(timeout.as_millis())
        .unwrap_or(i32::MAX)
        .max(1);
    let millis = if own > 0 { own.min(wanted) } else { wanted };
    let value = CString::new(millis.to_string()).expect("digits hold no NUL");
    let level = Level::open();
    level.set(c"lock_timeout", &value);
    f()
}

/// Those of the pinned settings by which the output functions of the server's own types go, apart from names and
/// money. They are set past the server's bookkeeping, which takes longer than a row, and never seen by anything but
/// `f`.
pub fn pinned_for_values<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Values::pin();
    f()
}

/// The variables of these settings as they were.
struct Values {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    time_zone: *mut pg_sys::pg_tz,
    extra_float_digits: c_int,
    bytea_output: c_int,
}

impl Values {
    fn pin() -> Values {
        // SAFETY: variables of this process, which has one thread that reads them; UTC is known to every server.
        unsafe {
            let before = Values {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                time_zone: pg_sys::session_timezone,
                extra_float_digits: pg_sys::extra_float_digits,
                bytea_output: raw::bytea_output,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as c_int;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as c_int;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as c_int;
            pg_sys::session_timezone = pg_sys::pg_tzset(c"UTC".as_ptr());
            pg_sys::extra_float_digits = 1;
            raw::bytea_output = BYTEA_OUTPUT_HEX;
            before
        }
    }
}

impl Drop for Values {
    /// Also while an error unwinds.
    fn drop(&mut self) {
        // SAFETY: as in `pin`.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::session_timezone = self.time_zone;
            pg_sys::extra_float_digits = self.extra_float_digits;
            raw::bytea_output = self.bytea_output;
        }
    }
}

const BYTEA_OUTPUT_HEX: c_int = 1;

/// Runs `f` with plans that read in the order of an index, and so stop where they have enough, whatever the
/// planner takes a table's size to be.
pub fn in_index_order<T>(f: impl FnOnce() -> T) -> T {
    let level = Level::open();
    for name in [c"enable_seqscan", c"enable_bitmapscan", c"enable_sort"] {
        level.set(name, c"off");
    }
    f()
}

/// A nesting level of settings: whatever is set within it is undone at its end.
pub struct Level {
    nest: c_int,
}

impl Level {
    pub fn open() -> Level {
        // SAFETY: counts up; undone in `drop`, or by the abort of the (sub)transaction.
        let nest = unsafe { pg_sys::NewGUCNestLevel() };
        Level { nest }
    }

    fn set(&self, name: &CStr, value: &CStr) {
        // SAFETY: both strings are NUL-terminated; GUC_ACTION_SAVE ties the value to this level.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            )
        };
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // While an error unwinds, the abort undoes the level, and in the right order.
        if !std::thread::panicking() {
            // SAFETY: `nest` was opened by this value and is the innermost level again.
            unsafe { pg_sys::AtEOXact_GUC(false, self.nest) };
        }
    }
}
