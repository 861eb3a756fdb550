//! Background workers: one launcher a server, one runner a database.

mod launcher;
mod runner;

pub use launcher::register;
