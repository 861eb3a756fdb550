//! `merkle_log.context`: what an application says about its transaction, as JSON.

use crate::pg::jsonb;

/// Bytes of a context.
const LONGEST: usize = 2048;
const NOT_JSON: &str = "It is not JSON that jsonb can hold.";
const TOO_LONG: &str = "It has more than 2,048 bytes.";

/// # Errors
/// What is wrong with a context, as a sentence. The empty text is none, and right.
pub fn check(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Ok(()),
        _ if text.len() > LONGEST => Err(TOO_LONG),
        _ if !is_json(text) => Err(NOT_JSON),
        _ => Ok(()),
    }
}

/// True of JSON that `jsonb` can hold, and that has no more levels than the parser here reads.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && jsonb::can_hold(text)
}
