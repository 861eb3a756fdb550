//! Memory of the server's that lasts for one row or one statement.

use pgrx::pg_sys;

/// Bytes.
const MUCH: usize = 1 << 18;

/// A memory context that is emptied again and again, so that a long command does not grow.
///
/// It is a child of the top context, which nothing empties, so it lasts exactly as long as this value: wherever the
/// value is kept, and whichever contexts come and go meanwhile. Errors of the server unwind through Rust, so the value is
/// dropped then too.
pub struct Scratch(pg_sys::MemoryContext);

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    pub fn new() -> Scratch {
        // SAFETY: the top context is there from the start of the process to its end; the name is static, as the server asks.
        Scratch(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"merkle_log scratch".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs `f` with all its server allocations freed afterwards; what it returns cannot borrow them.
    pub fn scope<T: 'static>(&mut self, f: impl FnOnce() -> T) -> T {
        let restore = Current::switch(self.0);
        let value = f();
        drop(restore);
        // SAFETY: not the current context any more, and nothing refers into it, since `T` is owned.
        unsafe { pg_sys::MemoryContextReset(self.0) };
        value
    }

    /// As `scope`, but the memory is only freed when there is much of it: for what is done row by row.
    pub fn reuse<T: 'static>(&mut self, f: impl FnOnce() -> T) -> T {
        let restore = Current::switch(self.0);
        let value = f();
        drop(restore);
        // SAFETY: as in `scope`.
        unsafe {
            if (*self.0).mem_allocated > MUCH {
                pg_sys::MemoryContextReset(self.0);
            }
        }
        value
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not the current context: `scope` has switched back, also on
        // unwinding.
        unsafe { pg_sys::MemoryContextDelete(self.0) };
    }
}

struct Current(pg_sys::MemoryContext);

impl Current {
    fn switch(context: pg_sys::MemoryContext) -> Current {
        // SAFETY: a live context becomes current until the value is dropped.
        Current(unsafe { pg_sys::MemoryContextSwitchTo(context) })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // SAFETY: the context that was current before is live: it is an ancestor's or a caller's.
        unsafe { pg_sys::MemoryContextSwitchTo(self.0) };
    }
}
