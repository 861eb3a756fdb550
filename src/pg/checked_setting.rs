//! A text setting whose values are checked when it is set.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

/// What is wrong with a value, as a sentence.
pub type Check = fn(&str) -> Result<(), &'static str>;

static CHECK: OnceLock<Check> = OnceLock::new();

thread_local! {
    static DEFINING: Cell<bool> = const { Cell::new(false) };
}

/// Defines the one setting that `check` is for; anyone may set it.
///
/// What was set before the library was loaded is taken without a check: the server would replace it by nothing, with a
/// warning. Whoever uses such a value checks it.
pub fn define(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    check: Check,
) {
    CHECK.get_or_init(|| check);
    DEFINING.set(true);
    // SAFETY: the hook is guarded against panics.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::empty(),
            Some(check_hook),
            None,
            None,
        );
    }
    DEFINING.set(false);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check_hook(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server hands over a pointer to the new value, which is a C string or null.
    let text = unsafe {
        match (*value).is_null() || DEFINING.get() {
            true => return true,
            false => CStr::from_ptr(*value),
        }
    };
    let checked = match (text.to_str(), CHECK.get()) {
        (Ok(text), Some(check)) => check(text),
        (Err(_), _) => Err("It is not UTF-8."),
        (_, None) => Ok(()),
    };
    let Err(problem) = checked else {
        return true;
    };
    let detail = CString::new(problem).unwrap_or_default();
    // SAFETY: the server reads the text when it raises the error, before the memory is reset.
    unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr()) };
    false
}
