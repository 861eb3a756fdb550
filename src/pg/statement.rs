//! The text of the statement that is running.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Hands the text of the statement that the client has sent, and that is being executed now, to `f`: of several that were
/// sent together the one, of a prepared one the text that was prepared, and for what a function does the statement that
/// calls it. `None` where no client has sent one.
///
/// A function that reads from a cursor, in a loop over a query too, makes that the active portal, with a text of its own.
/// That text is the function's, so all that the client has sent is given instead.
pub fn running<T>(f: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // SAFETY: the portal that is active, its text and its list of statements last as long as it is, and so does what the
    // client has sent; no code that could end it runs before `f` returns. Each statement of a portal is planned, or wrapped
    // as if it were.
    unsafe {
        let portal = pg_sys::ActivePortal.as_ref()?;
        if portal.sourceText.is_null() {
            return None;
        }
        let text = CStr::from_ptr(portal.sourceText).to_bytes();
        let sent = match pg_sys::debug_query_string.is_null() {
            true => text,
            false => CStr::from_ptr(pg_sys::debug_query_string).to_bytes(),
        };
        // EXECUTE runs a portal that nobody sees.
        if text != sent && (portal.visible || !begins_with_execute(sent)) {
            return Some(f(sent.trim_ascii()));
        }
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

/// True of a text whose first word is EXECUTE, behind comments and space.
fn begins_with_execute(text: &[u8]) -> bool {
    const WORD: &[u8] = b"execute";
    let mut rest = text.trim_ascii_start();
    loop {
        let end = match rest {
            [b'-', b'-', ..] => rest.iter().position(|b| matches!(b, b'\n' | b'\r')),
            [b'/', b'*', ..] => end_of_comment(rest),
            [b';', ..] => Some(1),
            _ => break,
        };
        rest = end.map_or(&[], |end| rest[end..].trim_ascii_start());
    }
    let (word, behind) = rest.split_at(WORD.len().min(rest.len()));
    let is_whole = !behind
        .first()
        .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..));
    word.eq_ignore_ascii_case(WORD) && is_whole
}

/// Where a comment ends with which the text begins; comments may be in comments.
fn end_of_comment(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        match text.get(at..at + 2)? {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
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
