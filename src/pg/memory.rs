//! Memory of the server's that lasts for one row or one statement.

use pgrx::PgMemoryContexts;

/// A memory context that is emptied again and again, so that a long command does not grow.
pub struct Scratch(PgMemoryContexts);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(PgMemoryContexts::new("merkle_log scratch"))
    }

    /// Runs `f` with all its server allocations freed afterwards; what it returns cannot borrow them.
    pub fn scope<T: 'static>(&mut self, f: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as `self`; nothing allocated in it leaves the closure,
        // since `T` is owned.
        unsafe {
            let value = self.0.switch_to(|_| f());
            self.0.reset();
            value
        }
    }
}
