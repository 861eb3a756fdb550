//! Any bytes as a tile, an entry bundle or a path: an error, or a value that is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlog::{TilePath, entry_bundle, tile_from_bytes, tile_to_bytes};

fuzz_target!(|input: (u16, &[u8])| {
    let (width, bytes) = input;
    if let Ok(hashes) = tile_from_bytes(bytes, width) {
        assert_eq!(tile_to_bytes(&hashes), bytes);
    }
    if let Ok(entries) = entry_bundle::entries(bytes, width) {
        let mut bundle = Vec::new();
        for entry in entries {
            entry_bundle::append(&mut bundle, entry).unwrap();
        }
        assert_eq!(bundle, bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(path) = text.parse::<TilePath>()
    {
        assert_eq!(path.to_string(), text);
    }
});
