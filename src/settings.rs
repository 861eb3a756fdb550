//! The extension's own settings (GUCs).

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

static FENCE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);

pub fn register() {
    GucRegistry::define_int_guc(
        c"merkle_log.fence_timeout",
        c"How long a batch waits for transactions that are writing to its sources.",
        c"When it is over, the batch ends without entries and names who it waited for.",
        &FENCE_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

pub fn fence_timeout() -> Duration {
    Duration::from_millis(FENCE_TIMEOUT.get().max(0) as u64)
}
