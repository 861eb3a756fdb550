//! `merkle_log.context`: what an application says about its transaction, as JSON.

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

/// True of JSON that `jsonb` can hold: no text has a NUL, and no number is beyond what a float can be.
pub fn is_json(text: &str) -> bool {
    fn holds(value: &serde_json::Value) -> bool {
        use serde_json::Value as Json;
        let has_no_nul = |text: &String| !text.contains('\0');
        match value {
            Json::String(text) => has_no_nul(text),
            Json::Array(elements) => elements.iter().all(holds),
            Json::Object(fields) => fields.iter().all(|(name, v)| has_no_nul(name) && holds(v)),
            Json::Null | Json::Bool(_) | Json::Number(_) => true,
        }
    }
    serde_json::from_str(text).is_ok_and(|value| holds(&value))
}
