//! Random bytes that nobody can foresee.

use pgrx::pg_sys;

/// Fills an array from the server's strong source; `None` if it has none.
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: writes exactly `N` bytes.
    unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) }.then_some(bytes)
}
