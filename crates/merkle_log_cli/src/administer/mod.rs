//! Commands that change which logs and sources there are, each a call of an SQL function of the extension.

pub mod apply;
pub mod call;
pub mod log;
mod settings;
pub mod source;

pub use call::{Argument, Call};
pub use settings::LogSettings;
