//! The extension's own settings (GUCs).

pub mod context;

use crate::pg::checked_setting;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;
use std::time::Duration;

static FENCE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static RUN_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static RECONCILE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(3600);
static VERIFY_RATE: GucSetting<i32> = GucSetting::<i32>::new(2000);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static INCLUSION_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static SIGNING_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ORIGIN_PREFIX: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(true);
static CAPTURE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// `preloaded`: called while the server starts, when shared memory can still be asked for.
pub fn register(preloaded: bool) {
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
    GucRegistry::define_int_guc(
        c"merkle_log.batch_size",
        c"Entries that one batch appends at most, for logs that do not say it themselves.",
        c"",
        &BATCH_SIZE,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"merkle_log.inclusion_timeout",
        c"How long wait_for_inclusion_of waits for a row to be logged.",
        c"",
        &INCLUSION_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"merkle_log.notify",
        c"Sends a notification on channel merkle_log for each batch that appends entries.",
        c"A transaction that has notified cannot be prepared.",
        &NOTIFY,
        GucContext::Userset,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"merkle_log.capture_memory",
        c"Memory for changes that a transaction has made and not yet committed.",
        c"What takes more is written to the queue before the transaction ends.",
        &CAPTURE_MEMORY,
        1,
        1024 * 1024,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    checked_setting::define(
        c"merkle_log.context",
        c"What the application says about its transaction, as JSON, for the entries of changes that triggers capture.",
        c"At most 2,048 bytes. Recorded by sources that keep leaf data. Meant for SET LOCAL.",
        &CONTEXT,
        context::check,
    );
    GucRegistry::define_int_guc(
        c"merkle_log.workers",
        c"Background workers of each database, which share its logs.",
        c"Each log is run by one of them. The first also verifies.",
        &WORKERS,
        1,
        16,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"merkle_log.run_interval",
        c"How often the background worker runs a log that does not say it itself.",
        c"",
        &RUN_INTERVAL,
        10,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"merkle_log.reconcile_interval",
        c"How often the background worker looks for late rows of a log that does not say it itself.",
        c"Zero: never.",
        &RECONCILE_INTERVAL,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"merkle_log.verify_rate",
        c"Rows and entries that the background worker verifies in a second, at most.",
        c"Zero: it verifies nothing.",
        &VERIFY_RATE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_string_guc(
        c"merkle_log.databases",
        c"The databases whose logs the background workers run, separated by commas.",
        c"The star stands for every database that allows connections and is no template.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_string_guc(
        c"merkle_log.signing_key_file",
        c"The file that holds the key by which checkpoints are signed.",
        c"One line, PRIVATE+KEY+name+id+key, that only the user may read whom the server runs as.",
        &SIGNING_KEY_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"merkle_log.origin_prefix",
        c"What the origin of a log begins with that was given none.",
        c"A slash and the name of the log follow.",
        &ORIGIN_PREFIX,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    if preloaded {
        GucRegistry::define_int_guc(
            c"merkle_log.cache_size",
            c"Shared memory for hashes of complete subtrees.",
            c"Zero: none.",
            &CACHE_SIZE,
            0,
            i32::MAX,
            GucContext::Postmaster,
            GucFlags::UNIT_KB,
        );
    }
}

pub fn fence_timeout() -> Duration {
    Duration::from_millis(FENCE_TIMEOUT.get().max(0) as u64)
}

pub fn batch_size() -> i32 {
    BATCH_SIZE.get()
}

pub fn inclusion_timeout() -> Duration {
    Duration::from_millis(INCLUSION_TIMEOUT.get().max(0) as u64)
}

/// Background workers of each database; at least 1.
pub fn workers() -> u32 {
    WORKERS.get().max(1) as u32
}

pub fn run_interval() -> Duration {
    Duration::from_millis(RUN_INTERVAL.get().max(10) as u64)
}

/// Zero: never.
pub fn reconcile_interval() -> Duration {
    Duration::from_secs(RECONCILE_INTERVAL.get().max(0) as u64)
}

/// Rows and entries a second; zero: none.
pub fn verify_rate() -> u64 {
    VERIFY_RATE.get().max(0) as u64
}

pub fn notify() -> bool {
    NOTIFY.get()
}

pub fn signing_key_file() -> Option<String> {
    text(&SIGNING_KEY_FILE)
}

pub fn origin_prefix() -> Option<String> {
    text(&ORIGIN_PREFIX)
}

/// A setting that has a value and is not empty.
fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let text = setting.get()?.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

/// As it was set: not checked where that was done before the library was loaded.
pub fn context() -> Option<CString> {
    CONTEXT.get()
}

/// In bytes.
pub fn capture_memory() -> usize {
    CAPTURE_MEMORY.get().max(1) as usize * 1024
}

/// In bytes.
pub fn cache_size() -> usize {
    CACHE_SIZE.get().max(0) as usize * 1024
}

/// True if the background workers are to run the logs of the database called `name`.
pub fn runs_database(name: &str) -> bool {
    let databases = DATABASES.get().unwrap_or_default();
    listed(&databases.to_string_lossy(), name)
}

fn listed(list: &str, name: &str) -> bool {
    let plain = |item: &str| {
        let item = item.trim();
        let quoted = item.strip_prefix('"').and_then(|i| i.strip_suffix('"'));
        quoted.map_or_else(|| item.to_owned(), |i| i.replace("\"\"", "\""))
    };
    list.split(',')
        .map(plain)
        .any(|item| item == "*" || item == name)
}
