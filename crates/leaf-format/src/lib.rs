//! Leaf data, format 1: the canonical bytes of a log entry.
//!
//! Deterministic CBOR (RFC 8949 §4.2.1) of `[1, source, kind, columns]`, with a fifth element where
//! there is a [`Context`]; `docs/leaf-format.md` of the
//! project is the specification, and its vectors are this crate's tests. Values in, bytes out: which
//! value a database's type becomes is the caller's to decide, by that specification.
//!
//! ```
//! use leaf_format::{Context, Encoder, Kind, Value};
//!
//! let encoder = Encoder::new("public.orders", Kind::Insert, &["id", "note"])?;
//! let mut leaf_data = Vec::new();
//! encoder.encode(&[Value::Int(42), Value::Null], &Context::default(), &mut leaf_data)?;
//! assert_eq!(leaf_data, b"\x84\x01\x6dpublic.orders\x66insert\xa1\x62id\x18\x2a");
//! # Ok::<(), leaf_format::Error>(())
//! ```

mod canonical;
mod decimal;
mod decode;
mod encode;
mod skip;
mod value;

pub use decimal::Decimal;
pub use decode::{Columns, Leaf, Origin as DecodedOrigin};
pub use encode::{Context, Encoder, Kind, MAX_LEAF_DATA, Origin, capped, is_digest};
pub use serde_cbor::Value as Cbor;
pub use value::{Dimension, Value};

/// What cannot be leaf data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("column \"{0}\" is there twice")]
    DuplicateColumn(String),
    #[error("{got} values were given for {wanted} columns")]
    ColumnCount { wanted: usize, got: usize },
    #[error("{0} is not an entry kind")]
    Kind(String),
    #[error("an array of {elements} elements does not have these dimensions")]
    Dimensions { elements: usize },
    #[error("{0} is not a base-10000 digit")]
    Digit(u16),
    #[error("the value has no encoding: {0}")]
    Value(String),
    #[error("with all columns in full it has more than {limit} bytes")]
    TooLong { limit: usize },
    #[error("not leaf data of format 1: {0}")]
    NotLeafData(String),
    #[error("not the canonical form of leaf data: {0}")]
    NotCanonical(&'static str),
}
