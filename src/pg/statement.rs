//! The text of the statement that is running.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Hands the text of the statement that the client has sent, and that is being executed now, to `f`: of several that were
/// sent together the one, of a prepared one the text that was prepared, and for what a function does the statement that
/// calls it. `None` where no client has sent one.
pub fn running<T>(f: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // SAFETY: the portal that is active, its text and its list of statements last as long as it is, and no code that
    // could end it runs before `f` returns. Each statement of a portal is planned, or wrapped as if it were.
    unsafe {
        let portal = pg_sys::ActivePortal.as_ref()?;
        if portal.sourceText.is_null() {
            return None;
        }
        let text = CStr::from_ptr(portal.sourceText).to_bytes();
        let first = portal
            .stmts
            .as_ref()
            .filter(|list| list.length > 0)
            .map(|list| (*list.elements).ptr_value.cast::<pg_sys::PlannedStmt>());
        let (start, length) = match first.and_then(|statement| statement.as_ref()) {
            Some(statement) if statement.type_ == pg_sys::NodeTag::T_PlannedStmt => {
                (statement.stmt_location, statement.stmt_len)
            }
            _ => (-1, 0),
        };
        Some(f(part(text, start, length).trim_ascii()))
    }
}

/// As the server's parser counts: from the beginning if `start` is negative, to the end if `length` is 0.
fn part(text: &[u8], start: i32, length: i32) -> &[u8] {
    let start = usize::try_from(start).unwrap_or(0).min(text.len());
    let rest = &text[start..];
    match usize::try_from(length) {
        Ok(length) if length > 0 => &rest[..length.min(rest.len())],
        _ => rest,
    }
}
