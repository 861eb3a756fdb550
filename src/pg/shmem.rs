//! Shared memory of the extension's own, and the locks that belong to it.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &std::ffi::CStr = c"merkle_log";

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LOCKS: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());
static ASKED: OnceLock<(usize, usize)> = OnceLock::new();

struct Hooks {
    #[cfg(since_pg15)]
    request: pg_sys::shmem_request_hook_type,
    startup: pg_sys::shmem_startup_hook_type,
}

static PREVIOUS: OnceLock<Hooks> = OnceLock::new();

/// True while the server loads `shared_preload_libraries`.
pub fn preloading() -> bool {
    // SAFETY: reads a global of the process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Asks for `bytes` of memory, zero at first, and for `locks`, when the server starts.
pub fn ask(bytes: usize, locks: usize) {
    if ASKED.set((bytes, locks)).is_err() {
        return;
    }
    // SAFETY: called in the postmaster while it is the only thread and process.
    unsafe {
        let _ = PREVIOUS.set(Hooks {
            #[cfg(since_pg15)]
            request: pg_sys::shmem_request_hook,
            startup: pg_sys::shmem_startup_hook,
        });
        #[cfg(since_pg15)]
        {
            pg_sys::shmem_request_hook = Some(request);
        }
        // Before version 15 there is no such hook, and a library asks while it is loaded.
        #[cfg(not(since_pg15))]
        request();
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    let (bytes, locks) = ASKED.get().copied().unwrap_or_default();
    // SAFETY: the hook, or before version 15 the loading of the library, is the place to ask; the hook before ours
    // is called as the server would.
    unsafe {
        #[cfg(since_pg15)]
        if let Some(previous) = PREVIOUS.get().and_then(|h| h.request) {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(bytes);
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), locks as i32);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    let (bytes, _) = ASKED.get().copied().unwrap_or_default();
    // SAFETY: as many bytes as were asked for; zeroed by the first process, the postmaster, before
    // there is another. After a crash it does so again.
    unsafe {
        if let Some(previous) = PREVIOUS.get().and_then(|h| h.startup) {
            previous();
        }
        let mut found = false;
        let start: *mut u8 = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes, &mut found).cast();
        if !found {
            start.write_bytes(0, bytes);
        }
        LOCKS.store(
            pg_sys::GetNamedLWLockTranche(NAME.as_ptr()),
            Ordering::Release,
        );
        START.store(start, Ordering::Release);
    }
}

/// A `T` at `offset` of the shared memory; `None` if the library was not preloaded.
///
/// # Safety
/// `T` must be valid when all its bytes are zero, made of atomics only, and lie within what was asked
/// for, apart from every other part.
pub unsafe fn part<T>(offset: usize) -> Option<&'static T> {
    let start = START.load(Ordering::Acquire);
    // SAFETY: passed on to the caller.
    (!start.is_null()).then(|| unsafe { &*start.add(offset).cast::<T>() })
}

/// As `part`, of `count` elements.
///
/// # Safety
/// As `part`.
pub unsafe fn parts<T>(offset: usize, count: usize) -> Option<&'static [T]> {
    let start = START.load(Ordering::Acquire);
    // SAFETY: passed on to the caller.
    (!start.is_null())
        .then(|| unsafe { std::slice::from_raw_parts(start.add(offset).cast::<T>(), count) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

/// A lock that is held until this is dropped. Between, memory is read and written and nothing else
/// is done: no SQL, no allocation by the server, nothing that could fail.
pub struct Held(*mut pg_sys::LWLock);

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Takes lock number `number`.
pub fn lock(number: usize, mode: Mode) -> Held {
    debug_assert!(!HELD.replace(true), "one lock at a time");
    let locks = LOCKS.load(Ordering::Acquire);
    assert!(!locks.is_null() && ASKED.get().is_some_and(|(_, n)| number < *n));
    let mode = match mode {
        Mode::Shared => pg_sys::LWLockMode::LW_SHARED,
        Mode::Exclusive => pg_sys::LWLockMode::LW_EXCLUSIVE,
    };
    // SAFETY: one of the locks that were asked for.
    unsafe {
        let lock = &raw mut (*locks.add(number)).lock;
        pg_sys::LWLockAcquire(lock, mode);
        Held(lock)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(false);
        // An error's clean-up releases every lock by itself, and forgets that they were held.
        // SAFETY: taken by `lock`; not released before.
        unsafe {
            if pg_sys::LWLockHeldByMe(self.0) {
                pg_sys::LWLockRelease(self.0);
            }
        }
    }
}
