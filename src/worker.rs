//! Background workers: one launcher a server, one runner a database.

mod launcher;
mod runner;
mod transactions;
mod turn;
mod verifier;

pub use launcher::register;
