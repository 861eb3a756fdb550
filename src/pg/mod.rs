//! The only `unsafe` of the extension: small wrappers of the server's C
//! interface, each with a safe face.

pub mod datum;
pub mod lock;
pub mod memory;
pub mod progress;
pub mod regclass;
pub mod role;
pub mod server;
pub mod settings;
pub mod spi;
pub mod subtransaction;
pub mod wait;
