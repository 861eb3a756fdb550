//! The library's allocator: the system's, with a reserve for when that has no memory left.
//!
//! Rust ends the process when an allocation fails, and the server answers the end of one process by
//! restarting all of them. An allocator must not unwind either, so it cannot raise an error. This one
//! serves small requests from a reserve instead, and remembers that it did: the code that asked goes on, and
//! the next call of [`check`], in every loop over rows and at the end of every call from SQL, raises the
//! error. Unwinding frees what was taken, and an empty reserve is whole again.
//!
//! Requests that the reserve is too small for still end the process. What grows with a caller's arguments or
//! with a log is therefore bounded, streamed, or asked for with [`reserve`], which can fail.
//!
//! The reserve lies in zeroed static memory: a process that never uses it has no page for it.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes.
const RESERVE: usize = 8 << 20;
/// The strictest alignment that is served.
const ALIGN: usize = 4096;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; RESERVE]>);

// SAFETY: its bytes are only reached through the allocations that `Reserve` gives out, none of which
// overlap; the bookkeeping is behind a lock.
unsafe impl Sync for Memory {}

struct Books {
    /// The first byte that is free.
    next: usize,
    /// Allocations that have not been freed.
    live: usize,
}

struct Reserve {
    memory: Memory,
    books: UnsafeCell<Books>,
    locked: AtomicBool,
}

// SAFETY: `books` is only reached while `locked` is held.
unsafe impl Sync for Reserve {}

static RESERVED: Reserve = Reserve {
    memory: Memory(UnsafeCell::new([0; RESERVE])),
    books: UnsafeCell::new(Books { next: 0, live: 0 }),
    locked: AtomicBool::new(false),
};

/// The system had no memory, and no error has been raised about it yet.
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

impl Reserve {
    fn start(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    fn holds(&self, pointer: *const u8) -> bool {
        (pointer as usize).wrapping_sub(self.start() as usize) < RESERVE
    }

    fn books<T>(&self, f: impl FnOnce(&mut Books) -> T) -> T {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, and `f` does not come back here.
        let value = f(unsafe { &mut *self.books.get() });
        self.locked.store(false, Ordering::Release);
        value
    }

    /// Null if there is no room.
    fn alloc(&self, layout: Layout) -> *mut u8 {
        EXHAUSTED.store(true, Ordering::Relaxed);
        self.books(|books| {
            let first = books.next.next_multiple_of(layout.align());
            let end = first.checked_add(layout.size());
            match end.filter(|end| *end <= RESERVE && layout.align() <= ALIGN) {
                Some(end) => {
                    books.next = end;
                    books.live += 1;
                    self.start().wrapping_add(first)
                }
                None => std::ptr::null_mut(),
            }
        })
    }

    fn free(&self) {
        self.books(|books| {
            books.live -= 1;
            if books.live == 0 {
                books.next = 0;
            }
        });
    }
}

/// What `#[global_allocator]` names.
pub struct WithReserve;

// SAFETY: an allocation is the system's, or a part of the reserve that no other allocation overlaps until it
// is freed; each is freed where it came from. Nothing unwinds.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let memory = unsafe { System.alloc(layout) };
        match memory.is_null() {
            false => memory,
            true => RESERVED.alloc(layout),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match RESERVED.holds(memory) {
            true => RESERVED.free(),
            // SAFETY: the system's, by the caller's word.
            false => unsafe { System.dealloc(memory, layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !RESERVED.holds(memory) {
            // SAFETY: the system's, by the caller's word.
            let moved = unsafe { System.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the alignment is that of `layout`, and the caller vouches for the size; the old allocation
        // is freed once its content is copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

/// Raises an error if the system has had no memory since the last call.
pub fn check() {
    if EXHAUSTED.load(Ordering::Relaxed) {
        EXHAUSTED.store(false, Ordering::Relaxed);
        raise();
    }
}

/// Makes room for `more` elements, of which there may be any number; raises an error where there is no
/// memory for them.
pub fn reserve<T>(vector: &mut Vec<T>, more: usize) {
    if vector.try_reserve(more).is_err() {
        raise();
    }
}

/// As `reserve`, for what is large in itself: no more than is asked for.
pub fn reserve_exact<T>(vector: &mut Vec<T>, more: usize) {
    if vector.try_reserve_exact(more).is_err() {
        raise();
    }
}

/// A copy of bytes, of which there may be any number; raises an error where there is no memory for them.
pub fn copy_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::new();
    reserve_exact(&mut copy, bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// A copy of a text of any length; raises an error where there is no memory for it.
pub fn copy(text: &str) -> String {
    let mut copy = Vec::new();
    reserve(&mut copy, text.len());
    copy.extend_from_slice(text.as_bytes());
    // A copy of what was UTF-8 is.
    String::from_utf8(copy).unwrap_or_default()
}

pub fn raise() -> ! {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "merkle_log: out of memory",
        "merkle_log",
    )
    .set_hint("Ask for less at a time, or let the process have more memory.")
    .report(pgrx::PgLogLevel::ERROR);
    unreachable!("an error report does not return")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve_of_its_own() -> Box<Reserve> {
        // SAFETY: made of integers and bytes, which are valid when zero.
        unsafe { Box::new_zeroed().assume_init() }
    }

    #[test]
    fn the_reserve_gives_out_what_does_not_overlap_and_is_whole_again_when_all_is_freed() {
        let reserve = reserve_of_its_own();
        for _ in 0..3 {
            let mut given: Vec<(usize, usize)> = Vec::new();
            for size in (0..).map(|n| 1 + n * 7919 % 100_000) {
                let align = 1 << (size % 8);
                let memory = reserve.alloc(Layout::from_size_align(size, align).unwrap());
                if memory.is_null() {
                    break;
                }
                assert!(reserve.holds(memory) && (memory as usize).is_multiple_of(align));
                given.push((memory as usize, size));
            }
            assert!(given.len() > 100);
            given.sort_unstable();
            assert!(given.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
            given.iter().for_each(|_| reserve.free());
        }
        let all = Layout::from_size_align(RESERVE, 1).unwrap();
        assert!(!reserve.alloc(all).is_null());
        assert!(reserve.alloc(Layout::new::<u8>()).is_null());
        EXHAUSTED.store(false, Ordering::Relaxed);
    }
}
