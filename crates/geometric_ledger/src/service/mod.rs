//! How a ledger that a process has open is looked at from outside: that process answers on a unix
//! socket in the ledger's directory.
//!
//! `protocol` is what is said, `server` the side of the process that has the ledger, `reader` the
//! other side. A [`Reader`] also opens a ledger that nobody has open; it then answers itself, by the
//! same code. Only reading is offered.

mod protocol;
pub(crate) mod reader;
pub(crate) mod server;

pub use protocol::{Description, Head};
pub use reader::{Accounts, Progress, Reader};
