//! Threads that share the work of a large batch. They are the crate's own and take no lock that
//! another waits under for them, so whatever threads batches come from, these go on.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::LazyLock;

/// Items that are worth a thread's attention.
pub const PIECE: usize = 1_024;

static WORKERS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let builder = ThreadPoolBuilder::new().thread_name(|number| format!("ledger-worker-{number}"));
    let pool = builder.build();
    pool.inspect_err(|error| tracing::warn!(%error, "batches are worked on by one thread each"))
        .ok()
});

/// Those to share so many items with, if that pays. A thread of another pool does the work alone: that
/// pool would give it another batch to do while it waits, and so have it wait for a lock of its own.
pub fn for_items(items: usize) -> Option<&'static ThreadPool> {
    let pool = (items > PIECE).then(|| WORKERS.as_ref()).flatten()?;
    let alone = rayon::current_thread_index().is_some() && pool.current_thread_index().is_none();
    (!alone).then_some(pool)
}

/// Runs two things about so many items at once, if that pays: the first one here.
pub fn both<A, B: Send>(
    items: usize,
    here: impl FnOnce() -> A,
    there: impl FnOnce() -> B + Send,
) -> (A, B) {
    let Some(pool) = for_items(items) else {
        return (here(), there());
    };
    let mut theirs = None;
    let ours = pool.in_place_scope(|scope| {
        scope.spawn(|_| theirs = Some(there()));
        here()
    });
    (ours, theirs.expect("the scope waited for it"))
}
