//! Memory that is kept for telling that there is none.
//!
//! Each function of Rust that an error of the server passes through copies what the error says, and only then takes
//! it off the server's stack of errors. Where memory is too short for the copies, each of them is an error
//! more; with five on the stack the server ends all of its processes. So while a call into the extension lasts, some
//! memory is kept, of which each error gives back a piece before it is copied. It is kept in pieces because the first
//! memory context to grow takes as much as there is at once, up to 8 MB, and an error is copied into several.

use super::alloc;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

/// Bytes of a piece. A memory context that has grown asks for no less than 1 MB at a time; the rest is for others.
const SIZE: usize = (1 << 20) + (1 << 18);
/// More than the errors that fit on the server's stack of errors.
const PIECES: usize = 8;
const LAYOUT: Layout = match Layout::from_size_align(SIZE, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("a valid layout"),
};

thread_local! {
    static KEPT: [Cell<*mut u8>; PIECES] = const { [const { Cell::new(ptr::null_mut()) }; PIECES] };
    static CALLBACK: Cell<pg_sys::ErrorContextCallback> = const {
        Cell::new(pg_sys::ErrorContextCallback { previous: ptr::null_mut(), callback: None, arg: ptr::null_mut() })
    };
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the memory as long as it lives. Of several, one inside the other, the outermost does.
pub struct Held {
    outermost: bool,
}

/// An error, if there is not even so much memory: nothing was begun yet, and few functions see it.
pub fn hold() -> Held {
    refill();
    if KEPT.with(|pieces| pieces.iter().any(|piece| piece.get().is_null())) {
        alloc::raise();
    }
    let outermost = !HELD.replace(true);
    if outermost {
        // SAFETY: the callback stays where it is as long as the thread lives, and leaves the server's list when
        // this guard is dropped: errors pass through Rust by unwinding.
        unsafe {
            CALLBACK.set(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(give_back),
                arg: ptr::null_mut(),
            });
            pg_sys::error_context_stack = CALLBACK.with(Cell::as_ptr);
        }
    }
    Held { outermost }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.outermost {
            HELD.set(false);
            // SAFETY: whatever was put on the list after it has been taken off again.
            unsafe { pg_sys::error_context_stack = CALLBACK.get().previous };
        }
    }
}

/// Takes the memory again, as far as there is so much.
pub fn refill() {
    KEPT.with(|pieces| {
        for piece in pieces.iter().filter(|piece| piece.get().is_null()) {
            // SAFETY: the layout has a size.
            piece.set(unsafe { System.alloc(LAYOUT) });
        }
    });
}

/// Called by the server for each error and notice, before anything is copied.
unsafe extern "C-unwind" fn give_back(_: *mut c_void) {
    // SAFETY: called while the server handles an error, as `geterrcode` asks for.
    if unsafe { pg_sys::geterrcode() } != PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as i32 {
        return;
    }
    KEPT.with(|pieces| {
        if let Some(piece) = pieces.iter().find(|piece| !piece.get().is_null()) {
            // SAFETY: allocated with this layout by the same allocator, and given back once.
            unsafe { System.dealloc(piece.replace(ptr::null_mut()), LAYOUT) };
        }
    });
}
