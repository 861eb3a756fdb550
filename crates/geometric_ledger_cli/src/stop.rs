//! SIGTERM and SIGINT: the first ends a command where it leaves things in order, the second at once.

use crate::output::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on the program looks by itself whether it was told to stop. Before, a signal ends it, which
/// harms no ledger.
pub fn listen() -> Result<(), Failure> {
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_default(signal, ASKED.clone())?;
        flag::register(signal, ASKED.clone())?;
    }
    Ok(())
}

pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

pub fn check() -> Result<(), Failure> {
    match asked() {
        true => Err(Failure::new("stopped before it was done")),
        false => Ok(()),
    }
}
