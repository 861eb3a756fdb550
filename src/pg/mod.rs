//! The only `unsafe` of the extension: small wrappers of the server's C
//! interface, each with a safe face.

pub mod alloc;
pub mod argument;
pub mod bulk;
pub mod datum;
pub mod error_memory;
pub mod extension;
pub mod foreign_code;
pub mod hashes;
pub mod index;
pub mod insert;
pub mod jsonb;
pub mod latch;
pub mod lock;
pub mod memory;
pub mod own_transaction;
pub mod parallel;
pub mod progress;
pub mod random;
pub mod raw;
pub mod regclass;
pub mod relcache;
pub mod role;
pub mod server;
pub mod settings;
pub mod shmem;
pub mod spi;
pub mod subtransaction;
pub mod time_limit;
pub mod trigger;
pub mod trigger_call;
pub mod vacuum;
pub mod wait;
pub mod wal;
pub mod worker;
pub mod xact;
