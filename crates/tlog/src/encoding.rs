//! The two encodings that all text formats share, in their one strict form.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};

/// RFC 4648 §4 with padding, and with the unused bits zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD);

pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

pub(crate) fn hash_from_base64(text: &str) -> Option<merkle_tree::Hash> {
    base64_decode(text)?.as_slice().try_into().ok()
}

/// An ASCII decimal number without sign or leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match digits && (text == "0" || !text.starts_with('0')) {
        true => text.parse().ok(),
        false => None,
    }
}
