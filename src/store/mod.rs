//! Entries, tiles and tree heads in their tables.

pub mod append;
pub mod checkpoints;
pub mod entries;
pub mod hash_index;
pub mod heads;
pub mod key_index;
pub mod late;
pub mod leaves;
pub mod metadata;
pub mod moves;
pub mod order_index;
pub mod redacted;
pub mod retired;
pub mod sealed;
pub mod set_aside;
pub mod stream;
pub mod tiles;
pub mod tree;
