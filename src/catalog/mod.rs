//! Rows of the extension's own tables as Rust types: load and store.

pub mod identity;
pub mod logs;
pub mod schedule;
pub mod sources;
pub mod versions;
