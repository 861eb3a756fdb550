//! What the database is asked, and its answers as types: one file a group of SQL functions.

pub mod checkpoints;
pub mod entries;
pub mod health;
pub mod logs;
pub mod proofs;
pub mod tiles;
