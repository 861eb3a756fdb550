//! Entries, tiles and tree heads in their tables.

pub mod append;
pub mod entries;
pub mod heads;
pub mod key_index;
pub mod leaves;
pub mod order_index;
pub mod set_aside;
pub mod tiles;
pub mod tree;
