//! From a source table to rows in order: which table, which columns, how far, and in which order.

pub mod fence;
pub mod order;
pub mod scan;
pub mod shape;
pub mod statement;
pub mod table;
pub mod watermark;
