//! From a source table to rows in order: which table, which columns, how far, and in which order.

pub mod binding;
pub mod ceiling;
pub mod change_order;
pub mod fence;
pub mod gather;
pub mod guard;
pub mod key_equality;
pub mod merge;
pub mod order;
pub mod order_values;
pub mod page;
pub mod partitions;
pub mod queue;
pub mod ready;
pub mod reorder;
pub mod retyped;
pub mod row_key;
pub mod scan;
pub mod shape;
pub mod state;
pub mod statement;
pub mod table;
pub mod table_query;
pub mod trigger;
pub mod truncation;
pub mod watermark;
